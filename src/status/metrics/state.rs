//! The states of a pipeline.

/// What a pipeline is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet reading.
    Starting,
    /// Waiting until another instance releases the pipeline.
    Standby,
    /// Sending existing rows.
    Prefeed,
    /// Sending live events.
    Live,
    /// Paused by a command: reads nothing, and keeps its connections.
    Paused,
    /// The source side or the sink side waits to start again.
    Retrying,
    /// Stopped by a fault that a person must repair.
    StoppedOnError,
    /// Reads no more, and waits until every record in flight is confirmed.
    Draining,
    /// Drained and stopped.
    Stopped,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Starting,
        Self::Standby,
        Self::Prefeed,
        Self::Live,
        Self::Paused,
        Self::Retrying,
        Self::StoppedOnError,
        Self::Draining,
        Self::Stopped,
    ];

    /// Its label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Prefeed => "prefeed",
            Self::Live => "live",
            Self::Paused => "paused",
            Self::Retrying => "retrying",
            Self::StoppedOnError => "stopped_on_error",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}
