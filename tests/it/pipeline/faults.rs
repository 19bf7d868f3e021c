//! What fails in the world, and how often.

use feedline::fault::{Classify, Code, Fault};
use std::time::Duration;

/// Random numbers from one seed.
#[derive(Clone, Debug)]
pub struct Random(pub fastrand::Rng);

impl Random {
    pub fn one_in(&mut self, n: u32) -> bool {
        n != 0 && self.0.u32(..n) == 0
    }
}

/// How often each fault happens: one in so many calls; `0` is never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub source_connect: u32,
    pub source_fill: u32,
    /// The part of the log that is proven to be intact ends before what was read.
    pub source_goes_back: u32,
    pub source_acknowledge: u32,
    pub source_head: u32,
    pub prefeed_scan: u32,
    pub prefeed_stuck: u32,
    /// Somebody waits for what the snapshot holds: the slice ends early.
    pub prefeed_waited_for: u32,
    /// The source loses all of its log when a session begins.
    pub gap: u32,
    /// Rows change, and the log does not show it.
    pub silent_change: u32,
    pub sink_connect: u32,
    pub sink_submit: u32,
    pub sink_lose: u32,
    /// How long the broker needs for each record.
    pub sink_record_time: Duration,
    /// A session that fails has learnt something for the next one.
    pub sink_learns: bool,
    /// The session confirms a batch and then fails.
    pub sink_confirm_and_fail: u32,
    /// The store does not answer. In half of these cases the checkpoint is saved.
    pub store_save: u32,
    /// Saves do not end.
    pub store_hangs: bool,
    /// Another process has taken over the checkpoint: the store accepts nothing more from this one.
    pub is_taken_over: bool,
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("scripted fault of the {0:?} kind")]
pub struct Scripted(pub Fault);

impl Classify for Scripted {
    fn fault(&self) -> Fault {
        self.0
    }
    fn code(&self) -> Code {
        match self.0 {
            Fault::Gap => Code::SourceLogLost,
            Fault::Transient | Fault::Fatal => Code::SourceProtocol,
        }
    }
}
