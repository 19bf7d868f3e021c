//! Compares resume tokens, which only the source can read.

use crate::assemble::{Visit, visit};
use crate::checkpoint::ResumeToken;
use crate::config::Plan;
use crate::pipeline::Failure;
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use crate::status::metrics::Metrics;

/// Whether resuming at `to` instead of `from` would skip changes.
///
/// # Errors
/// If a token is not valid for the source.
pub(super) async fn skips(plan: &Plan, from: &ResumeToken, to: &ResumeToken) -> Result<bool, Failure> {
    visit(plan, &Metrics::new(&plan.pipeline.name), Skips { from, to }).await
}

struct Skips<'t> {
    from: &'t ResumeToken,
    to: &'t ResumeToken,
}

impl Visit for Skips<'_> {
    type Output = Result<bool, Failure>;

    async fn visit<C: SourceConnector, K: SinkConnector>(self, source: C, _sink: K) -> Self::Output {
        source.skips(self.from, self.to).map_err(|error| Failure::of(&error))
    }
}
