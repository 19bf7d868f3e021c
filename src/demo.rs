//! The demonstration: a whole pipeline that needs no server.
//!
//! A shop writes to a SQLite database; the real pipeline carries its changes to a broker that speaks Kafka's protocol
//! (librdkafka's mock cluster, in this process); an ordinary consumer reads them back, and each is printed.

use crate::assemble::{self, Running};
use crate::config::{Inputs, Plan, Problems, load};
use crate::event::Timestamp;
use crate::pipeline::Ending;
use print::Printer;
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use reader::{Event, Reader};
use shop::Shop;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

mod print;
mod reader;
mod shop;

/// How long the last changes may take to come back once the shop is closed.
const SETTLING: Duration = Duration::from_secs(5);

/// How the demonstration is shown.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long; `None` until it is stopped.
    pub length: Option<Duration>,
    /// How many rows change a second.
    pub rate: u32,
    /// Whether there are colours.
    pub colour: bool,
    /// Where metrics are served; `None` for port 9464, or a free one where that is taken.
    pub listen: Option<SocketAddr>,
}

/// Why it could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory, a thread or the terminal.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The shop's database.
    #[error("the demonstration's database: {0}")]
    Shop(#[from] rusqlite::Error),
    /// The broker, or the subscriber.
    #[error("the demonstration's broker: {0}")]
    Broker(#[from] KafkaError),
    /// The pipeline's configuration.
    #[error("{0}")]
    Configuration(#[from] Problems),
    /// The metrics' address.
    #[error("{0}")]
    Admin(#[from] crate::admin::Error),
}

/// A directory that goes when the demonstration does.
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("feedline-demo-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), error = %error, "the demonstration's directory stays");
        }
    }
}

/// What the printing has seen.
#[derive(Default)]
struct Seen {
    existing: u64,
    live: u64,
    position: String,
}

/// Shows it until its time is over or `stop` is cancelled; how the pipeline ended.
///
/// # Errors
/// Where the parts around the pipeline cannot be made.
pub async fn run(options: Options, stop: CancellationToken) -> Result<Ending, Error> {
    let directory = Directory::new()?;
    let database = directory.0.join("shop.db");
    shop::make(&database)?;
    let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1)?;
    let topics: Vec<String> = shop::TABLES.iter().map(|table| format!("demo.main.{table}")).collect();
    for topic in &topics {
        cluster.create_topic(topic, 1, 1)?;
    }
    let servers = cluster.bootstrap_servers();
    let mut plan = plan(&directory, &servers)?;
    let running = prepare(&mut plan, options.listen).await?;
    let (reader, events) = Reader::start(&servers, &topics)?;
    let mut stage = Stage { printer: Printer::new(options.colour), seen: Seen::default(), events, options, database };
    stage.title(&servers, running.address())?;
    let metrics = running.metrics.clone();
    let halt = CancellationToken::new();
    let mut pipeline = std::pin::pin!(assemble::run(plan, running, false, halt.clone()));

    let written = tokio::select! { biased;
        ending = &mut pipeline => {
            reader.stop();
            return Ok(ending);
        }
        written = stage.show(&stop) => written?,
    };
    halt.cancel();
    let ending = pipeline.await;
    reader.stop();
    let confirmed = metrics.sink_events.get();
    stage.close(written, confirmed, metrics.sink_inflight_events.get().unsigned_abs())?;
    Ok(ending)
}

/// The pipeline's configuration, checked as any other.
fn plan(directory: &Directory, servers: &str) -> Result<Plan, Problems> {
    let place = |name: &str| directory.0.join(name).display().to_string();
    let arguments = vec![
        "name=demo".to_owned(),
        "source.kind=sqlite".to_owned(),
        format!("source.path={}", place("shop.db")),
        format!("feeds=[{{tables=[\"{}\"]}}]", shop::TABLES.join("\",\"")),
        "sink.kind=kafka".to_owned(),
        format!("sink.bootstrap_servers={servers}"),
        // Without them each line is a record.
        "sink.tombstones=false".to_owned(),
        format!("checkpoint.path={}", place("demo.checkpoint")),
    ];
    load(&Inputs { file: None, environment: Vec::new(), arguments }).map(|loaded| loaded.plan)
}

/// Listens on the address that was asked for, else on the default one, else on a free port.
async fn prepare(plan: &mut Plan, listen: Option<SocketAddr>) -> Result<Running, Error> {
    if listen.is_some() {
        plan.admin = listen;
        return Ok(Running::prepare(plan).await?);
    }
    if let Ok(running) = Running::prepare(plan).await {
        return Ok(running);
    }
    plan.admin = plan.admin.map(|address| SocketAddr::new(address.ip(), 0));
    Ok(Running::prepare(plan).await?)
}

/// What is shown, and to whom.
struct Stage {
    printer: Printer,
    seen: Seen,
    events: mpsc::Receiver<Event>,
    options: Options,
    database: PathBuf,
}

impl Stage {
    fn title(&self, servers: &str, address: Option<SocketAddr>) -> io::Result<()> {
        let p = &self.printer;
        let line =
            |name: &str, what: &str, note: &str| format!("  {}{what}  {}\n", p.paint("2", &format!("{name:<10}")), p.paint("2", note));
        let mut out = format!("\n  {}  {}\n\n", p.paint("1", "feedline demo"), p.paint("2", "every change of a database, on Kafka topics"));
        out += &line("source", "SQLite", &format!("{}, written by another thread", self.database.display()));
        out += &line("sink", "Kafka", &format!("{servers}, a broker in this process; an ordinary consumer reads it back"));
        if let Some(address) = address {
            out += &line("metrics", &format!("http://{address}/metrics"), "also /readyz /livez /version");
        }
        let ends = self.options.length.map_or_else(String::new, |length| format!(", or after {} s", length.as_secs()));
        out += &line("stop", "Ctrl-C", ends.trim_start_matches(", "));
        out += "\n";
        out += &p.header();
        out += &p.rule("prefeed: the rows that are there already");
        write(&out)
    }

    /// Prints until the end; returns how many rows the shop has changed. The shop opens when the existing rows are through.
    async fn show(&mut self, stop: &CancellationToken) -> Result<u64, Error> {
        let until = self.options.length.map(|length| Instant::now() + length);
        let over = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let mut over = std::pin::pin!(over);
        let mut open: Option<Shop> = None;
        loop {
            tokio::select! { biased;
                () = stop.cancelled() => break,
                () = &mut over => break,
                Some(event) = self.events.recv() => self.print(&event)?,
            }
            if open.is_none() && self.seen.existing == shop::EXISTING {
                write(&self.printer.rule("live: the shop is open"))?;
                open = Some(Shop::open(&self.database, self.options.rate)?);
            }
        }
        let written = match open {
            Some(trader) => tokio::task::spawn_blocking(move || trader.close()).await.map_err(io::Error::other)??,
            None => 0,
        };
        // What the shop wrote last is still on its way.
        let settled = Instant::now() + SETTLING;
        while self.seen.live < written {
            let Ok(Some(event)) = tokio::time::timeout_at(settled, self.events.recv()).await else { break };
            self.print(&event)?;
        }
        Ok(written)
    }

    fn print(&mut self, event: &Event) -> io::Result<()> {
        if event.operation == "read" {
            self.seen.existing += 1;
        } else {
            self.seen.live += 1;
        }
        if self.seen.position < event.source.position {
            self.seen.position.clone_from(&event.source.position);
        }
        let line = self.printer.event(event, Timestamp::now());
        write(&line)
    }

    fn close(&self, written: u64, confirmed: u64, inflight: u64) -> io::Result<()> {
        let p = &self.printer;
        let sent = confirmed + inflight;
        let whole = confirmed == self.seen.existing + self.seen.live && self.seen.live == written;
        let verdict = if whole { p.paint("1;32", "nothing lost, nothing twice") } else { p.paint("1;33", "see the log") };
        let rows = self.seen.existing;
        let position = &self.seen.position;
        write(&format!(
            "{}  {sent} sent, {confirmed} confirmed ({rows} existing rows, {written} changes): {verdict}\n  position {position}\n\n",
            p.rule("stopped")
        ))
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
