//! The report of `feedline check`: findings, tables, planned actions; as text and as JSON.

use crate::fault::{Code, Exit};
use serde::Serialize;
use std::fmt::Write as _;
use std::sync::Arc;

/// What is checked, in the order of the report.
const PARTS: [&str; 4] = ["configuration", "checkpoint", "source", "sink"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// The pipeline would not run.
    Error,
    /// The pipeline would run, with a risk.
    Warning,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// `configuration`, `checkpoint`, `source` or `sink`.
    part: &'static str,
    code: String,
    message: String,
    #[serde(skip)]
    pub(super) exit: Exit,
}

impl Finding {
    pub(super) fn new(severity: Severity, part: &'static str, code: Code, message: String) -> Self {
        Self { severity, part, code: code.to_string(), message, exit: code.exit() }
    }
}

/// A table that would be published.
#[derive(Debug, Serialize)]
pub(super) struct PublishedTable {
    pub(super) table: String,
    pub(super) key: Vec<Arc<str>>,
    pub(super) destinations: Vec<String>,
}

/// Something that a start would do.
#[derive(Debug, Serialize)]
pub(super) struct Action {
    /// `checkpoint`, `source` or `sink`.
    pub(super) part: &'static str,
    pub(super) action: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) ok: bool,
    /// Parts that were checked and have no error.
    passed: Vec<&'static str>,
    pub(super) tables: Vec<PublishedTable>,
    /// What a start would do.
    pub(super) actions: Vec<Action>,
    pub(super) findings: Vec<Finding>,
    #[serde(skip)]
    checked: Vec<&'static str>,
}

impl Report {
    /// Notes that a part was checked.
    pub(super) fn add_checked(&mut self, part: &'static str) {
        self.checked.push(part);
    }

    /// Adds a finding, unless it is there already.
    pub(super) fn add(&mut self, severity: Severity, part: &'static str, code: Code, message: String) {
        let finding = Finding::new(severity, part, code, message);
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Sorts the report by part, errors before warnings, and decides which parts passed.
    pub(super) fn finish(&mut self) {
        let order = |part: &str| PARTS.iter().position(|known| *known == part);
        self.findings.sort_by_key(|finding| (order(finding.part), finding.severity == Severity::Warning));
        self.actions.sort_by_key(|action| order(action.part));
        let has_error = |part: &str| self.findings.iter().any(|finding| finding.part == part && finding.severity == Severity::Error);
        self.passed = PARTS.into_iter().filter(|part| self.checked.contains(part) && !has_error(part)).collect();
        self.ok = !PARTS.into_iter().any(has_error);
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report holds strings and lists") + "\n"
    }

    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        for part in PARTS {
            let findings: Vec<_> = self.findings.iter().filter(|finding| finding.part == part).collect();
            let passed = self.passed.contains(&part);
            if !passed && findings.is_empty() {
                continue;
            }
            writeln!(out, "{part:<14} {}", if passed { "ok" } else { "not ok" }).expect("a string takes all");
            for finding in findings {
                let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
                writeln!(out, "  {severity} {}: {}", finding.code, finding.message).expect("a string takes all");
            }
            if part == "source" {
                for PublishedTable { table, key, destinations } in &self.tables {
                    writeln!(out, "  {table} ({}) -> {}", key.join(", "), destinations.join(", ")).expect("a string takes all");
                }
            }
            for Action { action, .. } in self.actions.iter().filter(|action| action.part == part) {
                writeln!(out, "  a start will {action}").expect("a string takes all");
            }
        }
        out
    }
}
