//! What a probe measures at the head of a source's log.

use tokio::time::Instant;

/// The head of a source's log, compared with a confirmed position.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogHead {
    /// Whether nothing that concerns the pipeline lies between the confirmed position and the head.
    pub caught_up: bool,
    /// When a head of the log was asked for that the confirmed position has reached: everything that was committed before is confirmed. It says
    /// how far behind a position is at most, where others write to the log all the time.
    pub reached_at: Option<Instant>,
    /// Bytes between the two, where the log counts bytes.
    pub lag_bytes: Option<u64>,
    /// Bytes of log that the source keeps for the pipeline.
    pub retained_bytes: Option<u64>,
    /// Age, in transactions, of the oldest transaction whose dead rows the server keeps for our slot or snapshots.
    pub xmin_age: Option<u64>,
    /// Share of the log-retention limit that is left; at 0 the log is lost. 1 where no limit is set.
    pub headroom_ratio: Option<f64>,
    /// The source's clock minus ours, in seconds.
    pub clock_offset_seconds: Option<f64>,
}
