//! The demonstration: a complete pipeline that needs no server.
//!
//! An imaginary shop writes to a SQLite database. The real pipeline carries its changes to a broker that speaks Kafka's protocol
//! (librdkafka's mock cluster, in this process). An ordinary consumer reads the events, and each one is printed.

use crate::assemble::{self, Running};
use crate::config::{Inputs, Plan, Problems, load};
use crate::event::Timestamp;
use crate::pipeline::Ending;
use print::Printer;
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use shop::Shop;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use subscriber::{Event, Subscriber};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

mod print;
mod shop;
mod subscriber;

/// The name of its pipeline.
pub const NAME: &str = "demo";

/// How long the last changes may take to arrive after the shop has closed.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The options of the demonstration.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long it runs; `None` until it is stopped.
    pub length: Option<Duration>,
    /// Row changes per second.
    pub rate: u32,
    /// Whether the output is coloured.
    pub colour: bool,
    /// Address for metrics; `None` for port 9464, or a free port if that is in use.
    pub listen: Option<SocketAddr>,
}

/// Why the demonstration cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory, a thread or the terminal.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The shop's database.
    #[error("the demonstration's database: {0}")]
    Shop(#[from] rusqlite::Error),
    /// The broker or the subscriber.
    #[error("the demonstration's broker: {0}")]
    Broker(#[from] KafkaError),
    /// The pipeline's configuration.
    #[error("{0}")]
    Configuration(#[from] Problems),
    /// The address for metrics.
    #[error("{0}")]
    Admin(#[from] crate::admin::Error),
}

/// A directory that is removed at the end.
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
            tracing::warn!(path = %self.0.display(), error = %error, "cannot remove the demonstration's directory");
        }
    }
}

/// The totals of printed events.
#[derive(Default)]
struct Totals {
    existing: u64,
    live: u64,
    /// The highest position.
    position: String,
}

/// Runs the demonstration until its time is over or `stop` is cancelled. Returns how the pipeline ended.
///
/// # Errors
/// If the parts around the pipeline cannot be created.
pub async fn run(options: Options, stop: CancellationToken) -> Result<Ending, Error> {
    let directory = Directory::new()?;
    let database = directory.0.join("shop.db");
    shop::create_database(&database)?;
    let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1)?;
    let topics: Vec<String> = shop::TABLES.iter().map(|table| format!("demo.main.{table}")).collect();
    for topic in &topics {
        cluster.create_topic(topic, 1, 1)?;
    }
    let servers = cluster.bootstrap_servers();
    let mut plan = plan(&directory, &servers)?;
    let running = prepare(&mut plan, options.listen).await?;
    let (subscriber, events) = Subscriber::start(&servers, &topics)?;
    let mut show = Show { printer: Printer::new(options.colour), totals: Totals::default(), events, options, database };
    show.title(&servers, running.address())?;
    let (metrics, status) = (running.metrics.clone(), running.status.clone());
    let pipeline_stop = CancellationToken::new();
    let mut pipeline = std::pin::pin!(assemble::run(plan, running, false, pipeline_stop.clone()));

    let written = tokio::select! { biased;
        ending = &mut pipeline => {
            subscriber.stop();
            return Ok(ending);
        }
        written = show.run(&stop) => written?,
    };
    pipeline_stop.cancel();
    let ending = pipeline.await;
    subscriber.stop();
    let confirmed = metrics.sink_events.get();
    let submitted = status.read().in_flight.submitted();
    show.summary(written, confirmed, submitted)?;
    Ok(ending)
}

/// Builds the pipeline's plan from an ordinary configuration.
fn plan(directory: &Directory, servers: &str) -> Result<Plan, Problems> {
    let file = |name: &str| directory.0.join(name).display().to_string();
    let arguments = vec![
        format!("name={NAME}"),
        "source.kind=sqlite".to_owned(),
        format!("source.path={}", file("shop.db")),
        format!("feeds=[{{tables=[\"{}\"]}}]", shop::TABLES.join("\",\"")),
        "sink.kind=kafka".to_owned(),
        format!("sink.bootstrap_servers={servers}"),
        // Without tombstones, each printed line is one record.
        "sink.tombstones=false".to_owned(),
        format!("checkpoint.path={}", file("demo.checkpoint")),
    ];
    load(&Inputs { file: None, environment: Vec::new(), arguments }).map(|loaded| loaded.plan)
}

/// Listens on the given address, or else on the default one, or else on a free port.
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

/// The printed part of the demonstration.
struct Show {
    printer: Printer,
    totals: Totals,
    events: mpsc::Receiver<Event>,
    options: Options,
    database: PathBuf,
}

impl Show {
    fn title(&self, servers: &str, address: Option<SocketAddr>) -> io::Result<()> {
        let p = &self.printer;
        let line =
            |name: &str, value: &str, note: &str| format!("  {}{value}  {}\n", p.paint("2", &format!("{name:<10}")), p.paint("2", note));
        let mut out = format!("\n  {}  {}\n\n", p.paint("1", "feedline demo"), p.paint("2", "every change of a database, on Kafka topics"));
        out += &line("source", "SQLite", &format!("{}, written by another thread", self.database.display()));
        out += &line("sink", "Kafka", &format!("{servers}, a broker in this process; an ordinary consumer reads the events"));
        if let Some(address) = address {
            out += &line("metrics", &format!("http://{address}/metrics"), "also /readyz /livez /version");
        }
        let ends = self.options.length.map_or_else(String::new, |length| format!(", or after {} s", length.as_secs()));
        out += &line("stop", "Ctrl-C", ends.trim_start_matches(", "));
        out += "\n";
        out += &p.header();
        out += &p.rule("prefeed: existing rows");
        write(&out)
    }

    /// Prints events until the end. The shop opens after the existing rows have arrived. Returns the number of rows that it changed.
    async fn run(&mut self, stop: &CancellationToken) -> Result<u64, Error> {
        let until = self.options.length.map(|length| Instant::now() + length);
        let time_over = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let mut time_over = std::pin::pin!(time_over);
        let mut opened: Option<Shop> = None;
        loop {
            tokio::select! { biased;
                () = stop.cancelled() => break,
                () = &mut time_over => break,
                Some(event) = self.events.recv() => self.print(&event)?,
            }
            if opened.is_none() && self.totals.existing == shop::EXISTING {
                write(&self.printer.rule("live: the shop is open"))?;
                opened = Some(Shop::open(&self.database, self.options.rate)?);
            }
        }
        let written = match opened {
            Some(open) => tokio::task::spawn_blocking(move || open.close()).await.map_err(io::Error::other)??,
            None => 0,
        };
        // The last changes are still on their way.
        let until = Instant::now() + SETTLE_TIMEOUT;
        while self.totals.live < written {
            let Ok(Some(event)) = tokio::time::timeout_at(until, self.events.recv()).await else { break };
            self.print(&event)?;
        }
        Ok(written)
    }

    fn print(&mut self, event: &Event) -> io::Result<()> {
        if event.operation == "read" {
            self.totals.existing += 1;
        } else {
            self.totals.live += 1;
        }
        if self.totals.position < event.source.position {
            self.totals.position.clone_from(&event.source.position);
        }
        let line = self.printer.event(event, Timestamp::now());
        write(&line)
    }

    fn summary(&self, written: u64, confirmed: u64, inflight: u64) -> io::Result<()> {
        let p = &self.printer;
        let sent = confirmed + inflight;
        let is_complete = confirmed == self.totals.existing + self.totals.live && self.totals.live == written;
        let verdict = if is_complete { p.paint("1;32", "nothing lost, nothing twice") } else { p.paint("1;33", "see the log") };
        let rows = self.totals.existing;
        let position = &self.totals.position;
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
