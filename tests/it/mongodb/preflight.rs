//! What a preflight finds.

use super::world::World;
use crate::contract_source::{assert_found, feed, verify};
use feedline::event::Operations;
use feedline::fault::Code;
use feedline::feed::PrefeedKind;
use feedline::source::SourceConnector as _;
use feedline::source::mongodb::Image;
use serde_json::json;

#[tokio::test]
async fn a_problem_is_found_before_the_start() {
    let mut world = World::new(&["good", "keyed", "asked"]);
    world.run(&json!({"create": "log", "capped": true, "size": 4096}));
    world.run(&json!({"create": "bare"}));
    for name in ["log", "bare", "nope"] {
        world.feeds.push(feed(&world.database, name, &["_id"], Operations::ALL));
    }
    world.feeds[1].key = vec!["name".into()];
    world.feeds[2].prefeed = PrefeedKind::Query("SELECT 1".into());
    world.options.full_document = Image::Required;
    let errors = verify(&mut world.connector()).await.unwrap_err();
    let expected: &[(Code, &[&str])] = &[
        (Code::TableKeyless, &["keyed", "\"_id\""]),
        (Code::PrefeedQuery, &["asked", "no filter"]),
        (Code::MongoDbUnfit, &["log", "capped"]),
        (Code::MongoDbUnfit, &["bare", "changeStreamPreAndPostImages"]),
        (Code::MongoDbUnfit, &["nope", "does not exist"]),
    ];
    assert_found(&errors, expected);
}

#[tokio::test]
async fn views_are_no_collections_and_partial_updates_are_warned_of() {
    let mut world = World::new(&["t"]);
    world.run(&json!({"create": "bare"}));
    world.run(&json!({"create": "seen", "viewOn": "t", "pipeline": []}));
    let catalogue = world.connector().catalogue().await.unwrap();
    let mut tables: Vec<_> = catalogue.tables.iter().map(|table| (&*table.name, table.leaves_values_out)).collect();
    tables.sort_unstable();
    assert_eq!(tables, [("bare", true), ("t", false)]);
    assert_eq!(catalogue.views.iter().map(|(_, name)| &**name).collect::<Vec<_>>(), ["seen"]);
    world.feeds.push(feed(&world.database, "bare", &["_id"], Operations::ALL));
    let findings = world.connector().preflight().await.unwrap();
    let warnings: Vec<_> = findings.warnings.iter().filter(|warning| warning.code == Code::MongoDbPartial).collect();
    assert!(warnings.len() == 1 && warnings[0].message.contains("bare") && !warnings[0].message.contains(".t "), "{warnings:?}");
}

#[tokio::test]
async fn two_collections_that_differ_by_case_are_two() {
    let world = World::new(&["orders", "Orders"]);
    let mut following = world.follow().await;
    world.insert("Orders", &[json!({"_id": 1})]);
    world.insert("orders", &[json!({"_id": 2})]);
    let taken = following.stream().await.take(2).await;
    assert_eq!(taken.iter().map(|taken| taken.feed.index()).collect::<Vec<_>>(), [1, 0]);
}
