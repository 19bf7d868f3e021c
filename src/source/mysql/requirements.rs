//! Verifies what must hold before a start: the server's settings, the user's privileges, the tables. All problems are collected, so that one
//! run shows them all; an error ends the verification itself.

use super::charset::Charsets;
use super::error::Error;
use super::grants::Grants;
use super::options::Options;
use super::quote::{self, identifier};
use super::session::Session;
use super::tables::{self, Table};
use super::variables::Variables;
use crate::feed::{Feed, Feeds};
use crate::preflight::named;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What the log must be like, and the statement that makes it so. Without names of columns in the log their meaning would have to be guessed.
const LOG: [(&str, &str); 3] = [("binlog_format", "ROW"), ("binlog_row_image", "FULL"), ("binlog_row_metadata", "FULL")];

/// Verifies the server's settings.
pub(super) fn server(options: &Options, variables: &Variables, found: &mut Vec<Error>) {
    let mut unsuitable = |reason: String| found.push(Error::Unsuitable { address: options.address(), reason });
    if variables.is_not("log_bin", "ON") {
        unsuitable("it writes no binary log; set log_bin in its configuration, and restart it".to_owned());
    }
    for (name, needed) in LOG {
        if variables.is_not(name, needed) {
            let value = variables.get(name).unwrap_or_default();
            unsuitable(format!("{name} is {value}; run: SET GLOBAL {name} = '{needed}', and set it in the server's configuration"));
        }
    }
    // Names in the log and in the catalogue differ then.
    if variables.is("lower_case_table_names", "2") {
        unsuitable("lower_case_table_names is 2; feedline follows only servers where it is 0 or 1".to_owned());
    }
}

/// Verifies that a replica logs what it replicates, and in the order of its source. Needs the privilege to ask for the state of replicas.
pub(super) async fn replica(options: &Options, variables: &Variables, session: &mut Session, found: &mut Vec<Error>) -> Result<(), Error> {
    let mut unsuitable = |reason: &str| found.push(Error::Unsuitable { address: options.address(), reason: reason.to_owned() });
    if !is_replica(session).await? {
        return Ok(());
    }
    // The newer name comes first: MySQL 9 has both.
    let any = |names: [&str; 2], value: &str| names.iter().any(|name| variables.is(name, value));
    if any(["log_replica_updates", "log_slave_updates"], "OFF") {
        unsuitable("it is a replica that does not log what it replicates; set log_slave_updates (log_replica_updates), and restart it");
    }
    let workers = ["replica_parallel_workers", "slave_parallel_workers"].iter().find_map(|name| variables.number(name));
    if workers.is_some_and(|workers| 1 < workers) && any(["replica_preserve_commit_order", "slave_preserve_commit_order"], "OFF") {
        unsuitable("it is a replica that commits in another order than its source; set replica_preserve_commit_order = ON");
    }
    Ok(())
}

/// Whether the server applies the log of another one.
async fn is_replica(session: &mut Session) -> Result<bool, Error> {
    if session.is_mariadb() {
        let running = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'SLAVES_RUNNING'";
        return Ok(session.query(running).await?.first().is_some_and(|row| row.text(0) != "0"));
    }
    let statement = session.version().replica_status_statement();
    Ok(!session.query(statement).await?.is_empty())
}

/// Verifies that the server logs the changes of all feeds' schemas.
pub(super) async fn filters(options: &Options, feeds: &Feeds, session: &mut Session, found: &mut Vec<Error>) -> Result<(), Error> {
    let statement = session.version().log_status_statement();
    let Some(status) = session.query(statement).await?.into_iter().next() else { return Ok(()) };
    let names = |text: &str| -> Vec<String> { text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect() };
    let (logged, ignored) = (names(status.text(2)), names(status.text(3)));
    let is_left_out = |schema: &str| {
        let is_named = |names: &[String]| names.iter().any(|name| *name == *schema);
        is_named(&ignored) || (!logged.is_empty() && !is_named(&logged))
    };
    let schemas: BTreeSet<&Arc<str>> = feeds.iter().map(|feed| &feed.schema).filter(|schema| is_left_out(schema)).collect();
    if !schemas.is_empty() {
        let schemas = named(schemas.into_iter().map(|schema| identifier(schema)));
        let reason = format!("it does not log changes of {schemas}; remove binlog_do_db and binlog_ignore_db, and restart it");
        found.push(Error::Unsuitable { address: options.address(), reason });
    }
    Ok(())
}

/// Verifies the user's privileges on the server.
pub(super) fn privileges(feeds: &Feeds, grants: &Grants, is_mariadb: bool, found: &mut Vec<Error>) {
    if !grants.has("REPLICATION SLAVE") {
        found.push(grants.lacking("read the log", "REPLICATION SLAVE", "*.*"));
    }
    if !may_see_log(grants, is_mariadb) {
        found.push(grants.lacking("see where the log ends", if is_mariadb { "BINLOG MONITOR" } else { "REPLICATION CLIENT" }, "*.*"));
    }
    let read = || feeds.iter().filter(|feed| feed.prefeed.is_read());
    if read().next().is_some() && !grants.has("PROCESS") {
        found.push(grants.lacking("see who waits for it", "PROCESS", "*.*"));
    }
    if is_mariadb {
        return;
    }
    let schemas: BTreeSet<&Arc<str>> = read().map(|feed| &feed.schema).collect();
    for schema in schemas.into_iter().filter(|schema| !grants.has_on_schema("LOCK TABLES", schema)) {
        let name = identifier(schema);
        found.push(grants.lacking(&format!("lock tables of {name} for a moment"), "LOCK TABLES", &format!("{name}.*")));
    }
}

/// Whether the user may see where the log ends.
pub(super) fn may_see_log(grants: &Grants, is_mariadb: bool) -> bool {
    grants.has("REPLICATION CLIENT") || is_mariadb && grants.has("BINLOG MONITOR")
}

/// Verifies that every feed's table can be followed by its key, and that the user may read it.
pub(super) fn feeds(feeds: &Feeds, tables: &[Table], charsets: &Charsets, grants: &Grants, found: &mut Vec<Error>) {
    let by_name: HashMap<_, _> = tables.iter().map(|table| ((&table.schema, &table.name), table)).collect();
    for feed in feeds.iter() {
        if let Some(table) = by_name.get(&(&feed.schema, &feed.table)) {
            found.extend(tables::check::check(feed, table, charsets));
        } else {
            let reason = "it no longer exists; remove it from the feeds".to_owned();
            found.push(Error::TableChanged { table: feed.name.to_string(), reason });
        }
        found.extend(unreadable(feed, grants));
    }
}

/// A user that may read only some columns sees only those in the catalogue, so even a table that is not read needs the privilege.
fn unreadable(feed: &Feed, grants: &Grants) -> Option<Error> {
    let name = quote::table(&feed.schema, &feed.table);
    let is_readable = grants.has_on_table("SELECT", &feed.schema, &feed.table);
    (!is_readable).then(|| grants.lacking(&format!("read table {name}"), "SELECT", &name))
}

#[cfg(test)]
mod tests {
    use super::{Options, Variables, server};
    use crate::source::mysql::SameServer;

    fn refusals(settings: &[(&str, &str)]) -> Vec<String> {
        let options = Options {
            host: "db".to_owned(),
            port: 3306,
            user: "feedline".to_owned(),
            password: None,
            database: "shop".to_owned(),
            trust: crate::net::Trust::default(),
            require_auth: crate::net::RequireAuth::default(),
            server_id: 1,
            prefeed_readers: 1,
            pipeline: "shop".into(),
            server: SameServer::default(),
        };
        let mut found = Vec::new();
        server(&options, &Variables::of(settings), &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_setting_that_a_version_does_not_have_is_not_asked_for() {
        assert_eq!(refusals(&[("log_bin", "ON"), ("binlog_format", "row")]), [""; 0]);
    }

    #[test]
    fn each_unsuitable_setting_is_named_with_its_remedy() {
        let found = refusals(&[("log_bin", "OFF"), ("binlog_row_metadata", "NO_LOG"), ("lower_case_table_names", "2")]);
        assert_eq!(found.len(), 3);
        assert!(found[0].contains("log_bin") && found[2].contains("lower_case_table_names"), "{found:?}");
        assert!(found[1].contains("binlog_row_metadata is NO_LOG; run: SET GLOBAL binlog_row_metadata = 'FULL'"), "{found:?}");
    }
}
