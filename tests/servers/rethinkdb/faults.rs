//! What can go wrong at a server, as a test asks for it.

use super::protocol::send;
use super::{RethinkDb, State};
use serde_json::{Value, json};
use std::net::Shutdown;

/// Faults that last until they are taken back.
#[derive(Default)]
pub(super) struct Faults {
    /// No connection is taken.
    pub(super) is_down: bool,
    /// Feeds are not answered.
    pub(super) is_held: bool,
    /// Connections are taken, and nothing is said.
    pub(super) is_frozen: bool,
    /// Scans do not come to their end.
    pub(super) is_stalled: bool,
    /// How many changefeeds are refused, because no primary replica is available.
    unavailable: u32,
    /// Whether the user may read no table.
    is_denied: bool,
}

impl Faults {
    /// What is said to a query instead of an answer.
    pub(super) fn refusal(&mut self, query: &Value) -> Option<Value> {
        let is_feed = query[1][0] == 152;
        if self.is_denied && (is_feed || query[1][0] == 86) {
            let (code, before) = if is_feed { (1_000_000, "Unexpected exception: ") } else { (6_000_000, "") };
            let text = format!("{before}User `cdc` does not have the required `read` permission.");
            return Some(json!({"t": 18, "e": code, "r": [text], "b": []}));
        }
        if !is_feed {
            return None;
        }
        self.unavailable = self.unavailable.checked_sub(1)?;
        let text = "cannot subscribe to table `test.t`: primary replica for shard [\"\", +inf) not available";
        Some(json!({"t": 18, "e": 4_100_000, "r": [text], "b": []}))
    }
}

impl State {
    /// Answers the feeds that were asked while nothing was said.
    fn answer_asked(&mut self) {
        let Self { feeds, tables, faults, piece, .. } = self;
        if faults.is_held || faults.is_frozen {
            return;
        }
        for feed in feeds.iter_mut().filter(|feed| feed.is_asked) {
            if let Some(table) = tables.get(&feed.table) {
                feed.ask(&table.documents, faults, *piece);
            }
        }
    }
}

impl RethinkDb {
    /// Ends the table's feeds as a reshard does.
    pub(crate) fn abort_feeds(&self, table: &str) {
        let mut state = self.shared.lock();
        let piece = state.piece;
        for mut feed in state.feeds.extract_if(.., |feed| feed.table == table) {
            send(&mut feed.out, feed.token, &json!({"t": 18, "e": 4_100_000, "r": ["Changefeed aborted (unavailable)."], "b": []}), piece);
        }
        self.shared.changed.notify_all();
    }

    /// From now on lets no client ask for more, so that queues grow; `false` answers what was asked meanwhile.
    pub(crate) fn hold(&self, is_held: bool) {
        let mut state = self.shared.lock();
        state.faults.is_held = is_held;
        state.answer_asked();
        self.shared.changed.notify_all();
    }

    /// Lets each feed of the table that was asked send one batch, while the others are held.
    pub(crate) fn answer_one(&self, table: &str) {
        let mut state = self.shared.lock();
        let State { feeds, tables, faults, piece, .. } = &mut *state;
        for feed in feeds.iter_mut().filter(|feed| feed.table == table && feed.is_asked) {
            feed.ask(&tables[table].documents, faults, *piece);
        }
    }

    /// Whether the server says nothing at all, on old connections and on new ones.
    pub(crate) fn freeze(&self, is_frozen: bool) {
        let mut state = self.shared.lock();
        state.faults.is_frozen = is_frozen;
        state.answer_asked();
        self.shared.changed.notify_all();
    }

    /// Whether scans send their documents and never end.
    pub(crate) fn stall(&self, is_stalled: bool) {
        self.shared.lock().faults.is_stalled = is_stalled;
    }

    /// Refuses so many changefeeds, as a server does whose table has no primary replica yet.
    pub(crate) fn lack_a_primary(&self, refusals: u32) {
        self.shared.lock().faults.unavailable = refusals;
    }

    /// Whether the user lacks the permission to read.
    pub(crate) fn deny(&self, is_denied: bool) {
        self.shared.lock().faults.is_denied = is_denied;
    }

    /// From now on is another cluster, with another database of the same name.
    pub(crate) fn become_another(&self) {
        self.shared.lock().database = "11111111-1111-1111-1111-111111111111".to_owned();
    }

    /// Sends this element on the table's feeds, as it is.
    pub(crate) fn say(&self, table: &str, element: &[u8]) {
        self.shared.lock().publish_text(table, "", element);
        self.shared.changed.notify_all();
    }

    /// Takes back a change that was shown, as a crash of the server does.
    pub(crate) fn take_back(&self, table: &str, key: &Value) {
        self.shared.lock().tables.get_mut(table).expect("the table exists").documents.remove(&key.to_string());
    }

    /// Closes all connections and takes no more.
    pub(crate) fn kill(&self) {
        let mut state = self.shared.lock();
        state.faults.is_down = true;
        state.feeds.clear();
        for connection in state.connections.drain(..) {
            // Fails where the client has closed it.
            drop(connection.shutdown(Shutdown::Both));
        }
    }

    /// Takes connections again.
    pub(crate) fn restart(&self) {
        self.shared.lock().faults.is_down = false;
    }

    /// Kills the server and takes back its newest changes, which it had shown and not written to its disk.
    pub(crate) fn lose_power(&self, changes: usize) {
        self.kill();
        let mut state = self.shared.lock();
        for _ in 0..changes {
            let Some((table, key, old)) = state.unflushed.pop_back() else { break };
            let Some(table) = state.tables.get_mut(&table) else { continue };
            match old {
                Some(old) => table.documents.insert(key, old),
                None => table.documents.remove(&key),
            };
        }
    }
}
