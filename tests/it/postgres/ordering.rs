//! Rows are read in the order of the comparison that makes their key unique, whatever its operators are and in whatever schema.

use super::reading::{agree, refused, with_snapshot};
use super::world::{World, feed, shorts};
use feedline::fault::Code;

/// Reads each row under a snapshot of its own, after the row before; checks that all `count` rows are read.
async fn each_is_read(tables: &str, key: &[&str], rows: &str, count: usize) {
    agree(tables, feed("t", key), rows, count).await;
}

const EXTENSIONS: &str = "CREATE SCHEMA \"an ext\"; CREATE EXTENSION citext SCHEMA \"an ext\"; CREATE EXTENSION ltree SCHEMA \"an ext\"; \
                          CREATE EXTENSION hstore SCHEMA \"an ext\"; ";

#[tokio::test]
async fn an_extensions_type_is_compared_by_its_own_operators() {
    let texts = "'B', 'a', 'C', 'd', '_', 'Z', 'it''s', 'back\\slash', ''";
    let cases = [
        ("id \"an ext\".citext PRIMARY KEY", texts, 9),
        ("id mail PRIMARY KEY", texts, 9),
        ("id \"an ext\".ltree PRIMARY KEY", "'a', 'a.b', 'B', 'b.a', 'A.c', 'a.a.a', ''", 7),
        ("id \"an ext\".hstore PRIMARY KEY", "'a=>1', 'b=>2', '', 'a=>2,c=>\"x y\"', 'B=>1'", 5),
    ];
    for (column, values, count) in cases {
        let table = format!("{EXTENSIONS} CREATE DOMAIN mail AS \"an ext\".citext; CREATE TABLE t ({column})");
        let rows = format!(
            "INSERT INTO t VALUES ({}); ALTER DOMAIN mail ADD CHECK (VALUE <> 'B'::\"an ext\".citext) NOT VALID",
            values.replace("', '", "'), ('")
        );
        each_is_read(&table, &["id"], &rows, count).await;
    }
}

#[tokio::test]
async fn columns_of_different_operators_are_read_together() {
    let table = format!("{EXTENSIONS} CREATE TABLE t (a \"an ext\".citext, n int, b \"an ext\".citext, PRIMARY KEY (a, n, b))");
    let rows = "INSERT INTO t SELECT a, n, b FROM unnest(ARRAY['B', 'a', 'C']) a, unnest(ARRAY[2, -1]) n, unnest(ARRAY['y', 'X']) b";
    each_is_read(&table, &["a", "n", "b"], rows, 12).await;
}

#[tokio::test]
async fn an_index_that_descends_or_has_another_operator_class_is_followed() {
    let indexes =
        ["a DESC, b", "b text_pattern_ops, a DESC NULLS LAST", "a DESC, b text_pattern_ops DESC", "b COLLATE \"C\" NULLS FIRST, a"];
    for index in indexes {
        let table = format!(
            "CREATE TABLE t (a int NOT NULL, b text COLLATE \"C\" NOT NULL); CREATE UNIQUE INDEX i ON t ({index}); ALTER TABLE t REPLICA IDENTITY USING INDEX i"
        );
        let rows = "INSERT INTO t SELECT a, b FROM unnest(ARRAY[2, -1, 7]) a, unnest(ARRAY['y', 'X', '', 'ä']) b";
        each_is_read(&table, &["a", "b"], rows, 12).await;
    }
}

#[tokio::test]
async fn a_user_defined_operator_class_is_followed() {
    // Order by the last digit first.
    let compare = "a % 10 * 1000 + a / 10";
    let functions: Vec<_> = [("lt", "<"), ("le", "<="), ("eq", "="), ("ge", ">="), ("gt", ">")]
        .iter()
        .map(|(name, operator)| {
            let compare_b = compare.replace('a', "b");
            format!(
                "CREATE FUNCTION own.{name}(a int, b int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT {compare} {operator} {compare_b}'; \
                 CREATE OPERATOR own.{operator} (LEFTARG = int, RIGHTARG = int, FUNCTION = own.{name}); "
            )
        })
        .collect();
    let class = format!(
        "CREATE FUNCTION own.compare(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT sign(({compare}) - ({}))::int'; \
         CREATE OPERATOR CLASS own.digits FOR TYPE int USING btree AS OPERATOR 1 own.<, OPERATOR 2 own.<=, OPERATOR 3 own.=, \
         OPERATOR 4 own.>=, OPERATOR 5 own.>, FUNCTION 1 own.compare(int, int); ",
        compare.replace('a', "b")
    );
    let table =
        "CREATE TABLE t (id int NOT NULL); CREATE UNIQUE INDEX i ON t (id own.digits); ALTER TABLE t REPLICA IDENTITY USING INDEX i";
    let rows = "INSERT INTO t SELECT g FROM generate_series(1, 25, 3) g";
    each_is_read(&format!("CREATE SCHEMA own; {} {class} {table}", functions.join("")), &["id"], rows, 9).await;
}

const FOLDED: &str = "CREATE COLLATION nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false); ";

#[tokio::test]
async fn keys_that_only_their_index_distinguishes_are_all_read() {
    let text = "CREATE TABLE t (a text COLLATE nd NOT NULL, n int NOT NULL DEFAULT 1); CREATE UNIQUE INDEX i ON t (a COLLATE \"C\"); \
                ALTER TABLE t REPLICA IDENTITY";
    let citext = "CREATE TABLE t (a \"an ext\".citext NOT NULL, n int NOT NULL DEFAULT 1); CREATE UNIQUE INDEX i ON t (a text_ops); \
                  ALTER TABLE t REPLICA IDENTITY";
    // If a part of the key is unique, its index decides the order of the whole key.
    for (table, key) in [
        (format!("{FOLDED} {text} USING INDEX i"), &["a"][..]),
        (format!("{FOLDED} {text} FULL"), &["a", "n"]),
        (format!("{EXTENSIONS} {citext} USING INDEX i"), &["a"]),
        (format!("{EXTENSIONS} {citext} FULL"), &["n", "a"]),
    ] {
        each_is_read(&table, key, "INSERT INTO t (a) VALUES ('a'), ('A'), ('b'), ('B'), ('Ab'), ('aB')", 6).await;
    }
}

#[tokio::test]
async fn a_key_that_changes_to_an_equal_one_is_deleted_and_inserted() {
    for (tables, [old, new]) in [
        (format!("{FOLDED} CREATE TABLE t (id text COLLATE nd PRIMARY KEY)"), ["a", "A"]),
        (
            format!(
                "{FOLDED} CREATE TABLE t (id text COLLATE nd NOT NULL); CREATE UNIQUE INDEX i ON t (id COLLATE \"C\"); ALTER TABLE t REPLICA IDENTITY USING INDEX i"
            ),
            ["a", "A"],
        ),
        (format!("{EXTENSIONS} CREATE TABLE t (id \"an ext\".citext PRIMARY KEY)"), ["a", "A"]),
        (format!("{EXTENSIONS} CREATE TABLE t (id \"an ext\".citext PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY FULL"), ["a", "A"]),
        ("CREATE TABLE t (id numeric PRIMARY KEY)".to_owned(), ["1.0", "1.00"]),
        ("CREATE TABLE t (id float8 PRIMARY KEY)".to_owned(), ["-0", "0"]),
        ("CREATE TABLE t (id interval PRIMARY KEY)".to_owned(), ["P1D", "PT24H"]),
    ] {
        let world = World::new(&tables, vec![feed("t", &["id"])]);
        let mut reader = world.begin().await;
        world.sql(&format!("INSERT INTO t VALUES ('{old}'); UPDATE t SET id = '{new}'"));
        let key = |value: &str| if value.ends_with('0') && !value.contains('.') { value.to_owned() } else { format!("\"{value}\"") };
        let expected = [("insert", old, "0"), ("delete", old, "1"), ("insert", new, "2!")]
            .map(|(op, value, index)| format!("{op} {{\"id\":{}}} {index}", key(value)));
        assert_eq!(shorts(&reader.take(3).await), expected, "{tables}");
    }
}

#[tokio::test]
async fn partitions_that_compare_a_key_differently_from_its_type_are_refused() {
    let table = "CREATE TABLE t (a \"an ext\".citext NOT NULL, n int NOT NULL) PARTITION BY LIST (n); CREATE TABLE p PARTITION OF t DEFAULT; \
                 ALTER TABLE p REPLICA IDENTITY FULL; CREATE UNIQUE INDEX ON p";
    let world = World::new(&format!("{EXTENSIONS} {table} (a text_ops)"), vec![with_snapshot(feed("t", &["a", "n"]))]);
    refused(&world, Code::TableKeyless, &["do not compare key column \"a\" as its type does"]).await;
    // With the default operator class, in either direction.
    world.sql("DROP INDEX p_a_idx; CREATE UNIQUE INDEX ON p (a DESC)");
    world.verify().await.unwrap();
}

#[tokio::test]
async fn a_scan_continues_after_keys_of_arrays_ranges_and_json() {
    let table = "CREATE TYPE mood AS ENUM ('so', 'bad'); CREATE DOMAIN moods AS mood[]; CREATE DOMAIN span AS int4range; \
                 CREATE TABLE t (a text[], m moods, s span, v varchar(3), j jsonb, PRIMARY KEY (a, m, s, v, j))";
    let rows = "INSERT INTO t SELECT a, m, '[1,5)', 'x y', j FROM (VALUES (ARRAY['b', NULL]), (ARRAY['B']), ('{}')) a (a), \
                (VALUES ('{so,bad}'::moods), ('{bad}')) m (m), (VALUES ('{\"a\": 1}'::jsonb), ('[]')) j (j)";
    each_is_read(table, &["a", "m", "s", "v", "j"], rows, 12).await;
}

#[tokio::test]
async fn a_key_that_cannot_be_ordered_is_refused_at_the_start() {
    let keyed = |column: &str| format!("CREATE TABLE t (id {column} NOT NULL); ALTER TABLE t REPLICA IDENTITY FULL");
    let world = World::new(&keyed("json"), vec![with_snapshot(feed("t", &["id"]))]);
    refused(&world, Code::TableKeyless, &["\"id\" is of type json, which has no order"]).await;
    let world = World::new(&format!("{FOLDED} {}", keyed("text COLLATE nd")), vec![with_snapshot(feed("t", &["id"]))]);
    refused(&world, Code::TableKeyless, &["the collation public.nd"]).await;
}

#[tokio::test]
async fn operators_without_a_privilege_are_found_at_the_start() {
    let mut world = World::new(
        "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE TABLE t (id ext.citext PRIMARY KEY)",
        vec![with_snapshot(feed("t", &["id"]))],
    );
    let user = world.server.create_user("closed", "", "REPLICATION");
    world.sql(&format!("REVOKE scram FROM {user}; GRANT CREATE ON DATABASE {} TO {user}; ALTER TABLE t OWNER TO {user}", world.database));
    world.options.user.clone_from(&user);
    refused(&world, Code::SourcePrivilege, &["schema ext"]).await;
    world.sql(&format!("GRANT USAGE ON SCHEMA ext TO {user}"));
    world.verify().await.unwrap();
}
