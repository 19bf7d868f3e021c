//! How many bytes are confirmed between two checkpoints at most, by the program's metrics while it runs.

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
/// Time between two readings of the metrics.
const PERIOD: Duration = Duration::from_millis(25);

/// Bytes that were confirmed up to each time of one run of the process.
type Run = Vec<(Instant, u64)>;

/// Reads the metrics again and again, until the result is needed.
pub(crate) struct Unsaved {
    stop: Arc<AtomicBool>,
    looking: JoinHandle<u64>,
}

impl Unsaved {
    pub(crate) fn watch(probe: Probe) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Self { stop, looking: thread::spawn(move || look(probe, &stopped)) }
    }

    /// How many bytes may have been confirmed and not saved when the runs ended: for each run those of its busiest interval, and of the longest
    /// save that may follow it.
    pub(crate) fn bytes_max(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.looking.join().expect("look at the metrics")
    }
}

fn look(probe: Probe, stopped: &AtomicBool) -> u64 {
    let mut runs: Vec<Run> = vec![Run::new()];
    let mut longest_save = Duration::ZERO;
    while !stopped.load(Ordering::Relaxed) {
        thread::sleep(PERIOD);
        match probe.metrics() {
            Ok(metrics) => {
                longest_save = longest_save.max(metrics.longest_save());
                let bytes = metrics.sum("feedline_sink_bytes_total", "");
                // Between two readings a killed process may be followed by the next one, which counts from 0.
                if runs.last().and_then(|run| run.last()).is_some_and(|(_, before)| bytes < *before) {
                    runs.push(Run::new());
                }
                runs.last_mut().expect("there is one").push((Instant::now(), bytes));
            }
            Err(_) => runs.push(Run::new()),
        }
    }
    runs.iter().map(|run| busiest(run, INTERVAL + longest_save)).sum()
}

/// The most that comes in any window of about this length.
fn busiest(run: &Run, window: Duration) -> u64 {
    let mut start = 0;
    let mut most = 0;
    for (at, bytes) in run {
        while start + 1 < run.len() && window <= at.saturating_duration_since(run[start + 1].0) {
            start += 1;
        }
        most = most.max(bytes - run[start].1);
    }
    most
}

#[test]
fn the_busiest_window_is_found() {
    let begun = Instant::now();
    let run: Run =
        [(0, 0), (400, 10), (800, 100), (1_000, 150), (3_000, 160)].map(|(ms, bytes)| (begun + Duration::from_millis(ms), bytes)).to_vec();
    assert_eq!(busiest(&run, Duration::from_millis(500)), 140);
    assert_eq!(busiest(&run, Duration::from_mins(1)), 160);
}
