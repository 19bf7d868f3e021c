//! A RethinkDB server in this process, as far as feedline needs one: the driver protocol V1_0, tables in memory, changefeeds.
//!
//! It says what a real 2.4.4 server was recorded to say (`tests/golden/rethinkdb`), and can be told to fail as one does: a queue that overflows,
//! a feed that is aborted, a process that is killed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::hash::MessageDigest;
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::sha::sha256;
use openssl::sign::Signer;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many documents a batch of a scan has.
const BATCH_ROWS: usize = 50;

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
    is_down: bool,
    is_held: bool,
    /// How many bytes of a message are sent at once.
    piece: usize,
    made: u32,
}

struct Table {
    uuid: String,
    primary_key: String,
    /// By the JSON of the key.
    documents: BTreeMap<String, Value>,
}

struct Feed {
    table: String,
    token: u64,
    out: TcpStream,
    queue: VecDeque<Value>,
    queue_size: usize,
    skipped: usize,
    /// The last key that the scan has sent; `None` once it is complete.
    scan: Option<String>,
    /// Whether a batch was asked for that was not sent.
    is_asked: bool,
    is_begun: bool,
    /// Whether `ready` was sent.
    is_ready: bool,
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
        }
        let accepting = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Some(shared), Ok(stream)) = (accepting.upgrade(), stream) else { return };
                if shared.lock().is_down {
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

    /// Ends the table's feeds as a reshard does.
    pub(crate) fn abort_feeds(&self, table: &str) {
        let mut state = self.shared.lock();
        let piece = state.piece;
        for mut feed in state.feeds.extract_if(.., |feed| feed.table == table) {
            send(&mut feed.out, feed.token, &json!({"t": 18, "e": 4_100_000, "r": ["Changefeed aborted (unavailable)."], "b": []}), piece);
        }
        self.shared.changed.notify_all();
    }

    /// Adds a document or replaces the one with its key.
    pub(crate) fn put(&self, table: &str, document: &Value) {
        let mut state = self.shared.lock();
        let held = state.tables.get_mut(table).expect("the table exists");
        let key = document[&held.primary_key].to_string();
        let old = held.documents.insert(key.clone(), document.clone());
        match old {
            Some(old) if old == *document => {}
            Some(old) => state.publish(table, &key, json!({"new_val": document, "old_val": old, "type": "change"})),
            None => state.publish(table, &key, json!({"new_val": document, "old_val": null, "type": "add"})),
        }
        self.shared.changed.notify_all();
    }

    /// Tells of a document whose key is spelled anew: for the server both spellings are one key.
    pub(crate) fn replace(&self, table: &str, old: Option<&Value>, new: &Value) {
        let kind = if old.is_some() { "change" } else { "add" };
        let mut state = self.shared.lock();
        state.publish(table, "", json!({"new_val": new, "old_val": old, "type": kind}));
        self.shared.changed.notify_all();
    }

    /// Removes the document with this key.
    pub(crate) fn remove(&self, table: &str, key: &Value) {
        let mut state = self.shared.lock();
        let old = state.tables.get_mut(table).expect("the table exists").documents.remove(&key.to_string());
        if let Some(old) = old {
            state.publish(table, &key.to_string(), json!({"new_val": null, "old_val": old, "type": "remove"}));
        }
        self.shared.changed.notify_all();
    }

    /// From now on lets no client ask for more, so that queues grow; `false` answers what was asked meanwhile.
    pub(crate) fn hold(&self, is_held: bool) {
        let mut state = self.shared.lock();
        state.is_held = is_held;
        let State { feeds, tables, piece, .. } = &mut *state;
        for feed in feeds.iter_mut().filter(|feed| !is_held && feed.is_asked) {
            if let Some(table) = tables.get(&feed.table) {
                feed.ask(&table.documents, *piece);
            }
        }
        self.shared.changed.notify_all();
    }

    /// Takes back a change that was shown, as a crash of the server does.
    pub(crate) fn take_back(&self, table: &str, key: &Value) {
        self.shared.lock().tables.get_mut(table).expect("the table exists").documents.remove(&key.to_string());
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

    /// Waits until the table has this many feeds.
    pub(crate) fn wait_for_feeds(&self, table: &str, count: usize) {
        self.wait("the feeds are open", |state| state.feeds.iter().filter(|feed| feed.table == table).count() == count);
    }

    fn wait(&self, what: &str, mut is_so: impl FnMut(&mut State) -> bool) {
        let (mut state, deadline) = (self.shared.lock(), Instant::now() + PATIENCE);
        while !is_so(&mut state) {
            let left = deadline.checked_duration_since(Instant::now()).unwrap_or_else(|| panic!("in vain: {what}"));
            state = self.shared.changed.wait_timeout(state, left).expect("no test has failed under the lock").0;
        }
    }

    /// Closes all connections and takes no more.
    pub(crate) fn kill(&self) {
        let mut state = self.shared.lock();
        state.is_down = true;
        state.feeds.clear();
        for connection in state.connections.drain(..) {
            // Fails where the client has closed it.
            drop(connection.shutdown(Shutdown::Both));
        }
    }

    /// Takes connections again.
    pub(crate) fn restart(&self) {
        self.shared.lock().is_down = false;
    }
}

impl State {
    /// Queues a change for the feeds whose scan has passed its key. The others read it with the scan.
    fn publish(&mut self, table: &str, key: &str, change: Value) {
        let (piece, is_held) = (self.piece, self.is_held);
        for feed in self.feeds.iter_mut().filter(|feed| feed.table == table) {
            if feed.scan.as_deref().is_some_and(|scanned| scanned < key) {
                continue;
            }
            feed.queue.push_back(change.clone());
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

impl Feed {
    /// Sends these elements, then what is queued.
    fn answer(&mut self, mut elements: Vec<Value>, piece: usize) {
        elements.extend(self.queue.drain(..));
        self.is_asked = false;
        send(&mut self.out, self.token, &json!({"t": 3, "r": elements, "n": [1, 5]}), piece);
    }

    /// A batch is asked for.
    fn ask(&mut self, documents: &BTreeMap<String, Value>, piece: usize) {
        self.is_asked = true;
        let mut elements = Vec::new();
        if !std::mem::replace(&mut self.is_begun, true) {
            elements.push(json!({"state": "initializing", "type": "state"}));
        }
        if let Some(scanned) = &self.scan {
            let rows =
                documents.range::<String, _>((std::ops::Bound::Excluded(scanned.clone()), std::ops::Bound::Unbounded)).take(BATCH_ROWS);
            let rows: Vec<_> = rows.collect();
            self.scan = rows.last().map(|(key, _)| (*key).clone());
            elements.extend(rows.into_iter().map(|(_, document)| json!({"new_val": document, "type": "initial"})));
            if !elements.is_empty() {
                return self.answer(elements, piece);
            }
        }
        let skipped = std::mem::take(&mut self.skipped);
        if skipped != 0 {
            // Alone in its frame, also before `ready`.
            let error = json!({"error": format!("Changefeed cache over array size limit, skipped {skipped} elements.")});
            self.is_asked = false;
            return send(&mut self.out, self.token, &json!({"t": 3, "r": [error], "n": [1, 5]}), piece);
        }
        if !std::mem::replace(&mut self.is_ready, true) {
            return self.answer(vec![json!({"state": "ready", "type": "state"})], piece);
        }
        if !self.queue.is_empty() {
            self.answer(elements, piece);
        }
    }
}

fn send(out: &mut TcpStream, token: u64, response: &Value, piece: usize) {
    let body = response.to_string();
    let mut bytes = token.to_le_bytes().to_vec();
    bytes.extend_from_slice(&u32::try_from(body.len()).expect("a short response").to_le_bytes());
    bytes.extend_from_slice(body.as_bytes());
    write(out, &bytes, piece);
}

fn write(out: &mut TcpStream, bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        // Fails where the client is gone; its connection then ends.
        drop(out.write_all(piece));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test has failed under the lock")
    }

    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        self.lock().connections.push(stream.try_clone()?);
        let (mut input, mut out) = (BufReader::new(stream.try_clone()?), stream.try_clone()?);
        if self.log_in(&mut input, &mut out)? {
            while let Ok((token, query)) = query(&mut input) {
                self.answer(token, &query, &mut out)?;
                self.changed.notify_all();
            }
        }
        let peer = stream.peer_addr().ok();
        self.lock().feeds.retain(|feed| feed.out.peer_addr().ok() != peer);
        self.changed.notify_all();
        stream.shutdown(Shutdown::Both)
    }

    /// The server's side of the handshake.
    fn log_in(&self, input: &mut BufReader<TcpStream>, out: &mut TcpStream) -> std::io::Result<bool> {
        let piece = self.lock().piece;
        let mut magic = [0; 4];
        input.read_exact(&mut magic)?;
        let mut say = |message: Value| write(out, format!("{message}\0").as_bytes(), piece);
        if magic != [0xC3, 0xBD, 0xC2, 0x34] {
            write(out, b"ERROR: Received an unsupported protocol version.\0", piece);
            return Ok(false);
        }
        say(json!({"max_protocol_version": 0, "min_protocol_version": 0, "server_version": "2.4.4", "success": true}));
        let first = message(input)?;
        let first = first["authentication"].as_str().unwrap_or_default().trim_start_matches("n,,").to_owned();
        let (user, nonce) = first.strip_prefix("n=").and_then(|rest| rest.split_once(",r=")).unwrap_or_default();
        let password = self.lock().users.get(&user.replace("=2C", ",").replace("=3D", "=")).cloned();
        let iterations = if password.as_deref() == Some("") { 1 } else { 4096 };
        let salt = [7; 16];
        let server_first = format!("r={nonce}serverpart,s={},i={iterations}", STANDARD.encode(salt));
        say(json!({"authentication": server_first, "success": true}));
        let last = message(input)?;
        let last = last["authentication"].as_str().unwrap_or_default();
        let Some(password) = password else {
            say(json!({"error": "Unknown user", "error_code": 17, "success": false}));
            return Ok(false);
        };
        let (bare, proof) = last.rsplit_once(",p=").unwrap_or_default();
        let exchanged = format!("{first},{server_first},{bare}");
        let mut salted = [0; 32];
        pbkdf2_hmac(password.as_bytes(), &salt, iterations, MessageDigest::sha256(), &mut salted)?;
        let client_key = hmac(&salted, b"Client Key");
        let signature = hmac(&sha256(&client_key), exchanged.as_bytes());
        let expected: Vec<u8> = client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
        if STANDARD.encode(expected) != proof {
            say(json!({"error": "Wrong password", "error_code": 12, "success": false}));
            return Ok(false);
        }
        let proof = STANDARD.encode(hmac(&hmac(&salted, b"Server Key"), exchanged.as_bytes()));
        say(json!({"authentication": format!("v={proof}"), "success": true}));
        Ok(true)
    }

    fn answer(&self, token: u64, query: &Value, out: &mut TcpStream) -> std::io::Result<()> {
        let mut state = self.lock();
        let piece = state.piece;
        let missing = |name: &str| json!({"t": 18, "e": 4_100_000, "r": [format!("Table `test.{name}` does not exist.")], "b": []});
        let State { tables, feeds, is_held, .. } = &mut *state;
        match query[0].as_u64() {
            Some(2) => {
                let Some(feed) = feeds.iter_mut().find(|feed| feed.token == token && is_same(&feed.out, out)) else {
                    send(out, token, &json!({"t": 16, "r": [format!("Token {token} not in stream cache.")], "b": []}), piece);
                    return Ok(());
                };
                feed.is_asked = true;
                if let Some(table) = tables.get(&feed.table).filter(|_| !*is_held) {
                    feed.ask(&table.documents, piece);
                }
            }
            Some(5) => {
                let server = json!({"id": "1ea80156-ce6a-460c-9090-3923fe90936f", "name": "scripted", "proxy": false});
                send(out, token, &json!({"t": 5, "r": [server]}), piece);
            }
            _ => match query[1][0].as_u64() {
                Some(62) => send(out, token, &json!({"t": 1, "r": [tables.keys().collect::<Vec<_>>()]}), piece),
                Some(79) => {
                    let name = query[1][1][0][1][1].as_str().unwrap_or_default();
                    let answer = tables.get(name).map_or_else(|| missing(name), |table| info(name, table));
                    send(out, token, &answer, piece);
                }
                Some(152) => {
                    let name = query[1][1][0][1][1].as_str().unwrap_or_default();
                    let Some(table) = tables.get(name) else {
                        send(out, token, &missing(name), piece);
                        return Ok(());
                    };
                    let queue_size = query[1][2]["changefeed_queue_size"].as_u64().and_then(|size| size.try_into().ok()).unwrap_or(100_000);
                    let mut feed = Feed {
                        table: name.to_owned(),
                        token,
                        out: out.try_clone()?,
                        queue: VecDeque::new(),
                        queue_size,
                        skipped: 0,
                        scan: Some(String::new()),
                        is_asked: false,
                        is_begun: false,
                        is_ready: false,
                    };
                    feed.ask(&table.documents, piece);
                    feeds.push(feed);
                }
                _ => send(out, token, &json!({"t": 17, "r": ["Unknown term."], "b": []}), piece),
            },
        }
        Ok(())
    }
}

fn info(name: &str, table: &Table) -> Value {
    json!({"t": 1, "r": [{
        "db": {"id": "00000000-0000-0000-0000-000000000000", "name": "test", "type": "DB"}, "doc_count_estimates": [table.documents.len()],
        "id": table.uuid, "indexes": [], "name": name, "primary_key": table.primary_key, "type": "TABLE",
    }]})
}

fn is_same(left: &TcpStream, right: &TcpStream) -> bool {
    left.peer_addr().ok() == right.peer_addr().ok()
}

fn message(input: &mut BufReader<TcpStream>) -> std::io::Result<Value> {
    let mut bytes = Vec::new();
    input.read_until(0, &mut bytes)?;
    bytes.pop();
    Ok(serde_json::from_slice(&bytes)?)
}

fn query(input: &mut BufReader<TcpStream>) -> std::io::Result<(u64, Value)> {
    let (mut token, mut length) = ([0; 8], [0; 4]);
    input.read_exact(&mut token)?;
    input.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    input.read_exact(&mut body)?;
    Ok((u64::from_le_bytes(token), serde_json::from_slice(&body)?))
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let key = PKey::hmac(key).expect("a key");
    let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("a signer");
    signer.sign_oneshot_to_vec(message).expect("a code")
}
