//! `feedline config`.

use super::configured::Configured;
use super::process::{print, say};
use crate::config::{document, effective};
use crate::fault::Exit;
use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the settings in force, each with its origin; secrets are ***
    Print(Print),
    /// Print all settings
    Schema(Schema),
}

#[derive(Debug, Args)]
pub(super) struct Print {
    #[command(flatten)]
    configured: Configured,
}

#[derive(Debug, Args)]
pub(super) struct Schema {
    /// The output format
    #[arg(long, value_enum, default_value_t = Format::Toml)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A configuration file with every setting, its default and its description
    Toml,
    /// The page `docs/settings.md`
    Markdown,
    /// A JSON schema, for editors
    Json,
}

pub(super) fn run(command: &Command) -> Exit {
    match command {
        Command::Print(arguments) => match arguments.configured.load() {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    say(&format!("warning: {warning}\n"));
                }
                print(&effective::to_toml(&loaded.effective))
            }
            Err(exit) => exit,
        },
        Command::Schema(arguments) => print(&match arguments.format {
            Format::Toml => document::example(),
            Format::Markdown => document::markdown(),
            Format::Json => format!("{:#}\n", document::json_schema()),
        }),
    }
}
