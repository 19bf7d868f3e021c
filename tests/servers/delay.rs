//! A server that is far away: what it answers arrives so much later.

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

/// Passes each connection on to a port of this machine. It ends with the process.
#[derive(Debug)]
pub(crate) struct Delay {
    listener: TcpListener,
    millis: Arc<AtomicU64>,
}

impl Delay {
    /// Passes nothing on before [`Self::lead_to`].
    pub(crate) fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").expect("listen on a free port"), millis: Arc::default() }
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().expect("it is bound").port()
    }

    /// Answers take so much longer from now on.
    pub(crate) fn set(&self, delay: Duration) {
        self.millis.store(delay.as_millis().try_into().expect("a delay is short"), Ordering::Relaxed);
    }

    /// Leads there from now on; called once.
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

/// Asks at once, and answers late.
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
