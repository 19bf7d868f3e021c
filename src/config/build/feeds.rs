//! Builds the rule of each `[[feeds]]` table.

use super::setting_reader::SettingReader;
use crate::config::key::{Key, OptionalKey};
use crate::config::plan::SourcePlan;
use crate::config::settings::{feeds, sink};
use crate::fault::Code;
use crate::feed::resolve::FeedRule;
use crate::feed::route::Template;
use crate::feed::{PrefeedKind, Selection};
use std::sync::Arc;

/// The settings that hold the destination template, by kind of sink.
pub(super) struct RouteKeys {
    pub(super) sink: Key<Template>,
    feed: OptionalKey<Template>,
    /// The feed's setting for the other kinds of sink.
    other_feed: OptionalKey<Template>,
}

impl RouteKeys {
    pub(super) const TOPIC: Self = Self { sink: sink::TOPIC, feed: feeds::TOPIC, other_feed: feeds::ROUTING_KEY };
    #[cfg(feature = "amqp")]
    pub(super) const ROUTING_KEY: Self = Self { sink: sink::ROUTING_KEY, feed: feeds::ROUTING_KEY, other_feed: feeds::TOPIC };
}

impl SettingReader<'_> {
    pub(super) fn feed(&mut self, source: Option<&SourcePlan>, route: &RouteKeys) -> FeedRule {
        let prefeed = self.get(&feeds::PREFEED);
        let tables = Selection::parse(&self.get(&feeds::TABLES)).unwrap_or_else(|errors| {
            for error in errors {
                self.refuse(Code::ConfigInvalid, &feeds::TABLES, error.to_string());
            }
            Selection::default()
        });
        self.check_prefeed(&prefeed, &tables, source);
        if self.is_given(&route.other_feed) {
            let message = format!("valid only for another kind of sink: set {} instead", route.feed.path);
            self.refuse(Code::ConfigContradictory, &route.other_feed, message);
        }
        FeedRule {
            tables,
            operations: self.get(&feeds::OPERATIONS),
            prefeed,
            stage: self.get(&feeds::STAGE),
            key: self.optional(&feeds::KEY).map(|columns| columns.into_iter().map(Arc::from).collect()),
            route: self.optional(&route.feed),
        }
    }

    fn check_prefeed(&mut self, prefeed: &PrefeedKind, tables: &Selection, source: Option<&SourcePlan>) {
        let kind = source.map_or("", SourcePlan::kind);
        if matches!(prefeed, PrefeedKind::Query(_)) && matches!(kind, "sqlite" | "rethinkdb") {
            let message = format!("queries are not supported for {kind} in this version: set \"snapshot\" or {{ file = \"...\" }}");
            self.refuse(Code::ConfigUnsupported, &feeds::PREFEED, message);
        }
        if matches!(prefeed, PrefeedKind::File(_) | PrefeedKind::Query(_)) && !tables.is_one_table() {
            let message = "a query or file holds the rows of one table: name only that table in `tables`, without a pattern";
            self.refuse(Code::ConfigContradictory, &feeds::PREFEED, message);
        }
    }
}
