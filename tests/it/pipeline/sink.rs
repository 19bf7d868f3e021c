//! A scripted sink and store. The sink confirms late and out of order, loses records, fails, and confirms too late.

use super::world::{Message, Scripted, World, feed_of, index};
use feedline::batch::{Ack, Batch, Record};
use feedline::checkpoint::{Checkpoint, CheckpointStore, FeedState, Identity};
use feedline::fault::Fault;
use feedline::feed::Feeds;
use feedline::sink::{Sink, SinkConnector};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

pub struct ScriptSinkConnector(pub World);

pub struct ScriptSink {
    world: World,
    work: JoinSet<()>,
    /// Whether the session has lost something. It then delivers nothing more.
    broken: bool,
}

fn message(record: &Record<'_>) -> Message {
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let number = |value: &serde_json::Value| value.as_u64().map(|number| u32::try_from(number).unwrap());
    let id = std::str::from_utf8(record.id).unwrap();
    Message {
        id: id.strip_prefix("scripted/").unwrap().to_owned(),
        key: number(&json(record.key)["id"]).unwrap_or(Message::RESET),
        value: number(&json(record.body.unwrap())["after"]["value"]),
        prefeed: record.head.operation.is_prefeed(),
    }
}

impl ScriptSink {
    /// Confirms records of earlier sessions, which must not count.
    fn confirm_late(&self) {
        let late = std::mem::take(&mut self.world.state().late);
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
        self.confirm_late();
        if fail {
            self.world.state().late.push((ack, u32::try_from(batch.len()).unwrap()));
            return Err(Scripted(Fault::Transient));
        }
        if self.broken {
            return Ok(());
        }
        if confirm_and_fail {
            batch.records().for_each(|record| self.world.deliver(message(&record)));
            ack.confirm(u32::try_from(batch.len()).unwrap());
            return Err(Scripted(Fault::Transient));
        }
        self.broken = lose;
        // A broker stores records in order. Only its confirmations come in any order.
        let records = if lose { batch.len() / 2 } else { batch.len() };
        tokio::time::sleep(slow * u32::try_from(records).unwrap()).await;
        for record in batch.records().take(records) {
            self.world.deliver(message(&record));
        }
        self.work.spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            for _ in 0..records {
                ack.confirm(1);
                tokio::task::yield_now().await;
            }
            drop(batch);
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
        tokio::time::sleep(Duration::from_millis(8)).await;
        let mut state = self.0.state();
        if state.faults.is_taken_over {
            return Err(Scripted(Fault::Fatal));
        }
        if let Some(token) = &checkpoint.token {
            let states = ["main.rows", "main.seeded"].map(|name| checkpoint.feeds.get(name));
            let starts = states.map(|state| state.and_then(FeedState::start).map_or(usize::MAX, index));
            let ids: HashSet<&str> = state.broker.iter().map(|message| message.id.as_str()).collect();
            let mut first = 0;
            for (position, change) in state.log[..index(token)].iter().enumerate() {
                let id = format!("{first:08}-1-{:016}", 10 * (position - first));
                let is_sent = position < starts[feed_of(change.key).index()] || ids.contains(id.as_str());
                first = if change.last { position + 1 } else { first };
                assert!(is_sent, "checkpoint at {token:?}, but {position} is not on the broker (I2)");
            }
            // After a file is sent, the checkpoint goes back to where the file was begun.
            let begun = match state.disk.as_ref().and_then(|disk| disk.feeds.get("main.seeded")) {
                Some(FeedState::Loading { start: Some(start), .. }) if starts[1] == index(start) => Some(index(start)),
                _ => None,
            };
            let before = begun.or_else(|| state.disk.as_ref().and_then(|disk| disk.token.as_ref()).map(index)).unwrap_or(0);
            let before = state.went_back.map_or(before, |position| before.min(position));
            assert!(before <= index(token), "a checkpoint goes back from {before} to {token:?} (I4)");
        }
        let odds = state.faults.store_save;
        let fails = state.random.one_in(odds);
        if !fails || state.random.one_in(2) {
            state.disk = Some(checkpoint.clone());
        }
        if fails { Err(Scripted(Fault::Transient)) } else { Ok(()) }
    }

    async fn remove(&mut self) -> Result<bool, Scripted> {
        Ok(self.0.state().disk.take().is_some())
    }
}
