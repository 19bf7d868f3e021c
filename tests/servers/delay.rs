//! A server that is far away: its answers arrive with a delay.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Forwards each connection to a port of this machine. It ends with the process.
#[derive(Debug)]
pub(crate) struct Delay {
    listener: TcpListener,
    millis: Arc<AtomicU64>,
}

impl Delay {
    /// Forwards nothing before [`Self::lead_to`].
    pub(crate) fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").expect("listen on a free port"), millis: Arc::default() }
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().expect("it is bound").port()
    }

    /// Sets the delay of answers.
    pub(crate) fn set(&self, delay: Duration) {
        self.millis.store(delay.as_millis().try_into().expect("a delay is short"), Ordering::Relaxed);
    }

    /// Forwards to this port from now on; called once.
    pub(crate) fn lead_to(&self, port: u16) {
        let (listener, millis) = (self.listener.try_clone().expect("clone"), Arc::clone(&self.millis));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                connect(&client, &server, &millis).expect("pass a connection on");
            }
        });
    }
}

/// Forwards requests at once, and answers with the delay.
fn connect(client: &TcpStream, server: &TcpStream, millis: &Arc<AtomicU64>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut asks, mut asked) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ended = io::copy(&mut asks, &mut asked);
        let _gone = (asks.shutdown(Shutdown::Both), asked.shutdown(Shutdown::Both));
    });
    let (mut answers, mut answered, millis) = (server.try_clone()?, client.try_clone()?, Arc::clone(millis));
    let (sender, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(bytes @ 1..) = answers.read(&mut buffer) {
            let at = Instant::now() + Duration::from_millis(millis.load(Ordering::Relaxed));
            if sender.send((at, buffer[..bytes].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (at, bytes) in due {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if answered.write_all(&bytes).is_err() {
                break;
            }
        }
        let _gone = answered.shutdown(Shutdown::Both);
    });
    Ok(())
}
