//! What the log does not say is noticed, named, and said to be read again where rows changed.

use super::world::{World, feed};
use feedline::checkpoint::{Identity, Layout, ResumeToken};
use feedline::source::postgres::OnAddedDefault;
use feedline::source::{Reread, Resume, Sighting, Source};

const TABLES: &str = "\
    CREATE TABLE t (id int PRIMARY KEY, note varchar(10), price numeric(10, 2)); INSERT INTO t VALUES (1, 'x', 1.5); \
    CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); \
    CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE TABLE p_high PARTITION OF p FOR VALUES FROM (100) TO (200)";

struct Watched {
    world: World,
    identity: Identity,
    token: ResumeToken,
    layouts: Vec<Option<Layout>>,
}

impl Watched {
    async fn new() -> Self {
        let world = World::new(TABLES, vec![feed("t", &["id"]), feed("p", &["id"])]);
        let (identity, token) = world.establish().await;
        let mut watched = Self { world, identity, token, layouts: vec![None, None] };
        let first = watched.look().await;
        assert_eq!(first.len(), 2, "each table is seen for the first time: {first:?}");
        assert!(first.iter().all(|sighting| sighting.reread.is_none()));
        assert_eq!(watched.look().await, [], "and not again");
        watched
    }

    /// What a new connection notices, and remembers for the next.
    async fn look(&mut self) -> Vec<Sighting> {
        let resume = Resume { layouts: self.layouts.clone(), ..self.world.resume(&self.token, &self.token) };
        let sightings = self.world.connect(&self.identity, &resume).await.unwrap().sightings();
        for sighting in &sightings {
            self.layouts[sighting.feed.index()] = Some(sighting.layout.clone());
        }
        sightings
    }

    /// What is noticed of these statements: whether something is to be read again, and why.
    async fn after(&mut self, statements: &str) -> Vec<Option<Reread>> {
        self.world.sql(statements);
        self.look().await.into_iter().map(|sighting| sighting.reread).collect()
    }
}

fn reread(reset: bool, reason: &str) -> Vec<Option<Reread>> {
    vec![Some(Reread { reset, reason: reason.to_owned() })]
}

#[tokio::test]
async fn what_changes_rows_without_a_word_is_named() {
    let mut t = Watched::new().await;
    assert_eq!(t.after("ALTER TABLE t ADD COLUMN a int DEFAULT 7").await, reread(false, "column \"a\" was added with a default"));
    assert_eq!(t.after("ALTER TABLE t ADD COLUMN b float DEFAULT random()").await, reread(false, "column \"b\" was added with a default"));
    assert_eq!(
        t.after("ALTER TABLE t ALTER COLUMN note TYPE text USING note || '!'").await,
        reread(false, "the type of column \"note\" changed")
    );
    assert_eq!(
        t.after("ALTER TABLE t ALTER COLUMN price TYPE numeric(10, 3)").await,
        reread(false, "the type of column \"price\" changed")
    );
    assert_eq!(t.after("ALTER TABLE t ALTER COLUMN id TYPE text").await, reread(true, "the type of column \"id\" changed"));
}

#[tokio::test]
async fn a_table_that_was_made_anew_and_is_published_again_is_named() {
    let mut t = Watched::new().await;
    let publish = format!("ALTER PUBLICATION {} ADD TABLE t", t.world.options.publication);
    let noticed = t.after(&format!("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY); {publish}")).await;
    assert_eq!(noticed, reread(true, "it was dropped and made anew"));
}

#[tokio::test]
async fn what_leaves_rows_as_they_were_is_not() {
    let mut t = Watched::new().await;
    for statement in [
        "ALTER TABLE t ADD COLUMN a int",
        "ALTER TABLE t ALTER COLUMN a SET DEFAULT 5",
        "ALTER TABLE t RENAME COLUMN a TO b",
        "ALTER TABLE t DROP COLUMN b",
        "VACUUM FULL t",
        "ALTER TABLE t ALTER COLUMN note TYPE varchar(20)",
        "ALTER TABLE p ADD COLUMN a int",
    ] {
        let noticed = t.after(statement).await;
        assert!(noticed.iter().all(Option::is_none), "{statement}: {noticed:?}");
    }
    t.world.options.on_added_default = OnAddedDefault::Ignore;
    assert_eq!(t.after("ALTER TABLE t ADD COLUMN c int DEFAULT 7").await, [None]);
}

#[tokio::test]
async fn rows_that_come_and_go_with_partitions_are_noticed() {
    let mut t = Watched::new().await;
    assert_eq!(t.after("TRUNCATE p_low").await, reread(true, "partition \"p_low\" was truncated, or written anew"));
    let attach = "CREATE TABLE p_more (id int PRIMARY KEY); ALTER TABLE p ATTACH PARTITION p_more FOR VALUES FROM (200) TO (300)";
    assert_eq!(t.after(attach).await, reread(true, "partition \"p_more\" was attached"));
    let noticed = t.after("ALTER TABLE p DETACH PARTITION p_high").await;
    let [Some(Reread { reset: true, reason })] = &noticed[..] else { panic!("{noticed:?}") };
    assert!(reason.ends_with("was detached or dropped"), "{reason}");
    assert_eq!(t.after("ALTER TABLE p ADD COLUMN a int DEFAULT 7").await, reread(false, "column \"a\" was added with a default"));
}
