//! `feedline check`.

use super::{Configured, block_on, log, print};
use crate::assemble::store::{Store, StoreError};
use crate::assemble::{Visit, visit};
use crate::config::plan::CheckpointPlan;
use crate::config::{Plan, load, units};
use crate::fault::{Classify, Code, Exit};
use crate::feed::resolve::{FeedRule, resolve};
use crate::foresight::Foresight;
use crate::metrics::Metrics;
use crate::pipeline::Failure;
use crate::route::Template;
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

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

#[derive(Debug, Serialize)]
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
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let mut report = Report::default();
    match load(&arguments.configured.inputs()) {
        Err(problems) => {
            let found =
                problems.0.into_iter().map(|problem| Finding::new(Severity::Error, "configuration", problem.code, unnumbered(&problem)));
            report.findings.extend(found);
        }
        Ok(loaded) => {
            report.passed.push("configuration");
            let doubts =
                loaded.warnings.iter().map(|problem| Finding::new(Severity::Warning, "configuration", problem.code, unnumbered(problem)));
            report.findings.extend(doubts);
            if !arguments.offline {
                log::start(&loaded.plan.log);
                online(&loaded.plan, &mut report);
            }
        }
    }
    let worst = report.findings.iter().find(|finding| finding.severity == Severity::Error).map(|finding| finding.exit);
    report.ok = worst.is_none();
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
    for part in ["configuration", "checkpoint", "source", "sink"] {
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

fn online(plan: &Plan, report: &mut Report) {
    if let CheckpointPlan::File { path } = &plan.checkpoint {
        disk(path, report);
    }
    let mut look = Look {
        name: Arc::clone(&plan.name),
        rules: plan.feeds.clone(),
        route: plan.topic.clone(),
        default_schema: plan.source.default_schema(),
        report,
    };
    block_on(async {
        look.kept(plan).await;
        visit(plan, &Metrics::new(&plan.name), look).await;
    });
}

/// Looks at the place of the checkpoint.
fn disk(path: &Path, report: &mut Report) {
    use rustix::fs::{Access, access, statvfs};
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let unwritable = access(directory, Access::WRITE_OK | Access::EXEC_OK).err();
    if let Some(error) = unwritable {
        let message = format!("{}: {error}; make the directory, writable for this user, or set checkpoint.path", directory.display());
        return report.findings.push(Finding::new(Severity::Error, "checkpoint", Code::CheckpointUnwritable, message));
    }
    report.passed.push("checkpoint");
    if let Ok(disk) = statvfs(directory) {
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free_bytes < CHECKPOINT_BYTES {
            let (free, needed) = (units::size(free_bytes), units::size(CHECKPOINT_BYTES));
            let message = format!("{} has {free} left; the checkpoint needs {needed}", directory.display());
            report.findings.push(Finding::new(Severity::Warning, "checkpoint", Code::CheckpointCramped, message));
        }
    }
}

/// Two slots, and room for the file that replaces them when they grow.
const CHECKPOINT_BYTES: u64 = 4 << 20;

/// Looks at source and sink.
struct Look<'r> {
    name: Arc<str>,
    rules: Vec<FeedRule>,
    route: Template,
    default_schema: &'static str,
    report: &'r mut Report,
}

impl Look<'_> {
    /// Looks at the place where the broker keeps the checkpoint.
    async fn kept(&mut self, plan: &Plan) {
        match Store::foresee(plan).await {
            Ok(None) => {}
            Ok(Some(foresight)) => self.foresaw("checkpoint", Ok::<_, StoreError>(foresight)),
            Err(error) => self.error("checkpoint", &error),
        }
    }

    fn foresaw<E: Classify>(&mut self, part: &'static str, foresight: Result<Foresight, E>) {
        let Foresight { actions, refusals, warnings } = match foresight {
            Ok(foresight) => foresight,
            Err(error) => return self.error(part, &error),
        };
        if refusals.is_empty() {
            self.report.passed.push(part);
        }
        self.report.actions.extend(actions.into_iter().map(|action| Action { part, action }));
        let findings = &mut self.report.findings;
        findings.extend(refusals.into_iter().map(|found| Finding::new(Severity::Error, part, found.code, found.message)));
        findings.extend(warnings.into_iter().map(|found| Finding::new(Severity::Warning, part, found.code, found.message)));
    }

    fn error(&mut self, part: &'static str, error: &impl Classify) {
        let failure = Failure::of(error);
        self.report.findings.push(Finding::new(Severity::Error, part, failure.code, failure.message));
    }
}

impl Visit for Look<'_> {
    type Output = ();

    async fn visit<C: SourceConnector, K: SinkConnector>(mut self, mut source: C, mut sink: K) {
        let catalogue = match source.catalogue().await {
            Ok(catalogue) => catalogue,
            Err(error) => return self.error("source", &error),
        };
        let feeds = match resolve(&self.name, &self.rules, &self.route, &catalogue, self.default_schema) {
            Ok(feeds) => Arc::new(feeds),
            Err(errors) => return errors.iter().for_each(|error| self.error("source", error)),
        };
        for feed in feeds.iter() {
            let mut destinations: Vec<String> = feed.destinations.iter().map(ToString::to_string).collect();
            destinations.dedup();
            self.report.tables.push(Published { table: feed.name.to_string(), key: feed.key.clone(), destinations });
        }
        source.select(Arc::clone(&feeds));
        match source.verify().await {
            Ok(()) => {
                let foresight = source.foresee().await;
                self.foresaw("source", foresight);
            }
            Err(error) => self.error("source", &error),
        }
        sink.select(feeds);
        let foresight = sink.foresee().await;
        self.foresaw("sink", foresight);
    }
}
