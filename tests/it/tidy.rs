//! What holds over all files: the architecture's arrows, readable lengths, nothing left unfinished, no dead link.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The layers, each of which may import those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Vocabulary,
    Port,
    /// Two neighbours that do not know each other.
    AdapterOrEngine,
    Assembly,
}

#[rustfmt::skip]
const LAYERS: [(Layer, &[&str]); 4] = [
    (Layer::Vocabulary, &[
        "change", "row", "fault", "secret", "route", "feed", "checkpoint", "batch", "budget", "receipt", "format", "metrics", "transport", "foresight", "succession",
    ]),
    (Layer::Port, &["source", "sink", "dataset"]),
    (Layer::AdapterOrEngine, &["pipeline", "restart"]),
    (Layer::Assembly, &["config", "command", "assemble", "admin", "demo", "main", "lib"]),
];

/// Folders whose files are adapters, but for the port or the vocabulary that the file of the same name is.
const ADAPTER_FOLDERS: [&str; 3] = ["source", "sink", "checkpoint"];

/// Words that are about a port: what a source says of its tables, and of its log's head.
const EXCEPTIONS: [(&str, &str); 2] = [("feed", "source"), ("metrics", "source")];

const LINES_MAX: usize = 600;

#[test]
fn imports_follow_the_arrows() {
    let modules = modules();
    let mut wrong = Vec::new();
    for file in files("src", &["rs"]) {
        let from = path_of(&file);
        let text = without_comments(&fs::read_to_string(&file).unwrap());
        for to in imports(&text, &from) {
            let (from, to) = (unit(&from, &modules), unit(&to, &modules));
            if !allowed(&from, &to) {
                wrong.push(format!("{}: {from} imports {to}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that src/ARCHITECTURE.md does not draw:\n{}", wrong.join("\n"));
}

#[test]
fn an_arrow_that_is_not_drawn_is_seen() {
    let modules = modules();
    let see = |from: &[&str], text: &str| {
        let from: Vec<String> = from.iter().map(|part| (*part).to_owned()).collect();
        imports(text, &from).iter().all(|to| allowed(&unit(&from, &modules), &unit(to, &modules)))
    };
    assert!(see(&["source", "sqlite"], "use crate::change::Head; use crate::{batch::{Batch, Ending}, source::Source};"));
    assert!(!see(&["source", "sqlite"], "use crate::pipeline::Pipeline;"));
    assert!(!see(&["source", "sqlite"], "use crate::source::postgres::Postgres;"));
    assert!(!see(&["source", "sqlite", "scan"], "use super::super::postgres::Postgres;"));
    assert!(see(&["source", "sqlite", "scan"], "use super::trigger::Trigger;"));
    assert!(!see(&["pipeline", "feed"], "let x = crate::sink::kafka::Kafka::new();"));
    assert!(!see(&["change"], "use crate::{\n    fault::Fault,\n    sink::Sink,\n};"));
    assert!(!see(&["checkpoint", "file"], "use crate::restart::Backoff;"));
    assert!(see(&["checkpoint", "file"], "use crate::checkpoint::Checkpoint;"));
    assert!(see(&["assemble"], "use crate::{pipeline::Pipeline, sink::kafka::Kafka};"));
}

#[test]
fn files_are_read_in_one_sitting() {
    let mut long = Vec::new();
    for folder in ["src", "tests"] {
        for file in files(folder, &["rs", "py"]) {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            if lines > LINES_MAX {
                long.push(format!("{}: {lines} lines", file.display()));
            }
        }
    }
    assert!(long.is_empty(), "more than {LINES_MAX} lines:\n{}", long.join("\n"));
}

#[test]
fn nothing_is_left_unfinished() {
    // In halves, so that this file may be read too.
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X:"], ["to", "do!("], ["unimple", "mented!("], ["db", "g!("], ["#[ign", "ore"]];
    let mut found = Vec::new();
    for folder in ["src", "tests", "docs", "config", "helm", ".ci"] {
        for file in files(folder, &["rs", "py", "md", "toml", "sh", "yaml", "tpl", ""]) {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                if words.iter().any(|word| line.contains(&word.concat())) {
                    found.push(format!("{}:{}: {line}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "unfinished:\n{}", found.join("\n"));
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut dead = Vec::new();
    let mut documents: Vec<PathBuf> = ["src", "docs", "config", "helm", "tests"].iter().flat_map(|folder| files(folder, &["md"])).collect();
    documents.extend(entries(&root()).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            let place = link.split(' ').next().unwrap_or_default();
            let (target, heading) = place.split_once('#').unwrap_or((place, ""));
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let file = if target.is_empty() { document.clone() } else { document.parent().unwrap().join(target) };
            let there = || headings(&fs::read_to_string(&file).unwrap()).contains(heading);
            if !file.exists() || (!heading.is_empty() && !there()) {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "links to nothing:\n{}", dead.join("\n"));
}

/// Whether one unit may import another; a unit is a top module, or `folder/adapter`.
fn allowed(from: &str, to: &str) -> bool {
    if from == to || EXCEPTIONS.contains(&(from, to)) {
        return true;
    }
    match (layer(from), layer(to)) {
        (Layer::AdapterOrEngine, Layer::AdapterOrEngine) => !is_adapter(from) && !is_adapter(to),
        // Words explain each other, and an assembly is one thing.
        (from, to) => to <= from,
    }
}

fn layer(unit: &str) -> Layer {
    if is_adapter(unit) {
        return Layer::AdapterOrEngine;
    }
    let found = LAYERS.iter().find(|(_, names)| names.contains(&unit));
    found.unwrap_or_else(|| panic!("{unit} has no place in the architecture: give it one here and in src/ARCHITECTURE.md")).0
}

fn is_adapter(unit: &str) -> bool {
    unit.contains('/')
}

/// `["source", "sqlite", "scan"]` is of the unit `source/sqlite`, `["source", "Source"]` of `source`.
fn unit(path: &[String], modules: &BTreeSet<String>) -> String {
    let top = path.first().map_or("lib", String::as_str);
    match path.get(1) {
        Some(second) if ADAPTER_FOLDERS.contains(&top) && modules.contains(&format!("{top}/{second}")) => format!("{top}/{second}"),
        _ => top.to_owned(),
    }
}

/// `top/second` of every file two deep.
fn modules() -> BTreeSet<String> {
    files("src", &["rs"])
        .iter()
        .map(|file| path_of(file))
        .filter(|path| path.len() > 1)
        .map(|path| format!("{}/{}", path[0], path[1]))
        .collect()
}

/// The module path of a file: `src/source/sqlite/scan.rs` is `source::sqlite::scan`.
fn path_of(file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(root().join("src")).unwrap().with_extension("");
    inside.iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

/// The paths that a text names by `crate::` or `super::`, from the crate's root.
fn imports(text: &str, from: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        // `$crate::` and `pub(in crate::x)` name paths of this crate as well.
        if !text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            paths(&text[at + "crate::".len()..], &[], &mut found);
        }
    }
    let mut rest = 0;
    while let Some(at) = text[rest..].find("super::").map(|at| at + rest) {
        let mut depth = from.len();
        let mut end = at;
        while text[end..].starts_with("super::") {
            depth = depth.saturating_sub(1);
            end += "super::".len();
        }
        // In a file's own test module one `super` more is the file itself, which then looks like the crate's root.
        let mut named = Vec::new();
        paths(&text[end..], &from[..depth], &mut named);
        found.extend(named.into_iter().filter(|path| LAYERS.iter().any(|(_, names)| names.contains(&path[0].as_str()))));
        rest = end;
    }
    found
}

/// Reads `a::b`, or `{a::b, c::{d, e}}`, to its first two segments.
fn paths(text: &str, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let mut depth = 0_usize;
        let mut start = 0;
        for (at, sign) in group.char_indices() {
            match sign {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    if !group[start..at].trim().is_empty() {
                        paths(&group[start..at], prefix, found);
                    }
                    start = at + 1;
                    if sign == '}' {
                        return;
                    }
                }
                _ => {}
            }
        }
        return;
    }
    let end = text.find(|sign: char| !sign.is_alphanumeric() && sign != '_').unwrap_or(text.len());
    let mut path = prefix.to_vec();
    path.push(text[..end].to_owned());
    match text[end..].strip_prefix("::") {
        Some(rest) if path.len() < 2 => paths(rest, &path, found),
        _ => found.push(path),
    }
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The targets of a Markdown text's links.
fn links(text: &str) -> Vec<&str> {
    text.match_indices("](").filter_map(|(at, mark)| text[at + mark.len()..].split_once(')')).map(|(link, _)| link).collect()
}

/// What a link may name of a Markdown text: its headings, as they are written behind a `#`.
fn headings(text: &str) -> BTreeSet<String> {
    let (mut found, mut in_block) = (BTreeSet::new(), false);
    for line in text.lines() {
        in_block ^= line.starts_with("```");
        if let Some(heading) = line.strip_prefix('#').filter(|_| !in_block) {
            let kept = |sign: &char| sign.is_alphanumeric() || matches!(sign, '-' | '_' | ' ');
            let words: String = heading.trim_start_matches('#').trim().chars().filter(kept).collect();
            found.insert(words.to_lowercase().replace(' ', "-"));
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files of a folder of the project with one of these extensions, in order.
fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                open.push(path);
            } else if extensions.contains(&path.extension().unwrap_or_default().to_string_lossy().as_ref()) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What lies in a folder; nothing where there is none, and nothing of what builds leave behind.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let built = ["target", "corpus", "artifacts", "__pycache__"];
    entries.map(|entry| entry.unwrap().path()).filter(|path| !built.iter().any(|name| path.ends_with(name))).collect()
}
