//! Why a part of the pipeline started again.

use crate::fault::Code;

/// Why a part of the pipeline started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartReason {
    /// The source side met a transient fault.
    SourceError,
    /// The log has a gap, and tables are read again.
    SourceGap,
    /// The sink side met a transient fault.
    SinkError,
    /// The checkpoint could not be read or saved for now.
    CheckpointError,
    /// The process started after an unclean end.
    Process,
    /// A command requested it.
    Requested,
}

impl RestartReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [Self::SourceError, Self::SourceGap, Self::SinkError, Self::CheckpointError, Self::Process, Self::Requested];

    /// The reason for a restart after a failure with this code; `None` for a failure of the configuration.
    #[must_use]
    pub const fn of(code: Code) -> Option<Self> {
        match code.number() / 1000 {
            2 | 5 => Some(Self::SourceError),
            3 => Some(Self::SinkError),
            4 => Some(Self::CheckpointError),
            _ => None,
        }
    }

    /// Its label, and its key in the checkpoint.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SourceError => "source_error",
            Self::SourceGap => "source_gap",
            Self::SinkError => "sink_error",
            Self::CheckpointError => "checkpoint_error",
            Self::Process => "process",
            Self::Requested => "requested",
        }
    }
}
