//! Builds the plan of the `[log]` section.

use super::setting_reader::SettingReader;
use crate::config::plan::LogPlan;
use crate::config::settings::process;
use crate::fault::Code;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

impl SettingReader<'_> {
    pub(super) fn log(&mut self) -> LogPlan {
        let level = self.get(&process::LOG_LEVEL);
        if let Some(word) = level.split(',').find(|word| is_unknown_level(word)) {
            let given = word.trim().to_ascii_lowercase();
            let nearest = LEVELS.into_iter().max_by(|a, b| strsim::jaro_winkler(&given, a).total_cmp(&strsim::jaro_winkler(&given, b)));
            let message = format!(
                "{word:?} is not a level: did you mean \"{}\"? (levels: {}; for one module: feedline::pipeline=debug)",
                nearest.unwrap_or("info"),
                LEVELS.join(", ")
            );
            self.refuse(Code::ConfigInvalid, &process::LOG_LEVEL, message);
        } else if let Err(error) = EnvFilter::try_new(&level) {
            self.refuse(Code::ConfigInvalid, &process::LOG_LEVEL, format!("expected {}, or filter directives: {error}", LEVELS.join(", ")));
        }
        LogPlan { format: self.get(&process::LOG_FORMAT), level }
    }
}

/// Whether a filter directive is a bare word that is not a level. The filter would take it for the name of a module, and silence all others.
fn is_unknown_level(directive: &str) -> bool {
    let is_bare = !directive.is_empty() && !directive.contains(['=', '[', ']', '{', '}']);
    is_bare && directive.parse::<LevelFilter>().is_err()
}
