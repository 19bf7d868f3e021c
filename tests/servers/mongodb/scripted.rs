//! A server whose replies a test writes, as MongoDB's manual documents them: for what `SecantusDB` does not show.

use super::codec::{message, read_message, whole};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// What a server answers to a command: its name and the whole of it. `None` closes the connection.
type Script = dyn Fn(&str, &Value) -> Option<Value> + Send + Sync;

/// The server. It ends with the test.
pub(crate) struct Scripted {
    port: u16,
    /// The commands that have come.
    commands: Arc<Mutex<Vec<Value>>>,
}

impl Scripted {
    /// Starts a server that is told its own port and answers by a script.
    pub(crate) fn start<S>(script: impl FnOnce(u16) -> S) -> Self
    where
        S: Fn(&str, &Value) -> Option<Value> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (script, commands): (Arc<Script>, _) = (Arc::new(script(port)), Arc::<Mutex<Vec<Value>>>::default());
        let taken = Arc::clone(&commands);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), script, taken) = (stream, Arc::clone(&script), Arc::clone(&taken)) else { return };
                std::thread::spawn(move || serve(stream, &*script, &taken));
            }
        });
        Self { port, commands }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The commands of this name that have come.
    pub(crate) fn asked(&self, name: &str) -> Vec<Value> {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.iter().filter(|command| !command[name].is_null()).cloned().collect()
    }
}

fn serve(mut stream: TcpStream, script: &Script, taken: &Mutex<Vec<Value>>) {
    const NAMES: &[&str] = &[
        "hello",
        "replSetGetConfig",
        "listCollections",
        "aggregate",
        "getMore",
        "killCursors",
        "find",
        "saslStart",
        "count",
        "authenticate",
    ];
    while let Ok((number, command)) = read_message(&mut stream) {
        taken.lock().unwrap_or_else(PoisonError::into_inner).push(command.clone());
        let name = NAMES.iter().find(|name| !command[**name].is_null()).unwrap_or(&"");
        let Some(reply) = script(name, &command) else { return };
        if stream.write_all(&message(number, &whole(&reply))).is_err() {
            return;
        }
    }
}

/// A time of the cluster.
pub(crate) fn time(seconds: u64, counter: u64) -> Value {
    json!({"$timestamp": seconds << 32 | counter})
}

/// A resume token as MongoDB makes one: it begins with its time.
pub(crate) fn token(seconds: u64, counter: u64, rest: &str) -> Value {
    json!({"_data": format!("82{:016X}{rest}", seconds << 32 | counter)})
}

/// An error reply.
pub(crate) fn error(code: i32, text: &str) -> Value {
    json!({"ok": 0.0, "code": code, "errmsg": text})
}

/// What a primary of MongoDB 8 says of itself.
pub(crate) fn primary(port: u16, seconds: u64) -> Value {
    let last = json!({"ts": time(seconds, 1), "t": {"$numberLong": "1"}});
    json!({
        "isWritablePrimary": true, "setName": "rs0", "hosts": [format!("127.0.0.1:{port}")], "primary": format!("127.0.0.1:{port}"),
        "maxWireVersion": 25, "lastWrite": {"opTime": last, "majorityOpTime": last}, "ok": 1.0,
    })
}

/// The reply that tells the identity of a replica set.
pub(crate) fn config(id: &str) -> Value {
    json!({"config": {"_id": "rs0", "settings": {"replicaSetId": {"$oid": id}}}, "ok": 1.0})
}

/// A reply with a cursor: its number, the name and content of its batch, and the token behind it.
pub(crate) fn cursor(number: i64, batch: &str, documents: &[Value], token: Option<Value>) -> Value {
    let mut cursor = json!({"id": {"$numberLong": number.to_string()}, "ns": "shop.$cmd.aggregate", batch: documents});
    if let Some(token) = token {
        cursor["postBatchResumeToken"] = token;
    }
    json!({"cursor": cursor, "ok": 1.0, "operationTime": time(100, 1)})
}

/// An insert as an event.
pub(crate) fn inserted(seconds: u64, counter: u64, id: u32) -> Value {
    json!({
        "_id": token(seconds, counter, "2B04"), "operationType": "insert", "clusterTime": time(seconds, counter),
        "ns": {"db": "shop", "coll": "orders"}, "documentKey": {"_id": id}, "fullDocument": {"_id": id},
    })
}
