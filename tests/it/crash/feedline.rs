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
        let admin = port::free();
        let configuration = format!("{configuration}[admin]\nlisten = \"127.0.0.1:{admin}\"\n");
        fs::write(directory.join("feedline.toml"), configuration).expect("write the configuration");
        Self { directory: directory.to_owned(), admin, child: None }
    }

    pub(crate) fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log"));
        let child = Command::new(env!("CARGO_BIN_EXE_feedline"))
            .args(["run", "-c"])
            .arg(self.directory.join("feedline.toml"))
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

    /// SIGTERM, upon which it must drain and end with 0.
    pub(crate) fn stop(&mut self) {
        let child = self.child.as_mut().expect("it was started");
        let pid = Pid::from_child(child);
        kill_process(pid, Signal::TERM).expect("signal feedline");
        let status = port::wait_for("feedline drains and stops", Duration::from_secs(30), || child.try_wait().expect("ask for its end"));
        self.child = None;
        assert!(status.success(), "feedline stopped with {status}: {}", self.log());
    }

    /// Waits until it ends by itself, and how it did: its status and the end of its log.
    pub(crate) fn wait_until_ended(&mut self) -> (Option<i32>, String) {
        let mut child = self.child.take().expect("it was started");
        let status = port::wait_for("feedline ends", Duration::from_mins(1), || child.try_wait().expect("ask for its end"));
        (status.code(), self.log())
    }

    /// Waits until all tables are read. Stopped before, it would end well too, and read on at the next start.
    pub(crate) fn wait_until_live(&mut self) {
        port::wait_for("the prefeed ends", Duration::from_mins(2), || {
            self.assert_runs();
            self.is_live().then_some(())
        });
    }

    /// Whether the metrics say that all tables are read and live.
    pub(crate) fn is_live(&self) -> bool {
        let metrics = self.metrics().unwrap_or_default();
        metrics.lines().any(|line| line.starts_with("feedline_pipeline_state{") && line.contains("state=\"live\"") && line.ends_with(" 1"))
    }

    /// Records that the broker has confirmed to this process.
    pub(crate) fn confirmed(&self) -> u64 {
        let metrics = self.metrics().unwrap_or_default();
        let counters = metrics.lines().filter(|line| line.starts_with("feedline_sink_events_total"));
        counters.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// The lag in seconds that the metrics show; `None` while none is known.
    pub(crate) fn lag_seconds(&self) -> Option<f64> {
        let metrics = self.metrics().ok()?;
        metrics.lines().find(|line| line.starts_with("feedline_lag_seconds"))?.rsplit(' ').next()?.parse().ok()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    /// What Prometheus would get; an error while the process starts.
    pub(crate) fn metrics(&self) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
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
