//! Preflight: what prevents a start, what a start would do, and warnings. Read-only.

use super::charset::Charsets;
use super::error::Error;
use super::grants::Grants;
use super::options::Options;
use super::prefeed::query;
use super::retention::Limits;
use super::session::Session;
use super::tables::{self, Table};
use super::variables::Variables;
use super::{cascades, clock, requirements};
use crate::fault::Code;
use crate::feed::Feeds;
use crate::preflight::{Findings, Warning, clock_warning, named};
use std::time::Duration;

/// A log that is kept for a shorter time does not survive a weekend without feedline.
const KEPT_AT_LEAST: Duration = Duration::from_hours(72);

/// Collects what prevents following the feeds in `errors`, and what a start would do and warnings in `findings`.
///
/// # Errors
/// Where the server cannot be asked any further. What was found until then is in `errors` and `findings`.
pub(super) async fn preflight(
    options: &Options,
    feeds: &Feeds,
    session: &mut Session,
    errors: &mut Vec<Error>,
    findings: &mut Findings,
) -> Result<(), Error> {
    let variables = Variables::read(session).await?;
    let grants = Grants::read(session).await?;
    let charsets = Charsets::read(session).await?;
    let tables = tables::of(feeds, session).await?;
    let is_mariadb = session.is_mariadb();
    requirements::server(options, &variables, errors);
    requirements::privileges(feeds, &grants, is_mariadb, errors);
    if requirements::may_see_log(&grants, is_mariadb) {
        requirements::replica(options, &variables, session, errors).await?;
        requirements::filters(options, feeds, session, errors).await?;
    }
    requirements::feeds(feeds, &tables, &charsets, &grants, errors);
    query::verify(feeds, session, errors).await?;
    findings.actions = actions(options, feeds, session);
    findings.warnings.extend(settings(&variables, is_mariadb));
    findings.warnings.extend(engines(feeds, &tables));
    findings.warnings.extend(unseen(&variables, feeds, &tables, &grants, session).await?);
    findings.warnings.extend(prepared(session).await?);
    findings.warnings.extend(clock::offset(session).await?.and_then(clock_warning));
    Ok(())
}

/// What a start would do.
fn actions(options: &Options, feeds: &Feeds, session: &Session) -> Vec<String> {
    let mut actions = vec![format!("read the binary log of {} as the replica with number {}", session.version(), options.server_id)];
    let read = feeds.iter().filter(|feed| feed.prefeed.is_read()).count();
    if 0 < read {
        let locks = if session.is_mariadb() {
            "no locks"
        } else {
            "no locks, or where commits never pause a read lock on each of its tables for milliseconds,"
        };
        actions.push(format!(
            "read the rows of {read} {}: each slice (pipeline.prefeed_slice) takes {locks} and a snapshot in {} sessions, which holds back the purge of old \
             versions of rows",
            if read == 1 { "table" } else { "tables" },
            options.prefeed_readers
        ));
    }
    actions
}

/// Warns of settings with which the log may be lost or damaged.
fn settings(variables: &Variables, is_mariadb: bool) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |code, message: String| warnings.push(Warning { code, message });
    let limits = Limits::of(variables);
    if let Some(kept) = limits.time.filter(|kept| *kept < KEPT_AT_LEAST) {
        let hours = kept.as_secs() / 3600;
        warn(
            Code::MySqlLogPerishable,
            format!(
                "the server deletes its log after {hours} h: if feedline is down for longer, changes are lost; \
                 run: SET GLOBAL binlog_expire_logs_seconds = 604800"
            ),
        );
    }
    if let Some(bytes) = limits.bytes {
        let message = format!(
            "the server keeps at most {bytes} bytes of its log: if feedline falls behind by more, changes are lost; raise the limit"
        );
        warn(Code::MySqlLogPerishable, message);
    }
    if variables.is_not("sync_binlog", "1") || variables.is_not("innodb_flush_log_at_trx_commit", "1") {
        warn(
            Code::MySqlLogFragile,
            "if its machine crashes, the server may lose changes that were published; \
             run: SET GLOBAL sync_binlog = 1, innodb_flush_log_at_trx_commit = 1"
                .to_owned(),
        );
    }
    if variables.is("binlog_checksum", "NONE") {
        let message = "the log has no checksums: damage of it may go unnoticed; run: SET GLOBAL binlog_checksum = 'CRC32'";
        warn(Code::MySqlLogFragile, message.to_owned());
    }
    if !is_mariadb && variables.is_not("gtid_mode", "ON") {
        let message = "gtid_mode is not ON: after a failover the log cannot be followed on the other server; turn it on (docs/mysql.md)";
        warn(Code::MySqlNoFailover, message.to_owned());
    }
    warnings
}

/// Warns of tables whose engine does not undo statements that fail, and may lose rows in a crash.
fn engines(feeds: &Feeds, tables: &[Table]) -> Option<Warning> {
    // Where rows are to be read, such a table is refused.
    let is_followed = |table: &Table| feeds.of_table(&table.schema, &table.name).is_some_and(|feed| !feed.prefeed.is_read());
    let is_concerned = |table: &&Table| is_followed(table) && !tables::check::is_transactional(table);
    let concerned: Vec<_> = tables.iter().filter(is_concerned).map(|table| format!("{} ({})", table.sql_name(), table.engine)).collect();
    (!concerned.is_empty()).then(|| Warning {
        code: Code::MySqlTableUnfit,
        message: format!(
            "rows may change without events, in a crash or outside the server, where the engine is not InnoDB: {}; run: ALTER TABLE ... ENGINE = InnoDB",
            named(concerned)
        ),
    })
}

/// Warns of tables whose rows foreign keys change without events.
async fn unseen(
    variables: &Variables,
    feeds: &Feeds,
    tables: &[Table],
    grants: &Grants,
    session: &mut Session,
) -> Result<Option<Warning>, Error> {
    if !cascades::are_unseen(variables) {
        return Ok(None);
    }
    let mut concerned = Vec::new();
    let is_readable = |table: &&Table| grants.has_on_table("SELECT", &table.schema, &table.name);
    for table in tables.iter().filter(|table| feeds.of_table(&table.schema, &table.name).is_some()).filter(is_readable) {
        if cascades::change(table, session).await? {
            concerned.push(table.sql_name());
        }
    }
    Ok((!concerned.is_empty()).then(|| Warning {
        code: Code::MySqlCascades,
        message: format!(
            "foreign keys (CASCADE, SET NULL) change rows without events in the log, in {}; let the application or triggers do it (docs/mysql.md)",
            named(concerned)
        ),
    }))
}

/// Warns of XA transactions that are prepared: of those from before the first start the log is not read.
async fn prepared(session: &mut Session) -> Result<Option<Warning>, Error> {
    let count = match session.query("XA RECOVER").await {
        Ok(rows) => rows.len(),
        // MySQL shows them only to a user with a privilege (XA_RECOVER_ADMIN).
        Err(Error::Refused(_)) => 0,
        Err(error) => return Err(error),
    };
    Ok((0 < count).then(|| Warning {
        code: Code::SourceLogLost,
        message: format!(
            "{count} XA transactions are prepared; feedline stops at the commit of one that was prepared before its first start: \
             end them before it (XA RECOVER lists them)"
        ),
    }))
}

#[cfg(test)]
mod tests {
    use super::{Variables, settings};
    use crate::fault::Code;

    fn codes(variables: &[(&str, &str)], is_mariadb: bool) -> Vec<Code> {
        settings(&Variables::of(variables), is_mariadb).into_iter().map(|warning| warning.code).collect()
    }

    #[test]
    fn settings_that_endanger_the_log_are_warned_of() {
        let safe = [("sync_binlog", "1"), ("innodb_flush_log_at_trx_commit", "1"), ("binlog_checksum", "CRC32"), ("gtid_mode", "ON")];
        assert_eq!(codes(&safe, false), []);
        assert_eq!(codes(&[("binlog_expire_logs_seconds", "86400")], true), [Code::MySqlLogPerishable]);
        assert_eq!(codes(&[("binlog_expire_logs_seconds", "0"), ("expire_logs_days", "2.000000")], true), [Code::MySqlLogPerishable]);
        assert_eq!(codes(&[("binlog_expire_logs_seconds", "3600"), ("binlog_expire_logs_auto_purge", "OFF")], false), []);
        assert_eq!(codes(&[("max_binlog_total_size", "1000000")], true), [Code::MySqlLogPerishable]);
        assert_eq!(codes(&[("sync_binlog", "0"), ("binlog_checksum", "NONE")], true), [Code::MySqlLogFragile; 2]);
        assert_eq!((codes(&[("gtid_mode", "OFF")], false), codes(&[], true)), (vec![Code::MySqlNoFailover], vec![]));
    }
}
