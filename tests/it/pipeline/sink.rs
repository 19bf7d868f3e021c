//! A scripted sink and store. The sink confirms late and out of order, loses records, fails, and confirms too late.

use super::broker::Message;
use super::faults::Scripted;
use super::world::{State, TABLES, World, index, state_of, table, table_of};
use feedline::batch::{Ack, Batch, Record};
use feedline::checkpoint::{Checkpoint, CheckpointStore, FeedState, Identity};
use feedline::fault::Fault;
use feedline::feed::Feeds;
use feedline::sink::{Sink, SinkConnector};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub struct ScriptSinkConnector(pub World);

pub struct ScriptSink {
    world: World,
    work: JoinSet<()>,
    /// Whether the session has lost something. It then delivers nothing more.
    broken: bool,
}

fn message(record: &Record<'_>, feeds: &Feeds) -> Message {
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let number = |value: &serde_json::Value| value.as_u64().map(|number| u32::try_from(number).unwrap());
    let id = std::str::from_utf8(record.id).unwrap();
    Message {
        id: id.strip_prefix("scripted/").unwrap().to_owned(),
        table: table(&feeds.get(record.head.feed).table),
        key: number(&json(record.key)["id"]).unwrap_or(Message::RESET),
        value: number(&json(record.body.unwrap())["after"]["value"]),
        prefeed: record.head.operation.is_prefeed(),
    }
}

impl World {
    /// Confirms records of earlier sessions, which must not count.
    fn confirm_late(&self) {
        let late = std::mem::take(&mut self.state().late);
        for (ack, records) in late {
            ack.confirm(records);
        }
    }
}

impl Sink for ScriptSink {
    type Error = Scripted;

    async fn submit(&mut self, batch: Arc<Batch>, ack: Ack) -> Result<(), Scripted> {
        while self.work.try_join_next().is_some() {}
        let (fail, lose, confirm_and_fail, delay, slow) = {
            let mut state = self.world.state();
            let faults = state.faults;
            let delay = state.random.0.u64(..50);
            let mut one_in = |odds| state.random.one_in(odds);
            (one_in(faults.sink_submit), one_in(faults.sink_lose), one_in(faults.sink_confirm_and_fail), delay, faults.sink_record_time)
        };
        self.world.confirm_late();
        let feeds = Arc::clone(&self.world.state().feeds);
        let messages: Vec<_> = batch.records().map(|record| message(&record, &feeds)).collect();
        self.world.state().broker.submitted(batch.seq(), messages.iter().map(|message| message.id.clone()).collect());
        if fail {
            self.world.state().late.push((ack, u32::try_from(batch.len()).unwrap()));
            return Err(Scripted(Fault::Transient));
        }
        if self.broken {
            return Ok(());
        }
        if confirm_and_fail {
            for message in messages {
                self.world.deliver(message);
            }
            ack.confirm(u32::try_from(batch.len()).unwrap());
            self.world.state().broker.confirm(batch.seq());
            return Err(Scripted(Fault::Transient));
        }
        self.broken = lose;
        // A broker stores records in order. Only its confirmations come in any order.
        let records = if lose { batch.len() / 2 } else { batch.len() };
        tokio::time::sleep(slow * u32::try_from(records).unwrap()).await;
        messages.into_iter().take(records).for_each(|message| self.world.deliver(message));
        let world = self.world.clone();
        self.work.spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            for _ in 0..records {
                ack.confirm(1);
                tokio::task::yield_now().await;
            }
            if records == batch.len() {
                world.state().broker.confirm(batch.seq());
            }
        });
        Ok(())
    }

    fn failure(&mut self) -> Scripted {
        Scripted(Fault::Transient)
    }

    fn has_learnt(&self) -> bool {
        self.world.state().faults.sink_learns
    }

    async fn close(mut self) -> Result<(), Scripted> {
        while self.work.join_next().await.is_some() {}
        Ok(())
    }
}

impl ScriptSinkConnector {
    fn cluster(&self) -> Identity {
        Identity::from([("broker".to_owned(), self.0.state().cluster.to_owned())])
    }

    fn is_away(&self) -> bool {
        let mut state = self.0.state();
        let odds = state.faults.sink_connect;
        state.random.one_in(odds)
    }
}

impl SinkConnector for ScriptSinkConnector {
    type Sink = ScriptSink;
    type Error = Scripted;

    fn select(&mut self, _feeds: Arc<Feeds>) {}

    async fn recognize(&mut self, _known: &Identity) -> Result<Identity, Scripted> {
        Ok(self.cluster())
    }

    async fn establish(&mut self) -> Result<Identity, Scripted> {
        self.0.state().established += 1;
        if self.is_away() {
            return Err(Scripted(Fault::Transient));
        }
        Ok(self.cluster())
    }

    async fn preflight(&mut self) -> Result<feedline::preflight::Findings, Scripted> {
        Ok(feedline::preflight::Findings::default())
    }

    async fn connect(&mut self) -> Result<(ScriptSink, Identity), Scripted> {
        if self.is_away() {
            return Err(Scripted(Fault::Transient));
        }
        self.0.state().broker.begin_session();
        // Otherwise they come with the first batch.
        if self.0.state().random.one_in(2) {
            self.0.confirm_late();
        }
        Ok((ScriptSink { world: self.0.clone(), work: JoinSet::new(), broken: false }, self.cluster()))
    }
}

/// A store that asserts at each save that the broker has everything before the token.
pub struct CheckedStore(pub World);

impl CheckpointStore for CheckedStore {
    type Error = Scripted;

    async fn load(&mut self) -> Result<Option<Checkpoint>, Scripted> {
        Ok(self.0.state().disk.clone())
    }

    async fn save(&mut self, checkpoint: &Checkpoint) -> Result<(), Scripted> {
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_millis(8)).await;
        while self.0.state().faults.store_hangs {
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
        let state = &mut *self.0.state();
        if state.faults.is_taken_over {
            return Err(Scripted(Fault::Fatal));
        }
        if let Some(token) = &checkpoint.token {
            state.check_sent(checkpoint, index(token));
            state.check_forward(checkpoint, index(token));
        }
        let odds = state.faults.store_save;
        let fails = state.random.one_in(odds);
        let is_stored = !fails || state.random.one_in(2);
        state.broker.saved(begun, is_stored, fails);
        if is_stored {
            for table in 0..TABLES.len() {
                if let Some(start) = state_of(checkpoint, table).and_then(FeedState::start) {
                    state.broker.reader_mut(table).begin(index(start));
                }
            }
            state.disk = Some(checkpoint.clone());
        }
        if fails { Err(Scripted(Fault::Transient)) } else { Ok(()) }
    }

    async fn remove(&mut self) -> Result<bool, Scripted> {
        Ok(self.0.state().disk.take().is_some())
    }
}

impl State {
    /// Asserts that the broker has all changes before the token that are published.
    fn check_sent(&mut self, checkpoint: &Checkpoint, token: usize) {
        let start = |table| state_of(checkpoint, table).and_then(FeedState::start).map_or(usize::MAX, index);
        let starts: [_; TABLES.len()] = std::array::from_fn(start);
        let checked = self.checked.min(token);
        let mut first = self.log[..checked].iter().rposition(|change| change.last).map_or(0, |last| last + 1);
        for position in checked..token {
            let change = &self.log[position];
            let is_sent =
                position < starts[table_of(change.key)] || self.broker.has(&format!("{first:08}-1-{:016}", 10 * (position - first)));
            assert!(is_sent, "checkpoint at {token}, but {position} is not on the broker (I2)");
            first = if change.last { position + 1 } else { first };
        }
        self.checked = token;
    }

    /// Asserts that the token does not go back, except to where a file was begun that is sent.
    fn check_forward(&self, checkpoint: &Checkpoint, token: usize) {
        let Some(disk) = &self.disk else { return };
        let begun = disk.feeds.iter().find_map(|(name, state)| match (state, checkpoint.feeds.get(name)) {
            (FeedState::Loading { start: Some(begun), .. }, Some(FeedState::Live { start })) if begun == start => Some(index(begun)),
            _ => None,
        });
        let before = begun.or_else(|| disk.token.as_ref().map(index)).unwrap_or(0);
        let before = self.went_back.map_or(before, |position| before.min(position));
        assert!(before <= token, "a checkpoint goes back from {before} to {token} (I4)");
    }
}
