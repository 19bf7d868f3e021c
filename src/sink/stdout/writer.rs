//! The thread that writes lines: the system's calls may block for as long as a reader or a disk likes.

use super::{Error, Target};
use crate::batch::Batch;
use crate::receipt::Receipt;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
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
        receipt: Receipt,
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
        target: Target,
        waiting: mpsc::Receiver<Work>,
        shared: Arc<Shared>,
    ) -> Result<(Self, oneshot::Receiver<Result<(), Error>>), Error> {
        let (open, opened) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let named = target.clone();
        let handle = std::thread::Builder::new().name("output".to_owned()).spawn(move || {
            run(&target, waiting, &shared, open);
            drop(end);
        });
        let handle = handle.map_err(|source| Error::of(&named, source))?;
        Ok((Self { handle, ended }, opened))
    }

    /// Waits for its end. Cancel safe.
    pub(super) async fn join(writer: &mut Option<Self>) {
        let Some(running) = writer else { return };
        // The thread never sends: what comes is that it has ended.
        let _ended = (&mut running.ended).await;
        if let Some(writer) = writer.take() {
            // A panic there was printed there; its receipts are lost and say so.
            let _panicked = writer.handle.join();
        }
    }
}

fn run(target: &Target, mut waiting: mpsc::Receiver<Work>, shared: &Shared, open: oneshot::Sender<Result<(), Error>>) {
    match Output::open(target) {
        Ok(output) => {
            // Whoever asked may have gone meanwhile; the channel says so too.
            let _cancelled = open.send(Ok(()));
            let mut written = Vec::new();
            if let Err(source) = write_all(output, &mut waiting, shared, &mut written) {
                // It is the first: the writer ends with it.
                let _first = shared.failure.set(Error::of(target, source));
            }
        }
        Err(source) => {
            let _cancelled = open.send(Err(Error::of(target, source)));
        }
    }
}

/// Writes what comes. `written` are the receipts of lines that are not settled yet: they outlive an error, so that its cause is
/// known before anybody hears of the loss.
fn write_all(mut output: Output, waiting: &mut mpsc::Receiver<Work>, shared: &Shared, written: &mut Vec<(Receipt, u32)>) -> io::Result<()> {
    while let Some(first) = waiting.blocking_recv() {
        let mut next = Some(first);
        let mut done = None;
        while let Some(work) = next {
            if shared.abandoned.load(Ordering::Acquire) {
                return Ok(());
            }
            match work {
                Work::Lines { batch, receipt } => {
                    written.push((receipt, u32::try_from(batch.len()).expect("a batch's offsets are 32 bits")));
                    output.lines(&batch)?;
                }
                Work::Done(asked) => done = Some(asked),
            }
            next = waiting.try_recv().ok();
        }
        output.settle()?;
        for (receipt, records) in written.drain(..) {
            receipt.confirm(records);
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

    fn open(target: &Target) -> io::Result<Self> {
        match target {
            Target::Stdout => Ok(Self::Stdout(BufWriter::with_capacity(Self::BUFFER, io::stdout()))),
            Target::File(path) => {
                let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
                cut_torn_line(&mut file)?;
                if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    // A new file's name is durable with its directory.
                    File::open(directory)?.sync_all()?;
                }
                Ok(Self::File(BufWriter::with_capacity(Self::BUFFER, file)))
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

/// Cuts off what follows the last line's end, and leaves the file's cursor there.
fn cut_torn_line(file: &mut File) -> io::Result<()> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = [0; 4096];
    let keep = loop {
        let length = end.min(block.len() as u64);
        if length == 0 {
            break 0;
        }
        let start = end - length;
        let block = &mut block[..usize::try_from(length).expect("a block's length")];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(block)?;
        if let Some(newline) = memchr::memrchr(b'\n', block) {
            break start + newline as u64 + 1;
        }
        end = start;
    };
    file.set_len(keep)?;
    file.seek(SeekFrom::Start(keep))?;
    Ok(())
}
