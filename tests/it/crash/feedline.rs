//! The real program as a child process.

use crate::servers::port;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// One pipeline's configuration, and its process while it runs.
pub(crate) struct Feedline {
    directory: PathBuf,
    admin: u16,
    child: Option<Child>,
}

impl Feedline {
    /// Writes the configuration, and chooses where health and metrics are asked for.
    pub(crate) fn new(directory: &Path, configuration: &str) -> Self {
        let feedline = Self { directory: directory.to_owned(), admin: port::free(), child: None };
        feedline.configure(configuration);
        feedline
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with more arguments.
    pub(crate) fn start_with(&mut self, arguments: &[&str]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log"));
        let child = Command::new(env!("CARGO_BIN_EXE_feedline"))
            .args(["run", "-c"])
            .arg(self.directory.join("feedline.toml"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("open the log"))
            .spawn();
        self.child = Some(child.expect("start feedline"));
    }

    /// Panics, with the end of its log, where it has ended by itself.
    pub(crate) fn assert_runs(&mut self) {
        let child = self.child.as_mut().expect("it was started");
        if let Some(status) = child.try_wait().expect("ask for its end") {
            panic!("feedline ended by itself, {status}: {}", self.log());
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.assert_runs();
        let mut child = self.child.take().expect("it was started");
        child.kill().expect("kill feedline");
        child.wait().expect("wait for its end");
    }

    /// SIGSTOP: its connections stay open, and it does nothing.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends [`Self::pause`].
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it was started");
        kill_process(Pid::from_child(child), signal).expect("signal feedline");
    }

    /// SIGTERM, upon which it must drain and end with 0.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let child = self.child.as_mut().expect("it was started");
        let status = port::wait_for("feedline drains and stops", Duration::from_secs(30), || child.try_wait().expect("ask for its end"));
        self.child = None;
        assert!(status.success(), "feedline stopped with {status}: {}", self.log());
    }

    /// Waits until all tables are read. Stopped before, it would end well too, and read on at the next start.
    pub(crate) fn wait_until_live(&mut self) {
        self.wait_until_live_while(|_| {});
    }

    /// The same, with something to be done now and then.
    pub(crate) fn wait_until_live_while(&mut self, mut meanwhile: impl FnMut(&Self)) {
        // A broker that is slower than the writers holds it up.
        port::wait_for("the prefeed ends", Duration::from_mins(8), || {
            self.assert_runs();
            meanwhile(self);
            self.is_live().then_some(())
        });
    }

    /// Waits until it ends by itself, and returns its exit status and the end of its log.
    pub(crate) fn wait_for_end(&mut self) -> (Option<i32>, String) {
        let child = self.child.as_mut().expect("it was started");
        let status = port::wait_for("feedline ends by itself", Duration::from_mins(2), || child.try_wait().expect("ask for its end"));
        self.child = None;
        (status.code(), self.log())
    }

    /// Whether the metrics say that all tables are read and live.
    pub(crate) fn is_live(&self) -> bool {
        self.probe().metrics().is_ok_and(|metrics| metrics.is_live())
    }

    /// Records that the broker has confirmed to this process.
    pub(crate) fn confirmed(&self) -> u64 {
        self.count("feedline_sink_events_total", "")
    }

    /// The sum of a metric over the series with this label; 0 while the process starts.
    pub(crate) fn count(&self, metric: &str, label: &str) -> u64 {
        self.probe().metrics().map_or(0, |metrics| metrics.sum(metric, label))
    }

    /// How often a part of it started again for this reason.
    pub(crate) fn restarts(&self, reason: &str) -> u64 {
        self.count("feedline_pipeline_restarts_total", &format!("reason=\"{reason}\""))
    }

    /// The lag in seconds that the metrics show; `None` while none is known.
    pub(crate) fn lag_seconds(&self) -> Option<f64> {
        self.value("feedline_lag_seconds{")
    }

    /// The value of the first series that begins so; `None` while there is none.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        let metrics = self.metrics().ok()?;
        metrics.lines().find(|line| line.starts_with(series))?.rsplit(' ').next()?.parse().ok()
    }

    /// Whom to ask how it is.
    pub(crate) fn probe(&self) -> Probe {
        Probe(self.admin)
    }

    /// What is asked of it at the next start; its address stays.
    pub(crate) fn configure(&self, configuration: &str) {
        let configuration = format!("{configuration}[admin]\nlisten = \"127.0.0.1:{}\"\n", self.admin);
        fs::write(self.directory.join("feedline.toml"), configuration).expect("write the configuration");
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    /// What Prometheus would get; an error while the process starts.
    pub(crate) fn metrics(&self) -> io::Result<String> {
        self.probe().get("/metrics")
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Feedline {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child
            && let Err(error) = child.kill().and_then(|()| child.wait().map(drop))
        {
            eprintln!("kill feedline: {error}");
        }
    }
}

/// Health and metrics of a process, which outlive it.
#[derive(Clone, Copy)]
pub(crate) struct Probe(u16);

impl Probe {
    /// The answer's status, headers and text; an error while there is no process.
    pub(crate) fn get(self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.0))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    pub(crate) fn metrics(self) -> io::Result<Metrics> {
        self.get("/metrics").map(Metrics)
    }
}

/// What the metrics said at one moment.
pub(crate) struct Metrics(String);

impl Metrics {
    /// Whether all tables are read and live.
    pub(crate) fn is_live(&self) -> bool {
        self.sum("feedline_pipeline_state", "state=\"live\"") == 1
    }

    /// The sum of a metric over the series with this label.
    pub(crate) fn sum(&self, metric: &str, label: &str) -> u64 {
        self.series(metric).filter(|(labels, _)| labels.contains(label)).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    }

    /// How long the longest save of a checkpoint took at most.
    pub(crate) fn longest_save(&self) -> Duration {
        let saves = self.sum("feedline_checkpoint_commit_duration_seconds_count", "");
        let mut buckets = self.series("feedline_checkpoint_commit_duration_seconds_bucket");
        let all = buckets.find(|(_, count)| count.parse() == Ok(saves));
        let bound = all.and_then(|(labels, _)| labels.split_once("le=\"")?.1.split_once('"')?.0.parse().ok());
        bound.filter(|seconds: &f64| seconds.is_finite()).map_or(Duration::ZERO, Duration::from_secs_f64)
    }

    /// Labels and value of each series of a metric.
    fn series<'m>(&'m self, metric: &'m str) -> impl Iterator<Item = (&'m str, &'m str)> {
        let lines = self.0.lines().filter_map(move |line| line.strip_prefix(metric)?.strip_prefix('{'));
        lines.filter_map(|line| line.rsplit_once("} "))
    }
}
