//! The thread that writes lines. It is a thread because a write may block for as long as the reader or the disk likes.

use super::error::Error;
use super::options::{Options, Target};
use super::ownership::{self, FileId};
use crate::batch::{Ack, Batch};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

/// How many batches may wait for the writer. It takes all that wait at once, and makes them durable together.
pub(super) const WORK_QUEUE_MAX: usize = 16;

/// A request to the writer.
#[derive(Debug)]
pub(super) enum Work {
    /// Write the batch's lines, then confirm them.
    Write { batch: Arc<Batch>, ack: Ack },
    /// Reply when everything before this is durable.
    Flush(oneshot::Sender<()>),
}

/// State that a session and its writer share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Why the writer ended.
    pub(super) failure: OnceLock<Error>,
    /// Whether the session was dropped: queued batches are not written then.
    pub(super) is_abandoned: AtomicBool,
}

/// The writer's thread, to be joined before the next one is started.
#[derive(Debug)]
pub(super) struct Writer {
    handle: JoinHandle<()>,
    /// The sender is dropped when the thread ends.
    ended: oneshot::Receiver<()>,
}

impl Writer {
    /// Starts a thread that opens the output, then writes until the channel closes or a write fails.
    pub(super) fn start(
        options: Options,
        written_file: Option<FileId>,
        queue: mpsc::Receiver<Work>,
        shared: Arc<Shared>,
    ) -> Result<(Self, Opened), Error> {
        let (open, opened) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let target = options.target.clone();
        let span = Span::current();
        let handle = std::thread::Builder::new().name("output".to_owned()).spawn(move || {
            span.in_scope(|| run(&options, written_file, queue, &shared, open));
            drop(end);
        });
        let handle = handle.map_err(|source| Error::of(&target, source))?;
        Ok((Self { handle, ended }, opened))
    }

    /// Waits until the thread has ended. Cancel safe.
    pub(super) async fn join(writer: &mut Option<Self>) {
        let Some(running) = writer else { return };
        // Nothing is ever sent: the receiver resolves when the thread drops the sender.
        let _ended = (&mut running.ended).await;
        if let Some(writer) = writer.take() {
            // The thread has printed its panic, and the acks that it dropped report the loss.
            let _panicked = writer.handle.join();
        }
    }
}

/// Reports whether the output is open, and which file it is (`None` for standard output).
type Opened = oneshot::Receiver<Result<Option<FileId>, Error>>;

fn run(
    options: &Options,
    written_file: Option<FileId>,
    mut queue: mpsc::Receiver<Work>,
    shared: &Shared,
    open: oneshot::Sender<Result<Option<FileId>, Error>>,
) {
    match Output::open(options, written_file) {
        Ok((output, file)) => {
            // If the connector no longer waits, the queue is closed too.
            let _cancelled = open.send(Ok(file));
            let mut unconfirmed = Vec::new();
            if let Err(source) = write_all(output, &mut queue, shared, &mut unconfirmed) {
                // The cell is empty: the writer ends with its first error.
                let _first = shared.failure.set(Error::of(&options.target, source));
            }
        }
        Err(error) => {
            let _cancelled = open.send(Err(error));
        }
    }
}

/// Writes batches as they come. The caller owns `unconfirmed`, the acks of lines that are not durable yet: they are dropped only after the
/// error is stored, so that its cause is known when the loss is reported.
fn write_all(mut output: Output, queue: &mut mpsc::Receiver<Work>, shared: &Shared, unconfirmed: &mut Vec<(Ack, u32)>) -> io::Result<()> {
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        let mut flushed = None;
        while let Some(work) = next {
            if shared.is_abandoned.load(Ordering::Acquire) {
                return Ok(());
            }
            match work {
                Work::Write { batch, ack } => {
                    unconfirmed.push((ack, u32::try_from(batch.len()).expect("a batch's offsets are 32 bits")));
                    output.write(&batch)?;
                }
                Work::Flush(reply) => flushed = Some(reply),
            }
            next = queue.try_recv().ok();
        }
        output.flush()?;
        for (ack, records) in unconfirmed.drain(..) {
            ack.confirm(records);
        }
        if let Some(reply) = flushed {
            // The session may no longer wait for the reply.
            let _cancelled = reply.send(());
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
    /// Bytes that are collected for one write.
    const BUFFER: usize = 64 << 10;

    fn open(options: &Options, written_file: Option<FileId>) -> Result<(Self, Option<FileId>), Error> {
        match &options.target {
            Target::Stdout => Ok((Self::Stdout(BufWriter::with_capacity(Self::BUFFER, io::stdout())), None)),
            Target::File(path) => {
                let failed = |source| Error::of(&options.target, source);
                // Checked before opening: to open a pipe would wait for its reader.
                if let Ok(metadata) = std::fs::metadata(path) {
                    ownership::check_regular(&metadata, path)?;
                }
                let mut file = File::options().read(true).append(true).create(true).open(path).map_err(failed)?;
                let complete = ownership::complete_bytes(&mut file, path, options, written_file)?;
                file.set_len(complete).map_err(failed)?;
                if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    // Makes the name of a new file durable.
                    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
                }
                let id = FileId::of(&file.metadata().map_err(failed)?);
                Ok((Self::File(BufWriter::with_capacity(Self::BUFFER, file)), Some(id)))
            }
        }
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        match self {
            Self::Stdout(output) => write_lines(output, batch),
            Self::File(output) => write_lines(output, batch),
        }
    }

    /// Returns when everything written is with the reader of standard output, or on the disk.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(output) => output.flush(),
            Self::File(output) => {
                output.flush()?;
                output.get_ref().sync_data()
            }
        }
    }
}

fn write_lines(output: &mut impl Write, batch: &Batch) -> io::Result<()> {
    for body in batch.records().filter_map(|record| record.body) {
        output.write_all(body)?;
        output.write_all(b"\n")?;
    }
    Ok(())
}
