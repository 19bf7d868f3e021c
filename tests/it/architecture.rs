//! Which room of `src/` imports which, and that no file needs itself by way of others.

use crate::tidy::{files, root};
use imports::Imports;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

mod imports;

/// A module's path in the crate: `["source", "sqlite", "scan"]`; the crate's own file is `["lib"]`.
type Module = Vec<String>;

/// Each room, and those that it imports: only some that are listed before it, so that there is no circle of rooms.
#[rustfmt::skip]
const ROOMS: [(&str, &[&str]); 19] = [
    // Vocabulary.
    ("fault", &[]),
    ("event", &[]),
    ("net", &[]),
    ("preflight", &["fault"]),
    ("status", &["event", "fault"]),
    ("checkpoint", &["event", "fault", "preflight"]),
    ("batch", &["event", "checkpoint"]),
    ("feed", &["event", "fault", "checkpoint"]),
    ("format", &["event", "fault", "batch", "feed"]),
    // Ports.
    ("source", &["event", "fault", "preflight", "status", "checkpoint", "batch", "feed", "format"]),
    ("sink", &["event", "fault", "preflight", "checkpoint", "batch", "feed"]),
    // Adapters, of which none knows another, and the engine, which knows none.
    ("source/*", &["event", "fault", "net", "preflight", "status", "checkpoint", "batch", "feed", "format", "source"]),
    ("sink/*", &["event", "fault", "net", "preflight", "status", "checkpoint", "batch", "feed", "format", "sink"]),
    ("pipeline", &["event", "fault", "preflight", "status", "checkpoint", "batch", "feed", "format", "source", "sink"]),
    // Assembly.
    ("admin", &["fault", "status"]),
    ("config", &["event", "fault", "net", "feed", "format", "source/*", "sink/*", "pipeline"]),
    ("assemble", &["fault", "net", "preflight", "status", "checkpoint", "feed", "format", "source", "sink", "source/*", "sink/*", "pipeline", "admin", "config"]),
    ("demo", &["event", "status", "pipeline", "admin", "config", "assemble"]),
    ("command", &["event", "fault", "preflight", "status", "checkpoint", "feed", "format", "source", "sink", "pipeline", "config", "assemble", "demo"]),
];

/// The files of the source port. What else is in `source/` is an adapter.
const SOURCE_PORT: [&str; 16] = [
    "answer",
    "connector",
    "emission",
    "emitter",
    "file",
    "gathering",
    "key_ranges",
    "live",
    "past_heads",
    "prefeed",
    "prefix",
    "probe",
    "rows",
    "shape",
    "slice",
    "token",
];

/// What belongs to no room: it may import all.
const ROOTS: [&str; 2] = ["lib", "main"];

/// Every module with what it imports.
fn modules() -> BTreeMap<Module, Imports> {
    let source = files("src", &["rs"]);
    let paths: BTreeSet<Module> = source.iter().map(|file| module_of(file)).collect();
    let read = |file: &Path| Imports::of(&fs::read_to_string(file).unwrap(), &module_of(file), &paths);
    source.iter().map(|file| (module_of(file), read(file))).collect()
}

/// Each module with those that it imports.
fn arrows(modules: &BTreeMap<Module, Imports>) -> BTreeMap<Module, BTreeSet<Module>> {
    modules.iter().map(|(from, imports)| (from.clone(), imports.resolve(modules))).collect()
}

/// `src/source/sqlite/scan.rs` is `source::sqlite::scan`.
fn module_of(file: &Path) -> Module {
    let inside = file.strip_prefix(root().join("src")).unwrap().with_extension("");
    inside.iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

/// The room of a module, by its name in [`ROOMS`], and which adapter it is of.
fn room(module: &Module) -> (String, Option<&str>) {
    match module.get(1) {
        Some(file) if module[0] == "source" && SOURCE_PORT.contains(&file.as_str()) => (module[0].clone(), None),
        Some(adapter) if is_room(&format!("{}/*", module[0])) => (format!("{}/*", module[0]), Some(adapter)),
        _ => (module[0].clone(), None),
    }
}

fn is_room(name: &str) -> bool {
    ROOMS.iter().any(|(room, _)| *room == name)
}

/// Whether a module may import the other.
fn is_allowed(from: &Module, to: &Module) -> bool {
    let ((from, from_adapter), (to, to_adapter)) = (room(from), room(to));
    if ROOTS.contains(&from.as_str()) || (from == to && from_adapter == to_adapter) {
        return true;
    }
    let found = ROOMS.iter().find(|(room, _)| *room == from);
    found
        .unwrap_or_else(|| panic!("{from} is no room of the architecture: name it in src/ARCHITECTURE.md and here"))
        .1
        .contains(&to.as_str())
}

#[test]
fn rooms_import_what_is_drawn() {
    let mut wrong = Vec::new();
    for (from, imported) in arrows(&modules()) {
        for to in imported {
            if !is_allowed(&from, &to) {
                wrong.push(format!("{} imports {}", from.join("::"), to.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "not drawn in src/ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

#[test]
fn rooms_are_listed_behind_those_that_they_import() {
    for (at, (room, imports)) in ROOMS.iter().enumerate() {
        for import in *imports {
            assert!(ROOMS[..at].iter().any(|(earlier, _)| earlier == import), "{room} imports {import}");
        }
    }
}

#[test]
fn no_file_needs_itself_by_way_of_others() {
    let arrows = arrows(&modules());
    let mut said = String::new();
    for circle in circles(&arrows) {
        writeln!(said, "a circle of {}:", circle.len()).unwrap();
        for from in &circle {
            let inside: Vec<_> = arrows[from].intersection(&circle).map(|to| to.join("::")).collect();
            writeln!(said, "    {} imports {}", from.join("::"), inside.join(", ")).unwrap();
        }
    }
    assert!(said.is_empty(), "{said}");
}

/// The sets of modules each of which reaches each other one.
fn circles(arrows: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> = arrows.keys().map(|from| (from, reached(from, arrows))).collect();
    let mut found: Vec<BTreeSet<Module>> = Vec::new();
    for (from, reached_from) in &reached {
        if reached_from.contains(from) && !found.iter().any(|circle| circle.contains(*from)) {
            found.push(reached_from.iter().filter(|to| reached[**to].contains(from)).map(|to| (*to).clone()).collect());
        }
    }
    found
}

fn reached<'a>(from: &Module, arrows: &'a BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Module> = arrows[from].iter().collect();
    while let Some(module) = open.pop() {
        if reached.insert(module) {
            open.extend(&arrows[module]);
        }
    }
    reached
}

#[test]
fn an_arrow_that_is_not_drawn_and_a_circle_are_seen() {
    let texts = [
        ("source", "pub mod sqlite; pub struct Slice;"),
        ("source::sqlite", "mod scan; pub use scan::Scan; use crate::pipeline::Pipeline;"),
        ("source::sqlite::scan", "use super::super::kept; use crate::source::{Slice, postgres::{Postgres as Other}};"),
        ("source::postgres", "pub struct Postgres; fn f() { g!(crate::source::sqlite::Scan) }"),
        ("pipeline", "pub struct Pipeline; // use crate::command::Command;\n #[cfg(test)] mod tests { use crate::command::Command; }"),
        ("command", "pub struct Command;"),
    ];
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
    let paths: BTreeSet<Module> = texts.iter().map(|(path, _)| module(path)).collect();
    let modules: BTreeMap<Module, Imports> =
        texts.iter().map(|(path, text)| (module(path), Imports::of(text, &module(path), &paths))).collect();
    let arrows = arrows(&modules);

    let (sqlite, scan) = (module("source::sqlite"), module("source::sqlite::scan"));
    let (postgres, pipeline) = (module("source::postgres"), module("pipeline"));
    assert_eq!(arrows[&sqlite], BTreeSet::from([scan.clone(), pipeline.clone()]));
    assert_eq!(arrows[&scan], BTreeSet::from([module("source"), postgres.clone()]));
    assert_eq!(arrows[&postgres], BTreeSet::from([scan.clone()]), "by what the other hands on, not by who hands it on");
    assert!(arrows[&pipeline].is_empty(), "comments and tests import nothing");
    assert!(!is_allowed(&sqlite, &pipeline) && !is_allowed(&scan, &postgres) && is_allowed(&scan, &module("source")));
    assert_eq!(circles(&arrows), [BTreeSet::from([postgres, scan])]);
}
