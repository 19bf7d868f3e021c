//! A slow connection to a port of this machine: it forwards a limited number of bytes a second, and answers without a limit.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Accepts connections until it is dropped.
#[derive(Debug)]
pub(crate) struct Line {
    port: u16,
    is_over: Arc<AtomicBool>,
}

impl Line {
    pub(crate) fn to(server: u16, bytes_per_second: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listen on a free port");
        let port = listener.local_addr().expect("it has an address").port();
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&is_over);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", server))) else { continue };
                let (Ok(back), Ok(to_client)) = (server.try_clone(), client.try_clone()) else { continue };
                std::thread::spawn(move || pass(client, server, Some(bytes_per_second)));
                std::thread::spawn(move || pass(back, to_client, None));
            }
        });
        Self { port, is_over }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // A connection wakes the thread that accepts, so that it sees the end.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Copies bytes until one side ends.
fn pass(mut from: TcpStream, mut to: TcpStream, bytes_per_second: Option<usize>) {
    let mut buffer = vec![0; 4096];
    let (begun, mut passed) = (Instant::now(), 0);
    while let Ok(bytes @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
        passed += bytes;
        if let Some(rate) = bytes_per_second {
            let due = Duration::from_millis((passed * 1_000 / rate) as u64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    for stream in [&from, &to] {
        let _ended = stream.shutdown(Shutdown::Both);
    }
}
