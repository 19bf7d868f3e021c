//! The settings of MongoDB and RethinkDB.

use super::{SMALL, accept, one};
use feedline::config::plan::SourcePlan;
use feedline::fault::Code;
use std::path::Path;

#[test]
fn mongodbs_members_and_logins_are_read() {
    let source = |lines: &str| SMALL.replace("kind = \"sqlite\"\npath = \"shop.db\"", &format!("kind = \"mongodb\"\n{lines}"));
    let loaded = accept(&source("host = \"db1\"\nmembers = [\"db2\", \"db3:27018\"]\ndatabase = \"shop\""), &[], &[]);
    let SourcePlan::MongoDb(options) = &loaded.plan.source else { panic!() };
    let hosts: Vec<_> = options.hosts.iter().map(|(host, port)| (host.as_str(), *port)).collect();
    assert_eq!((hosts, options.login.is_none()), (vec![("db1", 27_017), ("db2", 27_017), ("db3", 27_018)], true));
    for (lines, code, path) in [
        ("host = \"db1\"\ndatabase = \"shop\"\nauth = \"x509\"", Code::ConfigContradictory, "source.auth"),
        ("host = \"db1\"\ndatabase = \"shop\"\nmembers = [\"me@db2\"]", Code::ConfigInvalid, "source.members"),
        ("url = \"mongodb+srv://cluster0.example.net/shop\"", Code::ConfigInvalid, "source.url"),
    ] {
        let problem = one(&source(lines));
        assert_eq!((problem.code, problem.path.as_str()), (code, path), "{problem}");
    }
}

#[test]
fn rethinkdbs_store_and_the_checkpoint_are_on_a_volume() {
    let text = SMALL.replace("kind = \"sqlite\"\npath = \"shop.db\"", "kind = \"rethinkdb\"\ndatabase = \"shop\"\nstore = \"shop.store\"");
    let loaded = accept(&text, &[], &[]);
    let SourcePlan::RethinkDb(options) = &loaded.plan.source else { panic!() };
    assert_eq!((options.port, options.queue_size, &*options.database), (28_015, 1_000_000, "shop"));
    assert_eq!(options.store, Path::new("shop.store"));
    for (more, code, path) in [
        ("[checkpoint]\nkind = \"kafka\"\n", Code::ConfigContradictory, "checkpoint.kind"),
        ("[checkpoint]\npath = \"shop.store\"\n", Code::ConfigContradictory, "checkpoint.path"),
    ] {
        let problem = one(&format!("{text}{more}"));
        assert_eq!((problem.code, problem.path.as_str()), (code, path), "{problem}");
    }
    let problem = one(&text.replace("store = \"shop.store\"\n", ""));
    assert_eq!((problem.code, problem.path.as_str()), (Code::ConfigMissing, "source.store"), "{problem}");
}
