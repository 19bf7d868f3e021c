//! The gate before memory: while it is closed, no memory is given out, and so nothing new is read.

use tokio::sync::watch;

/// Opens and closes the gate.
#[derive(Debug)]
pub(super) struct GateKeeper(watch::Sender<bool>);

/// Waits for the gate.
#[derive(Clone, Debug)]
pub(super) struct Gate(watch::Receiver<bool>);

/// An open gate. It opens for good when its keeper is dropped.
pub(super) fn gate() -> (GateKeeper, Gate) {
    let (keeper, gate) = watch::channel(true);
    (GateKeeper(keeper), Gate(gate))
}

impl GateKeeper {
    pub(super) fn set_open(&self, is_open: bool) {
        self.0.send_replace(is_open);
    }
}

impl Gate {
    /// Waits until it is open. Cancel safe.
    pub(super) async fn opened(mut self) {
        let _gone = self.0.wait_for(|is_open| *is_open).await;
    }

    /// Waits until it is closed. Cancel safe.
    pub(super) async fn closed(&mut self) {
        if self.0.wait_for(|is_open| !is_open).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
