//! `feedline config`.

use super::{Configured, print};
use crate::config::{document, effective};
use crate::fault::Exit;
use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print the settings that hold and where each comes from; secrets are ***
    Print(Print),
    /// Print every setting that there is
    Schema(Schema),
}

#[derive(Debug, Args)]
pub(super) struct Print {
    #[command(flatten)]
    configured: Configured,
}

#[derive(Debug, Args)]
pub(super) struct Schema {
    /// As what
    #[arg(long, value_enum, default_value_t = Format::Toml)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A configuration file with every setting, its default and its meaning
    Toml,
    /// The page of the documentation
    Markdown,
    /// A JSON schema, for editors
    Json,
}

pub(super) fn run(command: &Command) -> Exit {
    match command {
        Command::Print(arguments) => match arguments.configured.load() {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    super::say(&format!("warning: {warning}\n"));
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
