//! A RethinkDB server in this process, as far as feedline needs one: the driver protocol `V1_0`, tables in memory, changefeeds.
//!
//! It says what a real 2.4.4 server was recorded to say (`tests/golden/rethinkdb`), and can be told to fail as one does: `faults`.

use feed::{Batch, Feed};
use protocol::{is_same, log_in, query, send};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io::BufReader;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

#[path = "rethinkdb/faults.rs"]
mod faults;
#[path = "rethinkdb/feed.rs"]
mod feed;
#[path = "rethinkdb/protocol.rs"]
mod protocol;

/// How long a test waits for what must happen.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// How many changes a power cut can take back.
const UNFLUSHED_MAX: usize = 100;

/// The server. It ends with the test.
pub(crate) struct RethinkDb {
    shared: Arc<Shared>,
    port: u16,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Passwords by user.
    users: BTreeMap<String, String>,
    tables: BTreeMap<String, Table>,
    feeds: Vec<Feed>,
    connections: Vec<TcpStream>,
    /// The newest changes: table, key, and the document that was there before.
    unflushed: VecDeque<(String, String, Option<Value>)>,
    /// The database's UUID.
    database: String,
    faults: faults::Faults,
    /// How many bytes of a message are sent at once.
    piece: usize,
    batch: Batch,
    made: u32,
}

struct Table {
    uuid: String,
    primary_key: String,
    /// By the JSON of the key.
    documents: BTreeMap<String, Value>,
}

impl RethinkDb {
    /// Starts a server with the user `admin`, who has no password.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::<Shared>::default();
        {
            let mut state = shared.lock();
            state.users.insert("admin".to_owned(), String::new());
            state.piece = usize::MAX;
            "00000000-0000-0000-0000-000000000000".clone_into(&mut state.database);
        }
        let accepting = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Some(shared), Ok(stream)) = (accepting.upgrade(), stream) else { return };
                if shared.lock().faults.is_down {
                    continue;
                }
                std::thread::spawn(move || drop(shared.serve(&stream)));
            }
        });
        Self { shared, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn add_user(&self, user: &str, password: &str) {
        self.shared.lock().users.insert(user.to_owned(), password.to_owned());
    }

    /// From now on sends so many bytes at once.
    pub(crate) fn send_in_pieces(&self, bytes: usize) {
        self.shared.lock().piece = bytes;
    }

    /// Feeds that are opened from now on send batches of about so many bytes, as a real server does (`max_batch_bytes` is 1 MB), and need
    /// this time for each element.
    pub(crate) fn send_batches_of(&self, bytes: usize, each: Duration) {
        self.shared.lock().batch = Batch { documents: usize::MAX, bytes, each };
    }

    pub(crate) fn create_table(&self, table: &str, primary_key: &str) {
        let mut state = self.shared.lock();
        state.made += 1;
        let uuid = format!("00000000-0000-0000-0000-{:012}", state.made);
        state.tables.insert(table.to_owned(), Table { uuid, primary_key: primary_key.to_owned(), documents: BTreeMap::new() });
    }

    /// Drops a table; its feeds are aborted.
    pub(crate) fn drop_table(&self, table: &str) {
        self.shared.lock().tables.remove(table);
        self.abort_feeds(table);
    }

    /// Adds a document or replaces the one with its key.
    pub(crate) fn put(&self, table: &str, document: &Value) {
        let mut state = self.shared.lock();
        let held = state.tables.get_mut(table).expect("the table exists");
        let key = document[&held.primary_key].to_string();
        let old = held.documents.insert(key.clone(), document.clone());
        if old.as_ref() != Some(document) {
            let kind = if old.is_some() { "change" } else { "add" };
            state.publish(table, &key, &json!({"new_val": document, "old_val": old, "type": kind}));
            state.note(table, key, old);
        }
        self.shared.changed.notify_all();
    }

    /// Tells of a document whose key is spelled anew: for the server both spellings are one key.
    pub(crate) fn replace(&self, table: &str, old: Option<&Value>, new: &Value) {
        let kind = if old.is_some() { "change" } else { "add" };
        let mut state = self.shared.lock();
        state.publish(table, "", &json!({"new_val": new, "old_val": old, "type": kind}));
        self.shared.changed.notify_all();
    }

    /// Removes the document with this key.
    pub(crate) fn remove(&self, table: &str, key: &Value) {
        let mut state = self.shared.lock();
        let old = state.tables.get_mut(table).expect("the table exists").documents.remove(&key.to_string());
        if let Some(old) = old {
            state.publish(table, &key.to_string(), &json!({"new_val": null, "old_val": old, "type": "remove"}));
            state.note(table, key.to_string(), Some(old));
        }
        self.shared.changed.notify_all();
    }

    /// The table's documents.
    pub(crate) fn documents(&self, table: &str) -> BTreeMap<String, Value> {
        self.shared.lock().tables[table].documents.clone()
    }

    /// Waits until a feed of the table has sent everything, and its client has asked for more.
    pub(crate) fn settle(&self, table: &str) {
        self.wait("the feed has sent everything", |state| {
            let mut feeds = state.feeds.iter().filter(|feed| feed.table == table).peekable();
            feeds.peek().is_some() && feeds.all(|feed| feed.is_ready && feed.is_asked && feed.queue.is_empty())
        });
    }

    /// Waits until a batch of each feed of the table was asked for.
    pub(crate) fn wait_until_asked(&self, table: &str) {
        self.wait("a batch was asked for", |state| {
            let mut feeds = state.feeds.iter().filter(|feed| feed.table == table).peekable();
            feeds.peek().is_some() && feeds.all(|feed| feed.is_asked)
        });
    }

    /// Waits until the table has this many feeds.
    pub(crate) fn wait_for_feeds(&self, table: &str, count: usize) {
        self.wait("the feeds are open", |state| state.feeds.iter().filter(|feed| feed.table == table).count() == count);
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut(&mut State) -> bool) {
        let (mut state, deadline) = (self.shared.lock(), Instant::now() + SETTLE_LIMIT);
        while !is_so(&mut state) {
            let left = deadline.checked_duration_since(Instant::now()).unwrap_or_else(|| panic!("in vain: {what}"));
            state = self.shared.changed.wait_timeout(state, left).expect("no test has failed under the lock").0;
        }
    }
}

impl State {
    /// Notes a change that is not on the disk yet.
    fn note(&mut self, table: &str, key: String, old: Option<Value>) {
        self.unflushed.push_back((table.to_owned(), key, old));
        if UNFLUSHED_MAX < self.unflushed.len() {
            self.unflushed.pop_front();
        }
    }

    /// Queues a change for the feeds whose scan has passed its key. The others read it with the scan.
    fn publish(&mut self, table: &str, key: &str, change: &Value) {
        self.publish_text(table, key, change.to_string().as_bytes());
    }

    /// The same for an element that is written already.
    fn publish_text(&mut self, table: &str, key: &str, change: &[u8]) {
        let (piece, is_held) = (self.piece, self.faults.is_held || self.faults.is_frozen);
        for feed in self.feeds.iter_mut().filter(|feed| feed.table == table) {
            if feed.scan.as_deref().is_some_and(|scanned| scanned < key) {
                continue;
            }
            feed.queue.push_back(change.to_vec());
            if feed.queue_size < feed.queue.len() {
                feed.skipped += feed.queue.len();
                feed.queue.clear();
            }
            if feed.is_asked && !is_held && !feed.queue.is_empty() {
                feed.answer(Vec::new(), piece);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test has failed under the lock")
    }

    /// Waits while the server is frozen.
    fn while_frozen(&self) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.lock(), |state| state.faults.is_frozen).expect("no test has failed under the lock")
    }

    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        self.lock().connections.push(stream.try_clone()?);
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream.try_clone()?);
        let (users, piece) = {
            let state = self.while_frozen();
            (state.users.clone(), state.piece)
        };
        if log_in(&mut input, &mut out, &users, piece)? {
            while let Ok((token, query)) = query(&mut input) {
                drop(self.while_frozen());
                self.answer(token, &query, &mut out)?;
                self.changed.notify_all();
            }
        }
        let peer = stream.peer_addr().ok();
        self.lock().feeds.retain(|feed| feed.out.peer_addr().ok() != peer);
        self.changed.notify_all();
        stream.shutdown(Shutdown::Both)
    }

    fn answer(&self, token: u64, query: &Value, out: &mut TcpStream) -> std::io::Result<()> {
        let mut state = self.lock();
        let piece = state.piece;
        let missing = |name: &str| json!({"t": 18, "e": 4_100_000, "r": [format!("Table `test.{name}` does not exist.")], "b": []});
        let State { tables, feeds, faults, database, batch, .. } = &mut *state;
        if let Some(refusal) = faults.refusal(query) {
            send(out, token, &refusal, piece);
            return Ok(());
        }
        match query[0].as_u64() {
            Some(2) => {
                let Some(feed) = feeds.iter_mut().find(|feed| feed.token == token && is_same(&feed.out, out)) else {
                    send(out, token, &json!({"t": 16, "r": [format!("Token {token} not in stream cache.")], "b": []}), piece);
                    return Ok(());
                };
                feed.is_asked = true;
                if let Some(table) = tables.get(&feed.table).filter(|_| !faults.is_held) {
                    feed.ask(&table.documents, faults, piece);
                }
            }
            Some(5) => {
                let server = json!({"id": "1ea80156-ce6a-460c-9090-3923fe90936f", "name": "scripted", "proxy": false});
                send(out, token, &json!({"t": 5, "r": [server]}), piece);
            }
            _ => match query[1][0].as_u64() {
                Some(62) => send(out, token, &json!({"t": 1, "r": [tables.keys().collect::<Vec<_>>()]}), piece),
                Some(86) => send(out, token, &json!({"t": 1, "r": [false]}), piece),
                Some(79) => {
                    let name = query[1][1][0][1][1].as_str().unwrap_or_default();
                    let answer = tables.get(name).map_or_else(|| missing(name), |table| info(database, name, table));
                    send(out, token, &answer, piece);
                }
                Some(152) => {
                    let name = query[1][1][0][1][1].as_str().unwrap_or_default();
                    let Some(table) = tables.get(name) else {
                        send(out, token, &missing(name), piece);
                        return Ok(());
                    };
                    let queue_size = query[1][2]["changefeed_queue_size"].as_u64().and_then(|size| size.try_into().ok()).unwrap_or(100_000);
                    let mut feed = Feed::open(name, token, out.try_clone()?, queue_size, *batch);
                    if !faults.is_held {
                        feed.ask(&table.documents, faults, piece);
                    }
                    feeds.push(feed);
                }
                _ => send(out, token, &json!({"t": 17, "r": ["Unknown term."], "b": []}), piece),
            },
        }
        Ok(())
    }
}

fn info(database: &str, name: &str, table: &Table) -> Value {
    json!({"t": 1, "r": [{
        "db": {"id": database, "name": "test", "type": "DB"}, "doc_count_estimates": [table.documents.len()],
        "id": table.uuid, "indexes": [], "name": name, "primary_key": table.primary_key, "type": "TABLE",
    }]})
}
