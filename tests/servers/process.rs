//! One server as a child process on a leash.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

/// A running server: killed, and its directory removed, when this is dropped or the test process ends.
#[derive(Debug)]
pub(crate) struct Server {
    leash: Child,
    hold: Option<ChildStdin>,
    pid: Pid,
    directory: PathBuf,
}

impl Server {
    /// Starts `command`, whose data and log are in `directory`.
    pub(crate) fn start(directory: &Path, command: &[&str]) -> Self {
        let mut leash = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/leash"))
            .arg(directory)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C at the terminal is for the tests; the leash sees their end and cleans up.
            .process_group(0)
            .spawn()
            .expect("start tests/servers/leash, which needs bash");
        let hold = leash.stdin.take();
        let mut line = String::new();
        BufReader::new(leash.stdout.take().expect("standard output is a pipe")).read_line(&mut line).expect("read the server's process id");
        let pid = line.trim().parse().ok().and_then(Pid::from_raw).expect("the leash prints a process id");
        Self { leash, hold, pid, directory: directory.to_owned() }
    }

    /// The server's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether the process still runs.
    pub(crate) fn runs(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
    }

    /// Everything that it has printed.
    pub(crate) fn log(&self) -> String {
        log(&self.directory)
    }

    /// SIGKILL, and waits until it is gone. Its directory stays, for a later start.
    pub(crate) fn kill(mut self) {
        if let Some(mut hold) = self.hold.take() {
            writeln!(hold, "keep").expect("tell the leash");
        }
        self.leash.wait().expect("wait for the leash");
    }

    /// SIGSTOP: the connections stay open and nothing answers.
    pub(crate) fn pause(&self) {
        kill_process(self.pid, Signal::STOP).expect("stop the server's process");
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        kill_process(self.pid, Signal::CONT).expect("continue the server's process");
    }
}

/// Everything that a server with this directory has printed.
pub(crate) fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_default()
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.hold.take());
        if let Err(error) = self.leash.wait() {
            eprintln!("wait for the leash of {}: {error}", self.directory.display());
        }
    }
}
