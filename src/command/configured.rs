//! The arguments that name a configuration, which most commands take.

use super::process::say;
use crate::config::{Inputs, Loaded, load};
use crate::fault::Exit;
use clap::Args;
use std::path::PathBuf;

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
pub(super) struct Configured {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one setting, overriding file and environment (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl Configured {
    /// Loads the configuration, or prints its problems.
    pub(super) fn load(&self) -> Result<Loaded, Exit> {
        load(&self.inputs()).map_err(|problems| {
            say(&format!("{problems}\n"));
            self.say_if_unnamed();
            Exit::Configuration
        })
    }

    /// Explains why every setting is missing, if no configuration was named.
    pub(super) fn say_if_unnamed(&self) {
        if self.config.is_none() && self.settings.is_empty() {
            say("no configuration file was named: use -c FILE; `feedline config schema --format toml` writes one to start from\n");
        }
    }

    pub(super) fn inputs(&self) -> Inputs {
        Inputs::of_process(self.config.clone(), self.settings.clone())
    }
}
