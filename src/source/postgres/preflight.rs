//! Preflight: what prevents a start, what a start would do on the server, and warnings. Read-only.

use super::error::Error;
use super::facts::Facts;
use super::options::Options;
use super::prefeed::{order, query};
use super::publication::{self, Change};
use super::quote::literal;
use super::session::Session;
use super::slot::Slot;
use super::tables::{self, Table};
use super::{requirements, standby};
use crate::event::Operation;
use crate::fault::{Classify as _, Code};
use crate::feed::{Feed, Feeds};
use crate::preflight::{Findings, Warning, clock_warning, named};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A transaction whose age is not shown counts as old if it still runs after this time.
const RECHECK_AFTER: Duration = Duration::from_secs(1);

/// The connections that belong to this start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ours {
    /// The walsender that already creates the slot.
    pub(super) creation: Option<u32>,
    /// The walsender that is kept for the log.
    pub(super) walsender: Option<u32>,
}

/// Collects what prevents following the feeds in `errors`, and planned changes and warnings in `findings`.
///
/// # Errors
/// Where the server cannot be asked any further. What was found until then is in `errors` and `findings`.
pub(super) async fn preflight(
    options: &Options,
    feeds: &Feeds,
    ours: Ours,
    session: &mut Session,
    errors: &mut Vec<Error>,
    findings: &mut Findings,
) -> Result<(), Error> {
    requirements::server(options, session, errors).await?;
    if let Some(reason) = standby::check(session).await? {
        errors.push(Error::Unsuitable { address: options.address(), reason });
    }
    let facts = Facts::read(options, feeds, session).await?;
    // The publication comes before the slot, in the order in which they are created.
    requirements::feeds(options, feeds, &facts, session, errors).await?;
    requirements::slot(options, feeds, &facts, ours.walsender, session, errors).await?;
    order::verify(feeds, session, errors).await?;
    query::verify(feeds, session, errors).await?;
    let limit = session.query_one("SELECT pg_catalog.current_setting('max_slot_wal_keep_size')").await?.text(0).to_owned();
    let change = publication::change(options, feeds, facts.publication.as_ref());
    findings.actions = actions(options, feeds, &facts, change.as_ref(), &limit);
    findings.warnings = warnings(options, feeds, &facts, &limit, session).await?;
    if change.is_some_and(|change| change.refused(options).is_none()) {
        findings.warnings.extend(event_triggers(session).await?);
    }
    if let Some(slot) = facts.slot.filter(|slot| slot.active_pid != ours.creation)
        && let Err(busy) = slot.check_free(session).await
    {
        findings.warnings.push(Warning { code: busy.code(), message: format!("{busy}; a start waits for it") });
    }
    Ok(())
}

/// How many feeds have rows that are read from the database.
fn read(feeds: &Feeds) -> usize {
    feeds.iter().filter(|feed| feed.prefeed.is_read()).count()
}

/// What a start would do. `change` is the change that the publication needs, `limit` how much log the server keeps for a slot.
fn actions(options: &Options, feeds: &Feeds, facts: &Facts, change: Option<&Change>, limit: &str) -> Vec<String> {
    let mut actions = Vec::new();
    match change {
        Some(change) if change.refused(options).is_some() => {}
        Some(change) => actions.push(format!("run: {}", change.sql)),
        None => actions.push(format!("use publication {:?} as it is", options.publication)),
    }
    actions.extend(facts.publication.iter().flat_map(|definition| publication::selections(feeds, definition)));
    let kept = if limit == "-1" { "without limit".to_owned() } else { format!("up to {limit} (max_slot_wal_keep_size)") };
    match &facts.slot {
        Some(_) => actions.push(format!("read from replication slot {:?}, which keeps the log {kept}", options.slot)),
        None if options.manage => {
            actions.push(format!("create replication slot {:?} (pgoutput), which keeps the log from then on, {kept}", options.slot));
        }
        None => {}
    }
    let read = read(feeds);
    if 0 < read {
        actions.push(format!(
            "read the rows of {read} {}: each slice (pipeline.prefeed_slice) takes a temporary replication slot, ACCESS SHARE locks on at most 256 tables (released \
             when somebody waits for one), and a snapshot in {} sessions, which holds back vacuum",
            if read == 1 { "table" } else { "tables" },
            options.prefeed_readers + 1
        ));
    }
    actions
}

async fn warnings(options: &Options, feeds: &Feeds, facts: &Facts, limit: &str, session: &mut Session) -> Result<Vec<Warning>, Error> {
    let mut warnings = Vec::new();
    if limit == "-1" {
        warnings.push(Warning {
            code: Code::PostgresLogUnbounded,
            message: "max_slot_wal_keep_size is not set: while feedline is down, the slot can fill the disk; run: ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf()"
                .to_owned(),
        });
    }
    warnings.extend(facts.slot.as_ref().and_then(|slot| slot_at_risk(options, slot, limit)));
    if (facts.slot.is_none() && options.manage) || 0 < read(feeds) {
        warnings.extend(long_transactions(session).await?);
    }
    warnings.extend(idle_timeout(session).await?);
    warnings.extend(clock_offset(session).await?);
    warnings.extend(old_prepared(&prepared(session).await?));
    warnings.extend(unchanged_values(feeds, &facts.published));
    warnings.extend(later_partitions(feeds, &facts.tables));
    Ok(warnings)
}

/// Warns of a slot whose log the server may remove at its next checkpoint.
fn slot_at_risk(options: &Options, slot: &Slot, limit: &str) -> Option<Warning> {
    (slot.wal_status == "unreserved").then(|| Warning {
        code: Code::PostgresSlotPerishable,
        message: format!(
            "replication slot {:?} is more than max_slot_wal_keep_size ({limit}) behind and about to lose its log; start feedline now, or raise the limit",
            options.slot
        ),
    })
}

/// Warns of event triggers that run at the statements of a start and may refuse them.
async fn event_triggers(session: &mut Session) -> Result<Option<Warning>, Error> {
    let rows = session
        .query(
            "SELECT evtname FROM pg_catalog.pg_event_trigger WHERE evtevent IN ('ddl_command_start', 'ddl_command_end') AND evtenabled IN ('O', 'A') \
             AND (evttags IS NULL OR evttags && ARRAY['CREATE PUBLICATION', 'ALTER PUBLICATION']) ORDER BY evtname",
        )
        .await?;
    let names: Vec<_> = rows.iter().map(|row| format!("{:?}", row.text(0))).collect();
    Ok((!names.is_empty()).then(|| Warning {
        code: Code::PostgresRefused,
        message: format!(
            "event triggers may refuse the publication at a start: {}; if one does, create the publication by hand (source.publication)",
            named(names)
        ),
    }))
}

/// Warns if the server invalidates slots that nobody reads for some time.
async fn idle_timeout(session: &mut Session) -> Result<Option<Warning>, Error> {
    if !session.version().has_idle_slot_timeout() {
        return Ok(None);
    }
    let timeout = session.query_one("SELECT pg_catalog.current_setting('idle_replication_slot_timeout')").await?.text(0).to_owned();
    Ok((timeout != "0").then(|| Warning {
        code: Code::PostgresSlotPerishable,
        message: format!(
            "idle_replication_slot_timeout is {timeout}: if feedline is down for longer, the slot is lost; \
             run: ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()"
        ),
    }))
}

/// Warns if the server's clock differs from this machine's: ages of events are computed from both.
async fn clock_offset(session: &mut Session) -> Result<Option<Warning>, Error> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let before = now();
    let row = session.query_one("SELECT extract(epoch FROM pg_catalog.clock_timestamp())").await?;
    let theirs: f64 = row.text(0).parse().unwrap_or(before);
    Ok(clock_warning(theirs - f64::midpoint(before, now())))
}

/// Warns of transactions, in any database, that have run for more than 2 s: the creation of a slot waits for the end of all that may write.
async fn long_transactions(session: &mut Session) -> Result<Option<Warning>, Error> {
    // Only privileged roles see the age of a transaction. For others it counts as old if it still runs a moment later.
    const RUNNING: &str = "SELECT a.pid, a.backend_xid, a.application_name, a.usename, a.state, \
         EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::bigint \
         FROM pg_catalog.pg_stat_activity a WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() \
         AND COALESCE(pg_catalog.clock_timestamp() - a.xact_start > interval '2 s', true) ORDER BY a.xact_start, a.pid LIMIT 100";
    let mut running = session.query(RUNNING).await?;
    if running.iter().any(|row| row.get(5).is_none()) {
        tokio::time::sleep(RECHECK_AFTER).await;
        let again = session.query(RUNNING).await?;
        running.retain(|row| again.iter().any(|now| (now.text(0), now.text(1)) == (row.text(0), row.text(1))));
    }
    let prepared = session
        .query("SELECT gid, database FROM pg_catalog.pg_prepared_xacts WHERE prepared < pg_catalog.clock_timestamp() - interval '2 s' ORDER BY prepared LIMIT 100")
        .await?;
    let mut names: Vec<_> = running
        .iter()
        .map(|row| {
            let since = row.get(5).map(|seconds| format!(", for {seconds} s")).unwrap_or_default();
            format!("process {} ({:?}, user {:?}, {}{since})", row.text(0), row.text(2), row.text(3), row.get(4).unwrap_or("running"))
        })
        .collect();
    names.extend(prepared.iter().map(|row| format!("prepared transaction {} of database {:?}", literal(row.text(0)), row.text(1))));
    Ok((!names.is_empty()).then(|| Warning {
        code: Code::PostgresHeldUp,
        message: format!("a start waits until these transactions end, because a slot begins after all that are running: {}", named(names)),
    }))
}

/// Prepared transactions, oldest first: name, and age in seconds.
async fn prepared(session: &mut Session) -> Result<Vec<(String, f64)>, Error> {
    let rows = session
        .query(
            "SELECT gid, extract(epoch FROM pg_catalog.clock_timestamp() - prepared) FROM pg_catalog.pg_prepared_xacts \
             WHERE database = pg_catalog.current_database() ORDER BY prepared",
        )
        .await?;
    Ok(rows.iter().map(|row| (row.text(0).to_owned(), row.text(1).parse().unwrap_or(0.0))).collect())
}

/// Warns of transactions that were prepared long ago: they delay snapshots, and make the server keep log.
fn old_prepared(prepared: &[(String, f64)]) -> Option<Warning> {
    const AGE_SECONDS_MAX: f64 = 300.0;
    let gids: Vec<_> = prepared.iter().filter(|(_, age)| AGE_SECONDS_MAX < *age).map(|(gid, _)| literal(gid)).collect();
    (!gids.is_empty()).then(|| Warning {
        code: Code::PostgresPreparedOrphan,
        message: format!(
            "transactions prepared more than 5 minutes ago delay snapshots and keep the log: {}; run: COMMIT PREPARED or ROLLBACK PREPARED",
            named(gids)
        ),
    })
}

/// Warns of tables whose updates may leave out large values. If the key changes, the insert lacks them too. For a table with a column list in
/// the publication there is no remedy, because PostgreSQL refuses its updates under REPLICA IDENTITY FULL.
fn unchanged_values(feeds: &Feeds, published: &tables::Publication) -> Option<Warning> {
    let is_partial = |feed: &&Feed| feed.leaves_values_out && feed.operations.admits(Operation::Update) && !published.lists_columns(feed);
    let tables: Vec<_> = feeds.iter().filter(is_partial).map(|feed| feed.name.to_string()).collect();
    (!tables.is_empty()).then(|| Warning {
        code: Code::PostgresUnchangedValues,
        message: format!(
            "updates of {} may lack large values that did not change (events name them `unchanged`); to have them, run: ALTER TABLE ... REPLICA IDENTITY FULL",
            named(tables)
        ),
    })
}

/// Warns of partitioned tables whose later partitions will have no replica identity: the application's updates of them will fail.
fn later_partitions(feeds: &Feeds, tables: &[Table]) -> Option<Warning> {
    let is_concerned =
        |table: &&Table| feeds.of_table(&table.root.schema, &table.root.name).is_some_and(|feed| tables::check::made_later(feed, table));
    let concerned: Vec<_> = tables.iter().filter(is_concerned).map(|table| table.root.sql_name()).collect();
    (!concerned.is_empty()).then(|| Warning {
        code: Code::TableKeyless,
        message: format!(
            "later partitions of {} will have no replica identity, and the application's updates of them will fail; give the table a primary key \
             (docs/postgres.md)",
            named(concerned)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::old_prepared;
    use crate::fault::Code;

    #[test]
    fn old_prepared_transactions_are_named() {
        let prepared = [("it's old".to_owned(), 4000.0), ("young".to_owned(), 20.0)];
        let warning = old_prepared(&prepared).unwrap();
        assert_eq!(warning.code, Code::PostgresPreparedOrphan);
        assert!(warning.message.contains("'it''s old'") && !warning.message.contains("young"), "{}", warning.message);
        assert!(old_prepared(&prepared[1..]).is_none());
    }
}
