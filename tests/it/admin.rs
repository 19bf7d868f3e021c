//! The admin server, and clients that misuse it.

use feedline::admin::scrapes::Scrapes;
use feedline::admin::{AdminState, Server};
use feedline::status::Publisher;
use feedline::status::metrics::Metrics;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

async fn serving() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, stop) = (server.address().unwrap(), CancellationToken::new());
    let state = AdminState { metrics: Metrics::new("shop"), status: Publisher::default().subscribe(), scrapes: Scrapes::default() };
    let task = tokio::spawn(server.serve(state, stop.clone()));
    (address, stop, task)
}

/// Sends a request; returns everything that the server sends until it closes.
async fn answer_to(address: SocketAddr, text: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The server may close before it has read everything.
    socket.write_all(text.as_bytes()).await.ok();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.ok();
    String::from_utf8(answer).unwrap()
}

const LIVE: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn probes_are_answered_even_if_clients_keep_connections_open() {
    let (address, stop, task) = serving().await;
    let mut unfinished = Vec::new();
    for _ in 0..300 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").await.unwrap();
        unfinished.push(socket);
    }
    assert!(answer_to(address, LIVE).await.starts_with("HTTP/1.1 200"));
    // The oldest connection was closed for it.
    let mut rest = Vec::new();
    unfinished[0].read_to_end(&mut rest).await.ok();
    assert!(rest.is_empty());
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let (address, stop, task) = serving().await;
    let head = format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    assert!(!answer_to(address, &head).await.contains("200 OK"));
    assert!(answer_to(address, LIVE).await.starts_with("HTTP/1.1 200"));
    stop.cancel();
    task.await.unwrap();
}

/// Neither between two requests nor in the middle of one.
#[tokio::test]
async fn a_stop_waits_for_no_client() {
    let (address, stop, task) = serving().await;
    let mut kept = TcpStream::connect(address).await.unwrap();
    kept.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut begun = [0; 12];
    kept.read_exact(&mut begun).await.unwrap();
    let mut unfinished = TcpStream::connect(address).await.unwrap();
    unfinished.write_all(b"GET").await.unwrap();
    stop.cancel();
    task.await.unwrap();
}
