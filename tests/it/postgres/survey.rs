//! Surveys: changes of rows that are not in the log are noticed and named, and lead to reading the table again.

use super::world::{Reader, World, feed};
use feedline::checkpoint::{Identity, Layout, ResumeToken};
use feedline::source::postgres::OnAddedDefault;
use feedline::source::{Reread, Resume, TableChange};

const TABLES: &str = "\
    CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b mood); CREATE DOMAIN moody AS mood; CREATE DOMAIN small AS int DEFAULT 3; \
    CREATE TYPE moods AS RANGE (subtype = mood); \
    CREATE TABLE t (id int PRIMARY KEY, note varchar(10), price numeric(10, 2), twice int GENERATED ALWAYS AS (id * 2) STORED, \
      feeling moody, pairs pair[], between moods); INSERT INTO t VALUES (1, 'x', 1.5); \
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
        Self::of(World::new(TABLES, vec![feed("t", &["id"]), feed("p", &["id"])])).await
    }

    async fn of(world: World) -> Self {
        let (identity, token) = world.establish().await;
        let mut watched = Self { world, identity, token, layouts: vec![None, None] };
        let first = watched.survey().await;
        assert_eq!(first.len(), 2, "each table is seen for the first time: {first:?}");
        assert!(first.iter().all(|table_change| table_change.reread.is_none()));
        assert_eq!(watched.survey().await, [], "a second survey finds no change");
        watched
    }

    /// The changes that a new connection notices; their layouts are stored for the next survey.
    async fn survey(&mut self) -> Vec<TableChange> {
        let resume = Resume { layouts: self.layouts.clone(), ..self.world.resume(&self.token, &self.token) };
        let table_changes = self.world.connect(&self.identity, &resume).await.unwrap().table_changes();
        for table_change in &table_changes {
            self.layouts[table_change.feed.index()] = Some(table_change.layout.clone());
        }
        table_changes
    }

    /// What is noticed of these statements: whether something is to be read again, and why.
    async fn after(&mut self, statements: &str) -> Vec<Option<Reread>> {
        self.world.sql(statements);
        self.survey().await.into_iter().map(|table_change| table_change.reread).collect()
    }
}

fn reread(reset: bool, reason: &str) -> Vec<Option<Reread>> {
    vec![Some(Reread { reset, reason: reason.to_owned() })]
}

#[tokio::test]
async fn changes_of_rows_that_are_not_in_the_log_are_named() {
    let mut t = Watched::new().await;
    for (statements, reason) in [
        ("ALTER TABLE t ADD COLUMN a int DEFAULT 7", "column \"a\" was added with a default"),
        ("ALTER TABLE t ADD COLUMN b float DEFAULT random()", "column \"b\" was added with a default"),
        ("ALTER TABLE t ALTER COLUMN note TYPE text USING note || '!'", "the type of column \"note\" changed"),
        ("ALTER TABLE t ALTER COLUMN price TYPE numeric(10, 3)", "the type of column \"price\" changed"),
        // The type stays the same, the values change.
        ("ALTER TABLE t ALTER COLUMN note TYPE text USING upper(note)", "column \"note\" was altered and the table rewritten"),
        (
            "ALTER TABLE t ALTER COLUMN note TYPE text USING lower(note); CLUSTER t USING t_pkey",
            "column \"note\" was altered and the table rewritten",
        ),
        (
            "ALTER TABLE t ALTER COLUMN price TYPE int USING price + 1; ALTER TABLE t ALTER COLUMN price TYPE numeric(10, 3)",
            "column \"price\" was altered and the table rewritten",
        ),
        ("ALTER TABLE t ALTER COLUMN a TYPE int USING a + 1", "column \"a\" was altered and the table rewritten"),
        // Values that are written into each row.
        ("ALTER TABLE t ADD COLUMN c int GENERATED ALWAYS AS IDENTITY", "column \"c\" was added with values"),
        ("ALTER TABLE t ADD COLUMN d bigserial", "column \"d\" was added with a default"),
        (
            "ALTER TABLE t ADD COLUMN f float DEFAULT random(); ALTER TABLE t ALTER COLUMN f DROP DEFAULT",
            "column \"f\" was added with values",
        ),
        ("ALTER TABLE t ADD COLUMN g int DEFAULT 7; ALTER TABLE t ALTER COLUMN g DROP DEFAULT", "column \"g\" was added with a default"),
        ("ALTER TABLE t ADD COLUMN e small", "column \"e\" was added with a default"),
        // A name that stands for other values.
        ("ALTER TABLE t RENAME COLUMN g TO h", "column \"g\" was renamed to \"h\""),
        (
            "ALTER TABLE t RENAME COLUMN c TO x; ALTER TABLE t RENAME COLUMN d TO c; ALTER TABLE t RENAME COLUMN x TO d",
            "column \"c\" was renamed to \"d\", column \"d\" was renamed to \"c\"",
        ),
        ("ALTER TABLE t DROP COLUMN f, ADD COLUMN f float", "column \"f\" was dropped and added again"),
        ("ALTER TABLE t ALTER COLUMN twice DROP EXPRESSION", "column \"twice\" is no longer generated"),
        // Types whose values are printed differently.
        ("ALTER TYPE mood RENAME VALUE 'sad' TO 'glum'", "a label of type public.mood was renamed"),
        ("ALTER TYPE mood RENAME VALUE 'sad' TO 'x'; ALTER TYPE mood RENAME VALUE 'x' TO 'sad'", "a label of type public.mood was renamed"),
        ("ALTER TYPE pair ADD ATTRIBUTE c int", "the fields of type public.pair changed"),
        ("ALTER TYPE pair DROP ATTRIBUTE c", "the fields of type public.pair changed"),
    ] {
        let statements = statements.replace("RENAME VALUE 'sad' TO 'x'", "RENAME VALUE 'glum' TO 'x'");
        assert_eq!(t.after(&statements).await, reread(false, reason), "{statements}");
    }
    let [Some(Reread { reset: true, reason })] = &t.after("ALTER TABLE t ALTER COLUMN id TYPE text").await[..] else {
        panic!("a change of the key is a reset")
    };
    assert!(reason.starts_with("the type of column \"id\" changed"), "{reason}");
}

/// From PostgreSQL 15.20 on, `ALTER COLUMN TYPE` writes the definitions of the columns behind it, too.
#[tokio::test]
async fn an_altered_column_is_named_and_not_those_behind_it() {
    let world = World::new("CREATE TABLE t (note text, id int PRIMARY KEY, more text)", vec![feed("t", &["id"])]);
    let (identity, token) = world.establish().await;
    let mut t = Watched { world, identity, token, layouts: vec![None] };
    t.survey().await;
    let [Some(Reread { reason, .. })] = &t.after("ALTER TABLE t ALTER COLUMN note TYPE text USING upper(note)").await[..] else {
        panic!("the values changed")
    };
    assert!(reason.starts_with("column \"note\" was altered") && !reason.contains("more"), "{reason}");
    // A column that is altered without a change of its values writes no file.
    assert_eq!(t.after("ALTER TABLE t ALTER COLUMN more TYPE text").await, [None]);
}

#[tokio::test]
async fn a_column_that_is_added_after_one_of_its_name_was_dropped_is_another_one() {
    let mut t = Watched::new().await;
    assert_eq!(t.after("ALTER TABLE t DROP COLUMN note").await, [None]);
    assert_eq!(t.after("ALTER TABLE t ADD COLUMN memo text").await, [None]);
    assert_eq!(t.after("ALTER TABLE t ADD COLUMN note text").await, reread(false, "column \"note\" was dropped and added again"));
}

#[tokio::test]
async fn a_renamed_label_is_noticed_wherever_the_enum_is_used() {
    let columns = ["mood", "mood[]", "moody", "moody[]", "pair", "pair[]", "moods", "moods[]", "moodses", "boxed"];
    let mut tables = TABLES.to_owned() + "; CREATE TABLE other (one pair, many mood[]); CREATE DOMAIN boxed AS other; ";
    tables = tables.replace("AS RANGE (subtype = mood)", "AS RANGE (subtype = mood, multirange_type_name = moodses)");
    let create = columns.iter().enumerate().map(|(number, kind)| format!("CREATE TABLE t{number} (id int PRIMARY KEY, c {kind}); "));
    tables.extend(create);
    tables += "CREATE TABLE k (c mood PRIMARY KEY)";
    let mut feeds: Vec<_> = (0..columns.len()).map(|number| feed(&format!("t{number}"), &["id"])).collect();
    feeds.push(feed("k", &["c"]));
    let world = World::new(&tables, feeds);
    let (identity, token) = world.establish().await;
    let mut watched = Watched { world, identity, token, layouts: vec![None; columns.len() + 1] };
    assert_eq!(watched.survey().await.len(), columns.len() + 1);
    assert_eq!(watched.after("ALTER TYPE mood ADD VALUE 'calm' BEFORE 'happy'").await, vec![None; columns.len() + 1]);
    let mut expected = vec![reread(false, "a label of type public.mood was renamed"); columns.len()].concat();
    expected.extend(reread(true, "a label of type public.mood was renamed"));
    assert_eq!(watched.after("ALTER TYPE mood RENAME VALUE 'happy' TO 'glad'").await, expected);
}

#[tokio::test]
async fn a_table_that_was_created_again_and_published_is_named() {
    let mut t = Watched::new().await;
    let publish = format!("ALTER PUBLICATION {} ADD TABLE t", t.world.options.publication);
    let noticed = t.after(&format!("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY); {publish}")).await;
    assert_eq!(noticed, reread(true, "it was dropped and created again"));
}

#[tokio::test]
async fn changes_that_keep_rows_are_ignored() {
    let mut t = Watched::new().await;
    for statement in [
        "ALTER TABLE t ADD COLUMN a int",
        "ALTER TABLE t ALTER COLUMN a SET DEFAULT 5",
        "ALTER TABLE t ALTER COLUMN a SET STATISTICS 50",
        "ALTER TABLE t ALTER COLUMN a DROP DEFAULT, ALTER COLUMN price SET STORAGE MAIN",
        "ALTER TABLE t ALTER COLUMN price SET NOT NULL",
        "ALTER TABLE t ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY",
        "ALTER TABLE t DROP COLUMN a",
        "ALTER TABLE t DROP COLUMN twice",
        "VACUUM FULL t",
        "CLUSTER t USING t_pkey",
        "TRUNCATE t",
        "ALTER TABLE t ALTER COLUMN note TYPE varchar(20)",
        "ALTER TABLE t ALTER COLUMN note TYPE varchar(20) COLLATE \"C\"",
        "ALTER TABLE t ADD CONSTRAINT positive CHECK (id > 0); CREATE INDEX ON t (note); ANALYZE t; GRANT SELECT (id) ON t TO PUBLIC",
        "ALTER TYPE mood ADD VALUE 'calm' BEFORE 'sad'; ALTER TYPE pair RENAME ATTRIBUTE a TO x; ALTER DOMAIN moody SET DEFAULT 'sad'",
        "ALTER TABLE p ADD COLUMN a int",
    ] {
        let noticed = t.after(statement).await;
        assert!(noticed.iter().all(Option::is_none), "{statement}: {noticed:?}");
    }
    // VACUUM FULL writes the catalogue's value for old rows into the rows.
    assert_eq!(t.after("ALTER TABLE t ADD COLUMN d int DEFAULT 7").await, reread(false, "column \"d\" was added with a default"));
    assert_eq!(t.after("VACUUM FULL t").await, [None]);
    t.world.options.on_added_default = OnAddedDefault::Ignore;
    assert_eq!(t.after("ALTER TABLE t ADD COLUMN c int DEFAULT 7").await, [None]);
}

#[tokio::test]
async fn rows_that_come_and_go_with_partitions_are_noticed() {
    let mut t = Watched::new().await;
    assert_eq!(t.after("TRUNCATE p_low").await, reread(true, "partition \"p_low\" was truncated or rewritten"));
    let attach = "CREATE TABLE p_more (id int PRIMARY KEY); INSERT INTO p_more VALUES (200); ALTER TABLE p ATTACH PARTITION p_more FOR VALUES FROM (200) TO (300)";
    assert_eq!(t.after(attach).await, reread(true, "partition \"p_more\" was attached"));
    let noticed = t.after("ALTER TABLE p DETACH PARTITION p_high").await;
    let [Some(Reread { reset: true, reason })] = &noticed[..] else { panic!("{noticed:?}") };
    assert!(reason.ends_with("was detached or dropped"), "{reason}");
    assert_eq!(t.after("ALTER TABLE p ADD COLUMN a int DEFAULT 7").await, reread(false, "column \"a\" was added with a default"));
}

/// Partitions are created every day. The table must not be read again for an empty one.
async fn empty_partitions(world: World) {
    let mut t = Watched::of(world).await;
    for statements in [
        "CREATE TABLE p_born PARTITION OF p FOR VALUES FROM (200) TO (300)",
        "CREATE TABLE p_used PARTITION OF p FOR VALUES FROM (300) TO (400); INSERT INTO p VALUES (300)",
        "CREATE TABLE p_deep PARTITION OF p FOR VALUES FROM (400) TO (500) PARTITION BY RANGE (id); \
         CREATE TABLE p_deeper PARTITION OF p_deep FOR VALUES FROM (400) TO (450); INSERT INTO p VALUES (400)",
        "CREATE TABLE p_empty (LIKE p INCLUDING ALL); ALTER TABLE p ATTACH PARTITION p_empty FOR VALUES FROM (500) TO (600)",
        "ALTER TABLE p ALTER COLUMN id SET DEFAULT 7; CREATE TABLE p_rest PARTITION OF p DEFAULT; INSERT INTO p_rest VALUES (999)",
    ] {
        let noticed = t.after(statements).await;
        assert_eq!(noticed, [None], "{statements}");
    }
    // Rows that an attached table already has are not in the log, even if all is done in one transaction.
    for (name, statements) in [
        (
            "p_filled",
            "BEGIN; CREATE TABLE p_filled (LIKE p INCLUDING ALL); INSERT INTO p_filled VALUES (600); \
             ALTER TABLE p ATTACH PARTITION p_filled FOR VALUES FROM (600) TO (700); COMMIT",
        ),
        (
            "p_left",
            "BEGIN; CREATE TABLE p_left PARTITION OF p FOR VALUES FROM (700) TO (800); ALTER TABLE p DETACH PARTITION p_left; \
             INSERT INTO p_left VALUES (700); ALTER TABLE p ATTACH PARTITION p_left FOR VALUES FROM (700) TO (800); COMMIT",
        ),
        (
            "p_twig",
            "CREATE TABLE p_branch (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p_twig PARTITION OF p_branch FOR VALUES FROM (800) TO (900); \
             INSERT INTO p_branch VALUES (800); ALTER TABLE p ATTACH PARTITION p_branch FOR VALUES FROM (800) TO (900)",
        ),
    ] {
        let noticed = t.after(statements).await;
        assert_eq!(noticed, reread(true, &format!("partition \"{name}\" was attached")));
    }
    let again = "ALTER TABLE p DETACH PARTITION p_filled; ALTER TABLE p ATTACH PARTITION p_filled FOR VALUES FROM (600) TO (700)";
    assert_eq!(t.after(again).await, reread(true, "partition \"p_filled\" was detached and attached again"));
}

#[tokio::test]
async fn a_partition_without_rows_is_no_reason_to_read_again() {
    empty_partitions(World::new(TABLES, vec![feed("t", &["id"]), feed("p", &["id"])])).await;
}

#[tokio::test]
async fn a_partition_without_rows_is_no_reason_to_read_again_on_other_versions() {
    for version in ["14", "18"] {
        empty_partitions(World::of_version(version, &[], TABLES, vec![feed("t", &["id"]), feed("p", &["id"])])).await;
    }
}

#[tokio::test]
async fn columns_that_had_other_names_for_some_time_are_noticed_in_the_log() {
    let world = World::new(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int); CREATE TABLE u (LIKE t INCLUDING ALL)",
        vec![feed("t", &["id"]), feed("u", &["id"])],
    );
    let mut reader = world.begin().await;
    assert_eq!(reader.log.table_changes().len(), 2);
    let mut noticed = async |statements: &[&str]| {
        for statement in statements {
            world.sql(statement);
        }
        reader.take(1).await;
        let token = reader.token.clone();
        reader.log.acknowledge(Some(&token)).await.unwrap();
        reader.log.table_changes().into_iter().filter_map(|table_change| table_change.reread.map(Some)).collect::<Vec<_>>()
    };
    assert_eq!(noticed(&["INSERT INTO t VALUES (1)"]).await, []);
    let back = ["ALTER TABLE t RENAME a TO x", "INSERT INTO t VALUES (2)", "ALTER TABLE t RENAME x TO a"];
    assert_eq!(noticed(&back).await, reread(false, "its columns had other names for some time: id, x, b"));
    let swap = |to: &str| format!("ALTER TABLE {to} RENAME a TO x; ALTER TABLE {to} RENAME b TO a; ALTER TABLE {to} RENAME x TO b");
    let swapped = noticed(&[&swap("t"), "INSERT INTO t VALUES (3)", &swap("t")]).await;
    assert_eq!(swapped, reread(false, "its columns had other names for some time: id, b, a"));
    // A known change of the columns is not reported.
    assert_eq!(noticed(&["INSERT INTO u VALUES (1)", "ALTER TABLE u DROP COLUMN a"]).await, []);
    assert_eq!(noticed(&["INSERT INTO u VALUES (2)", "ALTER TABLE u ADD COLUMN c int"]).await, []);
    assert_eq!(noticed(&["INSERT INTO u VALUES (3)"]).await, []);
}

#[tokio::test]
async fn old_names_in_the_log_before_a_reread_are_no_reason_for_another() {
    let t = Watched::new().await;
    t.world.sql("INSERT INTO t VALUES (2, 'x')");
    t.world.sql("ALTER TABLE t RENAME note TO memo");
    let resume = Resume { layouts: t.layouts.clone(), ..t.world.resume(&t.token, &t.token) };
    let mut log = t.world.connect(&t.identity, &resume).await.unwrap();
    assert_eq!(
        log.table_changes().into_iter().map(|table_change| table_change.reread).collect::<Vec<_>>(),
        reread(false, "column \"note\" was renamed to \"memo\"")
    );
    let mut reader = Reader::of(log, &t.token, 1 << 20);
    assert_eq!(reader.take(1).await[0].event()["after"]["note"], "x");
    reader.log.acknowledge(Some(&t.token)).await.unwrap();
    assert_eq!(reader.log.table_changes(), []);
}

/// An event is the same each time it is read from the log.
#[tokio::test]
async fn values_of_dropped_types_are_decoded_as_before() {
    let tables = "CREATE DOMAIN counted AS int; CREATE DOMAIN twice AS counted; CREATE DOMAIN many AS int[]; \
        CREATE TABLE t (id int PRIMARY KEY, a twice, b twice[], c many, d jsonb)";
    let mut t = {
        let world = World::new(tables, vec![feed("t", &["id"])]);
        let (identity, token) = world.establish().await;
        Watched { world, identity, token, layouts: vec![None] }
    };
    t.survey().await;
    t.world.sql("INSERT INTO t VALUES (1, 5, '{6,7}', '{8}', '{}')");
    t.world.sql("ALTER TABLE t DROP COLUMN a, DROP COLUMN b, ALTER COLUMN c TYPE text; DROP DOMAIN twice, counted, many");
    for _ in 0..2 {
        let resume = Resume { layouts: t.layouts.clone(), ..t.world.resume(&t.token, &t.token) };
        let mut log = t.world.connect(&t.identity, &resume).await.unwrap();
        for table_change in log.table_changes() {
            t.layouts[table_change.feed.index()] = Some(table_change.layout);
        }
        let sent = Reader::of(log, &t.token, 1 << 20).take(1).await;
        assert_eq!(sent[0].event()["after"], serde_json::json!({"id": 1, "a": 5, "b": [6, 7], "c": [8], "d": {}}));
    }
}
