//! How much is confirmed between two checkpoints at most, as the program's own metrics show it while it runs.

use super::feedline::Probe;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// `checkpoint.interval`.
const INTERVAL: Duration = Duration::from_millis(500);
const PERIOD: Duration = Duration::from_millis(25);

/// Bytes that were confirmed until each moment of one life of the process.
type Life = Vec<(Instant, u64)>;

/// Looks again and again, until it is asked.
pub(crate) struct Pace {
    stop: Arc<AtomicBool>,
    looking: JoinHandle<u64>,
}

impl Pace {
    pub(crate) fn watch(probe: Probe) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Self { stop, looking: thread::spawn(move || look(probe, &stopped)) }
    }

    /// What the ends of all lives may have left confirmed and in no checkpoint: the bytes of the busiest interval of each, and
    /// of the longest save that may follow it.
    pub(crate) fn unsaved_bytes_max(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.looking.join().expect("look at the metrics")
    }
}

fn look(probe: Probe, stopped: &AtomicBool) -> u64 {
    let mut lives: Vec<Life> = vec![Life::new()];
    let mut longest_save = Duration::ZERO;
    while !stopped.load(Ordering::Relaxed) {
        thread::sleep(PERIOD);
        match probe.metrics() {
            Ok(metrics) => {
                longest_save = longest_save.max(metrics.longest_save());
                let bytes = metrics.sum("feedline_sink_bytes_total", "");
                // A process that is killed may be followed by the next between two looks: that one counts from nothing.
                if lives.last().and_then(|life| life.last()).is_some_and(|(_, before)| bytes < *before) {
                    lives.push(Life::new());
                }
                lives.last_mut().expect("there is one").push((Instant::now(), bytes));
            }
            Err(_) => lives.push(Life::new()),
        }
    }
    lives.iter().map(|life| busiest(life, INTERVAL + longest_save)).sum()
}

/// The most that comes in any window of about this length.
fn busiest(life: &Life, window: Duration) -> u64 {
    let mut start = 0;
    let mut most = 0;
    for (at, bytes) in life {
        while start + 1 < life.len() && window <= at.saturating_duration_since(life[start + 1].0) {
            start += 1;
        }
        most = most.max(bytes - life[start].1);
    }
    most
}

#[test]
fn the_busiest_window_is_found() {
    let begun = Instant::now();
    let life: Life =
        [(0, 0), (400, 10), (800, 100), (1_000, 150), (3_000, 160)].map(|(ms, bytes)| (begun + Duration::from_millis(ms), bytes)).to_vec();
    assert_eq!(busiest(&life, Duration::from_millis(500)), 140);
    assert_eq!(busiest(&life, Duration::from_mins(1)), 160);
}
