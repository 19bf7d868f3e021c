//! Standard output and files.

use crate::contract_sink::{Builder, Settling, Spec, Subject, contract, open};
use feedline::event::Operation;
use feedline::fault::{Classify, Code, Fault};
use feedline::sink::stdout::{Connector, Options, Target};
use feedline::sink::{Sink, SinkConnector};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of one test, removed afterwards.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("stdout-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("events.jsonl")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn connector(path: PathBuf) -> Connector {
    Connector::new(Options { target: Target::File(path), pipeline: "shop".into() })
}

/// An event as a pipeline of this name writes it.
fn event(pipeline: &str, id: u32) -> String {
    format!(r#"{{"v":1,"op":"insert","key":{{"id":{id}}},"source":{{"name":"{pipeline}"}}}}"#)
}

impl Subject for Directory {
    type Connector = Connector;

    fn connector(&self) -> Connector {
        connector(self.file())
    }

    fn read_back(&self) -> Vec<(String, String)> {
        fs::read_to_string(self.file()).unwrap().lines().map(|line| (String::new(), line.to_owned())).collect()
    }
}

#[tokio::test]
async fn a_file_keeps_the_contract() {
    contract(Directory::new(), Directory::new()).await;
}

#[tokio::test]
async fn a_file_is_appended_to_and_an_unfinished_line_is_cut_off() {
    let (directory, mut builder, mut settling) = (Directory::new(), Builder::new(), Settling::new());
    // The unfinished line is longer than a block, as that of a wide row.
    let unfinished = &event("shop", 2).replace("\"id\"", &format!("\"{}\"", "x".repeat(10_000)))[..9000];
    fs::write(directory.file(), format!("{}\n{unfinished}", event("shop", 1))).unwrap();
    let mut connector = directory.connector();
    let mut sink = open(&mut connector).await;
    let delete = Spec { operation: Operation::Delete, tombstone: true, ..Spec::insert("shop/1", "{}", "{\"n\":3}") };
    let batch = builder.batch(&[delete]).await;
    assert_eq!(batch.len(), 2, "a delete and its tombstone");
    sink.submit(batch.clone(), settling.ack(&batch, 1)).await.unwrap();
    sink.close().await.unwrap();
    assert!(settling.next().await.confirmed);
    assert_eq!(fs::read_to_string(directory.file()).unwrap(), format!("{}\n{{\"n\":3}}\n", event("shop", 1)));
}

#[tokio::test]
async fn a_file_with_nothing_but_an_unfinished_line_starts_empty() {
    let directory = Directory::new();
    fs::write(directory.file(), &event("shop", 1)[..20]).unwrap();
    open(&mut directory.connector()).await.close().await.unwrap();
    assert_eq!(fs::read_to_string(directory.file()).unwrap(), "");
}

#[tokio::test]
async fn a_file_of_cloudevents_is_known_as_the_pipelines_own() {
    let line = |pipeline: &str| format!(r#"{{"specversion":"1.0","id":"{pipeline}/0001","data":{{}}}}"#);
    let directory = Directory::new();
    fs::write(directory.file(), format!("{}\n{}", line("shop"), &line("shop")[..20])).unwrap();
    open(&mut directory.connector()).await.close().await.unwrap();
    assert_eq!(fs::read_to_string(directory.file()).unwrap(), format!("{}\n", line("shop")));
    fs::write(directory.file(), format!("{}\n", line("other"))).unwrap();
    assert_eq!(directory.connector().establish().await.unwrap_err().code(), Code::OutputForeign);
}

#[tokio::test]
async fn a_full_disk_loses_the_batch_and_names_the_file() {
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let directory = Directory::new();
    let path = directory.0.join("full");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let mut connector = connector(path.clone());
    let error = match connector.connect().await {
        Ok((mut sink, _)) => {
            let batch = builder.batch(&[Spec::insert("shop/1", "{}", "{}")]).await;
            sink.submit(batch.clone(), settling.ack(&batch, 1)).await.unwrap();
            assert!(!settling.next().await.confirmed);
            sink.failure()
        }
        // A device has no length.
        Err(error) => error,
    };
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::OutputUnwritable));
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let directory = Directory::new();
    let path = directory.0.join("absent/events.jsonl");
    let error = connector(path.clone()).connect().await.unwrap_err();
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::OutputUnwritable));
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_file_that_another_program_wrote_is_not_changed() {
    let directory = Directory::new();
    let (ours, theirs) = (event("shop", 1), event("other", 1));
    for content in [
        "notes without a line's end".to_owned(),
        "notes\n".to_owned(),
        format!("{theirs}\n"),
        format!("{ours}\n{theirs}\n"),
        format!("{theirs}\n{ours}\n"),
        format!("{ours}\nnotes"),
        format!("{ours}\n\n"),
        format!("notes\n{}", &ours[..20]),
        format!("{}\0\n\0", "SQLite format 3"),
    ] {
        fs::write(directory.file(), &content).unwrap();
        for error in [directory.connector().establish().await.unwrap_err(), directory.connector().connect().await.unwrap_err()] {
            assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::OutputForeign), "{content:?}: {error}");
        }
        assert_eq!(fs::read_to_string(directory.file()).unwrap(), content);
        // The remedy in the message works.
        fs::rename(directory.file(), directory.0.join("moved")).unwrap();
        open(&mut directory.connector()).await.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_pipe_or_a_device_is_refused_without_waiting() {
    let directory = Directory::new();
    let pipe = directory.0.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe, PathBuf::from("/dev/null"), directory.0.clone()] {
        for error in [connector(path.clone()).establish().await.unwrap_err(), connector(path.clone()).connect().await.unwrap_err()] {
            assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::OutputUnwritable), "{error}");
            assert!(error.to_string().contains("regular file"), "{error}");
        }
    }
}
