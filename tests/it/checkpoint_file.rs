//! The checkpoint file, with real files, locks and full disks.
#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use crate::children::{Lines, ended};
use feedline::checkpoint::file::{FileError, FileStore};
use feedline::checkpoint::{Checkpoint, CheckpointStore, FeedState, FormerFeeds, Identity, LastExit, Layout, ResumeToken, ScanPosition};
use feedline::event::Timestamp;
use feedline::fault::{Classify, Code, Exit, Fault};
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of one test, removed when it is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("checkpoint-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("shop.checkpoint")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // The test may have failed and removed it already.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A checkpoint that differs from those of other generations.
fn checkpoint(generation: u64) -> Checkpoint {
    let mut checkpoint = Checkpoint::intent("shop", "instance".to_owned(), Identity::new(), "hash".to_owned());
    checkpoint.token = Some(ResumeToken(format!("token-{generation}").into()));
    checkpoint
}

/// A checkpoint with many tables.
fn wide(tables: usize) -> Checkpoint {
    let mut checkpoint = checkpoint(1);
    let state = FeedState::Live { start: ResumeToken("start".into()) };
    checkpoint.feeds = (0..tables).map(|table| (format!("public.table_{table:06}").into(), state.clone())).collect();
    checkpoint
}

#[tokio::test]
async fn the_next_store_loads_what_was_saved() {
    let directory = Directory::new();
    let mut store = FileStore::open(&directory.file()).unwrap();
    assert_eq!(store.load().await.unwrap(), None);
    for generation in 1..=7 {
        store.save(&checkpoint(generation)).await.unwrap();
        assert_eq!(FileStore::inspect(&directory.file()).unwrap(), Some(checkpoint(generation)));
        assert_eq!(store.load().await.unwrap(), Some(checkpoint(generation)));
    }
    drop(store);
    let mut store = FileStore::open(&directory.file()).unwrap();
    store.save(&checkpoint(8)).await.unwrap();
    assert_eq!(store.load().await.unwrap(), Some(checkpoint(8)), "a store may save before it loads");
}

#[tokio::test]
async fn only_the_owner_can_read_the_file_and_it_does_not_grow() {
    let directory = Directory::new();
    let mut store = FileStore::open(&directory.file()).unwrap();
    store.save(&checkpoint(1)).await.unwrap();
    let created = fs::metadata(directory.file()).unwrap();
    assert_eq!((created.permissions().mode() & 0o777, created.len()), (0o600, 512 << 10));
    assert!(created.blocks() * 512 >= created.len(), "its space is allocated when it is created");
    for generation in 2..10 {
        store.save(&checkpoint(generation)).await.unwrap();
    }
    let saved = fs::metadata(directory.file()).unwrap();
    assert_eq!((saved.ino(), saved.len()), (created.ino(), created.len()));
}

#[tokio::test]
async fn a_checkpoint_can_outgrow_its_slots() {
    let directory = Directory::new();
    let mut store = FileStore::open(&directory.file()).unwrap();
    store.save(&checkpoint(1)).await.unwrap();
    for tables in [10_000, 10_001, 60_000, 3] {
        store.save(&wide(tables)).await.unwrap();
        assert_eq!(FileStore::inspect(&directory.file()).unwrap(), Some(wide(tables)));
    }
    drop(store);
    assert_eq!(FileStore::open(&directory.file()).unwrap().load().await.unwrap(), Some(wide(3)));
    assert!(!directory.0.join("shop.checkpoint.new").exists());
}

#[tokio::test]
async fn a_partly_created_file_is_not_taken_for_a_checkpoint() {
    let directory = Directory::new();
    fs::write(directory.0.join("shop.checkpoint.new"), b"part").unwrap();
    let mut store = FileStore::open(&directory.file()).unwrap();
    assert_eq!(store.load().await.unwrap(), None);
    store.save(&checkpoint(1)).await.unwrap();
    assert_eq!(store.load().await.unwrap(), Some(checkpoint(1)));
}

/// Another process that can write to the directory could keep that file open, and write into the checkpoint later.
#[tokio::test]
async fn a_file_of_another_process_does_not_become_the_checkpoint() {
    let directory = Directory::new();
    let (new, elsewhere) = (directory.0.join("shop.checkpoint.new"), directory.0.join("elsewhere"));
    for link in [false, true] {
        fs::write(if link { &elsewhere } else { &new }, b"theirs").unwrap();
        if link {
            fs::hard_link(&elsewhere, &new).unwrap();
        }
        let kept_open = fs::File::open(&new).unwrap();
        let theirs = kept_open.metadata().unwrap().ino();
        let mut store = FileStore::open(&directory.file()).unwrap();
        store.save(&checkpoint(1)).await.unwrap();
        assert_ne!(fs::metadata(directory.file()).unwrap().ino(), theirs);
        drop(store);
        fs::remove_file(directory.file()).unwrap();
    }
    assert_eq!(fs::read(elsewhere).unwrap(), b"theirs");
}

#[tokio::test]
async fn a_second_store_is_refused_with_the_holders_number() {
    let directory = Directory::new();
    let store = FileStore::open(&directory.file()).unwrap();
    let error = FileStore::open(&directory.file()).unwrap_err();
    assert!(matches!(&error, FileError::Held { holder, .. } if *holder == Some(std::process::id())), "{error}");
    assert_eq!((error.code(), error.code().exit(), error.fault()), (Code::CheckpointHeld, Exit::Held, Fault::Transient));
    assert!(error.to_string().contains("shop.checkpoint is held by process"), "{error}");
    let other_process = Command::new("flock").arg("-n").arg(directory.0.join("shop.checkpoint.lock")).arg("true").status().unwrap();
    assert!(!other_process.success(), "another process is kept out");
    drop(store);
    FileStore::open(&directory.file()).unwrap();
}

#[tokio::test]
async fn a_store_of_another_process_is_refused() {
    let directory = Directory::new();
    let mut holder = Command::new("flock")
        .arg(directory.0.join("shop.checkpoint.lock"))
        .args(["sh", "-c", "echo held; read end"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Lines::of(holder.stdout.take().unwrap()).until("held");
    let refused = FileStore::open(&directory.file());
    holder.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(ended(&mut holder).success());
    assert!(matches!(refused, Err(FileError::Held { holder: None, .. })));
    FileStore::open(&directory.file()).unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_never_a_first_start() {
    for damage in [Vec::new(), b"x".to_vec(), vec![0; 512 << 10]] {
        let directory = Directory::new();
        fs::write(directory.file(), &damage).unwrap();
        let mut store = FileStore::open(&directory.file()).unwrap();
        for _ in 0..2 {
            let error = store.load().await.unwrap_err();
            assert!(matches!(error, FileError::Corrupt { .. }), "{error}");
            assert_eq!((error.code(), error.fault()), (Code::CheckpointCorrupt, Fault::Fatal));
        }
        assert!(matches!(store.save(&checkpoint(1)).await, Err(FileError::Corrupt { .. })), "it is not overwritten");
        assert_eq!(fs::read(directory.file()).unwrap(), damage);
        drop(store);
        let mut store = FileStore::open(&directory.file()).unwrap();
        assert!(store.remove().await.unwrap());
        assert!(!store.remove().await.unwrap());
        assert_eq!(store.load().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_torn_write_leaves_the_previous_checkpoint() {
    let directory = Directory::new();
    let mut store = FileStore::open(&directory.file()).unwrap();
    store.save(&checkpoint(1)).await.unwrap();
    store.save(&checkpoint(2)).await.unwrap();
    drop(store);
    let file = fs::OpenOptions::new().write(true).open(directory.file()).unwrap();
    file.write_all_at(b"torn", (256 << 10) + 100).unwrap();
    let mut store = FileStore::open(&directory.file()).unwrap();
    assert_eq!(store.load().await.unwrap(), Some(checkpoint(1)));
    store.save(&checkpoint(3)).await.unwrap();
    file.write_all_at(b"torn", 100).unwrap();
    assert_eq!(FileStore::inspect(&directory.file()).unwrap(), Some(checkpoint(3)), "the torn slot is written next");
}

#[tokio::test]
async fn a_later_format_version_is_refused() {
    let directory = Directory::new();
    let mut store = FileStore::open(&directory.file()).unwrap();
    store.save(&checkpoint(1)).await.unwrap();
    drop(store);
    let mut image = fs::read(directory.file()).unwrap();
    let length = usize::from(u16::from_le_bytes([image[24], image[25]]));
    image[8] = 2;
    let checksum = crc32c::crc32c(&image[..32 + length]).to_le_bytes();
    image[32 + length..36 + length].copy_from_slice(&checksum);
    fs::write(directory.file(), &image).unwrap();
    let error = FileStore::inspect(&directory.file()).unwrap_err();
    assert!(matches!(error, FileError::Newer { found: 2, .. }), "{error}");
    assert_eq!(error.code(), Code::CheckpointNewer);
}

/// Every later version must be able to read this payload. A change of it needs a new format version.
#[tokio::test]
async fn the_payload_of_version_1_stays_as_it_is() {
    const PAYLOAD: &str = concat!(
        r#"{"name":"shop","instance":"6f1e","source":{"system":"7301"},"sink":{"cluster":"abc"},"configuration":"9c0d","#,
        r#""token":"00000001-16B3748","committed_at":1795418728123456,"slice":3,"#,
        r#""feeds":{"public.a":{"state":"pending"},"public.b":{"state":"reading","start":"s","after":"k"},"public.c":{"state":"live","start":"s"}},"#,
        r#""keys":{"public.a":["id","line"]},"restarts":{"source_error":2},"last_exit":"running"}"#,
    );
    let read: Checkpoint = serde_json::from_str(PAYLOAD).unwrap();
    assert_eq!(read.feeds["public.b"], FeedState::Reading { start: ResumeToken("s".into()), after: Some(ScanPosition("k".into())) });
    assert_eq!((read.committed_at, read.last_exit), (Some(Timestamp(1_795_418_728_123_456)), LastExit::Running));
    let directory = Directory::new();
    FileStore::open(&directory.file()).unwrap().save(&read).await.unwrap();
    let image = fs::read(directory.file()).unwrap();
    assert_eq!(image[..8], *b"\x89feedln\n");
    assert_eq!(image[8..12], 1_u32.to_le_bytes(), "format version");
    assert_eq!(std::str::from_utf8(&image[32..32 + PAYLOAD.len()]).unwrap(), PAYLOAD);
    assert_eq!(FileStore::inspect(&directory.file()).unwrap(), Some(read));
}

#[tokio::test]
async fn a_removed_or_replaced_file_is_not_written_to() {
    for replacement in [None, Some(b"another")] {
        let directory = Directory::new();
        let mut store = FileStore::open(&directory.file()).unwrap();
        store.save(&checkpoint(1)).await.unwrap();
        fs::remove_file(directory.file()).unwrap();
        if let Some(bytes) = replacement {
            fs::write(directory.file(), bytes).unwrap();
        }
        assert!(matches!(store.save(&checkpoint(2)).await, Err(FileError::Replaced { .. })));
        for _ in 0..2 {
            let error = store.save(&checkpoint(3)).await.unwrap_err();
            assert!(matches!(error, FileError::Poisoned { .. }), "{error}");
            assert_eq!(error.fault(), Fault::Fatal);
        }
        assert!(matches!(store.load().await, Err(FileError::Poisoned { .. })));
        assert_eq!(fs::read(directory.file()).ok().as_deref(), replacement.map(|bytes| &bytes[..]));
    }
}

#[tokio::test]
async fn only_a_regular_file_in_a_directory_is_accepted() {
    let directory = Directory::new();
    let path = directory.file();
    let without_directory = directory.0.join("missing").join("shop.checkpoint");
    assert!(matches!(FileStore::open(&without_directory), Err(FileError::DirectoryMissing { .. })));
    let mut store = FileStore::open(&path).unwrap();

    let target = directory.0.join("target");
    fs::write(&target, b"kept").unwrap();
    symlink(&target, &path).unwrap();
    assert!(matches!(store.load().await, Err(FileError::NotAFile { .. })));
    assert!(matches!(store.save(&checkpoint(1)).await, Err(FileError::NotAFile { .. })));
    assert_eq!(fs::read(&target).unwrap(), b"kept");
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    let error = store.load().await.unwrap_err();
    assert!(matches!(error, FileError::NotAFile { .. }), "{error}");
    fs::remove_dir(&path).unwrap();

    symlink(&target, directory.0.join("other.lock")).unwrap();
    assert!(matches!(FileStore::open(&directory.0.join("other")), Err(FileError::NotAFile { .. })));

    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(matches!(store.load().await, Err(FileError::NotAFile { .. })), "opening a pipe does not block");
}

/// Runs a child process with a limit on file sizes, which has the same effect as a full disk: a short write.
#[tokio::test]
async fn a_full_disk_is_reported_and_ends_the_store() {
    const CHILD: &str = "FEEDLINE_TEST_FULL_DISK";
    let Some(path) = std::env::var_os(CHILD) else {
        let directory = Directory::new();
        let limited = "trap '' XFSZ; ulimit -f 1500; exec \"$0\" \"$@\"";
        let child = Command::new("sh")
            .args(["-c", limited])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "checkpoint_file::a_full_disk_is_reported_and_ends_the_store", "--nocapture"])
            .env(CHILD, directory.file())
            .output()
            .unwrap();
        let shown = format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
        assert!(child.status.success() && shown.contains("the disk was full"), "{shown}");
        assert_eq!(FileStore::inspect(&directory.file()).unwrap(), Some(checkpoint(2)), "the last good checkpoint is still there");
        assert!(!directory.0.join("shop.checkpoint.new").exists(), "the incomplete file is removed");
        return;
    };
    let mut store = FileStore::open(Path::new(&path)).unwrap();
    store.save(&checkpoint(1)).await.unwrap();
    store.save(&checkpoint(2)).await.unwrap();
    let error = store.save(&wide(20_000)).await.unwrap_err();
    assert!(matches!(error, FileError::Full { .. }), "{error}");
    assert_eq!((error.code(), error.fault()), (Code::CheckpointUnwritable, Fault::Fatal));
    assert!(matches!(store.save(&checkpoint(3)).await, Err(FileError::Poisoned { .. })));
    println!("the disk was full");
}

fn any_text() -> impl Strategy<Value = std::sync::Arc<str>> {
    any::<String>().prop_map(Into::into)
}

fn any_state() -> impl Strategy<Value = FeedState> {
    prop_oneof![
        Just(FeedState::Pending),
        (prop::option::of(any_text()), prop::option::of(any_text()))
            .prop_map(|(start, after)| FeedState::Loading { start: start.map(ResumeToken), after: after.map(ScanPosition) }),
        (prop::option::of(any_text()), any::<bool>()).prop_map(|(start, reset)| FeedState::Again { start: start.map(ResumeToken), reset }),
        (any_text(), prop::option::of(any_text()))
            .prop_map(|(start, after)| FeedState::Reading { start: ResumeToken(start), after: after.map(ScanPosition) }),
        any_text().prop_map(|start| FeedState::Live { start: ResumeToken(start) }),
    ]
}

fn any_checkpoint() -> impl Strategy<Value = Checkpoint> {
    let identity = || prop::collection::btree_map(any::<String>(), any::<String>(), 0..3);
    let last_exit = prop_oneof![Just(LastExit::Running), Just(LastExit::Stopped), Just(LastExit::Failed)];
    let names = (any::<String>(), any::<String>(), any::<String>(), identity(), identity());
    let position = (prop::option::of(any_text()), prop::option::of(any::<i64>()), prop::option::of(any::<i64>()), any::<u32>());
    let feeds = (prop::collection::btree_map(any_text(), any_state(), 0..4), prop::collection::vec(any_text(), 0..3));
    let keys = prop::collection::btree_map(any_text(), prop::collection::vec(any_text(), 0..3), 0..4);
    let layouts = prop::collection::btree_map(any_text(), any_text().prop_map(Layout), 0..4);
    let restarts = prop::collection::btree_map(any::<String>(), any::<u64>(), 0..3);
    (names, position, feeds, layouts, keys, restarts, last_exit).prop_map(|(names, position, feeds, layouts, keys, restarts, last_exit)| {
        let (name, instance, configuration, source, sink) = names;
        let (token, committed_at, caught_up_at, slice) = position;
        let (feeds, names) = feeds;
        let mut former = FormerFeeds::default();
        for name in names {
            former.add(name);
        }
        Checkpoint {
            name,
            instance,
            source,
            sink,
            configuration,
            token: token.map(ResumeToken),
            committed_at: committed_at.map(Timestamp),
            caught_up_at: caught_up_at.map(Timestamp),
            slice,
            feeds,
            layouts,
            keys,
            former,
            restarts,
            last_exit,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_checkpoint_can_be_loaded_again(checkpoints in prop::collection::vec(any_checkpoint(), 1..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = Directory::new();
        let last = checkpoints.last().unwrap().clone();
        runtime.block_on(async {
            let mut store = FileStore::open(&directory.file()).unwrap();
            for checkpoint in &checkpoints {
                store.save(checkpoint).await.unwrap();
            }
        });
        prop_assert_eq!(FileStore::inspect(&directory.file()).unwrap(), Some(last));
    }
}
