//! Refused logins that pass: the authentication service is down, or the password is being changed.

use super::destination::Destination;
use crate::crash::feedline::Feedline;
use crate::servers::port::{self, wait_for};
use crate::servers::rabbitmq::RabbitMq;
use lapin::types::FieldTable;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);

/// An authentication service that allows everything, until it is dropped.
struct Service {
    port: u16,
    is_over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Service {
    fn start(port: u16) -> Self {
        let listener = wait_for("the port is free", LIMIT, || TcpListener::bind(("127.0.0.1", port)).ok());
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut client) = client else { continue };
                let mut asked = [0; 4096];
                let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\n\r\nallow";
                let _gone = client.read(&mut asked).and_then(|_| client.write_all(answer.as_bytes()));
            }
        });
        Self { port, is_over, thread: Some(thread) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A pipeline from a SQLite database.
struct World {
    directory: PathBuf,
    destination: Destination,
    feedline: Feedline,
}

impl World {
    fn new(broker: &RabbitMq, checkpoint: &str) -> Self {
        let destination = Destination::new(broker, &["#"], FieldTable::default());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("logins-{}", destination.name));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("password"), "guest\n").unwrap();
        let checkpoint = checkpoint.replace("DIRECTORY", directory.to_str().unwrap());
        let configuration = format!(
            "name = \"{}\"\n[source]\nkind = \"sqlite\"\npath = \"{}\"\n[[feeds]]\ntables = [\"t\"]\n[sink]\nkind = \"amqp\"\nport = {}\ntls = \"disable\"\n\
             password_file = \"{}\"\n[checkpoint]\n{checkpoint}\n",
            destination.name,
            directory.join("shop.db").display(),
            destination.port,
            directory.join("password").display(),
        );
        let feedline = Feedline::new(&directory, &configuration);
        let world = Self { directory, destination, feedline };
        world.execute("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
        world
    }

    fn execute(&self, sql: &str) {
        rusqlite::Connection::open(self.directory.join("shop.db")).unwrap().execute_batch(sql).unwrap();
    }

    fn arrived(&mut self, count: usize) {
        wait_for("the events arrive", LIMIT, || {
            self.feedline.assert_runs();
            (self.destination.read().len() == count).then_some(())
        });
    }

    fn logged(&self, code: &str) {
        wait_for("it is logged", LIMIT, || {
            std::fs::read_to_string(self.directory.join("log")).unwrap_or_default().contains(code).then_some(())
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn an_authentication_service_that_is_down_is_waited_for() {
    let port = port::free();
    let broker = RabbitMq::start_authorised_by(port);
    for checkpoint in ["path = \"DIRECTORY/checkpoint\"", "kind = \"amqp\""] {
        let service = Service::start(port);
        let mut world = World::new(&broker, checkpoint);
        world.feedline.start();
        world.arrived(1);
        world.feedline.wait_until_live();
        drop(service);
        broker.ctl(&["close_all_connections", "tested"]);
        world.execute("INSERT INTO t VALUES (2)");
        world.logged("FL3002");
        let _service = Service::start(port);
        world.arrived(2);
        world.feedline.stop();
    }
}

/// RabbitMQ reports a wrong password in the same way, so a first start tries only for a while.
#[test]
fn a_first_start_waits_for_an_authentication_service_that_is_down() {
    let port = port::free();
    let broker = RabbitMq::start_authorised_by(port);
    for checkpoint in ["path = \"DIRECTORY/checkpoint\"", "kind = \"amqp\""] {
        let service = Service::start(port);
        let mut world = World::new(&broker, checkpoint);
        drop(service);
        world.feedline.start();
        world.logged("FL3002");
        // Wait for the second refusal too: the third attempt is the last.
        wait_for("it is refused twice", LIMIT, || (2 <= world.feedline.count("feedline_pipeline_attempts_total", "")).then_some(()));
        let _service = Service::start(port);
        world.arrived(1);
        world.feedline.stop();
    }
}

#[test]
fn a_changed_password_file_is_read_again() {
    let broker = RabbitMq::start(&[]);
    let mut world = World::new(&broker, "path = \"DIRECTORY/checkpoint\"");
    // The test's own client logs in as another user.
    broker.ctl(&["add_user", "feedline", "guest"]);
    broker.ctl(&["set_permissions", "-p", "/", "feedline", ".*", ".*", ".*"]);
    let path = world.directory.join("feedline.toml");
    let configuration = std::fs::read_to_string(&path).unwrap().replace("kind = \"amqp\"", "kind = \"amqp\"\nuser = \"feedline\"");
    std::fs::write(&path, configuration).unwrap();
    world.feedline.start();
    world.arrived(1);
    world.feedline.wait_until_live();
    broker.ctl(&["change_password", "feedline", "renewed"]);
    broker.ctl(&["close_all_connections", "tested"]);
    world.execute("INSERT INTO t VALUES (2)");
    world.logged("FL3002");
    std::fs::write(world.directory.join("password"), "renewed\n").unwrap();
    world.arrived(2);
    // If the file is not changed, the pipeline stops after a while, and changing the file is the remedy.
    broker.ctl(&["change_password", "feedline", "renewed again"]);
    broker.ctl(&["close_all_connections", "tested"]);
    world.execute("INSERT INTO t VALUES (3)");
    let (status, log) = world.feedline.wait_for_end();
    assert_eq!(status, Some(71), "{log}");
    assert!(log.contains("FL3002") && log.contains("sink.password_file"), "{log}");
    std::fs::write(world.directory.join("password"), "renewed again\n").unwrap();
    world.feedline.start();
    world.arrived(3);
    world.feedline.stop();
}
