//! Servers that answer at the configured address without proving who they are.

use super::world::{World, feed};
use feedline::fault::{Classify, Code};
use feedline::net::RequireAuth;
use feedline::net::secret::Secret;
use feedline::source::SourceConnector;
use feedline::source::postgres::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const PASSWORD: &str = "hunter2-hunter2";
const CLEAR_TEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05salt";
const ADMITTED: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const SCRAM: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
const READY: &[u8] = b"Z\0\0\0\x05I";

/// One message of a client; empty at the end of the connection. The first message has no type byte.
async fn message(socket: &mut TcpStream, is_first: bool) -> Vec<u8> {
    let mut head = vec![0; if is_first { 4 } else { 5 }];
    if socket.read_exact(&mut head).await.is_err() {
        return Vec::new();
    }
    let length = u32::from_be_bytes(head[head.len() - 4..].try_into().unwrap());
    let mut body = vec![0; length as usize - 4];
    socket.read_exact(&mut body).await.unwrap();
    [head, body].concat()
}

/// Answers each message of a client with one of these; returns all messages of the client after the first.
async fn answering(answers: Vec<Vec<u8>>) -> (u16, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut received = vec![message(&mut socket, true).await];
        for answer in answers {
            if socket.write_all(&answer).await.is_err() {
                break;
            }
            received.push(message(&mut socket, false).await);
        }
        received.split_off(1)
    });
    (port, received)
}

/// Connects to a server with these answers; returns the error, and the messages that the server received.
async fn connect(require_auth: RequireAuth, password: Option<&str>, answers: Vec<Vec<u8>>) -> (Error, Vec<Vec<u8>>) {
    let mut world = World::new("CREATE TABLE t (id int PRIMARY KEY)", vec![feed("t", &["id"])]);
    let (port, received) = answering(answers).await;
    "127.0.0.1".clone_into(&mut world.options.host);
    world.options.port = port;
    world.options.require_auth = require_auth;
    world.options.password = password.map(|password| Secret::new(password.to_owned()));
    let error = world.connector().catalogue().await.unwrap_err();
    (error, received.await.unwrap())
}

/// Asserts that the server is refused before it has received anything from which the password could be guessed.
async fn is_refused(answers: Vec<Vec<u8>>, code: Code, expected: &str) {
    let (error, received) = connect(RequireAuth::Scram, Some(PASSWORD), answers).await;
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(expected), "{error}");
    let bytes = received.concat();
    assert!(!bytes.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes()), "{received:?}");
    assert!(!bytes.windows(3).any(|part| part == b"md5"), "{received:?}");
}

#[tokio::test]
async fn the_password_is_not_sent_to_a_server_that_has_proved_nothing() {
    is_refused(vec![CLEAR_TEXT.to_vec()], Code::SourceTls, "asks for the password in clear text and has not proved who it is").await;
    is_refused(vec![MD5.to_vec()], Code::SourceTls, "source.require_auth = \"md5\"").await;
}

#[tokio::test]
async fn with_a_password_a_login_without_proof_of_the_server_is_refused() {
    is_refused(vec![[ADMITTED, READY].concat()], Code::SourceTls, "source.require_auth = \"none\"").await;
    is_refused(vec![SCRAM.to_vec(), [ADMITTED, READY].concat()], Code::SourceAuthentication, "without its signature").await;
    let first = |text: &str| {
        let mut message = b"R".to_vec();
        message.extend_from_slice(&u32::try_from(8 + text.len()).unwrap().to_be_bytes());
        message.extend_from_slice(&[0, 0, 0, 11]);
        [message, text.as_bytes().to_vec()].concat()
    };
    is_refused(vec![SCRAM.to_vec(), first("r=a,s=c2FsdA==,i=4096")], Code::SourceAuthentication, "SCRAM").await;
    is_refused(vec![SCRAM.to_vec(), first("r=a,s=c2FsdA==,i=4000000000")], Code::SourceAuthentication, "iterations").await;
}

#[tokio::test]
async fn a_weaker_login_is_accepted_if_configured() {
    let (_, received) = connect(RequireAuth::Password, Some(PASSWORD), vec![CLEAR_TEXT.to_vec()]).await;
    assert_eq!(received, [[b"p\0\0\0\x14", PASSWORD.as_bytes(), b"\0"].concat()]);
    let (error, _) = connect(RequireAuth::Md5, Some(PASSWORD), vec![CLEAR_TEXT.to_vec()]).await;
    assert_eq!(error.code(), Code::SourceTls, "a stronger method is required: {error}");
    let (_, received) = connect(RequireAuth::Md5, Some(PASSWORD), vec![MD5.to_vec()]).await;
    assert!(received[0].starts_with(b"p\0\0\0\x28md5"), "{received:?}");
    let (_, received) = connect(RequireAuth::Scram, None, vec![[ADMITTED, READY].concat()]).await;
    assert!(received[0].starts_with(b"Q"), "without a password the login is accepted: {received:?}");
}

#[tokio::test]
async fn oversized_and_endless_answers_are_refused() {
    let (error, _) = connect(RequireAuth::Scram, Some(PASSWORD), vec![b"R\x3f\xff\xff\xff".to_vec()]).await;
    assert_eq!(error.code(), Code::SourceProtocol, "{error}");
    let parameters = b"S\0\0\0\x0ename\0value\0".repeat(100_000);
    let (error, _) = connect(RequireAuth::Scram, Some(PASSWORD), vec![parameters]).await;
    assert_eq!(error.code(), Code::SourceProtocol, "{error}");
    // A server that answers the query for the catalogue without end.
    let mut row = b"D\x00\x00\x10\x0a\x00\x01\x00\x00\x10\x00".to_vec();
    row.extend_from_slice(&[b'x'; 4096]);
    let (error, _) = connect(RequireAuth::Scram, None, vec![[ADMITTED, READY].concat(), row.repeat(100_000)]).await;
    assert_eq!(error.code(), Code::SourceProtocol, "{error}");
}
