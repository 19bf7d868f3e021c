//! Names of tables, columns and labels in every character set, with every character.

use super::reader::{Reading, short};
use super::world::World;
use crate::contract_source::{feed, scan_all};
use feedline::event::{FeedId, Operations};
use feedline::fault::{Classify as _, Code};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// Characters of several scripts. In `sjis`, `gbk` and `big5` the second bytes of some are those of a backslash.
const CHARACTERS: &str = "é Ж Ω א ก ą ա ა Å 表 ソ 誠 功 許 中 각";

/// The character sets in which a client may write, and for each a text of its own characters.
fn writable(world: &World) -> Vec<(String, String)> {
    let names = "SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS \
                 WHERE CHARACTER_SET_NAME NOT IN ('ucs2', 'utf16', 'utf16le', 'utf32', 'binary') ORDER BY 1";
    let names = world.sql(names);
    let text = |charset: &str| {
        let known = |character: &&str| format!("CONVERT(CONVERT('{character}' USING {charset}) USING utf8mb4) = '{character}'");
        let characters: Vec<_> = CHARACTERS.split(' ').collect();
        let known: Vec<_> = characters.iter().map(known).collect();
        let answer = world.sql(&format!("SELECT {}", known.join(", ")));
        let has = answer.split('\t').zip(characters).filter(|(known, _)| *known == "1").map(|(_, character)| character);
        // One of them is a back quote there.
        let has = has.filter(|character| charset != "swe7" || *character != "é");
        (charset.to_owned(), format!("{charset}_{}", has.collect::<String>()))
    };
    let mut all: Vec<_> = names.lines().map(text).collect();
    all.push(("binary".to_owned(), "binary_é".to_owned()));
    all
}

/// Runs statements in the encoding of this character set.
fn run(world: &World, charset: &str, statements: &str) {
    if charset == "swe7" {
        // Quotes are ASCII's, letters are not.
        return send(world, charset, statements.replace('Å', "]").replace('Ö', "\\").as_bytes());
    }
    let hex = world.sql(&format!("SELECT HEX(CONVERT('{}' USING {charset}))", statements.replace('\'', "''")));
    let bytes: Vec<u8> = hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    send(world, charset, &bytes);
}

fn send(world: &World, charset: &str, statements: &[u8]) {
    // The client must not take the second byte of a character for a quote.
    let known = if ["big5", "cp932", "eucjpms", "euckr", "gb18030", "gb2312", "gbk", "sjis", "ujis"].contains(&charset) {
        if charset == "gb18030" { "gbk" } else { charset }
    } else {
        "latin1"
    };
    let mut client = world.server.client(&world.database);
    client.arg(format!("--default-character-set={known}")).arg("-e");
    let statements = [format!("SET NAMES {charset}; ").as_bytes(), statements].concat();
    let output = client.arg(OsStr::from_bytes(&statements)).output().unwrap();
    assert!(output.status.success(), "{charset}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn statements_are_read_in_the_character_set_of_their_session() {
    let mut world = World::alone(&[], "", &[]);
    let names = writable(&world);
    assert!(30 < names.len() && names.iter().filter(|(charset, text)| text.len() < charset.len() + 3).count() < 2, "{names:?}");
    let definition = |text: &str| format!("(id int PRIMARY KEY, `c{text}` enum('z', '{text}') CHARACTER SET utf8mb4)");
    for (_, text) in &names {
        world.sql(&format!("CREATE TABLE `{text}` {}", definition(text)));
        world.feeds.push(feed(&world.database, text, &["id"], Operations::ALL));
    }
    let mut reading = Reading::begin(&world).await;
    for (number, (charset, text)) in names.iter().enumerate() {
        reading.events().await;
        reading.stream().await.source.table_changes();
        let statements = format!(
            "INSERT INTO `{text}` VALUES (1, '{text}'); TRUNCATE `{text}`; \
             ALTER TABLE `{text}` COMMENT '{text}, RENAME TO x', ADD COLUMN `a{text}` int NOT NULL DEFAULT 7; \
             RENAME TABLE `{text}` TO `o{text}`; RENAME TABLE `o{text}` TO `{text}`; DROP TABLE `{text}`; \
             CREATE TABLE `{text}` (PRIMARY KEY (id)) AS SELECT 2 AS id, CONVERT('x' USING utf8mb4) AS `s{text}`; DROP TABLE IF EXISTS `{text}`; \
             CREATE TABLE `{text}` {}; INSERT INTO `{text}` VALUES (3, '{text}')",
            definition(text)
        );
        run(&world, charset, &statements);
        let events = reading.events().await;
        let insert = |id: u32| format!(r#"insert {text} {{"id":{id}}} 0!"#);
        let truncate = || format!("truncate {text} null 0!");
        assert_eq!(
            events.iter().map(short).collect::<Vec<_>>(),
            [insert(1), truncate(), truncate(), truncate(), insert(2), truncate(), insert(3)],
            "{charset}"
        );
        assert_eq!(events[4]["after"][format!("s{text}")], "x", "{charset}");
        assert_eq!(events[6]["after"][format!("c{text}")], **text, "{charset}");
        let changes = reading.stream().await.source.table_changes();
        let changes: Vec<_> =
            changes.iter().map(|change| (change.feed.index(), change.reread.as_ref().map(|reread| reread.reset))).collect();
        let of_feed = |reread| (number, reread);
        assert_eq!(changes, [Some(false), Some(true), None, None].map(of_feed), "{charset}");
        let id = FeedId(u32::try_from(number).unwrap());
        let existing = scan_all(&mut world.established().await, id, 1 << 16, false).await;
        let existing: serde_json::Value = serde_json::from_str(existing[0].body.as_deref().unwrap()).unwrap();
        assert_eq!(existing["after"], events[6]["after"], "{charset}");
    }
}

#[tokio::test]
async fn a_change_that_is_logged_in_another_character_set_is_told_from_one_of_a_feed() {
    let world = World::alone(&[], "CREATE TABLE `表` (id int PRIMARY KEY); CREATE TABLE `他` LIKE `表`", &[("表", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    run(&world, "sjis", "SET binlog_format = 'STATEMENT'; INSERT INTO `他` VALUES (1)");
    run(&world, "gbk", "SET binlog_format = 'STATEMENT'; INSERT INTO `他` VALUES (2)");
    assert_eq!(reading.shorts().await, [""; 0]);
    run(&world, "sjis", "SET binlog_format = 'STATEMENT'; INSERT INTO `表` VALUES (1)");
    assert_eq!(reading.failure().await.code(), Code::SourceLogLost);
}

#[tokio::test]
async fn a_statement_whose_syntax_is_unknown_stops_the_log() {
    let world = World::alone(&[], "CREATE TABLE t (id int PRIMARY KEY)", &[("t", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    run(&world, "swe7", "CREATE TABLE `Åx` (id int); DROP TABLE `Åx`");
    assert_eq!(reading.shorts().await, [""; 0]);
    // Its second letter is a backslash in ASCII.
    run(&world, "swe7", "CREATE TABLE `tÖ` (id int)");
    let failure = reading.failure().await;
    assert_eq!(failure.code(), Code::SourceLogLost);
    assert!(failure.to_string().contains("character_set_client"), "{failure}");
}

#[tokio::test]
async fn names_of_every_kind_are_found_in_statements() {
    let long = "表".repeat(50);
    let names = [
        "a.b", "a b", "a'b", "a\"b", "a``b", "%", "a/b", "a\\b", "-- x", "/* y */", "#z", "a;b", "select", "0", "1e5", "@v", "TABLE", &long,
    ];
    let mut world = World::new("", &[]);
    for name in names {
        world.sql(&format!("CREATE TABLE `{name}` (id int PRIMARY KEY, `{name}` int)"));
        world.feeds.push(feed(&world.database, &name.replace("``", "`"), &["id"], Operations::ALL));
    }
    let mut reading = Reading::begin(&world).await;
    for name in names {
        reading.events().await;
        world.sql(&format!(
            "INSERT INTO `{name}` VALUES (1, 2); TRUNCATE `{name}`; RENAME TABLE `{name}` TO n; RENAME TABLE n TO {}.`{name}`; \
             SET sql_mode = 'ANSI_QUOTES'; DROP TABLE \"{}\"",
            world.database,
            name.replace("``", "`").replace('"', "\"\"")
        ));
        let shown = name.replace("``", "`");
        let events = reading.events().await;
        let truncate = || format!("truncate {shown} null 0!");
        let expected = [format!(r#"insert {shown} {{"id":1}} 0!"#), truncate(), truncate(), truncate()];
        assert_eq!(events.iter().map(short).collect::<Vec<_>>(), expected);
        assert_eq!(events[0]["after"][&shown], 2);
    }
}

#[tokio::test]
async fn a_character_that_no_name_may_have_is_a_question_mark_or_refused() {
    let world = World::new("", &[("?", &["id"])]);
    if let Err(refused) = world.server.try_sql(&world.database, "CREATE TABLE `😀` (id int PRIMARY KEY)") {
        assert!(world.server.is_mariadb() && refused.contains("ERROR"), "{refused}");
        return;
    }
    let mut reading = Reading::begin(&world).await;
    world.sql("INSERT INTO `😀` VALUES (1); TRUNCATE `😀`");
    assert_eq!(reading.shorts().await, [r#"insert ? {"id":1} 0!"#, "truncate ? null 0!"]);
}

#[tokio::test]
async fn names_that_the_server_folds_are_found_in_any_case() {
    let world = World::alone(&[("lower_case_table_names", "1")], "CREATE TABLE `tÉ` (id int PRIMARY KEY)", &[("té", &["id"])]);
    let mut reading = Reading::begin(&world).await;
    world.sql("INSERT INTO `Té` VALUES (1); TRUNCATE `TÉ`");
    run(&world, "latin1", "INSERT INTO `TÉ` VALUES (2); DROP TABLE `TÉ`");
    let expected = [r#"insert té {"id":1} 0!"#, "truncate té null 0!", r#"insert té {"id":2} 0!"#, "truncate té null 0!"];
    assert_eq!(reading.shorts().await, expected);
}
