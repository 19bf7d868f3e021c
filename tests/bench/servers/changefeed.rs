//! `RethinkDB`'s changefeed: feedline to Kafka beside a bare client, which takes each frame of the same feed and discards it; and what the local
//! store costs. The server is a scripted one in this process, so that the processor time of the others is their own.

use crate::{
    binlog::Speed,
    feedline::Feedline,
    kinds::{Bench, LIMIT, unique},
    meter, middle,
    report::Said,
    servers::{port::wait_for, rethinkdb::RethinkDb},
};
use feedline::net::{Scram, ScramHash};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command},
    time::{Duration, Instant},
};

/// A real server ends a batch at this size (`max_batch_bytes`).
const BATCH_BYTES: usize = 1_000_000;
/// What a real server needs for a document: 36,000 a second were measured.
pub(crate) const EACH_US: u64 = 28;
/// The table that feedline follows, and the bare client's. They hold the same.
const OWN: &str = "event";
const BARE: &str = "bare";
/// The thread that writes the local store.
const STORE_THREAD: &str = "rethinkdb-store";

/// Changes that were carried, or documents that were scanned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass {
    pub(crate) own: Speed,
    pub(crate) bare: Speed,
    /// For each of them: microseconds of processor time of the thread that writes the local store, and bytes that it wrote.
    pub(crate) store_us: f64,
    pub(crate) store_bytes: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) inserts: Pass,
    pub(crate) updates: Pass,
    /// The scan of a table that has not changed.
    pub(crate) scan: Pass,
    /// The size of the store after a table's first scan, for each document.
    pub(crate) document_bytes: f64,
}

/// A round over so many documents, for each of which the server needs so many microseconds.
pub(crate) fn round(bench: &Bench, documents: u32, each_us: u64) -> Round {
    let each = Duration::from_micros(each_us);
    let mut world = World::new(bench, documents, each);
    world.feedline.start();
    world.feedline.wait_until_live();
    let (inserts, updates) = (world.backlog("paid"), world.backlog("sent"));
    world.feedline.stop();
    world.remove();
    let mut world = World::new(bench, documents, each);
    for table in [OWN, BARE] {
        world.write(table, "paid");
    }
    world.feedline.start();
    world.feedline.wait_until_live();
    world.server.settle(OWN);
    world.feedline.stop();
    let document_bytes = world.per_document(fs::metadata(world.store()).unwrap().len());
    let scan = world.scan();
    world.remove();
    let round = Round { inserts, updates, scan, document_bytes };
    println!("{round:?}");
    round
}

/// The rounds with a server that only copies, and those with one that needs time.
pub(crate) fn report([fast, slow]: &[Vec<Round>; 2], said: &mut Said) {
    type Of = fn(&Round) -> Pass;
    let passes: [(&str, &str, Of); 3] = [
        ("RethinkDB (scripted) to Kafka, inserts", "events", |round| round.inserts),
        ("RethinkDB (scripted) to Kafka, updates", "events", |round| round.updates),
        ("RethinkDB (scripted), a scan of a table that has not changed", "documents", |round| round.scan),
    ];
    let mut ratios = Vec::new();
    for (what, unit, of) in passes {
        for (rounds, server) in [(fast, ""), (slow, ", from a server that sends 36,000 a second")] {
            let figure = |figure: fn(Pass) -> f64| middle(rounds, |round| figure(of(round)));
            let ratio = figure(|pass| pass.own.rate / pass.bare.rate);
            said.row(
                &format!("{what}{server}"),
                &format!("{:.0} {unit}/s, {:.2} µs of processor each", figure(|pass| pass.own.rate), figure(|pass| pass.own.processor_us)),
                &format!("{ratio:.2} x a bare feed ({:.0} {unit}/s)", figure(|pass| pass.bare.rate)),
            );
            ratios.push(ratio);
        }
        said.row(
            "of the first, the local store",
            &format!(
                "{:.2} µs of processor each, {:.0} bytes written",
                middle(fast, |round| of(round).store_us),
                middle(fast, |round| of(round).store_bytes)
            ),
            "",
        );
    }
    let document_bytes = middle(fast, |round| round.document_bytes);
    said.row(
        &format!("the file of the local store, documents of {} bytes", document(1_000, "paid").to_string().len()),
        &format!("{document_bytes:.0} bytes each"),
        "",
    );
    said.ratio(&format!(
        "RethinkDB to Kafka, from a scripted server that sends 36,000 changes a second as a real one was measured to: {:.2} times the rate of a \
         bare changefeed whose frames are discarded, updates {:.2} times; a scan of a table that has not changed {:.2} times.",
        ratios[1], ratios[3], ratios[5]
    ));
}

/// A server, and the pipeline that follows one of its tables.
struct World<'b> {
    bench: &'b Bench,
    server: RethinkDb,
    name: String,
    feedline: Feedline,
    documents: u32,
}

impl<'b> World<'b> {
    fn new(bench: &'b Bench, documents: u32, each: Duration) -> Self {
        let (server, name) = (RethinkDb::start(), unique());
        server.send_batches_of(BATCH_BYTES, each);
        for table in [OWN, BARE] {
            server.create_table(table, "id");
        }
        let source = format!(
            "kind = \"rethinkdb\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"admin\"\ndatabase = \"test\"\ntls = \"disable\"\nstore = \"{}\"",
            server.port(),
            store(bench, &name).display()
        );
        let feedline = bench.feedline(&name, &source, OWN, "none", 2);
        Self { bench, server, name, feedline, documents }
    }

    fn store(&self) -> PathBuf {
        store(self.bench, &self.name)
    }

    /// Frees the disk.
    fn remove(self) {
        self.bench.kafka.delete_topics(&[&format!("{}.test.{OWN}", self.name)]);
        drop(self.feedline);
        fs::remove_dir_all(self.bench.directory.join(&self.name)).unwrap();
    }

    fn write(&self, table: &str, status: &str) {
        (0..self.documents).for_each(|id| self.server.put(table, &document(id, status)));
    }

    /// Both get the same backlog, one after the other.
    fn backlog(&self, status: &str) -> Pass {
        let client = Client::follow(&self.server);
        self.server.settle(BARE);
        let bare = self.released(BARE, status, client.0.id(), || self.server.settle(BARE));
        drop(client);
        self.server.settle(OWN);
        let (pid, before) = (self.feedline.pid(), self.feedline.confirmed());
        let (own, store_us, store_bytes) = self.with_store(pid, || {
            let all = before + u64::from(self.documents);
            let carried = || wait_for("the backlog is carried", LIMIT, || (all <= self.feedline.confirmed()).then_some(()));
            let own = self.released(OWN, status, pid, carried);
            let is_trimmed = || self.feedline.value("feedline_source_retained_bytes{") == Some(0.0);
            wait_for("the log is removed", LIMIT, || is_trimmed().then_some(()));
            own
        });
        Pass { own, bare, store_us, store_bytes }
    }

    /// Lets the server queue a change of each document, and measures this process from the first batch on.
    fn released(&self, table: &str, status: &str, pid: u32, wait: impl FnOnce()) -> Speed {
        self.server.hold(true);
        self.write(table, status);
        let (started, before) = (Instant::now(), meter::processor(pid));
        self.server.hold(false);
        wait();
        speed(started, self.documents, meter::processor(pid).saturating_sub(before))
    }

    fn scan(&mut self) -> Pass {
        let client = Client::follow(&self.server);
        self.server.wait_for_feeds(BARE, 1);
        let started = Instant::now();
        self.server.settle(BARE);
        let bare = speed(started, self.documents, meter::processor(client.0.id()));
        drop(client);
        self.feedline.start();
        let (pid, scanned) = (self.feedline.pid(), || self.feedline.count("feedline_source_scanned_rows_total", ""));
        let first = wait_for("the scan begins", LIMIT, || Some(scanned()).filter(|scanned| 0 < *scanned));
        let left = self.documents - u32::try_from(first).unwrap();
        let (own, store_us, store_bytes) = self.with_store(pid, || {
            let (started, before) = (Instant::now(), meter::processor(pid));
            wait_for("the table is scanned", LIMIT, || (u64::from(self.documents) <= scanned()).then_some(()));
            speed(started, left, meter::processor(pid).saturating_sub(before))
        });
        let share = f64::from(self.documents) / f64::from(left);
        self.feedline.stop();
        Pass { own, bare, store_us: store_us * share, store_bytes: store_bytes * share }
    }

    /// For each document what the thread that writes the store uses meanwhile: microseconds, and bytes.
    fn with_store(&self, pid: u32, work: impl FnOnce() -> Speed) -> (Speed, f64, f64) {
        let (processor, bytes) = meter::thread(pid, STORE_THREAD);
        let speed = work();
        let (processor_after, bytes_after) = meter::thread(pid, STORE_THREAD);
        let microseconds = processor_after.saturating_sub(processor).as_secs_f64() * 1e6 / f64::from(self.documents);
        (speed, microseconds, self.per_document(bytes_after - bytes))
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure of a report")]
    fn per_document(&self, total: u64) -> f64 {
        total as f64 / f64::from(self.documents)
    }
}

fn speed(started: Instant, documents: u32, processor: Duration) -> Speed {
    let documents = f64::from(documents);
    Speed { rate: documents / started.elapsed().as_secs_f64(), processor_us: processor.as_secs_f64() * 1e6 / documents }
}

fn store(bench: &Bench, name: &str) -> PathBuf {
    bench.directory.join(name).join("store")
}

/// Six fields, 200 bytes.
fn document(id: u32, status: &str) -> Value {
    let amount = format!("{}.{:02}", id % 100, id % 7);
    json!({"id": id, "customer": id % 1_000, "status": status, "amount": amount, "note": "x".repeat(130), "sent_us": 0})
}

/// The bare client: this program in another process, which ends with this.
struct Client(Child);

impl Client {
    fn follow(server: &RethinkDb) -> Self {
        let this = std::env::current_exe().unwrap();
        Self(Command::new(this).args(["bare-changefeed", &server.port().to_string(), BARE]).spawn().unwrap())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Runs as the bare client: takes each frame of the table's changefeed, asks for the next one, and decodes nothing.
pub(crate) fn follow(port: u16, table: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut input = BufReader::new(stream.try_clone().unwrap());
    log_in(&mut stream, &mut input);
    let options = json!({"include_initial": true, "include_states": true, "include_types": true, "changefeed_queue_size": 1_000_000});
    ask(&mut stream, &json!([1, [152, [[15, [[14, ["test"]], table]]], options], {}]).to_string());
    let (mut header, mut body) = ([0; 12], Vec::new());
    // Until it is killed.
    loop {
        input.read_exact(&mut header).unwrap();
        body.resize(u32::from_le_bytes(*header.last_chunk().unwrap()) as usize, 0);
        input.read_exact(&mut body).unwrap();
        ask(&mut stream, "[2]");
    }
}

/// Sends a query with the only token.
fn ask(stream: &mut TcpStream, query: &str) {
    let length = u32::try_from(query.len()).unwrap();
    stream.write_all(&[&1_u64.to_le_bytes()[..], &length.to_le_bytes(), query.as_bytes()].concat()).unwrap();
}

/// The handshake `V1_0`, as the user `admin` without a password.
fn log_in(stream: &mut TcpStream, input: &mut BufReader<TcpStream>) {
    let mut scram = Scram::new(ScramHash::Sha256, 1, "admin", String::new()).unwrap();
    let first = json!({"protocol_version": 0, "authentication_method": "SCRAM-SHA-256", "authentication": scram.first_message()});
    stream.write_all(&[&[0xC3, 0xBD, 0xC2, 0x34], first.to_string().as_bytes(), b"\0"].concat()).unwrap();
    drop(message(input));
    let said = message(input);
    let proof = json!({"authentication": scram.answer(said["authentication"].as_str().unwrap()).unwrap()});
    stream.write_all(format!("{proof}\0").as_bytes()).unwrap();
    assert_eq!(message(input)["success"], true);
}

fn message(input: &mut BufReader<TcpStream>) -> Value {
    let mut bytes = Vec::new();
    input.read_until(0, &mut bytes).unwrap();
    bytes.pop();
    serde_json::from_slice(&bytes).unwrap()
}
