//! `SecantusDB` servers, which speak MongoDB's protocol, each with a data directory of its own; or a real replica set that `FEEDLINE_MONGODB_URL`
//! names (`mongodb://HOST:PORT`, without access control), for the tests that need no more of a server than that.

use super::port::{self, fetched, run_directory, wait_for};
use super::process::Server;
use client::Client;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

#[path = "mongodb/client.rs"]
mod client;
#[path = "mongodb/codec.rs"]
mod codec;
#[path = "mongodb/scripted.rs"]
pub(crate) mod scripted;

/// The version of `SecantusDB`.
const VERSION: &str = "0.7.0b3";
/// How long a server may take to answer, on a machine that has much else to do.
const START_LIMIT: Duration = Duration::from_mins(3);
/// How often a start is tried.
const ATTEMPTS: usize = 20;

/// The folder of the server's programs and Python packages. MongoDB's own driver for Python is one of them.
pub(crate) fn programs() -> PathBuf {
    fetched("mongodb", VERSION, &[VERSION])
}

/// A running server, or the one that the environment names.
#[derive(Debug)]
pub(crate) struct MongoDb {
    /// `None` while it is killed, and for a server that the tests have not started.
    server: Mutex<Option<Server>>,
    directory: PathBuf,
    arguments: Mutex<Vec<&'static str>>,
    host: String,
    port: u16,
    /// Held while a transaction commits. `SecantusDB` shows two that commit at once in another order than that of their times.
    commits: Mutex<()>,
}

impl MongoDb {
    /// The server that the tests of this process share: databases in it have unique names.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<MongoDb> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("FEEDLINE_MONGODB_URL") {
            Ok(url) => Self::named(&url),
            Err(_) => Self::start(&[]),
        })
    }

    /// The server at this URL.
    fn named(url: &str) -> Self {
        let address = url.strip_prefix("mongodb://").unwrap_or(url).trim_end_matches('/');
        let (host, port) = address.rsplit_once(':').expect("FEEDLINE_MONGODB_URL is mongodb://HOST:PORT");
        let port = port.parse().expect("FEEDLINE_MONGODB_URL names a port");
        Self {
            server: Mutex::new(None),
            directory: PathBuf::new(),
            arguments: Mutex::default(),
            host: host.to_owned(),
            port,
            commits: Mutex::default(),
        }
    }

    /// Starts a server of one's own with these arguments.
    pub(crate) fn start(arguments: &[&'static str]) -> Self {
        let directory = run_directory("mongodb", None).expect("make the server's folder");
        let arguments = Mutex::new(arguments.to_vec());
        let host = "127.0.0.1".to_owned();
        let mut server = Self { server: Mutex::new(None), directory, arguments, host, port: 0, commits: Mutex::default() };
        for _ in 0..ATTEMPTS {
            server.port = port::free();
            if server.attempt() {
                return server;
            }
        }
        panic!("the server does not start: {}", server.log());
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is the one that the tests start, and not a real one.
    pub(crate) fn is_surrogate(&self) -> bool {
        !self.directory.as_os_str().is_empty()
    }

    /// A name for a database that no other test has.
    pub(crate) fn database(prefix: &str) -> String {
        static MADE: AtomicU32 = AtomicU32::new(0);
        format!("{prefix}_{}_{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs a command, written as Extended JSON; returns the reply. Panics if the server refuses it.
    pub(crate) fn run(&self, database: &str, command: &Value) -> Value {
        let reply = self.try_run(database, command);
        assert!(reply["ok"].as_f64() == Some(1.0) && reply["writeErrors"].is_null(), "{command}: {reply}");
        reply
    }

    /// As [`Self::run`], returning a refusal too.
    pub(crate) fn try_run(&self, database: &str, command: &Value) -> Value {
        Client::connect(&self.host, self.port)
            .and_then(|mut client| client.run(database, command))
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Makes a collection that stores images.
    pub(crate) fn create(&self, database: &str, collection: &str) {
        self.run(database, &json!({"create": collection, "changeStreamPreAndPostImages": {"enabled": true}}));
    }

    pub(crate) fn insert(&self, database: &str, collection: &str, documents: &[Value]) {
        self.run(database, &json!({"insert": collection, "documents": documents, "writeConcern": {"w": "majority"}}));
    }

    /// Updates the document with this key: a document replaces it, operators change it.
    pub(crate) fn update(&self, database: &str, collection: &str, key: &Value, update: &Value) {
        let updates = json!([{"q": {"_id": key}, "u": update}]);
        self.run(database, &json!({"update": collection, "updates": updates, "writeConcern": {"w": "majority"}}));
    }

    pub(crate) fn delete(&self, database: &str, collection: &str, key: &Value) {
        let deletes = json!([{"q": {"_id": key}, "limit": 1}]);
        self.run(database, &json!({"delete": collection, "deletes": deletes, "writeConcern": {"w": "majority"}}));
    }

    /// Runs write commands in one transaction.
    pub(crate) fn transaction(&self, database: &str, commands: &[Value]) {
        let mut client = Client::connect(&self.host, self.port).expect("connect with the server");
        let session = json!({"id": {"$uuid": format!("{:032x}", fastrand::u128(..))}});
        for (index, command) in commands.iter().enumerate() {
            let mut command = command.clone();
            for (name, value) in [("lsid", session.clone()), ("txnNumber", json!({"$numberLong": "1"})), ("autocommit", json!(false))] {
                command[name] = value;
            }
            if index == 0 {
                command["startTransaction"] = json!(true);
            }
            let reply = client.run(database, &command).expect("the server answers");
            assert!(reply["ok"].as_f64() == Some(1.0) && reply["writeErrors"].is_null(), "{command}: {reply}");
        }
        let commit = json!({"commitTransaction": 1, "lsid": session, "txnNumber": {"$numberLong": "1"}, "autocommit": false});
        let _alone = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = client.run("admin", &commit).expect("the server answers");
        assert_eq!(reply["ok"].as_f64(), Some(1.0), "{reply}");
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).take().expect("the server runs").kill();
    }

    /// Starts it again after [`Self::kill`], on the same port and data.
    pub(crate) fn restart(&self) {
        let started = (0..ATTEMPTS).any(|_| self.attempt());
        assert!(started, "the server does not start: {}", self.log());
    }

    /// As [`Self::restart`], with these arguments from now on.
    pub(crate) fn restart_with(&self, arguments: &[&'static str]) {
        *self.arguments.lock().unwrap_or_else(PoisonError::into_inner) = arguments.to_vec();
        self.restart();
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub(crate) fn pause(&self) {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).as_ref().expect("the server runs").pause();
    }

    /// Ends [`Self::pause`].
    pub(crate) fn resume(&self) {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).as_ref().expect("the server runs").resume();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Starts the server on its port; false where another program has it.
    fn attempt(&self) -> bool {
        let programs = programs();
        let (path, program) = (format!("PYTHONPATH={}", programs.display()), programs.join("bin/secantusd-py").display().to_string());
        let (port, data) = (self.port.to_string(), self.directory.join("data").display().to_string());
        // What was acknowledged outlives a kill, as it does on a replica set.
        let mut command = vec!["env", &path, "PYTHONDONTWRITEBYTECODE=1", "python3", &program, "--host", "127.0.0.1", "--port", &port];
        command.extend(["--storage-path", &data, "--sync-on-commit"]);
        let arguments = self.arguments.lock().unwrap_or_else(PoisonError::into_inner).clone();
        command.extend(&arguments);
        let server = Server::start(&self.directory, &command);
        let ready = wait_for("a server that answers or ends", START_LIMIT, || {
            if !server.runs() {
                return Some(false);
            }
            // The client of the tests speaks no TLS.
            if arguments.contains(&"--tls-cert-file") {
                return port::answers(self.port).then_some(true);
            }
            // Another program may have the port.
            let status = Client::connect("127.0.0.1", self.port).and_then(|mut client| client.run("admin", &json!({"serverStatus": 1})));
            let status = status.ok().filter(|status| status["ok"].as_f64() == Some(1.0) || arguments.contains(&"--auth"))?;
            Some(arguments.contains(&"--auth") || status["pid"].as_i64() == Some(server.pid().into()))
        });
        if ready && server.runs() {
            *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
            return true;
        }
        server.kill();
        false
    }
}
