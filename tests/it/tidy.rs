//! Checks of all files: no file is too long, nothing is unfinished, no link is dead.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const LINES_MAX: usize = 500;

#[test]
fn no_file_is_too_long() {
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
fn nothing_is_unfinished() {
    // Each word is split in two, so that this file does not match itself.
    let words = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X:"],
        ["to", "do!("],
        ["unimple", "mented!("],
        ["db", "g!("],
        ["#[ign", "ore"],
        ["<<<<", "<<< "],
        [">>>>", ">>> "],
    ];
    let mut found = Vec::new();
    for file in files(".", &["rs", "py", "md", "toml", "sh", "yaml", "yml", "tpl", "java", "json", ""]) {
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(&word.concat())) {
                found.push(format!("{}:{}: {line}", file.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "unfinished:\n{}", found.join("\n"));
}

#[test]
fn links_in_the_documents_are_not_dead() {
    let mut dead = Vec::new();
    let mut documents: Vec<PathBuf> = ["src", "docs", "config", "helm", "tests"].iter().flat_map(|folder| files(folder, &["md"])).collect();
    documents.extend(entries(&root()).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    for document in documents {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            let address = link.split(' ').next().unwrap_or_default();
            let (target, heading) = address.split_once('#').unwrap_or((address, ""));
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let file = if target.is_empty() { document.clone() } else { document.parent().unwrap().join(target) };
            let has_heading = || headings(&fs::read_to_string(&file).unwrap()).contains(heading);
            if !file.exists() || (!heading.is_empty() && !has_heading()) {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

/// The targets of a Markdown text's links.
fn links(text: &str) -> Vec<&str> {
    text.match_indices("](").filter_map(|(at, mark)| text[at + mark.len()..].split_once(')')).map(|(link, _)| link).collect()
}

/// The headings of a Markdown text, as a link writes them after `#`.
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

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files in a folder of the project that have one of these extensions, sorted.
pub fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
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

/// The entries of a folder, without build output and the history. Empty if the folder does not exist.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let left_out = ["target", "corpus", "artifacts", "__pycache__", ".git"];
    entries.map(|entry| entry.unwrap().path()).filter(|path| !left_out.iter().any(|name| path.ends_with(name))).collect()
}
