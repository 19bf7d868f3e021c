//! The differences between PostgreSQL 14 to 18 that matter here, each with the version of the release notes that mention it.

use super::server_error::ServerError;

/// The major version of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32);

impl Version {
    /// The oldest supported version. It is the first one with `idle_session_timeout`.
    pub(super) const OLDEST: Self = Self(14);

    /// Parses the parameter `server_version`: `15.18 (Debian 15.18-0+deb12u1)`, `18beta1`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        text[..digits].parse().ok().map(Self)
    }

    /// Whether publications have column lists and row filters.
    pub(super) fn has_publication_lists(self) -> bool {
        Self(15) <= self
    }

    /// Whether slots show why they were invalidated.
    pub(super) fn shows_invalidation_reason(self) -> bool {
        Self(17) <= self
    }

    /// Whether `idle_replication_slot_timeout` exists, which invalidates slots that nobody reads.
    pub(super) fn has_idle_slot_timeout(self) -> bool {
        Self(18) <= self
    }

    /// Whether `transaction_timeout` exists, which ends whole transactions.
    pub(super) fn has_transaction_timeout(self) -> bool {
        Self(17) <= self
    }

    /// Whether publications can hold generated columns.
    pub(super) fn publishes_generated_columns(self) -> bool {
        Self(18) <= self
    }
}

/// Whether a notice says that the publication did not exist at this position of the log. Up to version 17 this is an error. From 18 on
/// the server warns once, and leaves out every change until the publication exists (`LoadPublications`, `pgoutput.c`).
pub(super) fn is_publication_skipped(notice: &ServerError) -> bool {
    notice.sqlstate == "55000" && notice.message.contains("publication")
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn a_major_version_is_read_from_server_version() {
        for (text, major) in [("15.18 (Debian 15.18-0+deb12u1)", 15), ("18beta1", 18), ("14.20", 14), ("17", 17)] {
            assert_eq!(Version::parse(text), Some(Version(major)), "{text}");
        }
        assert_eq!(Version::parse("EnterpriseDB"), None);
    }
}
