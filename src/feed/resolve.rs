//! Resolves the configured feeds against a source's catalogue.

use crate::checkpoint::FeedName;
use crate::event::{FeedId, Operation, Operations};
use crate::feed::catalogue::{Catalogue, Table, feed_name};
use crate::feed::feeds::{Feed, Feeds, PrefeedKind};
use crate::feed::pattern::TablePattern;
use crate::feed::route::{Destination, RouteValues, Template};
use crate::feed::selection::Selection;
use std::collections::HashMap;
use std::sync::Arc;

mod error;

pub use error::ResolveError;

/// One configured `[[feeds]]` entry.
#[derive(Clone, Debug)]
pub struct FeedRule {
    /// The patterns of its tables.
    pub tables: Selection,
    /// Which live operations are published.
    pub operations: Operations,
    /// What comes before the live events.
    pub prefeed: PrefeedKind,
    /// Prefeeds of a lower stage are delivered completely before those of a higher stage begin.
    pub stage: u32,
    /// Key columns in any order. `None` means the primary key.
    pub key: Option<Vec<Arc<str>>>,
    /// The route of these tables, instead of the sink's.
    pub route: Option<Template>,
}

/// The feeds of pipeline `name`, ordered by stage, schema and table. A pattern without a schema matches tables of `default_schema`.
/// A table with neither a primary nor a configured key gets an empty key; the source decides whether it can follow such a table.
///
/// # Errors
/// All errors at once.
pub fn resolve(
    name: &str,
    rules: &[FeedRule],
    route: &Template,
    catalogue: &Catalogue,
    default_schema: &str,
) -> Result<Feeds, Vec<ResolveError>> {
    let (feeds, errors) = resolve_all(name, rules, route, catalogue, default_schema);
    if errors.is_empty() { Ok(feeds) } else { Err(errors) }
}

/// Like [`resolve`], but also returns the feeds if there are errors.
#[must_use]
pub fn resolve_all(
    name: &str,
    rules: &[FeedRule],
    route: &Template,
    catalogue: &Catalogue,
    default_schema: &str,
) -> (Feeds, Vec<ResolveError>) {
    let mut errors = Vec::new();
    let mut feeds = Vec::new();
    for (table, rule_index) in assign(rules, catalogue, default_schema, &mut errors) {
        let rule = &rules[rule_index];
        feeds.push(Feed {
            id: FeedId(0),
            name: feed_name(&table.schema, &table.name),
            schema: table.schema.clone(),
            table: table.name.clone(),
            operations: rule.operations,
            prefeed: rule.prefeed.clone(),
            stage: rule.stage,
            key: key(table, rule, rule_index, &mut errors),
            columns: table.columns.clone(),
            leaves_values_out: table.leaves_values_out,
            destinations: destinations(rule.route.as_ref().unwrap_or(route), name, &catalogue.database, table),
        });
    }
    feeds.sort_by(|a, b| (a.stage, &a.schema, &a.table).cmp(&(b.stage, &b.schema, &b.table)));
    check_destinations(&feeds, &mut errors);
    let selections = rules.iter().map(|rule| rule.tables.clone()).collect();
    (Feeds::new(feeds).with_selections(selections, default_schema), errors)
}

/// Each table that a rule matches, with the first such rule.
fn assign<'c>(
    rules: &[FeedRule],
    catalogue: &'c Catalogue,
    default_schema: &str,
    errors: &mut Vec<ResolveError>,
) -> Vec<(&'c Table, usize)> {
    let tables: Vec<&Table> = catalogue.tables.iter().collect();
    for (feed, rule) in rules.iter().enumerate() {
        let has = |table: &Table| rule.tables.has(&table.schema, &table.name, default_schema);
        for pattern in rule.tables.included() {
            if tables.iter().any(|table| has(table) && pattern.matches(&table.schema, &table.name, default_schema)) {
                continue;
            }
            let is_view = catalogue.views.iter().any(|(schema, name)| pattern.matches(schema, name, default_schema));
            errors.push(if is_view && pattern.is_literal() {
                ResolveError::View { feed, pattern: pattern.to_string() }
            } else {
                let nearest = nearest_table(pattern, &tables, default_schema);
                ResolveError::TableMissing { feed, pattern: pattern.to_string(), nearest }
            });
        }
    }
    let mut assigned = Vec::new();
    for table in tables {
        let mut claims = (0..rules.len()).filter(|&index| rules[index].tables.has(&table.schema, &table.name, default_schema));
        let Some(first) = claims.next() else { continue };
        assigned.push((table, first));
        let name = feed_name(&table.schema, &table.name);
        errors.extend(claims.map(|second| ResolveError::TableInTwoFeeds { table: name.clone(), first, second }));
    }
    assigned
}

fn nearest_table(pattern: &TablePattern, tables: &[&Table], default_schema: &str) -> Option<String> {
    if !pattern.is_literal() {
        return None;
    }
    let names = tables.iter().flat_map(|table| {
        let full = feed_name(&table.schema, &table.name).to_string();
        let bare = (&*table.schema == default_schema && !pattern.names_schema()).then(|| table.name.to_string());
        std::iter::once(full).chain(bare)
    });
    nearest(&pattern.to_string(), names)
}

/// The name that is most similar to `written`, if at most half of its characters differ.
fn nearest(written: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let distances = names.map(|name| (strsim::damerau_levenshtein(written, &name), name));
    let (distance, name) = distances.min()?;
    (2 * distance <= written.chars().count().max(2)).then_some(name)
}

/// The key's columns in table order.
fn key(table: &Table, rule: &FeedRule, feed: usize, errors: &mut Vec<ResolveError>) -> Vec<Arc<str>> {
    let Some(configured) = &rule.key else { return table.primary_key.clone() };
    if configured.is_empty() && !errors.contains(&ResolveError::KeyEmpty { feed }) {
        errors.push(ResolveError::KeyEmpty { feed });
    }
    for column in configured.iter().filter(|column| !table.columns.contains(column)) {
        errors.push(ResolveError::KeyColumnMissing {
            feed,
            table: feed_name(&table.schema, &table.name),
            column: column.clone(),
            nearest: nearest(column, table.columns.iter().map(ToString::to_string)),
        });
    }
    table.columns.iter().filter(|column| configured.contains(column)).cloned().collect()
}

fn destinations(route: &Template, name: &str, database: &str, table: &Table) -> [Destination; Operation::ALL.len()] {
    let expand = |operation| route.expand(&RouteValues { name, database, schema: &table.schema, table: &table.name, operation });
    if route.names_operation() {
        return Operation::ALL.map(expand);
    }
    let shared = expand(Operation::Read);
    Operation::ALL.map(|_| shared.clone())
}

fn check_destinations(feeds: &[Feed], errors: &mut Vec<ResolveError>) {
    let mut owners: HashMap<&Destination, &Feed> = HashMap::new();
    for feed in feeds {
        let mut shared_with: Vec<&FeedName> = Vec::new();
        for destination in &feed.destinations {
            let owner = owners.entry(destination).or_insert(feed);
            if owner.name != feed.name && !shared_with.contains(&&owner.name) {
                shared_with.push(&owner.name);
                let (first, second) = (owner.name.clone(), feed.name.clone());
                errors.push(ResolveError::DestinationShared { first, second, destination: destination.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FeedRule, ResolveError, resolve};
    use crate::event::{Operation, Operations};
    use crate::feed::route::Template;
    use crate::feed::{Catalogue, Feeds, PrefeedKind, Selection, Table, feed_name};

    fn table(schema: &str, name: &str) -> Table {
        let columns = ["id", "status", "total"].map(Into::into).to_vec();
        Table { schema: schema.into(), name: name.into(), primary_key: vec!["id".into()], columns, leaves_values_out: false }
    }

    fn catalogue() -> Catalogue {
        let tables = vec![
            table("public", "orders"),
            table("public", "customer_us"),
            table("public", "customer_eu"),
            table("audit", "orders"),
            table("audit", "a.b"),
        ];
        Catalogue { database: "db".into(), tables, views: vec![("public".into(), "open_orders".into())] }
    }

    fn rule(patterns: &[&str]) -> FeedRule {
        FeedRule {
            tables: Selection::parse(patterns).unwrap(),
            operations: Operations::ALL,
            prefeed: PrefeedKind::Snapshot,
            stage: 1,
            key: None,
            route: None,
        }
    }

    fn resolved(rules: &[FeedRule], route: &str) -> Result<Feeds, Vec<ResolveError>> {
        resolve("shop", rules, &Template::parse(route).unwrap(), &catalogue(), "public")
    }

    #[test]
    fn feeds_are_ordered_by_stage_schema_and_table() {
        let rules = [
            FeedRule { stage: 2, ..rule(&["audit.*"]) },
            FeedRule { prefeed: PrefeedKind::None, ..rule(&["orders", "public.customer_*", "public.customer_eu"]) },
        ];
        let feeds = resolved(&rules, "{name}.{schema}.{table}").unwrap();
        let names: Vec<_> = feeds.iter().map(|feed| (feed.id.0, &*feed.name, feed.stage)).collect();
        assert_eq!(
            names,
            [
                (0, "public.customer_eu", 1),
                (1, "public.customer_us", 1),
                (2, "public.orders", 1),
                (3, "audit.\"a.b\"", 2),
                (4, "audit.orders", 2)
            ]
        );
        let orders = feeds.of_table("public", "orders").unwrap();
        assert_eq!(&**orders.destination(Operation::Insert), "shop.public.orders");
        assert_eq!((orders.prefeed.clone(), &*orders.key), (PrefeedKind::None, &["id".into()][..]));
    }

    #[test]
    fn a_route_may_contain_the_operation_and_a_rule_may_have_its_own_route() {
        let own = FeedRule { route: Some(Template::parse("own").unwrap()), ..rule(&["audit.orders"]) };
        let feeds = resolved(&[rule(&["public.orders"]), own], "{table}.{operation}").unwrap();
        let orders = feeds.of_table("public", "orders").unwrap();
        for operation in Operation::ALL {
            assert_eq!(**orders.destination(operation), *format!("orders.{operation}"));
            assert_eq!(&**feeds.of_table("audit", "orders").unwrap().destination(operation), "own");
        }
    }

    #[test]
    fn a_configured_key_is_in_table_order() {
        let rules = [FeedRule { key: Some(vec!["total".into(), "id".into()]), ..rule(&["orders"]) }];
        assert_eq!(resolved(&rules, "{table}").unwrap().of_table("public", "orders").unwrap().key, ["id".into(), "total".into()]);
    }

    #[test]
    fn all_errors_are_returned_at_once() {
        let rules = [
            rule(&["public.orders", "public.ordrs", "nothing_*", "open_orders", "open_*"]),
            FeedRule { key: Some(vec!["statos".into(), "zzzzzzzz".into()]), ..rule(&["*.orders"]) },
            FeedRule { key: Some(Vec::new()), ..rule(&["customer_*"]) },
        ];
        let missing = |feed, pattern: &str, nearest: Option<&str>| ResolveError::TableMissing {
            feed,
            pattern: pattern.to_owned(),
            nearest: nearest.map(str::to_owned),
        };
        assert_eq!(
            resolved(&rules, "{name}").unwrap_err(),
            [
                missing(0, "public.ordrs", Some("public.orders")),
                missing(0, "nothing_*", None),
                ResolveError::View { feed: 0, pattern: "open_orders".to_owned() },
                missing(0, "open_*", None),
                ResolveError::TableInTwoFeeds { table: feed_name("public", "orders"), first: 0, second: 1 },
                ResolveError::KeyEmpty { feed: 2 },
                ResolveError::KeyColumnMissing {
                    feed: 1,
                    table: feed_name("audit", "orders"),
                    column: "statos".into(),
                    nearest: Some("status".to_owned())
                },
                ResolveError::KeyColumnMissing { feed: 1, table: feed_name("audit", "orders"), column: "zzzzzzzz".into(), nearest: None },
                shared("audit.orders", "public.customer_eu"),
                shared("audit.orders", "public.customer_us"),
                shared("audit.orders", "public.orders"),
            ]
        );
    }

    fn shared(first: &str, second: &str) -> ResolveError {
        ResolveError::DestinationShared { first: first.into(), second: second.into(), destination: "shop".into() }
    }

    #[test]
    fn two_tables_may_share_the_destination_of_one_operation() {
        let colliding = FeedRule { route: Some(Template::parse("orders.delete").unwrap()), ..rule(&["audit.orders"]) };
        let errors = resolved(&[rule(&["orders"]), colliding], "{table}.{operation}").unwrap_err();
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["tables audit.orders and public.orders both go to `orders.delete`: give one another route, or use {table} in it"]
        );
    }
}
