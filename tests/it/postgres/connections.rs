//! How many connections a start opens, by the server's own log.

use super::world::TIMEOUT;
use crate::children::ended;
use crate::crash::run::tempdir;
use crate::servers::port::wait_for;
use crate::servers::postgres::{Options, Postgres};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Command, Stdio};

/// One ordinary session, which the log's monitor takes over; one for the head of the log; the connection over which the log comes; and one that
/// creates the slot at a first start, or reads back the last commit at a later one.
const CONNECTIONS_MAX: usize = 4;

#[test]
fn a_start_opens_at_most_four_connections_before_it_reads_the_log() {
    let server = Postgres::start(&Options { settings: vec![("log_connections", "on")], ..Options::default() });
    let database = server.create_database("few");
    server.psql(&database, "CREATE TABLE t (id int PRIMARY KEY)");
    let directory = tempdir("few_connections");
    let (configuration, output) = (directory.join("feedline.toml"), directory.join("events"));
    let settings = format!(
        "name = \"few\"\n[source]\nkind = \"postgres\"\nport = {}\nuser = \"postgres\"\ndatabase = \"{database}\"\ntls = \"disable\"\n\
         [[feeds]]\ntables = [\"t\"]\nprefeed = \"none\"\n[sink]\nkind = \"file\"\npath = \"{}\"\n[checkpoint]\npath = \"{}\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n",
        server.port(),
        output.display(),
        directory.join("checkpoint").display()
    );
    std::fs::write(&configuration, settings).unwrap();
    for run in 1..=2 {
        let earlier = server.log().len();
        let mut command = Command::new(env!("CARGO_BIN_EXE_feedline"));
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let mut feedline = command.args(["run", "-c"]).arg(&configuration).stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let begun = wait_for("the log is read", TIMEOUT, || {
            server.log()[earlier..].split_once("starting logical decoding for slot").map(|(begun, _)| begun.to_owned())
        });
        let is_ours = |line: &&str| line.contains("connection authorized:") && line.contains("application_name=feedline/few");
        let opened: Vec<&str> = begun.lines().filter(is_ours).collect();
        println!("run {run}: {} connections before the log is read", opened.len());
        assert!((1..=CONNECTIONS_MAX).contains(&opened.len()), "run {run}: {opened:#?}");
        server.psql(&database, &format!("INSERT INTO t VALUES ({run})"));
        wait_for("the row arrives", TIMEOUT, || {
            let events = std::fs::read_to_string(&output).unwrap_or_default();
            (events.lines().count() == run).then_some(())
        });
        kill_process(Pid::from_child(&feedline), Signal::TERM).unwrap();
        assert!(ended(&mut feedline).success(), "{}", std::fs::read_to_string(directory.join("log")).unwrap());
    }
    std::fs::remove_dir_all(directory).unwrap();
}
