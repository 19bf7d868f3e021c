//! An address that can be switched from one server to another.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

/// Passes each connection on to a port of this machine.
#[derive(Debug)]
pub(crate) struct Forwarder {
    port: u16,
    target: Arc<AtomicU16>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Forwarder {
    /// Forwards to no port at first.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("it is bound").port();
        let (target, open) = (Arc::new(AtomicU16::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (leads_to, connections) = (Arc::clone(&target), Arc::clone(&open));
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Locked while it is read, so that no connection to the last target is made after a switch.
                let mut open = connections.lock().expect("nobody panics there");
                let Ok(server) = TcpStream::connect(("127.0.0.1", leads_to.load(Ordering::Acquire))) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().expect("clone"), to.try_clone().expect("clone"));
                    thread::spawn(move || {
                        let _ended = io::copy(&mut from, &mut to);
                        let _gone = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                    });
                }
                open.extend([client, server]);
            }
        });
        Self { port, target, open }
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Forwards to this port from now on. Open connections end.
    pub(crate) fn lead_to(&self, port: u16) {
        let mut open = self.open.lock().expect("nobody panics there");
        self.target.store(port, Ordering::Release);
        for stream in open.drain(..) {
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }
}
