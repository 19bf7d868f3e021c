//! What a pipeline is doing.

/// What a pipeline is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet reading.
    Starting,
    /// Waiting for whoever holds the pipeline.
    Standby,
    /// Sending existing rows.
    Prefeed,
    /// Sending live events.
    Live,
    /// One half waits to start again.
    Retrying,
    /// Stopped for a fault that a person must mend.
    StoppedOnError,
    /// Reads no more, and waits until what is on its way is confirmed.
    Draining,
    /// Drained and stopped.
    Stopped,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 8] =
        [Self::Starting, Self::Standby, Self::Prefeed, Self::Live, Self::Retrying, Self::StoppedOnError, Self::Draining, Self::Stopped];

    /// Its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Prefeed => "prefeed",
            Self::Live => "live",
            Self::Retrying => "retrying",
            Self::StoppedOnError => "stopped_on_error",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}
