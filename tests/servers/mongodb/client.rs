//! A client that runs one command after the other, written as Extended JSON: as much of it as the tests need.

use super::codec::{element, end, message, read_message};
use serde_json::{Value, json};
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// How long a server may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// A connection.
pub(crate) struct Client(TcpStream);

impl Client {
    pub(crate) fn connect(host: &str, port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((host, port))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Runs a command; returns its reply. The name of a command comes first, whatever the order of the JSON.
    pub(crate) fn run(&mut self, database: &str, command: &Value) -> io::Result<Value> {
        const NAMES: &[&str] = &[
            "hello",
            "serverStatus",
            "create",
            "drop",
            "dropDatabase",
            "insert",
            "update",
            "delete",
            "find",
            "aggregate",
            "collMod",
            "commitTransaction",
            "renameCollection",
            "createUser",
            "count",
            "getMore",
        ];
        let fields = command.as_object().expect("a command is an object");
        let mut document = vec![0; 4];
        let is_name = |name: &str| NAMES.contains(&name);
        for (name, value) in fields.iter().filter(|(name, _)| is_name(name)).chain(fields.iter().filter(|(name, _)| !is_name(name))) {
            element(&mut document, name, value);
        }
        element(&mut document, "$db", &json!(database));
        end(&mut document, 0);
        self.0.write_all(&message(0, &document))?;
        Ok(read_message(&mut self.0)?.1)
    }
}
