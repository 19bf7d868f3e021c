//! `feedline check`: reports everything that would prevent a start, and what a start would do.

use super::configured::Configured;
use super::process::{block_on, log, print};
use crate::assemble::visit;
use crate::config::{Plan, Problem, load};
use crate::fault::Exit;
use crate::status::metrics::Metrics;
use clap::{Args, ValueEnum};
use inspection::Inspection;
use report::{Finding, Report, Severity};

mod inspection;
mod report;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// Check only the configuration, without connecting to source and sink
    #[arg(long)]
    offline: bool,
    /// The output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Human-readable lines
    Text,
    /// One JSON object
    Json,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let mut report = Report::default();
    if let Some(plan) = check_configuration(arguments, &mut report)
        && !arguments.offline
    {
        log::start(&plan.log);
        block_on(visit(&plan, &Metrics::new(&plan.pipeline.name), Inspection { plan: &plan, report: &mut report }));
    }
    report.finish();
    let first_error = report.findings.iter().find(|finding| finding.severity == Severity::Error).map(|finding| finding.exit);
    let printed = print(&match arguments.format {
        Format::Text => report.to_text(),
        Format::Json => report.to_json(),
    });
    first_error.unwrap_or(printed)
}

/// Adds the findings of the configuration; returns the plan if it has no error.
fn check_configuration(arguments: &Arguments, report: &mut Report) -> Option<Plan> {
    let mut add = |severity, problems: &[Problem]| {
        for problem in problems {
            report.findings.push(Finding::new(severity, "configuration", problem.code, without_code(problem)));
        }
    };
    match load(&arguments.configured.inputs()) {
        Err(problems) => {
            add(Severity::Error, &problems.0);
            arguments.configured.say_if_unnamed();
            None
        }
        Ok(loaded) => {
            add(Severity::Warning, &loaded.warnings);
            report.add_checked("configuration");
            Some(loaded.plan)
        }
    }
}

/// The text of a problem without its code, which a finding has already.
fn without_code(problem: &Problem) -> String {
    let text = problem.to_string();
    text.split_once(' ').map_or(text.clone(), |(_, rest)| rest.to_owned())
}
