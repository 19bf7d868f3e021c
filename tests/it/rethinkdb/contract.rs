//! The contract of a source. Keys cannot change in RethinkDB: a change of the key is a delete and an insert, and no operation of its own.

use super::World;
use crate::contract_source::{RowChange, Workload};
use feedline::source::rethinkdb::Connector;
use serde_json::json;

impl Workload for World {
    type Connector = Connector;

    fn schema(&self) -> &'static str {
        "test"
    }

    fn connector(&self) -> Connector {
        self.connector()
    }

    fn create(&mut self, table: &str) {
        self.server.create_table(table, "id");
    }

    /// Returns when the changes are in the store: until then they are in no log.
    fn write(&mut self, table: &str, transaction: &[RowChange]) {
        for change in transaction {
            match (change.old, &change.new) {
                (Some(old), Some((id, _))) if old != *id => self.server.remove(table, &json!(old)),
                (Some(old), None) => self.server.remove(table, &json!(old)),
                _ => {}
            }
            if let Some((id, note)) = &change.new {
                self.server.put(table, &json!({"id": id, "note": note}));
            }
            self.server.settle(table);
        }
    }
}

crate::contract_source::suite!(World::new(&[]); resuming_equals_continuing, a_cancelled_fill_loses_nothing, the_limit_is_exact,
    a_feed_begins_at_its_start, acknowledging_loses_nothing, rows_and_changes_make_one_state);
