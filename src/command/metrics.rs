//! `feedline metrics`.

use super::print;
use crate::fault::Exit;
use crate::status::metrics::{Metrics, render};
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// As what
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One line a metric
    Text,
    /// The page of the documentation
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
