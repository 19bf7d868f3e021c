//! What differs between the versions of the server, 14 to 18, each with the release whose notes say so.

use super::server_error::ServerError;

/// A server's major version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32);

impl Version {
    /// The oldest that is served: the first with `idle_session_timeout`, and that tells of partitions by `publish_via_partition_root`
    /// and of large transactions by their memory.
    pub(super) const OLDEST: Self = Self(14);

    /// Reads the parameter `server_version`: `15.18 (Debian 15.18-0+deb12u1)`, `18beta1`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        text[..digits].parse().ok().map(Self)
    }

    /// A publication may have lists of columns and filters of rows.
    pub(super) fn has_publication_lists(self) -> bool {
        Self(15) <= self
    }

    /// A slot says why it was invalidated.
    pub(super) fn tells_invalidation_reason(self) -> bool {
        Self(17) <= self
    }

    /// `idle_replication_slot_timeout` invalidates slots that nobody reads.
    pub(super) fn has_idle_slot_timeout(self) -> bool {
        Self(18) <= self
    }

    /// `transaction_timeout` ends whole transactions.
    pub(super) fn has_transaction_timeout(self) -> bool {
        Self(17) <= self
    }

    /// A publication may hold generated columns.
    pub(super) fn publishes_generated_columns(self) -> bool {
        Self(18) <= self
    }
}

/// Whether a notice in the log says that the publication did not exist at that place. Up to version 17 this is an error; from 18 on
/// the server warns once, and leaves out every change until it exists (`LoadPublications`, `pgoutput.c`).
pub(super) fn is_publication_skipped(notice: &ServerError) -> bool {
    notice.sqlstate == "55000" && notice.message.contains("publication")
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn a_major_version_is_read_from_what_servers_say() {
        for (text, major) in [("15.18 (Debian 15.18-0+deb12u1)", 15), ("18beta1", 18), ("14.20", 14), ("17", 17)] {
            assert_eq!(Version::parse(text), Some(Version(major)), "{text}");
        }
        assert_eq!(Version::parse("EnterpriseDB"), None);
    }
}
