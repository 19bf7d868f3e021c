//! What a start will do to the server, and what somebody may regret; nothing is changed to find out.

use super::error::Error;
use super::publication;
use super::session::Session;
use super::slot::{self, Slot};
use super::{Options, literal};
use crate::fault::Code;
use crate::feed::Feeds;
use crate::foresight::{Foresight, Warning, named};
use std::time::{SystemTime, UNIX_EPOCH};

/// Looks ahead.
pub(super) async fn foresee(options: &Options, feeds: &Feeds, session: &mut Session) -> Result<Foresight, Error> {
    let mut actions = Vec::new();
    actions.push(match publication::change(options, feeds, session).await? {
        Some(change) if options.manage => format!("run: {}", change.sql),
        Some(change) => return Err(change.refused()),
        None => format!("publish by publication {:?} as it is", options.publication),
    });
    let limit = session.query_one("SELECT pg_catalog.current_setting('max_slot_wal_keep_size')").await?.text(0).to_owned();
    let kept = if limit == "-1" { "without limit".to_owned() } else { format!("up to {limit} (max_slot_wal_keep_size)") };
    actions.push(match Slot::read(&options.slot, session).await? {
        Some(_) => format!("read from replication slot {:?}, which keeps the log {kept}", options.slot),
        None if !options.manage => return Err(slot::missing(options)),
        None => format!("make replication slot {:?} (pgoutput), which keeps the log from then on, {kept}", options.slot),
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
    let mut warnings = Vec::new();
    if limit == "-1" {
        warnings.push(Warning {
            code: Code::PostgresLogUnbounded,
            message: "max_slot_wal_keep_size is not set: while feedline is away the slot keeps log until the disk is full; run: ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'"
                .to_owned(),
        });
    }
    warnings.extend(clock(session).await?);
    warnings.extend(orphans(session).await?);
    warnings.extend(rekeyed(feeds, session).await?);
    Ok(Foresight { actions, warnings, ..Foresight::default() })
}

/// A clock that is far from ours: ages of events are told by both.
async fn clock(session: &mut Session) -> Result<Option<Warning>, Error> {
    const OFFSET_SECONDS_MAX: f64 = 2.0;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let before = now();
    let row = session.query_one("SELECT extract(epoch FROM pg_catalog.clock_timestamp())").await?;
    let theirs: f64 = row.text(0).parse().unwrap_or(before);
    let offset = theirs - f64::midpoint(before, now());
    Ok((OFFSET_SECONDS_MAX < offset.abs()).then(|| Warning {
        code: Code::ClockOffset,
        message: format!(
            "the server's clock is {:.1} s {} this machine's: lag and the ages of events are wrong by as much; synchronize both (NTP)",
            offset.abs(),
            if offset < 0.0 { "behind" } else { "ahead of" }
        ),
    }))
}

/// Transactions that were prepared long ago: they hold up snapshots, and the slot's log with them.
async fn orphans(session: &mut Session) -> Result<Option<Warning>, Error> {
    let rows = session
        .query(
            "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() \
             AND prepared < pg_catalog.now() - interval '5 minutes' ORDER BY prepared LIMIT 10",
        )
        .await?;
    let gids: Vec<_> = rows.iter().map(|row| literal(row.text(0))).collect();
    Ok((!gids.is_empty()).then(|| Warning {
        code: Code::PostgresPreparedOrphan,
        message: format!(
            "transactions prepared more than 5 minutes ago hold up snapshots and keep the log: {}; run: COMMIT PREPARED or ROLLBACK PREPARED",
            gids.join(", ")
        ),
    }))
}

/// Tables in which a row may change its key while the log leaves large values out: the insert half would lack them.
async fn rekeyed(feeds: &Feeds, session: &mut Session) -> Result<Option<Warning>, Error> {
    let names: Vec<_> = feeds.iter().map(|feed| format!("({}, {})", literal(&feed.schema), literal(&feed.table))).collect();
    if names.is_empty() {
        return Ok(None);
    }
    let rows = session
        .query(&format!(
            "SELECT DISTINCT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attstorage <> 'p' \
             WHERE c.relreplident <> 'f' AND c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN ({}) \
             AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND a.attnum = ANY (i.indkey)) ORDER BY 1, 2",
            names.join(", ")
        ))
        .await?;
    let tables: Vec<_> = rows.iter().filter_map(|row| feeds.of_table(row.text(0), row.text(1))).map(|feed| feed.name.to_string()).collect();
    Ok((!tables.is_empty()).then(|| Warning {
        code: Code::PostgresUnchangedValues,
        message: format!(
            "updates of {} may leave out large values that did not change (events name them `unchanged`), also where the key changes; to have them, run: ALTER TABLE ... REPLICA IDENTITY FULL",
            named(tables)
        ),
    }))
}
