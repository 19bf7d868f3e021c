//! `feedline check`: everything that stands against a start, at once, and what a start would do.

use super::{Configured, block_on, log, print};
use crate::assemble::visit;
use crate::config::load;
use crate::fault::{Code, Exit};
use crate::status::metrics::Metrics;
use clap::{Args, ValueEnum};
use look::Look;
use serde::Serialize;
use std::fmt::Write as _;
use std::sync::Arc;

mod look;

/// What is looked at, in the order of the report.
const PARTS: [&str; 4] = ["configuration", "checkpoint", "source", "sink"];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Look at the configuration only, and connect to nothing
    #[arg(long)]
    offline: bool,
    /// As what
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Lines for people
    Text,
    /// One JSON object
    Json,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Severity {
    /// The pipeline would not run.
    Error,
    /// It would, and somebody may regret it.
    Warning,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    severity: Severity,
    /// What was looked at: `configuration`, `checkpoint`, `source` or `sink`.
    part: &'static str,
    code: String,
    message: String,
    #[serde(skip)]
    exit: Exit,
}

impl Finding {
    fn new(severity: Severity, part: &'static str, code: Code, message: String) -> Self {
        Self { severity, part, code: code.to_string(), message, exit: code.exit() }
    }
}

/// A table that would be published.
#[derive(Debug, Serialize)]
struct Published {
    table: String,
    key: Vec<Arc<str>>,
    destinations: Vec<String>,
}

/// Something that a start would do.
#[derive(Debug, Serialize)]
struct Action {
    /// Where: `checkpoint`, `source` or `sink`.
    part: &'static str,
    action: String,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Report {
    ok: bool,
    /// What was looked at and is in order.
    passed: Vec<&'static str>,
    tables: Vec<Published>,
    /// What a start would do.
    actions: Vec<Action>,
    findings: Vec<Finding>,
    #[serde(skip)]
    looked_at: Vec<&'static str>,
}

impl Report {
    /// Puts it in order: part by part, and in each what must be mended first.
    fn finish(&mut self) {
        let place = |part: &str| PARTS.iter().position(|known| *known == part);
        self.findings.sort_by_key(|finding| (place(finding.part), finding.severity == Severity::Warning));
        self.actions.sort_by_key(|action| place(action.part));
        let is_wrong = |part: &str| self.findings.iter().any(|finding| finding.part == part && finding.severity == Severity::Error);
        self.passed = PARTS.into_iter().filter(|part| self.looked_at.contains(part) && !is_wrong(part)).collect();
        self.ok = !PARTS.into_iter().any(is_wrong);
    }
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let mut report = Report::default();
    match load(&arguments.configured.inputs()) {
        Err(problems) => {
            let found =
                problems.0.into_iter().map(|problem| Finding::new(Severity::Error, "configuration", problem.code, unnumbered(&problem)));
            report.findings.extend(found);
            arguments.configured.say_unnamed();
        }
        Ok(loaded) => {
            report.looked_at.push("configuration");
            let warnings =
                loaded.warnings.iter().map(|problem| Finding::new(Severity::Warning, "configuration", problem.code, unnumbered(problem)));
            report.findings.extend(warnings);
            if !arguments.offline {
                log::start(&loaded.plan.log);
                let plan = &loaded.plan;
                block_on(visit(plan, &Metrics::new(&plan.name), Look { plan, report: &mut report }));
            }
        }
    }
    report.finish();
    let worst = report.findings.iter().find(|finding| finding.severity == Severity::Error).map(|finding| finding.exit);
    let printed = print(&match arguments.format {
        Format::Text => text(&report),
        Format::Json => serde_json::to_string_pretty(&report).expect("a report is texts and lists") + "\n",
    });
    worst.unwrap_or(printed)
}

/// A problem without its number, which a finding has already.
fn unnumbered(problem: &crate::config::Problem) -> String {
    let text = problem.to_string();
    text.split_once(' ').map_or(text.clone(), |(_, rest)| rest.to_owned())
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for part in PARTS {
        let found: Vec<_> = report.findings.iter().filter(|finding| finding.part == part).collect();
        let passed = report.passed.contains(&part);
        if !passed && found.is_empty() {
            continue;
        }
        writeln!(out, "{part:<14} {}", if passed { "ok" } else { "not ok" }).expect("a string takes all");
        for finding in found {
            let severity = if finding.severity == Severity::Error { "error" } else { "warning" };
            writeln!(out, "  {severity} {}: {}", finding.code, finding.message).expect("a string takes all");
        }
        if part == "source" {
            for Published { table, key, destinations } in &report.tables {
                writeln!(out, "  {table} ({}) -> {}", key.join(", "), destinations.join(", ")).expect("a string takes all");
            }
        }
        for Action { action, .. } in report.actions.iter().filter(|action| action.part == part) {
            writeln!(out, "  a start will {action}").expect("a string takes all");
        }
    }
    out
}
