//! The head of a source's log.

/// What a look at the log's head shows, seen from a confirmed place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogHead {
    /// Whether nothing that concerns the pipeline lies between the confirmed place and the head.
    pub caught_up: bool,
    /// Bytes between the two, where the log counts bytes.
    pub lag_bytes: Option<u64>,
    /// Bytes of log that the source keeps for the pipeline.
    pub retained_bytes: Option<u64>,
    /// How many transactions ago the oldest one began whose leavings the source must keep for the pipeline: its slot and its
    /// snapshots hold back cleaning up.
    pub xmin_age: Option<u64>,
    /// What is left of the source's patience: 1 all, 0 about to lose our place.
    pub headroom_ratio: Option<f64>,
    /// The source's clock minus ours, in seconds.
    pub clock_offset_seconds: Option<f64>,
}
