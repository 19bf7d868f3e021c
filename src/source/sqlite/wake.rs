//! Waiting for the next commit of another process.
//!
//! `PRAGMA data_version` tells it, but only when asked. After a commit it is asked every millisecond; when all has been quiet
//! for a while the thread sleeps until the kernel reports a write to the `-wal` file. That report is a hint and no more: a
//! commit becomes visible only after the write, when the index in shared memory is updated, so it is followed by short looks, and by
//! rarer ones where the disk is slow; and because reports can be missed, there is a look every two seconds in any case.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tells a sleeping thread to end.
#[derive(Debug)]
pub(super) struct Stop {
    asked: AtomicBool,
    bell: OwnedFd,
}

impl Stop {
    pub(super) fn new() -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self { asked: AtomicBool::new(false), bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? }))
    }

    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        // Nothing else writes there, so it cannot be full; and the thread looks every two seconds anyway.
        let _rung = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Sleeps, unless asked to end.
    pub(super) fn sleep(&self, period: Duration) {
        wait(&mut [PollFd::new(&self.bell, PollFlags::IN)], period);
    }
}

fn wait(fds: &mut [PollFd<'_>], period: Duration) {
    let seconds = i64::try_from(period.as_secs()).unwrap_or(i64::MAX);
    let timeout = Timespec { tv_sec: seconds, tv_nsec: i64::from(period.subsec_nanos()) };
    // An interrupted wait is a short one: the caller looks and waits again.
    let _ready = poll(fds, Some(&timeout));
}

/// Paces the looks of one reading thread.
#[derive(Debug)]
pub(super) struct Wake {
    stop: Arc<Stop>,
    watch: Option<OwnedFd>,
    /// Until then somebody is writing, as far as is known.
    busy_until: Instant,
    /// Until then what was written may not be visible yet.
    watchful_until: Instant,
    /// Between two looks when nobody writes.
    idle: Duration,
    /// Whether the last wait ended without a report.
    is_unreported: bool,
}

impl Wake {
    /// Between two looks while somebody writes.
    const BUSY: Duration = Duration::from_millis(1);
    /// How long after the last sign of life somebody counts as writing.
    const LINGER: Duration = Duration::from_millis(25);
    /// Between two looks while what was written may become visible, and for how long it may.
    const WATCHFUL: Duration = Duration::from_millis(100);
    const WATCHFUL_FOR: Duration = Duration::from_secs(5);
    /// Between two looks when nobody writes.
    const IDLE: Duration = Duration::from_secs(2);
    /// The same where the kernel's reports cannot be had.
    const UNWATCHED: Duration = Duration::from_millis(10);

    pub(super) fn new(database: &Path, stop: Arc<Stop>) -> Self {
        let mut wal = database.as_os_str().to_owned();
        wal.push("-wal");
        let now = Instant::now();
        Self { stop, watch: watch(&PathBuf::from(wal)), busy_until: now, watchful_until: now, idle: Self::IDLE, is_unreported: false }
    }

    /// Something was committed.
    pub(super) fn saw_a_commit(&mut self) {
        if std::mem::take(&mut self.is_unreported) {
            // Some file systems do not report what others write.
            self.idle = Self::WATCHFUL;
        }
        self.busy_until = Instant::now() + Self::LINGER;
    }

    /// What was committed could not be read yet.
    pub(super) fn was_kept_waiting(&mut self) {
        self.watchful_until = Instant::now() + Self::WATCHFUL_FOR;
    }

    /// Sleeps until the next look is due.
    pub(super) fn pause(&mut self) {
        let now = Instant::now();
        if now < self.busy_until {
            self.is_unreported = false;
            self.stop.sleep(Self::BUSY);
            return;
        }
        let Some(watch) = &self.watch else { return self.stop.sleep(Self::UNWATCHED) };
        let mut fds = [PollFd::new(watch, PollFlags::IN), PollFd::new(&self.stop.bell, PollFlags::IN)];
        let is_watchful = now < self.watchful_until;
        wait(&mut fds, if is_watchful { Self::WATCHFUL } else { self.idle });
        let is_reported = fds[0].revents().contains(PollFlags::IN);
        self.is_unreported = !is_reported && !is_watchful;
        if is_reported {
            let mut reports = [0_u8; 4096];
            // What the reports say does not matter, only that there are some.
            let _reports = rustix::io::read(watch, &mut reports);
            self.saw_a_commit();
            self.was_kept_waiting();
        }
    }
}

fn watch(wal: &Path) -> Option<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).ok()?;
    inotify::add_watch(&watch, wal, inotify::WatchFlags::MODIFY).ok()?;
    Some(watch)
}
