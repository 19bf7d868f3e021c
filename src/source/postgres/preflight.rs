//! What a start will do to the server, and what somebody may regret; nothing is changed to find out.

use super::error::Error;
use super::options::Options;
use super::publication;
use super::quote::literal;
use super::session::Session;
use super::slot::Slot;
use super::tables::{self, Table};
use crate::event::Operation;
use crate::fault::{Classify as _, Code};
use crate::feed::{Feed, Feeds};
use crate::preflight::{Findings, Warning, named};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// After how long a transaction whose age is not shown is looked for again.
const LOOKED_AGAIN: Duration = Duration::from_secs(1);

/// Looks ahead.
///
/// `making` is the server's process that makes the slot for us already.
pub(super) async fn preflight(options: &Options, feeds: &Feeds, making: Option<u32>, session: &mut Session) -> Result<Findings, Error> {
    let (mut actions, mut warnings) = (Vec::new(), Vec::new());
    actions.extend(match publication::change(options, feeds, session).await? {
        Some(change) if change.refused(options).is_some() => None,
        Some(change) => {
            warnings.extend(event_triggers(session).await?);
            Some(format!("run: {}", change.sql))
        }
        None => Some(format!("publish by publication {:?} as it is", options.publication)),
    });
    if let Some(definition) = publication::Definition::read(options, session).await? {
        actions.extend(publication::selections(feeds, &definition));
    }
    let slot = Slot::read(&options.slot, session).await?;
    let limit = session.query_one("SELECT pg_catalog.current_setting('max_slot_wal_keep_size')").await?.text(0).to_owned();
    let kept = if limit == "-1" { "without limit".to_owned() } else { format!("up to {limit} (max_slot_wal_keep_size)") };
    actions.extend(match &slot {
        Some(_) => Some(format!("read from replication slot {:?}, which keeps the log {kept}", options.slot)),
        None => {
            options.manage.then(|| format!("make replication slot {:?} (pgoutput), which keeps the log from then on, {kept}", options.slot))
        }
    });
    let read = feeds.iter().filter(|feed| feed.prefeed.is_read()).count();
    if 0 < read {
        actions.push(format!(
            "read the rows of {read} {}: for each slice (pipeline.prefeed_slice) a temporary replication slot, ACCESS SHARE locks on at most 256 tables, let go \
             of when somebody waits for one, and a snapshot in {} sessions, which holds back vacuum meanwhile",
            if read == 1 { "table" } else { "tables" },
            options.prefeed_readers + 1
        ));
    }
    if limit == "-1" {
        warnings.push(Warning {
            code: Code::PostgresLogUnbounded,
            message: "max_slot_wal_keep_size is not set: while feedline is away the slot keeps log until the disk is full; run: ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf()"
                .to_owned(),
        });
    }
    if let Some(slot) = &slot {
        warnings.extend(endangered(options, slot, &limit));
        if slot.active_pid != making
            && let Err(busy) = slot.check_free(session).await
        {
            warnings.push(Warning { code: busy.code(), message: format!("{busy}: a start here waits for it (pipeline.takeover_timeout)") });
        }
    }
    if (slot.is_none() && options.manage) || 0 < read {
        warnings.extend(held_up(session).await?);
    }
    warnings.extend(idleness(session).await?);
    warnings.extend(clock(session).await?);
    warnings.extend(orphans(&prepared(session).await?));
    let published = tables::Publication::read(options, session).await?;
    warnings.extend(unchanged(feeds, &published));
    warnings.extend(made_later(feeds, &tables::of(feeds, session).await?));
    Ok(Findings { actions, warnings, ..Findings::default() })
}

/// A slot whose log the next checkpoint of the server may take away.
fn endangered(options: &Options, slot: &Slot, limit: &str) -> Option<Warning> {
    (slot.wal_status == "unreserved").then(|| Warning {
        code: Code::PostgresSlotPerishable,
        message: format!(
            "replication slot {:?} is behind by more than max_slot_wal_keep_size ({limit}) and about to lose its log: start feedline now, or raise the limit",
            options.slot
        ),
    })
}

/// What runs at the statements of a start and may refuse them.
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
            "event triggers run when a start makes or changes the publication, and may refuse it: {}; where one does, make the publication by hand \
             (source.publication)",
            named(names)
        ),
    }))
}

/// A slot that nobody reads for too long is invalidated.
async fn idleness(session: &mut Session) -> Result<Option<Warning>, Error> {
    if !session.version().has_idle_slot_timeout() {
        return Ok(None);
    }
    let timeout = session.query_one("SELECT pg_catalog.current_setting('idle_replication_slot_timeout')").await?.text(0).to_owned();
    Ok((timeout != "0").then(|| Warning {
        code: Code::PostgresSlotPerishable,
        message: format!(
            "idle_replication_slot_timeout is {timeout}: where feedline is away for longer the server gives its slot up, and events are lost; \
             run: ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf(), or set it to more than any outage"
        ),
    }))
}

/// A clock that is far from ours: ages of events are told by both.
async fn clock(session: &mut Session) -> Result<Option<Warning>, Error> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let before = now();
    let row = session.query_one("SELECT extract(epoch FROM pg_catalog.clock_timestamp())").await?;
    let theirs: f64 = row.text(0).parse().unwrap_or(before);
    Ok(apart(theirs - f64::midpoint(before, now())))
}

/// What it means that the server's clock is so many seconds before ours.
fn apart(offset: f64) -> Option<Warning> {
    const OFFSET_SECONDS_MAX: f64 = 2.0;
    (OFFSET_SECONDS_MAX < offset.abs()).then(|| Warning {
        code: Code::ClockOffset,
        message: format!(
            "the server's clock is {:.1} s {} this machine's: lag and the ages of events are wrong by as much; synchronize both (NTP)",
            offset.abs(),
            if offset < 0.0 { "behind" } else { "ahead of" }
        ),
    })
}

/// Transactions that run for longer than a moment, in whatever database: a slot waits for the end of each that may change something.
async fn held_up(session: &mut Session) -> Result<Option<Warning>, Error> {
    // How old a transaction is, is shown to privileged roles; to others one is old that is still there after a while.
    const RUNNING: &str = "SELECT a.pid, a.backend_xid, a.application_name, a.usename, a.state, \
         EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::bigint \
         FROM pg_catalog.pg_stat_activity a WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() \
         AND COALESCE(pg_catalog.clock_timestamp() - a.xact_start > interval '2 s', true) ORDER BY a.xact_start, a.pid LIMIT 100";
    let mut running = session.query(RUNNING).await?;
    if running.iter().any(|row| row.get(5).is_none()) {
        tokio::time::sleep(LOOKED_AGAIN).await;
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
        message: format!("a start here waits until these transactions end, since a slot begins behind all that run: {}", named(names)),
    }))
}

/// Prepared transactions, the oldest first: name, and age in seconds.
async fn prepared(session: &mut Session) -> Result<Vec<(String, f64)>, Error> {
    let rows = session
        .query(
            "SELECT gid, extract(epoch FROM pg_catalog.clock_timestamp() - prepared) FROM pg_catalog.pg_prepared_xacts \
             WHERE database = pg_catalog.current_database() ORDER BY prepared",
        )
        .await?;
    Ok(rows.iter().map(|row| (row.text(0).to_owned(), row.text(1).parse().unwrap_or(0.0))).collect())
}

/// Transactions that were prepared long ago: they hold up snapshots, and the slot's log with them.
fn orphans(prepared: &[(String, f64)]) -> Option<Warning> {
    const AGE_SECONDS_MAX: f64 = 300.0;
    let gids: Vec<_> = prepared.iter().filter(|(_, age)| AGE_SECONDS_MAX < *age).map(|(gid, _)| literal(gid)).collect();
    (!gids.is_empty()).then(|| Warning {
        code: Code::PostgresPreparedOrphan,
        message: format!(
            "transactions prepared more than 5 minutes ago hold up snapshots and keep the log: {}; run: COMMIT PREPARED or ROLLBACK PREPARED",
            named(gids)
        ),
    })
}

/// Tables in which a row may change its key while the log leaves large values out: the insert half would lack them.
/// PostgreSQL refuses updates of a table under FULL that a publication lists columns of: there is nothing to be done about those.
fn unchanged(feeds: &Feeds, published: &tables::Publication) -> Option<Warning> {
    let is_partial = |feed: &&Feed| feed.leaves_values_out && feed.operations.admits(Operation::Update) && !published.lists_columns(feed);
    let tables: Vec<_> = feeds.iter().filter(is_partial).map(|feed| feed.name.to_string()).collect();
    (!tables.is_empty()).then(|| Warning {
        code: Code::PostgresUnchangedValues,
        message: format!(
            "updates of {} may leave out large values that did not change (events name them `unchanged`), also where the key changes; to have them, run: ALTER TABLE ... REPLICA IDENTITY FULL",
            named(tables)
        ),
    })
}

/// Partitioned tables of which a partition that is made later has no identity: the application's next update of it fails.
fn made_later(feeds: &Feeds, tables: &[Table]) -> Option<Warning> {
    let is_concerned =
        |table: &&Table| feeds.of_table(&table.root.schema, &table.root.name).is_some_and(|feed| tables::check::made_later(feed, table));
    let concerned: Vec<_> = tables.iter().filter(is_concerned).map(|table| table.root.sql_name()).collect();
    (!concerned.is_empty()).then(|| Warning {
        code: Code::TableKeyless,
        message: format!(
            "partitions of {} that are made later come without a replica identity, and the application's updates of them fail until you run: ALTER TABLE ... \
             REPLICA IDENTITY FULL; give the table a primary key, or let an event trigger do it (docs/postgres.md)",
            named(concerned)
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::{apart, orphans};
    use crate::fault::Code;

    #[test]
    fn a_clock_is_judged_by_its_distance_in_both_directions() {
        assert!(apart(1.9).is_none() && apart(-1.9).is_none());
        for (offset, words) in [(3.0, "3.0 s ahead of"), (-90.0, "90.0 s behind")] {
            let warning = apart(offset).unwrap();
            assert_eq!(warning.code, Code::ClockOffset);
            assert!(warning.message.contains(words), "{}", warning.message);
        }
    }

    #[test]
    fn transactions_that_were_prepared_long_ago_are_named() {
        let prepared = [("it's old".to_owned(), 4000.0), ("young".to_owned(), 20.0)];
        let warning = orphans(&prepared).unwrap();
        assert_eq!(warning.code, Code::PostgresPreparedOrphan);
        assert!(warning.message.contains("'it''s old'") && !warning.message.contains("young"), "{}", warning.message);
        assert!(orphans(&prepared[1..]).is_none());
    }
}
