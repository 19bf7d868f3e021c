//! What a statement in the log does: as far as it concerns tables, their rows, and the transaction.
//!
//! The log has rows, and statements only for definitions (MySQL documentation, "Mixed Binary Logging Format"). A session can choose to log its
//! changes as statements; then nobody knows which rows changed.

use super::alteration::{Effect, OtherTable, alteration};
use super::logged_change::target;
use super::words::{TableName, Words};
use crate::source::mysql::binlog::Writing;
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
        /// Another table, which gives rows to this one or takes some.
        other: Option<OtherTable>,
        effect: Effect,
    },
    /// A table is made.
    Create {
        table: TableName,
        /// Rows come or go with it, and the log does not show them.
        effect: Effect,
    },
    /// Rows change, and the log does not say which: of this table alone, if that is certain.
    Change(Option<TableName>),
    /// Nothing that concerns tables.
    Other,
}

impl Statement {
    /// Reads a statement.
    pub(super) fn read(sql: &str, writing: Writing) -> Self {
        let mut words = Words::new(sql, writing);
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

    /// Whether it names tables or schemas.
    pub(super) const fn names_table(&self) -> bool {
        match self {
            Self::Truncate(_)
            | Self::Drop(_)
            | Self::DropSchema(_)
            | Self::Rename(_)
            | Self::Alter { .. }
            | Self::Create { .. }
            | Self::Change(_) => true,
            Self::Begin
            | Self::Commit
            | Self::Rollback
            | Self::RollbackToSavepoint
            | Self::XaBegin
            | Self::XaCommit(_)
            | Self::XaRollback(_)
            | Self::Other => false,
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
    // A temporary table may have the name of another one.
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
    let replaces = words.take("OR") && words.take("REPLACE");
    if words.take("TEMPORARY") || !words.take("TABLE") {
        return Statement::Other;
    }
    words.take_if_exists();
    let Some(table) = words.table() else { return Statement::Other };
    // In the format ROW the log has the rows of a query behind the statement, and not the query.
    let effect = if replaces || words.has_query() { Effect::Rows } else { Effect::None };
    Statement::Create { table, effect }
}

fn alter(words: &mut Words<'_>) -> Statement {
    while words.take("ONLINE") || words.take("IGNORE") {}
    if !words.take("TABLE") {
        return Statement::Other;
    }
    words.take_if_exists();
    let Some(table) = words.table() else { return Statement::Other };
    words.skip_wait();
    let (mut renamed, mut other, mut effect) = (None, None, Effect::None);
    let mut more = true;
    while more {
        let part = alteration(words);
        effect = effect.most(part.effect);
        renamed = part.renamed.or(renamed);
        other = part.other.or(other);
        more = words.skip_to_comma();
    }
    Statement::Alter { table, renamed, other, effect }
}

#[cfg(test)]
mod tests {
    use super::{Effect, OtherTable, Statement, TableName, Writing, XaId};

    fn read(sql: &str) -> Statement {
        Statement::read(sql, Writing::default())
    }

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
            assert_eq!(read(sql), expected, "{sql}");
        }
    }

    #[test]
    fn tables_are_named_in_every_spelling() {
        let create = |name: &str, effect| Statement::Create { table: table(name), effect };
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
            ("CREATE TABLE IF NOT EXISTS `s`.`t` (a int)", create("s.t", Effect::None)),
            ("CREATE OR REPLACE TABLE t LIKE u", create("t", Effect::Rows)),
            ("CREATE TABLE t (PRIMARY KEY (id)) AS SELECT id FROM u", create("t", Effect::Rows)),
            ("CREATE TABLE t TABLE u", create("t", Effect::Rows)),
            ("CREATE TABLE t VALUES ROW(1)", create("t", Effect::Rows)),
            (
                "CREATE TABLE t (a int COMMENT 'SELECT', `SELECT` int) PARTITION BY RANGE (a) (PARTITION p VALUES LESS THAN (5)) START TRANSACTION",
                create("t", Effect::None),
            ),
            ("TRUNCATE .t", Statement::Truncate(table("t"))),
            ("DROP TEMPORARY TABLE `t` /* generated by server */", Statement::Other),
            ("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `t`", Statement::Other),
            ("CREATE TEMPORARY TABLE t (a int)", Statement::Other),
            ("CREATE /*!50000 TABLE */ t (a int)", create("t", Effect::None)),
            ("CREATE INDEX i ON t (a)", Statement::Other),
            ("INSERT INTO t VALUES (1)", Statement::Change(Some(table("t")))),
            ("LOAD DATA INFILE 'x' INTO TABLE t", Statement::Change(None)),
            ("GRANT SELECT ON t TO u", Statement::Other),
        ] {
            assert_eq!(read(sql), expected, "{sql}");
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
            ("DISCARD TABLESPACE", Effect::Rows),
            ("REORGANIZE PARTITION p INTO (PARTITION q VALUES LESS THAN (5))", Effect::None),
            ("ADD PARTITION (PARTITION p VALUES LESS THAN (5))", Effect::None),
            ("ALTER COLUMN a SET DEFAULT 5", Effect::None),
            ("AUTO_INCREMENT = 5", Effect::None),
        ] {
            let expected = Statement::Alter { table: table("t"), renamed: None, other: None, effect };
            assert_eq!(read(&format!("ALTER TABLE t {parts}")), expected, "{parts}");
        }
        let expected = Statement::Alter { table: table("s.t"), renamed: Some(table("u")), other: None, effect: Effect::Values };
        assert_eq!(read("ALTER ONLINE TABLE s.t ADD a int DEFAULT 1, RENAME TO u"), expected);
        let alter = |effect| Statement::Alter { table: table("t"), renamed: None, other: None, effect };
        assert_eq!(read("ALTER TABLE t RENAME COLUMN a TO b"), alter(Effect::Values));
        assert_eq!(read("ALTER TABLE t RENAME INDEX a TO b"), alter(Effect::None));
    }

    #[test]
    fn partitions_may_take_rows_of_another_table() {
        let alter = |other| Statement::Alter { table: table("t"), renamed: None, other: Some(other), effect: Effect::Rows };
        for (parts, other) in [
            ("EXCHANGE PARTITION p WITH TABLE s.u WITHOUT VALIDATION", OtherTable::Changed(table("s.u"))),
            ("CONVERT PARTITION p TO TABLE u", OtherTable::Changed(table("u"))),
            ("CONVERT TABLE u TO PARTITION p VALUES LESS THAN (5)", OtherTable::Gone(table("u"))),
        ] {
            assert_eq!(read(&format!("ALTER TABLE t {parts}")), alter(other), "{parts}");
        }
    }

    #[test]
    fn quotes_and_backslashes_mean_what_the_session_says() {
        let ansi = Writing { has_ansi_quotes: true, ..Writing::default() };
        assert_eq!(Statement::read("TRUNCATE \"t\"", ansi), Statement::Truncate(table("t")));
        let alter = |effect| Statement::Alter { table: table("t"), renamed: None, other: None, effect };
        let comment = r#"ALTER TABLE t COMMENT "a\", MODIFY b", ADD c int"#;
        assert_eq!(read(comment), alter(Effect::None));
        let plain = Writing { has_plain_backslashes: true, ..Writing::default() };
        assert_eq!(Statement::read(r"ALTER TABLE t COMMENT 'a\', MODIFY b int", plain), alter(Effect::Values));
        assert_eq!(read(r"ALTER TABLE t COMMENT 'a\', MODIFY b int'"), alter(Effect::None));
    }
}
