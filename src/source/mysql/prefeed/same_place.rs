//! Snapshots of MariaDB. Each session knows the place in the log that its snapshot shows, and no lock is needed.
//!
//! Source: MariaDB documentation, "START TRANSACTION", "Enhancements for START TRANSACTION WITH CONSISTENT SNAPSHOT".

use super::blocked::Blocked;
use super::reader::Reader;
use crate::source::mysql::error::Error;
use crate::source::mysql::head::{self, Head};
use crate::source::mysql::session::Session;
use futures_util::future::try_join_all;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often all readers begin anew, because commits came between them.
const ATTEMPTS: usize = 5;
/// How long a commit that is in the log may take to become visible.
const INVISIBLE_MAX: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// How often in a row a place must be the same, and how often it is asked for at most.
const ANSWERS: u32 = 4;
const ANSWERS_MAX: u32 = 1_000;

/// The name of a file, and a place in it.
type Place = (String, String);

/// Begins a transaction in each reader. Those whose snapshots show one place in the log take part in the slice.
///
/// A commit is in the log before readers see it, and its place may have been read from the log already. A snapshot without it is of no use.
pub(super) async fn open(readers: &mut [Reader], session: &mut Session) -> Result<Result<Head, Blocked>, Error> {
    let (end, deadline) = (Head::place(session).await?, Instant::now() + INVISIBLE_MAX);
    loop {
        let (file, offset) = same(readers).await?;
        let file = head::file(&file)?;
        let offset = offset.parse().map_err(|_| Error::Protocol { what: "a snapshot's place in the log" })?;
        if (end.0.number, end.1) <= (file.number, offset) {
            let gtids = head::maria(session, &file, offset).await?;
            return Ok(Ok(Head { file, offset, gtids }));
        }
        if deadline < Instant::now() {
            return Ok(Err(Blocked::By(
                "a commit that is in the log and waits, perhaps for a replica (rpl_semi_sync_master_timeout),".to_owned(),
            )));
        }
        try_join_all(readers.iter_mut().map(Reader::leave)).await?;
        sleep(PAUSE).await;
    }
}

/// Begins a transaction in each reader, and returns the place of most of their snapshots. The other readers take no part.
async fn same(readers: &mut [Reader]) -> Result<Place, Error> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        try_join_all(readers.iter_mut().map(Reader::begin)).await?;
        let mut places = Vec::with_capacity(readers.len());
        // One after the other, as `place` needs it.
        for reader in &mut *readers {
            places.push(place(reader).await?);
        }
        let chosen = most_frequent(&places).ok_or(Error::Protocol { what: "a snapshot's place in the log" })?;
        if attempt == ATTEMPTS || places.iter().all(|place| *place == chosen) {
            try_join_all(readers.iter_mut().zip(&places).filter(|(_, place)| **place != chosen).map(|(reader, _)| reader.leave())).await?;
            return Ok(chosen);
        }
        try_join_all(readers.iter_mut().map(Reader::leave)).await?;
    }
}

/// The place in the log that a reader's snapshot shows.
///
/// The server keeps it for each session, but gives it out by way of two variables that all sessions share (MariaDB 10.11 `sql/log.cc`,
/// `set_status_variables`): a session that asks at the same time, as programs do that watch the server, can put its own place there. So it is
/// asked for until it is the same several times in a row.
async fn place(reader: &mut Reader) -> Result<Place, Error> {
    let (mut found, mut times) = (shown(reader).await?, 1);
    for _ in 0..ANSWERS_MAX {
        if times == ANSWERS {
            return Ok(found);
        }
        let next = shown(reader).await?;
        times = if next == found { times + 1 } else { 1 };
        found = next;
    }
    Err(Error::Protocol { what: "a snapshot's place in the log, which others overwrite" })
}

async fn shown(reader: &mut Reader) -> Result<Place, Error> {
    let rows = reader.session().query("SHOW STATUS LIKE 'Binlog\\_snapshot\\_%'").await?;
    let value = |name: &str| rows.iter().find(|row| row.text(0).eq_ignore_ascii_case(name)).map(|row| row.text(1).to_owned());
    value("Binlog_snapshot_file").zip(value("Binlog_snapshot_position")).ok_or(Error::Protocol { what: "a snapshot's place in the log" })
}

fn most_frequent(places: &[Place]) -> Option<Place> {
    places.iter().max_by_key(|place| places.iter().filter(|other| other == place).count()).cloned()
}

#[cfg(test)]
mod tests {
    use super::most_frequent;

    #[test]
    fn the_place_of_most_readers_is_chosen() {
        let places = ["1", "2", "2", "3"].map(|offset| ("binlog.000001".to_owned(), offset.to_owned()));
        assert_eq!(most_frequent(&places).unwrap().1, "2");
        assert_eq!(most_frequent(&[]), None);
    }
}
