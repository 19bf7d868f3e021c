//! Messages of the program about its configuration.

use super::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output};

/// Runs the program for at most a minute.
fn feedline(arguments: &[&str]) -> Output {
    Command::new("timeout").args(["60", env!("CARGO_BIN_EXE_feedline")]).args(arguments).output().unwrap()
}

fn pipeline(database: &File, sink: &str) -> File {
    let database = database.0.display();
    File::new(&format!(
        "name = \"said\"\n[source]\nkind = \"sqlite\"\npath = \"{database}\"\n[[feeds]]\ntables = [\"orders\"]\n[sink]\n{sink}\n\
         [checkpoint]\npath = \"{database}.none/checkpoint\"\n[admin]\nlisten = \"off\"\n"
    ))
}

#[test]
fn the_reason_why_a_run_ended_is_logged_at_every_level() {
    let database = File::new("no database");
    let configuration = pipeline(&database, "kind = \"stdout\"");
    for level in ["log.level=off", "log.level=other=debug"] {
        let run = feedline(&["run", "--config", configuration.0.to_str().unwrap(), "--set", level]);
        let said = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.code() == Some(71) && said.contains("FL4001") && said.lines().count() == 1, "{level}: {:?} {said}", run.status);
    }
}

#[test]
fn a_check_without_a_configuration_explains_how_to_name_one() {
    let check = feedline(&["check", "--offline"]);
    assert_eq!(check.status.code(), Some(2));
    assert!(String::from_utf8(check.stderr).unwrap().contains("use -c FILE"));
    let named = feedline(&["check", "--offline", "--set", "sink.kind=stdout"]);
    assert!(named.stderr.is_empty(), "{named:?}");
}

#[cfg(feature = "amqp")]
#[test]
fn a_server_of_another_protocol_is_not_a_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // The thread ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // The client may have closed the connection.
            let _closed = stream
                .read(&mut [0; 8])
                .and_then(|_| stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    let database = File::new("no database");
    let configuration = pipeline(&database, &format!("kind = \"amqp\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"disable\""));
    let said = String::from_utf8(feedline(&["check", "--config", configuration.0.to_str().unwrap()]).stdout).unwrap();
    let sink = said.lines().find(|line| line.contains("FL3001")).unwrap_or_else(|| panic!("{said}"));
    assert!(sink.contains("does not speak AMQP") && sink.contains("sink.port") && !sink.contains("Parsing"), "{sink}");
}
