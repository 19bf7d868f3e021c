//! Tables, as the events define them.

use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct Tables {
    /// By table and key: the newest position, and the row; null if deleted.
    rows: BTreeMap<[String; 2], (String, Value)>,
    floor: BTreeMap<String, String>,
    /// By table, old and new key: position and row of each delete of a changed key whose insert has not arrived yet.
    moved: BTreeMap<[String; 3], BTreeMap<String, Value>>,
}

impl Tables {
    /// Folds an event, and returns whether it did. An insert of a changed key must wait for its delete, maybe on another partition.
    pub(crate) fn fold(&mut self, event: &Value, old_key: Option<&Value>, new_key: Option<&Value>) -> bool {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (table, position) = (format!("{}.{}", text(&event["schema"]), text(&event["table"])), text(&event["source"]["position"]));
        let floor = self.floor.entry(table.clone()).or_default();
        if matches!(event["op"].as_str(), Some("truncate" | "reset")) {
            // Each partition has a copy. Anything older than the newest copy is deleted, whenever it arrives.
            *floor = position.max(std::mem::take(floor));
            self.rows.retain(|[of, _], (at, _)| *of != table || *floor <= *at);
            return true;
        }
        let key = event["key"].to_string();
        let (at, row) = self.rows.entry([table.clone(), key.clone()]).or_default();
        if position < *at || position <= *floor {
            return true; // a repeated event: positions of a key only grow
        }
        if let Some(new_key) = new_key.filter(|_| *at < position) {
            self.moved.entry([table, key, new_key.to_string()]).or_default().insert(position.clone(), row.clone());
        } else if let Some(old_key) = old_key {
            let halves = self.moved.entry([table, old_key.to_string(), key]).or_default();
            let later = halves.split_off(&position);
            match std::mem::replace(halves, later).pop_last().filter(|(of, _)| *floor < *of) {
                Some((_, half)) => *row = half,
                None if *at < position => return false,
                None => {} // a repeat of a folded event
            }
        }
        let mut after = event["after"].clone();
        for column in event["unchanged"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if let Some(value) = row.get(column) {
                after[column] = value.clone(); // a large value that the log left out
            }
        }
        (*at, *row) = (position, after);
        true
    }

    /// Prints the existing rows.
    pub(crate) fn print(&self) {
        for ([table, _], (_, row)) in self.rows.iter().filter(|(_, (_, row))| !row.is_null()) {
            println!("{table} {row}");
        }
    }
}
