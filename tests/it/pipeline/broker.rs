//! The broker's messages, and a reader of each table. Every message is checked when it arrives.

use super::world::{TABLES, index};
use feedline::batch::Seq;
use feedline::checkpoint::FeedState;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// A message as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    pub table: usize,
    pub key: u32,
    pub value: Option<u32>,
    pub prefeed: bool,
}

impl Message {
    /// The key of a `reset`, which says that all rows of its table are read again.
    pub const RESET: u32 = u32::MAX;

    pub const fn is_reset(&self) -> bool {
        self.key == Self::RESET
    }
}

#[derive(Debug, Default)]
pub struct Broker {
    /// Everything that was sent, repeated messages too.
    pub messages: Vec<Message>,
    known: HashMap<String, Message>,
    readers: [Reader; TABLES.len()],
    /// The batches of the current session behind the first one that is not confirmed: their ids, and whether they are confirmed.
    behind: BTreeMap<Seq, (Vec<String>, bool)>,
    /// When a message and all before it were confirmed. None of these may be sent again.
    confirmed: HashMap<String, Instant>,
    /// Live messages from this id on may be sent again: a session of this process has read the log again.
    read_again_from: Option<String>,
    /// When the save began that is on the disk.
    saved_at: Option<Instant>,
    /// Whether the last save failed.
    save_failed: bool,
}

/// What a reader knows of one table.
#[derive(Debug, Default)]
pub struct Reader {
    /// By key: the value of the newest message.
    rows: BTreeMap<u32, Option<u32>>,
    newest: String,
    begins: Begins,
    /// The existing rows since the newest reset: keys and ids.
    existing: Vec<(u32, String)>,
    /// The last of them that was sent, or after a crash the last that was durable.
    after: Option<u32>,
}

/// Which rows a reader has of a table without a prefeed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Begins {
    /// None: the feed has no start.
    #[default]
    Never,
    /// Those that changed at this position or later.
    At(usize),
    /// All: they were read again.
    WithAllRows,
}

impl Broker {
    /// Takes a message of a feed that has this state in the durable checkpoint, in which `slice` is the newest slice.
    pub fn arrive(&mut self, message: Message, durable: Option<&FeedState>, slice: u32) {
        if let Some(known) = self.known.get(&message.id) {
            assert_eq!(*known, message, "the same id, the same bytes");
            let may_repeat = self.is_read_again(&message.id) || !self.confirmed.contains_key(&message.id);
            assert!(may_repeat, "{} is sent again (G2)", message.id);
        } else {
            self.readers[message.table].take(&message, durable, slice);
            self.known.insert(message.id.clone(), message.clone());
        }
        self.messages.push(message);
    }

    pub fn has(&self, id: &str) -> bool {
        self.known.contains_key(id)
    }

    pub const fn reader(&self, table: usize) -> &Reader {
        &self.readers[table]
    }

    pub const fn reader_mut(&mut self, table: usize) -> &mut Reader {
        &mut self.readers[table]
    }

    /// How many messages are there more than once.
    pub fn repeats(&self) -> usize {
        self.messages.len() - self.known.len()
    }

    /// A session has begun: it is given all batches that are not confirmed.
    pub fn begin_session(&mut self) {
        self.behind.clear();
    }

    pub fn submitted(&mut self, batch: Seq, ids: Vec<String>) {
        self.behind.insert(batch, (ids, false));
    }

    /// The sink has confirmed a whole batch.
    pub fn confirm(&mut self, batch: Seq) {
        if let Some((_, is_confirmed)) = self.behind.get_mut(&batch) {
            *is_confirmed = true;
        }
        let now = Instant::now();
        while let Some(first) = self.behind.first_entry().filter(|first| first.get().1) {
            self.confirmed.extend(first.remove().0.into_iter().map(|id| (id, now)));
        }
    }

    /// A save has ended that began at this moment. The store may say that it failed and have the checkpoint all the same.
    pub fn saved(&mut self, begun: Instant, is_stored: bool, has_failed: bool) {
        if is_stored {
            self.saved_at = Some(begun);
        }
        self.save_failed = has_failed;
    }

    /// A process has begun: what was confirmed after the newest save may be sent again, and nothing else.
    pub fn begin_process(&mut self) {
        let mut confirmed = std::mem::take(&mut self.confirmed);
        confirmed.retain(|id, at| !self.is_read_again(id) && self.saved_at.is_some_and(|saved| *at < saved));
        (self.confirmed, self.read_again_from) = (confirmed, None);
        for reader in &mut self.readers {
            reader.existing.retain(|(_, id)| self.confirmed.contains_key(id));
            reader.after = reader.existing.last().map(|(key, _)| *key);
        }
        self.begin_session();
    }

    /// The log is read again from this position.
    pub fn go_back(&mut self, position: usize) {
        let from = format!("{position:08}-1-");
        self.read_again_from = Some(self.read_again_from.take().map_or(from.clone(), |earlier| earlier.min(from)));
    }

    fn is_read_again(&self, id: &str) -> bool {
        id[8..].starts_with("-1-") && self.read_again_from.as_deref().is_some_and(|from| from <= id)
    }

    /// Asserts that what was confirmed longer ago than `within` is durable, unless the store fails.
    pub fn assert_saved(&self, within: Duration) {
        let now = Instant::now();
        for (id, at) in &self.confirmed {
            let is_saved = self.saved_at.is_some_and(|saved| *at <= saved);
            assert!(
                is_saved || self.save_failed || now < *at + within,
                "{id} was confirmed {:?} ago and is not durable (G2)",
                at.elapsed()
            );
        }
    }
}

impl Reader {
    /// Takes a message that was not sent before.
    fn take(&mut self, message: &Message, durable: Option<&FeedState>, slice: u32) {
        let Message { id, key, value, .. } = message;
        assert!(self.newest < *id, "{id} came after {} (G3)", self.newest);
        self.newest.clone_from(id);
        let position: usize = id[..8].parse().unwrap();
        let start = durable.and_then(FeedState::start).map(index);
        if message.prefeed {
            let number = id[11..17].parse::<u32>().unwrap();
            assert!(number <= slice, "{id} came before the number of its slice was durable: that is {slice}");
        }
        if message.is_reset() {
            let begins = if start.is_some() { Begins::WithAllRows } else { Begins::At(position) };
            *self = Self { newest: id.clone(), begins, ..Self::default() };
            return;
        }
        assert!(durable.is_some_and(|state| state.since().is_some()), "{id} came before the feed's start was durable: {durable:?}");
        if message.prefeed {
            assert!(self.after < Some(*key), "row {key} came after row {:?}", self.after);
            self.after = Some(*key);
            self.existing.push((*key, id.clone()));
        } else {
            let change = position + id[11..].parse::<usize>().unwrap() / 10;
            assert!(start.is_some_and(|start| start <= change), "{id} came before the feed's start {durable:?}");
        }
        self.rows.insert(*key, *value);
    }

    /// The rows that the messages make.
    pub fn rows(&self) -> impl Iterator<Item = (&u32, &u32)> {
        self.rows.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)))
    }

    /// The feed's start is durable.
    pub fn begin(&mut self, start: usize) {
        if self.begins == Begins::Never {
            self.begins = Begins::At(start);
        }
    }

    pub const fn begins(&self) -> Begins {
        self.begins
    }
}
