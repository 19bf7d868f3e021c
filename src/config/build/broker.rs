//! What the sinks that are brokers have in common.

use super::setting_reader::SettingReader;
use crate::config::settings::choices::OnUnpublishable;
use crate::config::settings::sink;
use crate::fault::Code;
use std::sync::Arc;

impl SettingReader<'_> {
    /// The dead-letter topic or exchange; `None` if the first event that cannot be published stops the pipeline.
    pub(super) fn dead_letter(&mut self, name: &str) -> Option<Arc<str>> {
        let given = self.optional(&sink::DEAD_LETTER);
        if self.get(&sink::ON_UNPUBLISHABLE) == OnUnpublishable::Stop {
            if given.is_some() {
                let message = "unused: set sink.on_unpublishable = \"dead_letter\", or leave it out";
                self.refuse(Code::ConfigContradictory, &sink::DEAD_LETTER, message);
            }
            return None;
        }
        let dead_letter = given.unwrap_or_else(|| format!("{name}.dead_letter"));
        if 249 < dead_letter.len() || dead_letter.starts_with("amq.") {
            let message = "expected a name of at most 249 bytes that does not begin with \"amq.\"";
            self.refuse(Code::ConfigInvalid, &sink::DEAD_LETTER, message);
        }
        Some(dead_letter.into())
    }
}
