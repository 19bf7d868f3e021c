//! Changes that are logged as statements: which table they change, if that is certain.
//!
//! `pt-table-checksum` logs such statements, because it wants replicas to repeat them.

use super::words::{TableName, Words};

/// Built-in functions, which change nothing, and keywords before parentheses. A stored function may change other tables.
const HARMLESS: [&str; 44] = [
    "ABS",
    "AND",
    "BIT_XOR",
    "CAST",
    "CHAR",
    "COALESCE",
    "CONCAT",
    "CONCAT_WS",
    "CONV",
    "CONVERT",
    "COUNT",
    "CRC32",
    "CURRENT_TIMESTAMP",
    "DATE",
    "DECIMAL",
    "FLOOR",
    "FORCE",
    "HEX",
    "IF",
    "IFNULL",
    "IN",
    "INDEX",
    "ISNULL",
    "KEY",
    "LEFT",
    "LENGTH",
    "LOWER",
    "LPAD",
    "MAX",
    "MD5",
    "MIN",
    "MOD",
    "NOT",
    "NOW",
    "NULLIF",
    "OR",
    "REVERSE",
    "RIGHT",
    "ROUND",
    "SHA1",
    "SUBSTRING",
    "SUM",
    "UNIX_TIMESTAMP",
    "WHERE",
];

/// The table that a statement changes: it names no other one to change, and calls nothing that could. `None` where that is not certain.
pub(super) fn target(first: &str, mut words: Words<'_>) -> Option<TableName> {
    while ["LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "QUICK", "IGNORE"].iter().any(|word| words.take(word)) {}
    let table = match first {
        "INSERT" | "REPLACE" => {
            words.take("INTO");
            words.table()?
        }
        // With several tables a comma or a join follows.
        "UPDATE" => {
            let table = words.table()?;
            words.peek_keyword().filter(|word| word == "SET")?;
            table
        }
        "DELETE" => {
            let table = words.take("FROM").then(|| words.table())??;
            words.peek_keyword().filter(|word| word == "WHERE")?;
            table
        }
        _ => return None,
    };
    if words.symbol('(') {
        // The columns.
        words.skip_to_parenthesis();
    }
    words.take("VALUES");
    words.take("VALUE");
    words.called().iter().all(|name| HARMLESS.contains(&name.as_str())).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::{Words, target};
    use crate::source::mysql::binlog::Writing;

    /// The only table that a statement changes.
    fn of(sql: &str) -> Option<String> {
        let mut words = Words::new(sql, Writing::default());
        let first = words.keyword().unwrap();
        let table = target(&first, words)?;
        Some(format!("{}.{}", table.schema.unwrap_or_default(), table.name))
    }

    #[test]
    fn a_checksum_of_a_table_changes_the_table_of_checksums() {
        let replace = "REPLACE INTO `percona`.`checksums` (db, tbl, chunk, chunk_index, lower_boundary, upper_boundary, this_cnt, this_crc) \
                       SELECT 'shop', 'orders', '1', 'PRIMARY', '1', '1000', COUNT(*) AS cnt, COALESCE(LOWER(CONV(BIT_XOR(CAST(CRC32(\
                       CONCAT_WS('#', `id`, `note`, CONCAT(ISNULL(`note`)))) AS UNSIGNED)), 10, 16)), 0) AS crc FROM `shop`.`orders` \
                       FORCE INDEX(`PRIMARY`) WHERE ((`id` >= '1')) AND ((`id` <= '1000')) /*checksum chunk*/";
        let update = "UPDATE `percona`.`checksums` SET chunk_time = '0.002', master_crc = 'a1', master_cnt = '3' \
                      WHERE db = 'shop' AND tbl = 'orders' AND chunk = '1'";
        assert_eq!([of(replace), of(update)], [Some("percona.checksums".to_owned()), Some("percona.checksums".to_owned())]);
    }

    #[test]
    fn only_a_single_table_without_foreign_functions_is_certain() {
        for (sql, table) in [
            ("INSERT INTO s.t VALUES (1, NOW()), (2, NULL)", Some("s.t")),
            ("INSERT IGNORE t (a, b) VALUES (1, 2) ON DUPLICATE KEY UPDATE a = 3", Some(".t")),
            ("DELETE FROM t WHERE a = 1", Some(".t")),
            ("UPDATE t SET a = 1", Some(".t")),
            ("INSERT INTO t VALUES (f(1))", None),
            ("INSERT INTO t SELECT s.f (1)", None),
            ("INSERT INTO t SELECT `f`(1)", None),
            ("UPDATE t, u SET t.a = 1", None),
            ("UPDATE t JOIN u SET u.a = 1", None),
            ("DELETE t FROM t JOIN u", None),
            ("DELETE FROM t USING t JOIN u", None),
            ("LOAD DATA INFILE 'x' INTO TABLE t", None),
            ("WITH x AS (SELECT 1) UPDATE t SET a = 1", None),
        ] {
            assert_eq!(of(sql).as_deref(), table, "{sql}");
        }
    }
}
