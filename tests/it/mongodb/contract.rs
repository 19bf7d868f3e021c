//! The contract of a source. Keys cannot change in MongoDB: a change of the key is a delete and an insert, and no operation of its own.

use super::world::World;
use crate::contract_source::{RowChange, Workload};
use feedline::source::mongodb::Connector;
use serde_json::{Value, json};

impl Workload for World {
    type Connector = Connector;

    fn schema(&self) -> &str {
        &self.database
    }

    fn key(&self) -> &'static str {
        "_id"
    }

    fn connector(&self) -> Connector {
        self.connector()
    }

    fn create(&mut self, table: &str) {
        self.server.create(&self.database, table);
    }

    fn write(&mut self, table: &str, transaction: &[RowChange]) {
        let commands: Vec<Value> = transaction.iter().flat_map(|change| commands(table, change)).collect();
        match commands.as_slice() {
            [one] => drop(self.run(one)),
            several => self.server.transaction(&self.database, several),
        }
    }
}

/// The commands that make a change.
fn commands(table: &str, change: &RowChange) -> Vec<Value> {
    let document = change.new.as_ref().map(|(id, note)| json!({"_id": id, "note": note}));
    let delete = |key: u32| json!({"delete": table, "deletes": [{"q": {"_id": key}, "limit": 1}]});
    let insert = |document: &Value| json!({"insert": table, "documents": [document]});
    match (change.old, document) {
        (Some(old), Some(document)) if document["_id"] == old => {
            vec![json!({"update": table, "updates": [{"q": {"_id": old}, "u": {"$set": {"note": document["note"]}}}]})]
        }
        (Some(old), Some(document)) => vec![delete(old), insert(&document)],
        (Some(old), None) => vec![delete(old)],
        (None, Some(document)) => vec![insert(&document)],
        (None, None) => panic!("a row changes"),
    }
}

crate::contract_source::suite!(World::new(&[]); resuming_equals_continuing, a_cancelled_fill_loses_nothing, the_limit_is_exact,
    a_feed_begins_at_its_start, acknowledging_loses_nothing, rows_and_changes_make_one_state);
