//! A blocked or broken standard error does not stop the pipeline.

use super::{Directory, eventually, feedline, get, text};
use crate::children::Lines;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};

/// A process that is killed if the test fails.
struct Process(Child);

impl Process {
    fn start(configuration: &Path, arguments: &[&str], stderr: impl Into<Stdio>) -> Self {
        let mut command = feedline(&["run", "-c", configuration.to_str().unwrap()]);
        Self(command.args(arguments).stdout(Stdio::null()).stderr(stderr).spawn().unwrap())
    }

    fn stop(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        self.end()
    }

    fn end(&mut self) -> Option<i32> {
        eventually("the end of the process", || self.0.try_wait().unwrap()).code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_full_disk_for_the_log_stops_no_event() {
    let directory = Directory::new();
    let path = directory.pipeline();
    for (start, row) in [(1, "c"), (2, "d")] {
        let mut run = Process::start(&path, &[], full());
        directory.execute(&format!("INSERT INTO t (v) VALUES ('{row}')"));
        eventually("events", || (directory.lines().len() == 2 + start).then_some(()));
        assert_eq!(run.stop(), Some(0));
    }
}

#[test]
fn a_closed_log_pipe_stops_no_event() {
    let directory = Directory::new();
    let path = directory.pipeline();
    let mut run = Process::start(&path, &[], Stdio::piped());
    eventually("existing rows", || (directory.lines().len() == 2).then_some(()));
    drop(run.0.stderr.take());
    directory.execute("INSERT INTO t (v) VALUES ('c')");
    eventually("events", || (directory.lines().len() == 3).then_some(()));
    assert_eq!(run.stop(), Some(0));
}

#[test]
fn a_full_log_pipe_stops_neither_events_nor_probes_nor_the_end() {
    let directory = Directory::new();
    let path = directory.pipeline();
    // A pipe that is full before the first line.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let fills = writer.try_clone().unwrap();
    std::thread::spawn(move || writer.write_all(&vec![b'\n'; 1 << 20]));
    eventually("a full pipe", || {
        let mut full = [rustix::event::PollFd::new(&fills, rustix::event::PollFlags::OUT)];
        (rustix::event::poll(&mut full, Some(&rustix::event::Timespec::default())).unwrap() == 0).then_some(())
    });
    let port = crate::servers::port::free();
    let listen = format!("admin.listen=127.0.0.1:{port}");
    let mut run = Process::start(&path, &["--set", &listen], fills.try_clone().unwrap());
    eventually("events", || (directory.lines().len() == 2).then_some(()));
    eventually("readiness", || (get(([127, 0, 0, 1], port).into(), "/readyz").0 == 200).then_some(()));
    assert_eq!(run.stop(), Some(0));
    std::fs::remove_file(directory.0.join("cli.checkpoint")).unwrap();
    let mut failed = Process::start(&path, &[], fills);
    assert_eq!(failed.end(), Some(70), "FL2013: the source remembers the pipeline");
    drop(reader);
}

/// Names of tables come from others.
#[test]
fn control_characters_in_names_are_escaped_in_the_log() {
    let directory = Directory::new();
    let path = directory.pipeline();
    directory.execute("CREATE TABLE \"t\u{1b}]0;mine\u{7}\u{9b}2J\u{202e}\" (id INTEGER PRIMARY KEY)");
    for format in ["pretty", "json"] {
        let mut run =
            Process::start(&path, &["--set", "feeds=[{tables=[\"t*\"]}]", "--set", &format!("log.format={format}")], Stdio::piped());
        let log = Lines::of(run.0.stderr.take().unwrap());
        let mut said = log.until("live: what is committed is published");
        assert_eq!(run.stop(), Some(0));
        said += &log.rest();
        assert!(said.contains("]0;mine\\u0007\\u009b2J\\u202e"), "{said}");
        assert!(!said.contains(|sign: char| sign.is_control() && sign != '\n' || sign == '\u{202e}'), "{said:?}");
        std::fs::remove_file(directory.0.join("cli.checkpoint")).unwrap();
        std::fs::remove_file(directory.0.join("out.jsonl")).unwrap();
        assert!(feedline(&["detach", "--yes", "--without-checkpoint", "-c", path.to_str().unwrap()]).status().unwrap().success());
    }
}

/// Also those of the threads that read the log, at the level at which most is said.
#[test]
fn each_line_names_the_pipeline_and_none_shows_sql_or_a_row() {
    let directory = Directory::new();
    let path = directory.pipeline();
    directory.execute("INSERT INTO t (v) VALUES ('canary-row')");
    for format in ["pretty", "json"] {
        let setting = format!("log.format={format}");
        let mut run = Process::start(&path, &["--set", "log.level=debug", "--set", &setting], Stdio::piped());
        let log = Lines::of(run.0.stderr.take().unwrap());
        let mut said = log.until("live: what is committed is published");
        let live = format!("canary-{format}");
        directory.execute(&format!("INSERT INTO t (v) VALUES ('{live}')"));
        eventually("the live event", || directory.lines().iter().any(|event| event["after"]["v"] == *live).then_some(()));
        assert_eq!(run.stop(), Some(0));
        said += &log.rest();
        assert!(!said.contains("canary") && !said.contains("SELECT"), "{said}");
        for line in said.lines() {
            let names = match format {
                "json" => serde_json::from_str::<serde_json::Value>(line).unwrap()["span"]["pipeline"] == "cli",
                _ => line.ends_with("pipeline=\"cli\""),
            };
            assert!(names, "{line}");
        }
        std::fs::remove_file(directory.0.join("cli.checkpoint")).unwrap();
        std::fs::remove_file(directory.0.join("out.jsonl")).unwrap();
        assert!(feedline(&["detach", "--yes", "--without-checkpoint", "-c", path.to_str().unwrap()]).status().unwrap().success());
    }
}

#[test]
fn the_error_of_a_failed_start_is_logged_at_every_level() {
    let directory = Directory::new();
    let path = directory.pipeline();
    for file in ["shop.db-wal", "shop.db-shm"] {
        let _absent = std::fs::remove_file(directory.0.join(file));
    }
    std::fs::write(directory.0.join("shop.db"), "this is no database, though it is as long as the head of one would be".repeat(100))
        .unwrap();
    let failed = feedline(&["run", "-c", path.to_str().unwrap(), "--set", "log.level=off"]).output().unwrap();
    let said = text(&failed.stderr);
    let line: serde_json::Value = serde_json::from_str(said.trim_end()).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(line["message"], "stopped for a fault", "{said}");
    // If it cannot be written, the exit status is the same.
    let mut silent = Process::start(&path, &[], full());
    assert_eq!(silent.end(), failed.status.code());
}

#[test]
fn commands_end_even_if_their_output_is_not_read() {
    let directory = Directory::new();
    let path = directory.pipeline();
    let wrong = directory.0.join("wrong.toml");
    std::fs::write(&wrong, "nam = \"y\"\n").unwrap();
    let (right, wrong) = (path.to_str().unwrap(), wrong.to_str().unwrap());
    for (arguments, status) in [
        (&["check", "-c", right][..], 0),
        (&["check", "-c", wrong], 2),
        (&["check", "--format", "json", "-c", right], 0),
        (&["config", "schema", "--format", "markdown"], 0),
        (&["config", "print", "-c", right], 0),
        (&["metrics"], 0),
        (&["completions", "bash"], 0),
        (&["--help"], 0),
        (&["run", "-c", wrong], 2),
        (&["nothing"], 2),
    ] {
        let closed = || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            writer
        };
        let ended = feedline(arguments).stdout(closed()).stderr(closed()).status().unwrap();
        assert_eq!(ended.code(), Some(status), "{arguments:?}");
        let ended = feedline(arguments).stdout(Stdio::null()).stderr(full()).status().unwrap();
        assert_eq!(ended.code(), Some(status), "{arguments:?} with standard error full");
    }
}
