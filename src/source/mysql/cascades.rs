//! Foreign keys whose actions change rows without events in the log.
//!
//! `InnoDB` itself carries out `ON DELETE CASCADE` and the like, below the level at which rows are logged. MySQL from 9.6 on carries them out
//! above it and logs the rows, unless `innodb_native_foreign_keys` is on (MySQL documentation, "FOREIGN KEY Constraints").

use super::error::Error;
use super::session::Session;
use super::tables::Table;
use super::variables::Variables;

/// Whether the rows that foreign keys change are missing in the log.
pub(super) fn are_unseen(variables: &Variables) -> bool {
    !variables.is("innodb_native_foreign_keys", "OFF")
}

/// Whether a foreign key of this table changes its rows when rows of another table change. The catalogue shows that to users who may change
/// the table, so it is read from the definition.
pub(super) async fn change(table: &Table, session: &mut Session) -> Result<bool, Error> {
    if !table.has_foreign_key {
        return Ok(false);
    }
    let rows = session.query(&format!("SHOW CREATE TABLE {}", table.sql_name())).await?;
    Ok(rows.first().is_some_and(|row| row.text(1).lines().any(acts)))
}

/// Whether this line of a definition is a foreign key that does more than refuse.
fn acts(line: &str) -> bool {
    let line = line.trim();
    // What follows the names.
    let actions = line.rsplit_once("`)").map_or("", |(_, actions)| actions);
    line.starts_with("CONSTRAINT `")
        && line.contains("` FOREIGN KEY (`")
        && ["CASCADE", "SET NULL", "SET DEFAULT"].iter().any(|action| actions.contains(action))
}

#[cfg(test)]
mod tests {
    use super::acts;

    #[test]
    fn an_action_follows_the_referenced_columns() {
        for (line, expected) in [
            ("  CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `p` (`id`) ON DELETE CASCADE ON UPDATE SET NULL", true),
            ("  CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `p` (`id`) ON UPDATE SET NULL,", true),
            ("  CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `p` (`id`)", false),
            ("  CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `p` (`id`) ON DELETE NO ACTION", false),
            ("  CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `ON DELETE CASCADE` (`id`)", false),
            ("  `c` varchar(9) COMMENT 'FOREIGN KEY (`a`) ON DELETE CASCADE'", false),
        ] {
            assert_eq!(acts(line), expected, "{line}");
        }
    }
}
