//! Which transactions at the end of a file of MariaDB's log are complete.

use crate::source::mysql::binlog::MariaId;
use crate::source::mysql::token::LogFile;

/// What is known of the ends of files.
#[derive(Debug)]
pub(super) struct Ends {
    /// The last file when the session began. `None` on MySQL.
    pub(super) head: Option<LogFile>,
    /// The last complete transactions of the file that is read, by domain and server; `None` where all are complete.
    pub(super) complete: Option<Vec<MariaId>>,
}

impl Ends {
    pub(super) const fn new(head: Option<LogFile>) -> Self {
        Self { head, complete: None }
    }

    /// Whether this transaction was cut off.
    pub(super) fn cut_off(&self, gtid: &MariaId) -> bool {
        let has = |last: &MariaId| last.domain == gtid.domain && last.server == gtid.server && gtid.sequence <= last.sequence;
        self.complete.as_ref().is_some_and(|complete| !complete.iter().any(has))
    }
}

#[cfg(test)]
mod tests {
    use super::Ends;
    use crate::source::mysql::binlog::MariaId;

    #[test]
    fn what_the_next_file_does_not_list_was_cut_off() {
        let id = |domain, server, sequence| MariaId { domain, server, sequence };
        let ends = Ends { head: None, complete: Some(vec![id(0, 1, 86), id(0, 2, 90), id(7, 1, 3)]) };
        assert!(!ends.cut_off(&id(0, 1, 86)) && !ends.cut_off(&id(0, 2, 1)) && !ends.cut_off(&id(7, 1, 3)));
        assert!(ends.cut_off(&id(0, 1, 87)) && ends.cut_off(&id(0, 3, 1)) && ends.cut_off(&id(8, 1, 1)));
        assert!(!Ends::new(None).cut_off(&id(0, 1, 87)));
    }
}
