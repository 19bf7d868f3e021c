//! What the engine costs by itself: memory budget, channel, ledger and checkpoint are the real ones.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark's unwraps are assertions")]

#[path = "handover/engine.rs"]
mod engine;

use std::{fs, time::Instant};

const ROUNDS: usize = 3;
const EVENTS: u64 = 5_000_000;

#[tokio::main]
async fn main() {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round().await);
    }
    rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (rate, processor_us) = rounds[ROUNDS / 2];
    println!("| hand-over alone, events of 560 bytes | {rate:.0} events/s, {processor_us:.3} µs of processor each | |");
}

/// Events per second, and microseconds of processor time per event.
async fn round() -> (f64, f64) {
    let (started, before) = (Instant::now(), processor());
    let carried = f64::from(u32::try_from(tokio::spawn(engine::carry(EVENTS)).await.unwrap()).unwrap());
    (carried / started.elapsed().as_secs_f64(), (processor() - before) * 1e6 / carried)
}

/// Seconds of processor time that this process has used, by proc(5).
fn processor() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
