//! The generated documents are complete, and equal to what the program prints.

use super::{output, text};
use feedline::config::document;
use feedline::fault::Code;
use feedline::status::metrics::{Metrics, OF_PROCESS, render};
use std::path::{Path, PathBuf};

/// The statements of the first block of SQL under this heading of a document.
pub(super) fn sql_under(page: &str, heading: &str) -> String {
    let text = std::fs::read_to_string(repository(page)).unwrap();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("{page} has no heading {heading:?}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let (_, block) = section.split_once("```sql\n").unwrap_or_else(|| panic!("no SQL stands under {heading:?} of {page}"));
    block.split_once("```").unwrap().0.to_owned()
}

#[test]
fn printed_documents_are_those_of_the_repository() {
    for (arguments, expected) in [
        (&["config", "schema", "--format", "toml"][..], document::example()),
        (&["config", "schema", "--format", "markdown"], document::markdown()),
        (&["metrics", "--format", "markdown"], std::fs::read_to_string(repository("docs/metrics.md")).unwrap()),
    ] {
        assert_eq!(text(&output(arguments).stdout), expected, "{arguments:?}");
    }
    assert!(serde_json::from_slice::<serde_json::Value>(&output(&["config", "schema", "--format", "json"]).stdout).is_ok());
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_error_has_its_entry() {
    let page = std::fs::read_to_string(repository("docs/errors.md")).unwrap();
    let found: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let expected: Vec<_> = Code::ALL.iter().map(|code| format!("{code} {code:?}")).collect();
    assert_eq!(found, expected);
    for entry in page.split("\n## ").skip(1) {
        for part in ["- Meaning: ", "- Cause: ", "- Remedy: "] {
            assert_eq!(entry.matches(part).count(), 1, "{part:?} in {entry}");
        }
    }
    for code in Code::ALL {
        let entry = page.split("\n## ").find(|entry| entry.starts_with(&code.to_string())).unwrap();
        if let Some((_, status)) = entry.split("\n# ").next().unwrap().rsplit_once("Exit status ") {
            let digits: String = status.chars().take_while(char::is_ascii_digit).collect();
            assert_eq!(digits.parse(), Ok(code.exit() as u8), "{entry}");
        }
    }
}

#[test]
fn metrics_keep_the_conventions() {
    let metrics = Metrics::new("name");
    metrics.set_pipeline("", "", "");
    let all = metrics.describe();
    assert!(40 < all.len());
    assert!(OF_PROCESS.iter().all(|known| all.iter().any(|metric| metric.name == *known)), "{OF_PROCESS:?}");
    let page = std::fs::read_to_string(repository("docs/metrics.md")).unwrap();
    assert!(page == render::markdown(&all), "docs/metrics.md is out of date: `feedline metrics --format markdown` writes it");
    for metric in &all {
        let name = metric.name.as_str();
        assert!(name.starts_with("feedline_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == "counter", "{name}: counters, and only they, end in _total");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{name}");
        for unit in ["_ms", "_millis", "_us", "_minutes", "_kb", "_mb", "_percent", "_bucket", "_sum", "_count"] {
            assert!(!name.trim_end_matches("_total").ends_with(unit), "{name}: base units");
        }
        assert!(metric.help.ends_with('.'), "{name}: help is a sentence");
        let has_pipeline = metric.labels.iter().any(|label| label.name == "pipeline");
        assert_eq!(has_pipeline, !name.starts_with("process_") && !OF_PROCESS.contains(&name), "{name}");
        assert!(metric.labels.iter().all(|label| label.name != "le" && label.name != "quantile"), "{name}");
    }
}
