//! Carries out commands: tells the sides what is requested of them.

use super::command::{Command, Refused, Request, SetLogLevel};
use super::gate::{Gate, GateKeeper, gate};
use crate::event::FeedId;
use crate::status::{Publisher, Side};
use tokio::sync::{mpsc, watch};

/// Takes commands while a pipeline runs.
#[derive(Debug)]
pub(super) struct Control {
    commands: mpsc::Receiver<Request>,
    set_log_level: Option<SetLogLevel>,
    status: Publisher,
    gate: GateKeeper,
    restart_source: watch::Sender<()>,
    restart_sink: watch::Sender<()>,
    read_again: mpsc::UnboundedSender<FeedId>,
}

/// What is requested of the sides.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) gate: Gate,
    pub(super) restart_source: watch::Receiver<()>,
    pub(super) restart_sink: watch::Receiver<()>,
    /// Feeds whose rows are to be sent again.
    pub(super) read_again: mpsc::UnboundedReceiver<FeedId>,
}

impl Control {
    pub(super) fn new(commands: mpsc::Receiver<Request>, set_log_level: Option<SetLogLevel>, status: Publisher) -> (Self, Requests) {
        let (keeper, gate) = gate();
        let ((restart_source, source), (restart_sink, sink)) = (watch::channel(()), watch::channel(()));
        let (read_again, again) = mpsc::unbounded_channel();
        let control = Self { commands, set_log_level, status, gate: keeper, restart_source, restart_sink, read_again };
        (control, Requests { gate, restart_source: source, restart_sink: sink, read_again: again })
    }

    /// Carries out commands until the run ends. Cancel safe.
    pub(super) async fn run(&mut self) {
        while let Some(Request { command, answer }) = self.commands.recv().await {
            // Who asked may be gone.
            let _unread = answer.send(self.carry_out(command));
        }
        std::future::pending::<()>().await;
    }

    fn carry_out(&self, command: Command) -> Result<(), Refused> {
        match command {
            Command::Pause => self.set_paused(true),
            Command::Resume => self.set_paused(false),
            Command::Restart(side) => return self.restart(side),
            Command::ReadAgain(feeds) => return self.read_again(&feeds),
            Command::SetLogLevel(level) => {
                let set = self.set_log_level.ok_or_else(|| Refused::LogLevel("this process has no log of its own".to_owned()))?;
                set(&level).map_err(Refused::LogLevel)?;
                tracing::info!(level, "the level of the log is set");
            }
        }
        Ok(())
    }

    fn set_paused(&self, is_paused: bool) {
        self.gate.set_open(!is_paused);
        let before = self.status.publish(|status| {
            let before = status.is_paused();
            status.set_paused(is_paused);
            before
        });
        match (before, is_paused) {
            (false, true) => tracing::warn!("paused by a command: nothing is read until it is resumed"),
            (true, false) => tracing::info!("resumed by a command"),
            _ => {}
        }
    }

    fn restart(&self, side: Side) -> Result<(), Refused> {
        if !self.status.read().is_running() {
            return Err(Refused::NotRunning);
        }
        match side {
            Side::Source => self.restart_source.send_replace(()),
            Side::Sink => self.restart_sink.send_replace(()),
        }
        Ok(())
    }

    /// All feeds or none.
    fn read_again(&self, names: &[String]) -> Result<(), Refused> {
        let status = self.status.read();
        let feeds = status.feeds.as_ref().filter(|_| status.is_running()).ok_or(Refused::NotRunning)?;
        let id = |name: &String| {
            let index = feeds.iter().position(|feed| *feed.name == **name);
            let id = index.and_then(|index| u32::try_from(index).ok()).map(FeedId);
            id.ok_or_else(|| Refused::UnknownFeed(name.clone()))
        };
        let ids: Vec<_> = names.iter().map(id).collect::<Result<_, _>>()?;
        for id in ids {
            // A source side that has ended reads nothing again.
            self.read_again.send(id).map_err(|_| Refused::NotRunning)?;
        }
        Ok(())
    }
}
