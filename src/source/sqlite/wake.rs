//! Waits for the next commit of another process, or for the stop.
//!
//! `PRAGMA data_version` shows a commit, but it must be polled. After a commit it is polled every millisecond. When nothing was written for
//! a while, the thread sleeps until inotify reports a write to the `-wal` file. A report is only a hint: a commit becomes visible after the
//! write, when the index in shared memory is updated. So a report is followed by polls each millisecond, and by slower ones where the disk
//! is slow. Reports can be missed, so there is a poll every two seconds in any case.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Asks a thread to end, and wakes it.
#[derive(Debug)]
pub(super) struct Stop {
    asked: AtomicBool,
    event: OwnedFd,
}

impl Stop {
    pub(super) fn new() -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self { asked: AtomicBool::new(false), event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? }))
    }

    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        // It is written once, so it cannot be full; and the thread wakes every two seconds anyway.
        let _woken = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Sleeps until the period is over or the thread is asked to end.
    pub(super) fn sleep(&self, period: Duration) {
        wait(&mut [PollFd::new(&self.event, PollFlags::IN)], period);
    }
}

fn wait(fds: &mut [PollFd<'_>], period: Duration) {
    let seconds = i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
    let timeout = Timespec { tv_sec: seconds, tv_nsec: i64::from(period.subsec_nanos()) };
    // A wait that a signal interrupts is a short one: the caller polls and waits again.
    let _ready = poll(fds, Some(&timeout));
}

/// Decides when the reading thread polls next.
#[derive(Debug)]
pub(super) struct CommitWait {
    stop: Arc<Stop>,
    inotify: Option<OwnedFd>,
    /// Until then somebody counts as writing.
    busy_until: Instant,
    /// Until then a commit that was written may not be visible yet.
    expecting_until: Instant,
    /// Between two polls when nobody writes.
    idle: Duration,
    /// Whether the last wait ended without a report of inotify.
    is_unreported: bool,
}

impl CommitWait {
    /// Between two polls while somebody writes.
    const BUSY: Duration = Duration::from_millis(1);
    /// How long somebody counts as writing after the last commit or report.
    const LINGER: Duration = Duration::from_millis(25);
    /// Between two polls while a commit may become visible, and for how long it may.
    const EXPECTING: Duration = Duration::from_millis(100);
    const EXPECTING_FOR: Duration = Duration::from_secs(5);
    /// Between two polls when nobody writes.
    const IDLE: Duration = Duration::from_secs(2);
    /// The same without inotify.
    const WITHOUT_INOTIFY: Duration = Duration::from_millis(10);

    pub(super) fn new(database: &Path, stop: Arc<Stop>) -> Self {
        let mut wal = database.as_os_str().to_owned();
        wal.push("-wal");
        let now = Instant::now();
        Self { stop, inotify: watch(&PathBuf::from(wal)), busy_until: now, expecting_until: now, idle: Self::IDLE, is_unreported: false }
    }

    /// A commit was seen.
    pub(super) fn saw_a_commit(&mut self) {
        if std::mem::take(&mut self.is_unreported) {
            // Some file systems do not report writes of others.
            self.idle = Self::EXPECTING;
        }
        self.busy_until = Instant::now() + Self::LINGER;
    }

    /// More may become visible soon.
    pub(super) fn expect_more(&mut self) {
        self.expecting_until = Instant::now() + Self::EXPECTING_FOR;
    }

    /// Sleeps until the next poll is due.
    pub(super) fn pause(&mut self) {
        let now = Instant::now();
        if now < self.busy_until {
            self.is_unreported = false;
            self.stop.sleep(Self::BUSY);
            return;
        }
        let Some(inotify) = &self.inotify else { return self.stop.sleep(Self::WITHOUT_INOTIFY) };
        let mut fds = [PollFd::new(inotify, PollFlags::IN), PollFd::new(&self.stop.event, PollFlags::IN)];
        let is_expecting = now < self.expecting_until;
        wait(&mut fds, if is_expecting { Self::EXPECTING } else { self.idle });
        let is_reported = fds[0].revents().contains(PollFlags::IN);
        self.is_unreported = !is_reported && !is_expecting;
        if is_reported {
            let mut reports = [0_u8; 4096];
            // The content of the reports does not matter.
            let _reports = rustix::io::read(inotify, &mut reports);
            self.saw_a_commit();
            self.expect_more();
        }
    }
}

fn watch(wal: &Path) -> Option<OwnedFd> {
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
    inotify::add_watch(&inotify, wal, inotify::WatchFlags::MODIFY).ok()?;
    Some(inotify)
}
