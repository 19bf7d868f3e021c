//! Gaps in the source's log: which failures are gaps, and what is done about them.

use super::failure::Failure;
use crate::fault::Code;
use crate::status::metrics::GapReason;

/// What to do when the log no longer holds what comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// The pipeline stops and names the range.
    #[default]
    Stop,
    /// The tables that miss changes are read again, after a reset.
    Prefeed,
}

/// Why the log has a gap; `None` where the failure is not a gap.
pub(super) const fn reason_of(failure: &Failure) -> Option<GapReason> {
    match failure.code {
        Code::SourceLogLost => Some(GapReason::LogLost),
        Code::SourceRewound => Some(GapReason::Rewound),
        Code::SourceForeign => Some(GapReason::Foreign),
        _ => None,
    }
}

/// Whether reading tables again repairs the gap. It does not where the database is another one.
pub(super) const fn can_be_repaired(reason: GapReason) -> bool {
    matches!(reason, GapReason::LogLost | GapReason::Rewound)
}
