//! What a statement in the log does: as far as it concerns tables, their rows, and the transaction.
//!
//! The log has rows, and statements only for definitions (MySQL documentation, "Mixed Binary Logging Format"). A session can choose to log its
//! changes as statements; then nobody knows which rows changed.

use super::logged_change::target;
use super::words::{TableName, Words};
use crate::source::mysql::xa::XaId;

/// What a statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// A transaction begins.
    Begin,
    /// The transaction is committed.
    Commit,
    /// The transaction is rolled back, though its rows are in the log.
    Rollback,
    /// Part of the transaction is rolled back, though its rows are in the log.
    RollbackToSavepoint,
    /// An XA transaction begins; it ends with an event of its own.
    XaBegin,
    /// An XA transaction that was prepared is committed.
    XaCommit(Option<XaId>),
    /// An XA transaction that was prepared is rolled back.
    XaRollback(Option<XaId>),
    /// All rows of a table are removed.
    Truncate(TableName),
    /// Tables are dropped.
    Drop(Vec<TableName>),
    /// A schema is dropped, with all its tables.
    DropSchema(String),
    /// Tables get other names: old and new.
    Rename(Vec<(TableName, TableName)>),
    /// A table gets another definition.
    Alter {
        table: TableName,
        /// The name that it gets.
        renamed: Option<TableName>,
        effect: Effect,
    },
    /// A table is made.
    Create(TableName),
    /// Rows change, and the log does not say which: of this table alone, if that is certain.
    Change(Option<TableName>),
    /// Nothing that concerns tables.
    Other,
}

/// What a new definition does to the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// They may have other values.
    Values,
    /// Some may be gone, or new.
    Rows,
}

impl Statement {
    /// Reads a statement.
    pub(super) fn read(sql: &str) -> Self {
        // As the server writes it for each transaction.
        if sql == "BEGIN" {
            return Self::Begin;
        }
        let mut words = Words::new(sql);
        let Some(first) = words.keyword() else { return Self::Other };
        match first.as_str() {
            "BEGIN" => Self::Begin,
            "START" => {
                if words.take("TRANSACTION") {
                    Self::Begin
                } else {
                    Self::Other
                }
            }
            "COMMIT" => Self::Commit,
            "ROLLBACK" => {
                if words.keyword().is_some_and(|word| word == "TO") {
                    Self::RollbackToSavepoint
                } else {
                    Self::Rollback
                }
            }
            "XA" => match words.keyword().as_deref() {
                Some("START" | "BEGIN") => Self::XaBegin,
                Some("COMMIT") => Self::XaCommit(XaId::read(words.rest())),
                Some("ROLLBACK") => Self::XaRollback(XaId::read(words.rest())),
                _ => Self::Other,
            },
            "TRUNCATE" => {
                words.take("TABLE");
                words.table().map_or(Self::Other, Self::Truncate)
            }
            "DROP" => drop(&mut words),
            "RENAME" => rename(&mut words),
            "ALTER" => alter(&mut words),
            "CREATE" => create(&mut words),
            "INSERT" | "UPDATE" | "REPLACE" | "LOAD" | "WITH" | "CALL" | "DO" => Self::Change(target(&first, words)),
            "DELETE" => delete(&mut words),
            _ => Self::Other,
        }
    }
}

/// The server empties a table of the engine MEMORY by such a statement after a restart.
fn delete(words: &mut Words<'_>) -> Statement {
    let change = target("DELETE", words.clone());
    let all = words.take("FROM").then(|| words.table()).flatten().filter(|_| words.is_at_end());
    all.map_or(Statement::Change(change), Statement::Truncate)
}

fn drop(words: &mut Words<'_>) -> Statement {
    words.take("TEMPORARY");
    let what = words.keyword();
    match what.as_deref() {
        Some("TABLE" | "TABLES") => {
            words.take_if_exists();
            Statement::Drop(words.tables())
        }
        Some("DATABASE" | "SCHEMA") => {
            words.take_if_exists();
            words.identifier().map_or(Statement::Other, Statement::DropSchema)
        }
        _ => Statement::Other,
    }
}

fn rename(words: &mut Words<'_>) -> Statement {
    if !words.take("TABLE") && !words.take("TABLES") {
        return Statement::Other;
    }
    words.take_if_exists();
    let mut pairs = Vec::new();
    while let Some(old) = words.table() {
        words.skip_wait();
        let Some(new) = words.take("TO").then(|| words.table()).flatten() else { break };
        pairs.push((old, new));
        if !words.symbol(',') {
            break;
        }
    }
    Statement::Rename(pairs)
}

fn create(words: &mut Words<'_>) -> Statement {
    while words.take("OR") || words.take("REPLACE") {}
    if words.take("TEMPORARY") || !words.take("TABLE") {
        return Statement::Other;
    }
    words.take_if_exists();
    words.table().map_or(Statement::Other, Statement::Create)
}

fn alter(words: &mut Words<'_>) -> Statement {
    while words.take("ONLINE") || words.take("IGNORE") {}
    if !words.take("TABLE") {
        return Statement::Other;
    }
    words.take_if_exists();
    let Some(table) = words.table() else { return Statement::Other };
    words.skip_wait();
    let (mut renamed, mut effect) = (None, Effect::None);
    let mut more = true;
    while more {
        let (part, name) = alteration(words);
        effect = effect.most(part);
        renamed = name.or(renamed);
        more = words.skip_to_comma();
    }
    Statement::Alter { table, renamed, effect }
}

/// One part of an `ALTER TABLE`: its effect on rows, and the name that it gives to the table.
fn alteration(words: &mut Words<'_>) -> (Effect, Option<TableName>) {
    let first = words.keyword().unwrap_or_default();
    match first.as_str() {
        "ADD" => (addition(words), None),
        "MODIFY" | "CHANGE" | "CONVERT" => (Effect::Values, None),
        "DROP" | "TRUNCATE" | "EXCHANGE" | "DISCARD" | "IMPORT" => {
            let is_part = words.keyword().is_some_and(|word| word == "PARTITION" || word == "TABLESPACE");
            (if is_part || first == "EXCHANGE" { Effect::Rows } else { Effect::None }, None)
        }
        "RENAME" => {
            if words.take("COLUMN") {
                // Readers have the values of rows that do not change under the old name.
                return (Effect::Values, None);
            }
            if words.take("INDEX") || words.take("KEY") {
                return (Effect::None, None);
            }
            while words.take("TO") || words.take("AS") || words.symbol('=') {}
            (Effect::None, words.table())
        }
        _ => (Effect::None, None),
    }
}

/// A new column may have values in the rows that are there.
fn addition(words: &mut Words<'_>) -> Effect {
    const NO_COLUMN: [&str; 12] =
        ["INDEX", "KEY", "CONSTRAINT", "PRIMARY", "UNIQUE", "FULLTEXT", "SPATIAL", "FOREIGN", "CHECK", "PARTITION", "PERIOD", "SYSTEM"];
    if words.peek_keyword().is_some_and(|word| NO_COLUMN.contains(&word.as_str())) {
        return Effect::None;
    }
    let definition = words.until_comma();
    let has = |word: &str| definition.iter().any(|known| known == word);
    let default_is_null = definition.windows(2).any(|pair| pair[0] == "DEFAULT" && pair[1] == "NULL");
    let has_values = (has("DEFAULT") && !default_is_null) || has("NOT") || has("AS") || has("AUTO_INCREMENT") || has("ON") || has("SERIAL");
    if has_values { Effect::Values } else { Effect::None }
}

impl Effect {
    const fn most(self, other: Self) -> Self {
        match (self, other) {
            (Self::Rows, _) | (_, Self::Rows) => Self::Rows,
            (Self::Values, _) | (_, Self::Values) => Self::Values,
            (Self::None, Self::None) => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Effect, Statement, TableName, XaId};

    fn table(name: &str) -> TableName {
        match name.split_once('.') {
            Some((schema, name)) => TableName { schema: Some(schema.to_owned()), name: name.to_owned() },
            None => TableName { schema: None, name: name.to_owned() },
        }
    }

    #[test]
    fn statements_about_transactions_are_told_apart() {
        for (sql, expected) in [
            ("BEGIN", Statement::Begin),
            ("START TRANSACTION", Statement::Begin),
            ("COMMIT", Statement::Commit),
            ("ROLLBACK", Statement::Rollback),
            ("ROLLBACK TO `a`", Statement::RollbackToSavepoint),
            ("ROLLBACK TO SAVEPOINT `a`", Statement::RollbackToSavepoint),
            ("SAVEPOINT `a`", Statement::Other),
            ("XA START X'61',X'',1", Statement::XaBegin),
            ("XA END X'61',X'',1", Statement::Other),
            ("XA COMMIT X'61',X'',1", Statement::XaCommit(XaId::read("X'61',X'',1"))),
            ("XA ROLLBACK X'61',X'',1", Statement::XaRollback(XaId::read("X'61',X'',1"))),
            ("", Statement::Other),
            ("/* nothing */", Statement::Other),
        ] {
            assert_eq!(Statement::read(sql), expected, "{sql}");
        }
    }

    #[test]
    fn tables_are_named_in_every_spelling() {
        let rename = |pairs: &[(&str, &str)]| Statement::Rename(pairs.iter().map(|(old, new)| (table(old), table(new))).collect());
        for (sql, expected) in [
            ("TRUNCATE TABLE t", Statement::Truncate(table("t"))),
            ("truncate `s` . `t`", Statement::Truncate(table("s.t"))),
            ("/* a */ TRUNCATE -- b\n TABLE # c\n s.t;", Statement::Truncate(table("s.t"))),
            ("TRUNCATE `a``b`", Statement::Truncate(table("a`b"))),
            ("DELETE FROM `s`.`t`", Statement::Truncate(table("s.t"))),
            ("DELETE FROM `s`.`t` WHERE a = 1", Statement::Change(Some(table("s.t")))),
            ("DROP TABLE IF EXISTS `a`, s.b /* generated by server */", Statement::Drop(vec![table("a"), table("s.b")])),
            ("DROP TABLE `a` /* generated by server */", Statement::Drop(vec![table("a")])),
            ("DROP DATABASE `s`", Statement::DropSchema("s".to_owned())),
            ("DROP SCHEMA IF EXISTS s", Statement::DropSchema("s".to_owned())),
            ("DROP VIEW v", Statement::Other),
            ("RENAME TABLE a TO b, s.c TO d", rename(&[("a", "b"), ("s.c", "d")])),
            ("RENAME TABLE a NOWAIT TO b", rename(&[("a", "b")])),
            ("CREATE TABLE IF NOT EXISTS `s`.`t` (a int)", Statement::Create(table("s.t"))),
            ("CREATE OR REPLACE TABLE t LIKE u", Statement::Create(table("t"))),
            ("CREATE TEMPORARY TABLE t (a int)", Statement::Other),
            ("CREATE /*!50000 TABLE */ t (a int)", Statement::Create(table("t"))),
            ("CREATE INDEX i ON t (a)", Statement::Other),
            ("INSERT INTO t VALUES (1)", Statement::Change(Some(table("t")))),
            ("LOAD DATA INFILE 'x' INTO TABLE t", Statement::Change(None)),
            ("GRANT SELECT ON t TO u", Statement::Other),
        ] {
            assert_eq!(Statement::read(sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_new_definition_may_change_rows() {
        for (parts, effect) in [
            ("ADD COLUMN a int", Effect::None),
            ("ADD a int NULL DEFAULT NULL AFTER b", Effect::None),
            ("ADD COLUMN a int DEFAULT 5", Effect::Values),
            ("ADD a int NOT NULL", Effect::Values),
            ("ADD (a int, b varchar(9) default 'x')", Effect::Values),
            ("ADD a int AS (b + 1) STORED", Effect::Values),
            ("ADD INDEX i (a), ADD CONSTRAINT c CHECK (a <> 'DEFAULT, ')", Effect::None),
            ("ADD INDEX i (a), MODIFY b bigint", Effect::Values),
            ("CHANGE `a` `b` int", Effect::Values),
            ("CONVERT TO CHARACTER SET utf8mb4", Effect::Values),
            ("DROP COLUMN a, ENGINE = InnoDB, COMMENT 'ADD x int DEFAULT 1'", Effect::None),
            ("DROP PARTITION p0", Effect::Rows),
            ("TRUNCATE PARTITION ALL", Effect::Rows),
            ("EXCHANGE PARTITION p WITH TABLE u", Effect::Rows),
            ("DISCARD TABLESPACE", Effect::Rows),
            ("REORGANIZE PARTITION p INTO (PARTITION q VALUES LESS THAN (5))", Effect::None),
            ("ADD PARTITION (PARTITION p VALUES LESS THAN (5))", Effect::None),
            ("ALTER COLUMN a SET DEFAULT 5", Effect::None),
            ("AUTO_INCREMENT = 5", Effect::None),
        ] {
            let expected = Statement::Alter { table: table("t"), renamed: None, effect };
            assert_eq!(Statement::read(&format!("ALTER TABLE t {parts}")), expected, "{parts}");
        }
        let expected = Statement::Alter { table: table("s.t"), renamed: Some(table("u")), effect: Effect::Values };
        assert_eq!(Statement::read("ALTER ONLINE TABLE s.t ADD a int DEFAULT 1, RENAME TO u"), expected);
        let alter = |effect| Statement::Alter { table: table("t"), renamed: None, effect };
        assert_eq!(Statement::read("ALTER TABLE t RENAME COLUMN a TO b"), alter(Effect::Values));
        assert_eq!(Statement::read("ALTER TABLE t RENAME INDEX a TO b"), alter(Effect::None));
    }
}
