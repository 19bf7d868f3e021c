//! Standard output and files.

use crate::contract_sink::{Builder, Settling, Spec, Subject, contract, open};
use feedline::change::Operation;
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

impl Subject for Directory {
    type Connector = Connector;

    fn connector(&self) -> Connector {
        Connector::new(Options { target: Target::File(self.file()) })
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
async fn a_file_is_appended_to_and_a_torn_line_is_cut_off() {
    let (directory, mut builder, mut settling) = (Directory::new(), Builder::new(), Settling::new());
    // The torn line is longer than a block, as a wide row is.
    fs::write(directory.file(), format!("{{\"n\":1}}\n{{\"n\":2,\"t\":\"{}", "x".repeat(10_000))).unwrap();
    let mut connector = directory.connector();
    let mut sink = open(&mut connector).await;
    let delete = Spec { operation: Operation::Delete, tombstone: true, ..Spec::insert("shop/1", "{}", "{\"n\":3}") };
    let batch = builder.batch(&[delete]).await;
    assert_eq!(batch.len(), 2, "a delete and its tombstone");
    sink.submit(batch.clone(), settling.receipt(&batch, 1)).await.unwrap();
    sink.close().await.unwrap();
    assert!(settling.next().await.confirmed);
    assert_eq!(fs::read_to_string(directory.file()).unwrap(), "{\"n\":1}\n{\"n\":3}\n");
}

#[tokio::test]
async fn a_file_that_was_all_one_torn_line_starts_empty() {
    let directory = Directory::new();
    fs::write(directory.file(), "{\"n\":1").unwrap();
    open(&mut directory.connector()).await.close().await.unwrap();
    assert_eq!(fs::read_to_string(directory.file()).unwrap(), "");
}

#[tokio::test]
async fn a_full_disk_loses_the_batch_and_names_the_file() {
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let directory = Directory::new();
    let path = directory.0.join("full");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let mut connector = Connector::new(Options { target: Target::File(path.clone()) });
    let error = match connector.connect().await {
        Ok((mut sink, _)) => {
            let batch = builder.batch(&[Spec::insert("shop/1", "{}", "{}")]).await;
            sink.submit(batch.clone(), settling.receipt(&batch, 1)).await.unwrap();
            assert!(!settling.next().await.confirmed);
            sink.failure()
        }
        // A device has no length to cut.
        Err(error) => error,
    };
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::OutputUnwritable));
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named() {
    let directory = Directory::new();
    let path = directory.0.join("absent/events.jsonl");
    let error = Connector::new(Options { target: Target::File(path.clone()) }).connect().await.unwrap_err();
    assert_eq!((error.fault(), error.code()), (Fault::Fatal, Code::OutputUnwritable));
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}
