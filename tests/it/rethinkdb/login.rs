//! How a session begins, and what is said if it does not.

use super::*;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_may_arrive_in_any_pieces() {
    let world = World::new(&["t"]);
    for bytes in [1, 3, 7, 40, 4000] {
        world.server.send_in_pieces(bytes);
        let catalogue = world.connector().catalogue().await.unwrap();
        assert_eq!(catalogue.tables.len(), 1, "{bytes} bytes at once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_let_in_by_their_password_alone() {
    let world = World::new(&["t"]);
    world.server.add_user("cd,c=", "s3cr:t,=é");
    let options = |user: &str, password: &str| {
        let password = Some(Secret::new(password.to_owned()));
        Connector::new(Options { user: user.to_owned(), password, ..world.options() }, Metrics::new("shop").source)
    };
    options("cd,c=", "s3cr:t,=é").catalogue().await.unwrap();
    for (user, password, says) in [("cd,c=", "wrong", "Wrong password"), ("nobody", "x", "Unknown user"), ("admin", "x", "Wrong password")]
    {
        let refused = options(user, password).catalogue().await.unwrap_err();
        assert_eq!((refused.code(), refused.fault()), (Code::SourceAuthentication, Fault::Fatal), "{refused}");
        let text = refused.to_string();
        assert!(text.contains(says) && !text.contains("wrong,") && text.len() <= 200, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_rethinkdb_is_named() {
    let mut world = World::new(&[]);
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n\0"[..], b"ERROR: this is an old server\n\0", &[b'x'; 5000]] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answer).unwrap();
            // Until the client closes it.
            drop(stream.read_to_end(&mut Vec::new()));
        });
        let mut connector = Connector::new(Options { port, ..world.options() }, Metrics::new("shop").source);
        let refused = connector.catalogue().await.unwrap_err();
        assert_eq!((refused.code(), refused.fault()), (Code::SourceProtocol, Fault::Fatal), "{refused}");
        answering.join().unwrap();
    }
    world.store.set_extension("other");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut connector = Connector::new(Options { port: nobody, ..world.options() }, Metrics::new("shop").source);
    let refused = connector.catalogue().await.unwrap_err();
    assert_eq!((refused.code(), refused.fault()), (Code::SourceUnreachable, Fault::Transient), "{refused}");
}
