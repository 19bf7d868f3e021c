//! The thread that writes lines: the system's calls may block for as long as a reader or a disk likes.

use super::own::{self, Node};
use super::{Error, Options, Target};
use crate::batch::{Ack, Batch};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Write the batch's lines, then confirm them.
    Lines {
        /// The lines.
        batch: Arc<Batch>,
        /// The debt for them.
        ack: Ack,
    },
    /// Say that all before this is done.
    Done(oneshot::Sender<()>),
}

/// What a session and its writer share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Why the writer ended.
    pub(super) failure: OnceLock<Error>,
    /// The session is gone: what waits is not written any more.
    pub(super) abandoned: AtomicBool,
}

/// The writer's thread, to be joined before the next one is started.
#[derive(Debug)]
pub(super) struct Writer {
    handle: JoinHandle<()>,
    /// Its other end goes with the thread.
    ended: oneshot::Receiver<()>,
}

impl Writer {
    /// Opens the output in a thread of its own, which then writes until the channel ends or a write fails.
    pub(super) fn start(
        options: Options,
        known: Option<Node>,
        waiting: mpsc::Receiver<Work>,
        shared: Arc<Shared>,
    ) -> Result<(Self, Opened), Error> {
        let (open, opened) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let target = options.target.clone();
        let handle = std::thread::Builder::new().name("output".to_owned()).spawn(move || {
            run(&options, known, waiting, &shared, open);
            drop(end);
        });
        let handle = handle.map_err(|source| Error::of(&target, source))?;
        Ok((Self { handle, ended }, opened))
    }

    /// Waits for its end. Cancel safe.
    pub(super) async fn join(writer: &mut Option<Self>) {
        let Some(running) = writer else { return };
        // The thread never sends: what comes is that it has ended.
        let _ended = (&mut running.ended).await;
        if let Some(writer) = writer.take() {
            // A panic there was printed there; its acks are lost and say so.
            let _panicked = writer.handle.join();
        }
    }
}

/// Says that the output is open, and which file it is.
type Opened = oneshot::Receiver<Result<Option<Node>, Error>>;

fn run(
    options: &Options,
    known: Option<Node>,
    mut waiting: mpsc::Receiver<Work>,
    shared: &Shared,
    open: oneshot::Sender<Result<Option<Node>, Error>>,
) {
    match Output::open(options, known) {
        Ok((output, node)) => {
            // Whoever asked may have gone meanwhile; the channel says so too.
            let _cancelled = open.send(Ok(node));
            let mut written = Vec::new();
            if let Err(source) = write_all(output, &mut waiting, shared, &mut written) {
                // It is the first: the writer ends with it.
                let _first = shared.failure.set(Error::of(&options.target, source));
            }
        }
        Err(error) => {
            let _cancelled = open.send(Err(error));
        }
    }
}

/// Writes what comes. `written` are the acks of lines that are not settled yet: they outlive an error, so that its cause is
/// known before anybody hears of the loss.
fn write_all(mut output: Output, waiting: &mut mpsc::Receiver<Work>, shared: &Shared, written: &mut Vec<(Ack, u32)>) -> io::Result<()> {
    while let Some(first) = waiting.blocking_recv() {
        let mut next = Some(first);
        let mut done = None;
        while let Some(work) = next {
            if shared.abandoned.load(Ordering::Acquire) {
                return Ok(());
            }
            match work {
                Work::Lines { batch, ack } => {
                    written.push((ack, u32::try_from(batch.len()).expect("a batch's offsets are 32 bits")));
                    output.lines(&batch)?;
                }
                Work::Done(asked) => done = Some(asked),
            }
            next = waiting.try_recv().ok();
        }
        output.settle()?;
        for (ack, records) in written.drain(..) {
            ack.confirm(records);
        }
        if let Some(asked) = done {
            // Whoever asked may have stopped waiting.
            let _cancelled = asked.send(());
        }
    }
    Ok(())
}

/// An opened output.
enum Output {
    Stdout(BufWriter<io::Stdout>),
    File(BufWriter<File>),
}

impl Output {
    /// Bytes that are collected before the system is called.
    const BUFFER: usize = 64 << 10;

    fn open(options: &Options, known: Option<Node>) -> Result<(Self, Option<Node>), Error> {
        match &options.target {
            Target::Stdout => Ok((Self::Stdout(BufWriter::with_capacity(Self::BUFFER, io::stdout())), None)),
            Target::File(path) => {
                let failed = |source| Error::of(&options.target, source);
                // Opening a pipe would wait for its other end.
                if let Ok(metadata) = std::fs::metadata(path) {
                    own::regular(&metadata, path)?;
                }
                let mut file = File::options().read(true).append(true).create(true).open(path).map_err(failed)?;
                let keep = own::kept(&mut file, path, options, known)?;
                file.set_len(keep).map_err(failed)?;
                if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    // A new file's name is durable with its directory.
                    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
                }
                let node = Node::of(&file.metadata().map_err(failed)?);
                Ok((Self::File(BufWriter::with_capacity(Self::BUFFER, file)), Some(node)))
            }
        }
    }

    fn lines(&mut self, batch: &Batch) -> io::Result<()> {
        match self {
            Self::Stdout(output) => lines(output, batch),
            Self::File(output) => lines(output, batch),
        }
    }

    /// Returns when what was written is where it stays.
    fn settle(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(output) => output.flush(),
            Self::File(output) => {
                output.flush()?;
                output.get_ref().sync_data()
            }
        }
    }
}

fn lines(output: &mut impl Write, batch: &Batch) -> io::Result<()> {
    for body in batch.records().filter_map(|record| record.body) {
        output.write_all(body)?;
        output.write_all(b"\n")?;
    }
    Ok(())
}
