//! `feedline metrics`.

use super::process::print;
use crate::fault::Exit;
use crate::status::metrics::{Metrics, render};
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Human-readable lines
    Text,
    /// The page `docs/metrics.md`
    Markdown,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    let metrics = Metrics::new("name");
    metrics.set_pipeline("", "", "");
    let all = metrics.describe();
    print(&match arguments.format {
        Format::Markdown => render::markdown(&all),
        Format::Text => {
            let width = all.iter().map(|metric| metric.name.len()).max().unwrap_or(0);
            all.iter()
                .map(|metric| {
                    format!(
                        "{:<width$}  {:<9}  {}\n{:<width$}             {}\n",
                        metric.name,
                        metric.kind,
                        metric.help,
                        "",
                        render::labels(metric)
                    )
                })
                .map(|lines| lines.trim_end().to_owned() + "\n")
                .collect()
        }
    })
}
