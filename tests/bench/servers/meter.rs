//! Processor time and memory of a process, as the kernel reports them.

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

/// The processor time that was used up to a moment, and how many events were carried by then.
pub(crate) struct Used {
    pub(crate) at: Instant,
    pub(crate) own: Duration,
    pub(crate) database: Duration,
    pub(crate) broker: Duration,
    pub(crate) carried: u32,
}

/// Processor time that all threads of a process have used.
pub(crate) fn processor(pid: u32) -> Duration {
    ticks(&fields(pid).unwrap()[11..13])
}

/// Processor time of the threads of this name, and the bytes that they have written to files. Linux keeps 15 letters of a name.
pub(crate) fn thread(pid: u32, name: &str) -> (Duration, u64) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let named = tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|found| found.trim_end() == name));
    let used = named.map(|task| {
        let of = |file: &str| fs::read_to_string(task.join(file)).unwrap();
        // The first figure of `schedstat` is nanoseconds; `wchar` counts what was given to write(2).
        let nanoseconds = of("schedstat").split(' ').next().unwrap().parse().unwrap();
        let written = of("io").lines().find_map(|line| line.strip_prefix("wchar: ")?.parse::<u64>().ok()).unwrap();
        (Duration::from_nanos(nanoseconds), written)
    });
    used.fold((Duration::ZERO, 0), |(processor, written), (more, also)| (processor + more, written + also))
}

/// The same as [`processor`], including its children: those that run, and those that have ended.
pub(crate) fn family(pid: u32) -> Duration {
    let own = || fields(pid).unwrap()[11..15].to_vec();
    loop {
        let before = own();
        let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let children = processes.filter_map(fields).filter(|fields| fields[1] == pid.to_string());
        let children: Duration = children.map(|fields| ticks(&fields[11..13])).sum();
        // A child that ended meanwhile would count twice, or not at all.
        if own()[2..] == before[2..] {
            return children + ticks(&before);
        }
    }
}

/// Processor time of this process' own children that have ended.
pub(crate) fn children() -> Duration {
    ticks(&fields(std::process::id()).unwrap()[13..15])
}

/// The fields of proc(5) after the name in parentheses: the parent is the second of them, the twelfth to fifteenth are ticks in user and
/// kernel mode, of the process and of its children that have ended.
fn fields(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit(") ").next()?.split(' ').map(str::to_owned).collect())
}

fn ticks(fields: &[String]) -> Duration {
    Duration::from_millis(fields.iter().map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

/// Resident memory in megabytes.
pub(crate) fn resident_mb(pid: u32) -> u64 {
    status(pid, "VmRSS:").unwrap()
}

/// The highest since [`forget_peak`]; `None` if the process has ended.
pub(crate) fn peak_mb(pid: u32) -> Option<u64> {
    status(pid, "VmHWM:")
}

/// proc(5): 5 resets the peak resident set size.
pub(crate) fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

fn status(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024 / 1_000_000)
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
