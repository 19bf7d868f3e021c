//! A thousand tables.

use crate::crash::feedline::Feedline;
use crate::servers::mysql::{MySql, Options};
use crate::servers::port::wait_for;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

const TABLES: usize = 1_000;

fn statements(server: &MySql) -> u64 {
    let answer = server.sql("", "SHOW GLOBAL STATUS LIKE 'Questions'");
    answer.split('\t').nth(1).unwrap().parse().unwrap()
}

/// The most memory that the process has had, in bytes.
fn memory(feedline: &Feedline) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", feedline.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// One statement for each table.
fn each(server: &MySql, database: &str, statement: impl Fn(usize) -> String) {
    let all = (0..TABLES).fold(String::new(), |mut all, number| {
        write!(all, "{}; ", statement(number)).unwrap();
        all
    });
    server.sql(database, &all);
}

fn lines(output: &Path) -> usize {
    fs::read_to_string(output).map_or(0, |text| text.lines().count())
}

#[test]
fn a_thousand_tables_are_read_and_followed() {
    let server = MySql::start(&Options::default());
    let database = server.create_database("many");
    each(&server, &database, |number| format!("CREATE TABLE t{number} (id int PRIMARY KEY, note text)"));
    each(&server, &database, |number| format!("INSERT INTO t{number} VALUES (1, 'a'), (2, NULL)"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("many-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let output = directory.join("out");
    let configuration = format!(
        "name = \"many\"\n[source]\nkind = \"mysql\"\nport = {}\nuser = \"root\"\ndatabase = \"{database}\"\ntls = \"disable\"\n\
         [[feeds]]\ntables = [\"*\"]\n[sink]\nkind = \"file\"\npath = \"{}\"\n[checkpoint]\npath = \"{}\"\n",
        server.port(),
        output.display(),
        directory.join("checkpoint").display(),
    );
    let mut feedline = Feedline::new(&directory, &configuration);
    let before = statements(&server);
    feedline.start();
    feedline.wait_until_live();
    let first = statements(&server) - before;
    each(&server, &database, |number| format!("INSERT INTO t{number} VALUES (3, 'c')"));
    wait_for("the live rows", Duration::from_mins(2), || (lines(&output) == 3 * TABLES).then_some(()));
    let used = memory(&feedline);
    feedline.stop();

    each(&server, &database, |number| format!("UPDATE t{number} SET note = 'd' WHERE id = 3"));
    let before = statements(&server);
    feedline.start();
    feedline.wait_until_live();
    let second = statements(&server) - before;
    wait_for("the rows of the time without it", Duration::from_mins(2), || (lines(&output) == 4 * TABLES).then_some(()));
    feedline.stop();
    println!("{TABLES} tables: {first} statements at the first start, {second} at the next; {used} bytes");
    // Each table is described, estimated and read; a start that finds a checkpoint asks for all at once.
    assert!(first < 15 * TABLES as u64 && second < 200, "{first} {second}");
    assert!(used < 256 << 20, "{used}");
    let text = fs::read_to_string(&output).unwrap();
    let distinct: BTreeSet<&str> = text.lines().collect();
    assert_eq!(distinct.len(), 4 * TABLES);
    fs::remove_dir_all(&directory).unwrap();
}
