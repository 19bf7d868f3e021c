//! The settings of each `[[feeds]]`.

use super::choices::ALL;
use crate::config::key::{Key, OptionalKey};
use crate::config::kind;
use crate::config::schema::Default::{Absent, Is, Required};
use crate::event::Operations;
use crate::feed::PrefeedKind;
use crate::feed::route::Template;

settings! {
    TABLES: Key<Vec<String>> = "feeds.tables", ALL, kind::LIST, Required("[\"orders\", \"customer_*\"]"),
        "Tables by name or pattern: `schema.table` or `table`; `*` matches any characters; `!` before a pattern leaves its tables out. A table may be in one feed only. Tables that are created later are published too.";
    OPERATIONS: Key<Operations> = "feeds.operations", ALL, kind::OPERATIONS, Is("[\"insert\", \"update\", \"delete\"]"),
        "The live changes that are published.";
    PREFEED: Key<PrefeedKind> = "feeds.prefeed", ALL, kind::PREFEED, Is("snapshot"),
        "The rows that are published before the live changes. `snapshot`: the existing rows. `none`: no rows. `{ query = \"SELECT ...\" }`: the rows of a query that returns the key columns (not for SQLite and RethinkDB). `{ file = \"rows.jsonl\" }`: the rows of a file, one JSON object per line. A feed with a query or a file has exactly one table.";
    STAGE: Key<u32> = "feeds.stage", ALL, kind::integer(0, 1000), Is("1"),
        "The prefeed of a stage begins when the prefeeds of all lower stages are delivered.";
    KEY: OptionalKey<Vec<String>> = "feeds.key", ALL, kind::LIST, Absent("[\"id\"]"),
        "The key columns. Default: the primary key. Required for tables without a primary key.";
    TOPIC: OptionalKey<Template> = "feeds.topic", ALL, kind::TOPIC, Absent("{name}.{table}"),
        "Overrides `sink.topic` for these tables.";
    ROUTING_KEY: OptionalKey<Template> = "feeds.routing_key", ALL, kind::ROUTING_KEY, Absent("{table}.{operation}"),
        "Overrides `sink.routing_key` for these tables.";
}
