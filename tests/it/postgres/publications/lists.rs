//! Column lists, row filters and schemas of publications (from version 15 on).

use super::{PARTITIONED, TABLE, published, remedy};
use crate::postgres::gap::folded;
use crate::postgres::growing::Pipeline;
use crate::postgres::world::{TIMEOUT, World, feed};
use crate::servers::port::wait_for;
use feedline::checkpoint::{Identity, Layout, ResumeToken};
use feedline::event::Operations;
use feedline::fault::{Classify, Code, Fault};
use feedline::source::postgres::Error;
use feedline::source::{Reread, Resume, SourceConnector};

/// The tables of the publication with their column lists and row filters.
fn definition(world: &World) -> String {
    world.sql(&format!(
        "SELECT prrelid::regclass, prattrs, pg_get_expr(prqual, prrelid) FROM pg_publication_rel r JOIN pg_publication p ON p.oid = prpubid \
         WHERE pubname = '{}' ORDER BY prrelid::regclass::text",
        world.options.publication
    ))
}

#[tokio::test]
async fn no_remedy_makes_an_applications_update_fail() {
    let keyless = "CREATE TABLE keyless (id int); INSERT INTO keyless VALUES (1); CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE); \
                   CREATE TABLE q (id int) PARTITION BY RANGE (id); CREATE TABLE q_low PARTITION OF q FOR VALUES FROM (0) TO (10)";
    for other in ["keyless", "deferred", "q", "listed (id)"] {
        let tables = format!("{TABLE}; {keyless}; CREATE TABLE listed (id int PRIMARY KEY, note text)");
        let make = format!("CREATE PUBLICATION {{}} FOR TABLE t, {other} WITH (publish = 'insert', publish_via_partition_root = true)");
        let world = published(&tables, vec![feed("t", &["id"])], &make);
        assert_eq!(remedy(world.verify().await, &["source.publication", "feeds.operations"]), "", "{other}");
    }
}

#[tokio::test]
async fn partitions_under_their_own_names_are_refused_with_a_statement_that_works() {
    for publication in ["FOR TABLE p", "FOR ALL TABLES", "FOR TABLES IN SCHEMA public"] {
        let world = published(PARTITIONED, vec![feed("p", &["id"])], &format!("CREATE PUBLICATION {{}} {publication}"));
        let sql = remedy(world.verify().await, &["under their own names"]);
        world.sql(&sql);
        world.verify().await.unwrap();
        let mut reader = world.begin().await;
        world.sql("INSERT INTO p VALUES (1)");
        assert_eq!(reader.take(1).await[0].event()["table"], "p");
    }
}

#[tokio::test]
async fn a_key_outside_of_the_column_list_is_refused_and_the_statement_keeps_the_rest() {
    let make = "CREATE PUBLICATION {} FOR TABLE t (note) WHERE (id > 0), u (id) WITH (publish = 'insert')";
    let mut world = published(&format!("{TABLE}; CREATE TABLE u (id int PRIMARY KEY, a int)"), vec![feed("t", &["id"])], make);
    world.feeds[0].operations = Operations::from_bits(1).unwrap();
    world.sql(&remedy(world.verify().await, &["key column \"id\"", "public.t"]));
    assert_eq!(definition(&world), "t|1 2|(id > 0)\nu|1|");
    world.verify().await.unwrap();
}

#[tokio::test]
async fn a_publication_that_others_created_is_not_changed() {
    let world = published(
        &format!("{TABLE}; CREATE TABLE u (id int PRIMARY KEY)"),
        vec![feed("t", &["id"]), feed("u", &["id"])],
        "CREATE PUBLICATION {} FOR TABLE t (id, note) WHERE (id > 0)",
    );
    let sql = remedy(world.verify().await, &["does not hold ONLY \"public\".\"u\"", "feedline did not create it"]);
    assert_eq!(world.connector().establish().await.unwrap_err().code(), Code::PostgresPublication);
    assert_eq!(definition(&world), "t|1 2|(id > 0)");
    let findings = world.connector().preflight().await.unwrap();
    let leaves_out = |action: &String| action.contains("public.t") && action.contains("columns secret") && action.contains("(id > 0)");
    assert!(findings.actions.iter().any(leaves_out), "{findings:#?}");
    world.sql(&sql);
    world.establish().await;
    assert_eq!(definition(&world), "t|1 2|(id > 0)\nu||");
}

#[tokio::test]
async fn in_our_publication_only_tables_that_we_added_are_changed() {
    let tables =
        format!("{TABLE}; CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE v (id int PRIMARY KEY); CREATE TABLE w (id int PRIMARY KEY)");
    let mut world = World::new(&tables, vec![feed("t", &["id"]), feed("u", &["id"])]);
    let (identity, token) = world.establish().await;
    let name = &world.options.publication;
    // A person adds a column list, a row filter, and a table for somebody else.
    world.sql(&format!("ALTER PUBLICATION {name} SET TABLE t (id, note) WHERE (id > 0), u; ALTER PUBLICATION {name} ADD TABLE v"));
    world.feeds = vec![feed("t", &["id"]), feed("w", &["id"])];
    drop(world.connect(&identity, &world.resume(&token, &token)).await.unwrap());
    assert_eq!(definition(&world), "t|1 2|(id > 0)\nv||\nw||");
    world.verify().await.unwrap();
    // A table with a list or filter by somebody else is not removed.
    world.feeds = vec![feed("w", &["id"])];
    drop(world.connect(&identity, &world.resume(&token, &token)).await.unwrap());
    assert_eq!(definition(&world), "t|1 2|(id > 0)\nv||\nw||");
    assert_eq!(world.connector().detach().await.unwrap().len(), 2);
}

/// A table whose publication changes while nobody reads the log.
struct Watched {
    world: World,
    identity: Identity,
    token: ResumeToken,
    layouts: Vec<Option<Layout>>,
}

impl Watched {
    async fn new(publication: &str) -> Self {
        let world = published(TABLE, vec![feed("t", &["id"])], &format!("CREATE PUBLICATION {{}} {publication}"));
        let (identity, token) = world.establish().await;
        let mut watched = Self { world, identity, token, layouts: vec![None] };
        assert_eq!(watched.survey().await.unwrap(), [None]);
        assert_eq!(watched.survey().await.unwrap(), []);
        watched
    }

    async fn survey(&mut self) -> Result<Vec<Option<Reread>>, Error> {
        let resume = Resume { layouts: self.layouts.clone(), ..self.world.resume(&self.token, &self.token) };
        let table_changes = self.world.connect(&self.identity, &resume).await?.table_changes();
        for table_change in &table_changes {
            self.layouts[table_change.feed.index()] = Some(table_change.layout.clone());
        }
        Ok(table_changes.into_iter().map(|table_change| table_change.reread).collect())
    }

    async fn after(&mut self, statements: &str) -> Result<Vec<Option<Reread>>, Error> {
        self.world.sql(&statements.replace("{}", &self.world.options.publication));
        self.survey().await
    }

    #[track_caller]
    fn check_reread(found: &Result<Vec<Option<Reread>>, Error>, word: &str) {
        match found.as_deref() {
            Ok([Some(Reread { reset: true, reason })]) if reason.contains(word) => {}
            _ => panic!("{word} is not in {found:?}"),
        }
    }
}

#[tokio::test]
async fn changes_of_the_publication_by_others_are_noticed_afterwards() {
    let mut t = Watched::new("FOR TABLE t WHERE (id > 10)").await;
    for (statements, word) in [
        ("ALTER PUBLICATION {} SET TABLE t WHERE (id > 5)", "row filter"),
        ("ALTER PUBLICATION {} SET TABLE t (id, note) WHERE (id > 5)", "column list"),
        ("ALTER PUBLICATION {} SET TABLE t", "row filter"),
        (
            "ALTER PUBLICATION {} SET (publish = 'insert'); ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')",
            "settings",
        ),
        ("ALTER PUBLICATION {} SET TABLES IN SCHEMA public", "entry"),
        ("CREATE SCHEMA elsewhere; ALTER TABLE t SET SCHEMA elsewhere; ALTER TABLE elsewhere.t SET SCHEMA public", "moved between schemas"),
        ("ALTER TABLE t SET UNLOGGED; UPDATE t SET note = 'x'; ALTER TABLE t SET LOGGED", "made unlogged"),
    ] {
        Watched::check_reread(&t.after(statements).await, word);
        assert_eq!(t.survey().await.unwrap(), []);
    }
    // Changes of other tables do not count.
    t.after("ALTER PUBLICATION {} SET TABLE t").await.unwrap();
    for statements in [
        "CREATE TABLE u (id int PRIMARY KEY); ALTER PUBLICATION {} ADD TABLE u",
        "ALTER PUBLICATION {} SET TABLE t, u WHERE (id > 1)",
        "ALTER PUBLICATION {} DROP TABLE u",
        "COMMENT ON PUBLICATION {} IS 'billing'",
        "VACUUM FULL t",
    ] {
        assert!(t.after(statements).await.unwrap().iter().all(Option::is_none), "{statements}");
    }
}

#[tokio::test]
async fn a_table_that_was_not_published_for_some_time_is_a_gap() {
    for (publication, statements, word) in [
        (
            "FOR TABLE t",
            "ALTER PUBLICATION {} DROP TABLE t; UPDATE t SET note = 'unseen'; ALTER PUBLICATION {} ADD TABLE t",
            "removed and added again",
        ),
        (
            "FOR TABLES IN SCHEMA public",
            "ALTER PUBLICATION {} DROP TABLES IN SCHEMA public; ALTER PUBLICATION {} ADD TABLES IN SCHEMA public",
            "removed and added again",
        ),
        ("FOR ALL TABLES", "DROP PUBLICATION {}; CREATE PUBLICATION {} FOR ALL TABLES", "publication was dropped and created again"),
    ] {
        let mut t = Watched::new(publication).await;
        let error = t.after(statements).await.unwrap_err();
        assert_eq!((error.code(), error.fault()), (Code::SourceLogLost, Fault::Gap), "{error}");
        assert!(error.to_string().contains(word), "{error}");
        let resume = Resume { layouts: t.layouts.clone(), ..t.world.resume(&t.token, &t.token) };
        let renewed = t.world.connector().renew(&t.identity, &resume).await.unwrap();
        // While the publication did not exist, the log cannot be read: it must begin at another token.
        assert_eq!((renewed.token == t.token, renewed.feeds.len()), (word == "removed and added again", 1));
    }
}

#[test]
fn a_reader_ends_with_the_published_rows_whatever_is_changed_while_it_runs() {
    let pipeline = Pipeline::new(
        "filtered",
        "CREATE TABLE kept (id int PRIMARY KEY, note text, secret text); INSERT INTO kept SELECT g, 'first', 's' FROM generate_series(1, 9) g; \
         CREATE PUBLICATION feedline_filtered FOR TABLE kept (id, note) WHERE (id < 4)",
    );
    let sql = |statements: &str| pipeline.postgres.psql(&pipeline.database, statements);
    let agree = |name: &str, condition: &str| {
        wait_for(name, TIMEOUT * 4, || {
            let rows = sql(&format!("SELECT id || ':' || note FROM kept WHERE {condition} ORDER BY id"));
            let read: Vec<_> =
                folded(&pipeline).remove("kept").unwrap_or_default().iter().map(|(id, note)| format!("{id}:{note}")).collect();
            (read.join("\n") == rows).then_some(())
        });
    };
    let feeds = "on_gap = \"prefeed\"\n[[feeds]]\ntables = [\"kept\"]";
    let mut feedline = pipeline.feedline_with("", feeds);
    agree("the rows of the filter", "id < 4");
    // Updates that cross the filter come as inserts and deletes.
    sql(
        "UPDATE kept SET id = id + 100 WHERE id = 1; UPDATE kept SET id = 1 WHERE id = 9; UPDATE kept SET note = 'second' WHERE id IN (2, 8)",
    );
    agree("the rows that crossed the filter", "id < 4");
    // The next event of the table shows that the publication changed.
    sql("ALTER PUBLICATION feedline_filtered SET TABLE kept (id, note) WHERE (id > 4); UPDATE kept SET note = 'third' WHERE id = 7");
    agree("the rows of the other filter", "id > 4");
    // The table is removed and added again. A change while it is read again must not disturb that.
    sql("ALTER PUBLICATION feedline_filtered DROP TABLE kept; UPDATE kept SET note = 'unseen'; DELETE FROM kept WHERE id = 6; \
         ALTER PUBLICATION feedline_filtered ADD TABLE kept (id, note) WHERE (id > 4)");
    sql("UPDATE kept SET note = 'fourth' WHERE id = 5");
    agree("the rows after some time without publication", "id > 4");
    feedline.stop();
    assert!(!pipeline.events().iter().any(|event| event.to_string().contains("secret")));
}
