//! What the kernel says of a process.

use std::{
    fs,
    time::{Duration, Instant},
};

/// A backlog that was carried.
pub(crate) struct Drain {
    pub(crate) events: f64,
    pub(crate) took: Duration,
    pub(crate) processor: Duration,
}

impl Drain {
    pub(crate) fn rate(&self) -> f64 {
        self.events / self.took.as_secs_f64()
    }

    pub(crate) fn processor_us(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.events
    }
}

/// Processor time that a process has used, its threads together.
pub(crate) fn processor(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The fields after the name in parentheses; the 14th and 15th of all are ticks in user and kernel mode, proc(5).
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Resident memory in megabytes.
pub(crate) fn resident_mb(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The highest since [`forget_peak`].
pub(crate) fn peak_mb(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// proc(5): 5 resets the peak resident set size.
pub(crate) fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

fn status(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024 / 1_000_000
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}
