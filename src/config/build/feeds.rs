//! Builds the rule of each `[[feeds]]` table.

use super::setting_reader::SettingReader;
use crate::config::plan::SourcePlan;
use crate::config::validate::{Validated, Values};
use crate::config::value::Typed;
use crate::event::Operations;
use crate::fault::Code;
use crate::feed::PrefeedKind;
use crate::feed::pattern::TablePattern;
use crate::feed::resolve::FeedRule;
use std::sync::Arc;

/// The settings that hold the destination template, by kind of sink.
#[derive(Clone, Copy)]
pub(super) struct RouteSettings {
    pub(super) sink: &'static str,
    feed: &'static str,
    /// The feed's setting for the other kinds of sink.
    other_feed: &'static str,
}

impl RouteSettings {
    pub(super) const TOPIC: Self = Self { sink: "sink.topic", feed: "feeds.topic", other_feed: "feeds.routing_key" };
    pub(super) const ROUTING_KEY: Self = Self { sink: "sink.routing_key", feed: "feeds.routing_key", other_feed: "feeds.topic" };
}

impl SettingReader<'_> {
    pub(super) fn feed(&mut self, index: usize, source: Option<&SourcePlan>, route: RouteSettings) -> FeedRule {
        let list = |typed| match typed {
            Some(Typed::List(list)) => list,
            _ => Vec::new(),
        };
        let prefeed = match self.typed("feeds.prefeed") {
            Some(Typed::Prefeed(prefeed)) => prefeed,
            _ => PrefeedKind::Snapshot,
        };
        let mut tables = Vec::new();
        for text in list(self.typed("feeds.tables")) {
            match TablePattern::parse(&text) {
                Ok(pattern) => tables.push(pattern),
                Err(error) => self.refuse_as(Code::ConfigInvalid, "feeds.tables", &with_index(index, "feeds.tables"), error.to_string()),
            }
        }
        self.check_prefeed(index, &prefeed, &tables, source);
        if self.given(route.other_feed).is_some() {
            let message = format!("valid only for another kind of sink: set {} instead", route.feed);
            self.refuse_as(Code::ConfigContradictory, route.other_feed, &with_index(index, route.other_feed), message);
        }
        FeedRule {
            tables,
            operations: match self.typed("feeds.operations") {
                Some(Typed::Operations(operations)) => operations,
                _ => Operations::ALL,
            },
            prefeed,
            stage: u32::try_from(self.number("feeds.stage")).unwrap_or(u32::MAX),
            key: self.given("feeds.key").map(|_| list(self.typed("feeds.key")).into_iter().map(Arc::from).collect()),
            route: self.template(route.feed, &with_index(index, route.feed)),
        }
    }

    fn check_prefeed(&mut self, index: usize, prefeed: &PrefeedKind, tables: &[TablePattern], source: Option<&SourcePlan>) {
        let shown = with_index(index, "feeds.prefeed");
        if matches!(prefeed, PrefeedKind::Query(_)) && matches!(source, Some(SourcePlan::Sqlite { .. })) {
            let message = "queries are not supported for sqlite in this version: set \"snapshot\" or { file = \"...\" }";
            self.refuse_as(Code::ConfigUnsupported, "feeds.prefeed", &shown, message);
        }
        if matches!(prefeed, PrefeedKind::File(_) | PrefeedKind::Query(_)) && (tables.len() != 1 || !tables[0].is_literal()) {
            let message = "a query or file holds the rows of one table: name only that table in `tables`, without a pattern";
            self.refuse_as(Code::ConfigContradictory, "feeds.prefeed", &shown, message);
        }
    }
}

/// The path of a feed's setting as it is written, with the feed's index.
fn with_index(index: usize, path: &str) -> String {
    path.replacen("feeds.", &format!("feeds.{index}."), 1)
}

/// The first feed whose rows cannot be read from the database again.
pub(super) fn first_without_reread(validated: &Validated) -> Option<usize> {
    let prefeed = |values: &Values| values.given.get("feeds.prefeed").map(|given| given.typed.clone());
    validated.list("feeds").iter().position(|values| matches!(prefeed(values), Some(Typed::Prefeed(kind)) if !kind.is_read()))
}
