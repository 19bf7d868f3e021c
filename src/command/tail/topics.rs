//! The topics that a pipeline publishes to.

use crate::assemble::{Visit, visit};
use crate::config::Plan;
use crate::feed::resolve::resolve;
use crate::pipeline::Failure;
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use crate::status::metrics::Metrics;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Finds the topics of a pipeline from the tables of its source.
pub(super) async fn resolve_topics(plan: &Plan) -> Result<Vec<Arc<str>>, Failure> {
    visit(plan, &Metrics::new(&plan.pipeline.name), ResolveTopics(plan)).await
}

struct ResolveTopics<'p>(&'p Plan);

impl Visit for ResolveTopics<'_> {
    type Output = Result<Vec<Arc<str>>, Failure>;

    async fn visit<C: SourceConnector, K: SinkConnector>(self, mut source: C, _sink: K) -> Self::Output {
        let Self(plan) = self;
        let catalogue = source.catalogue().await.map_err(|error| Failure::of(&error))?;
        let feeds = resolve(&plan.pipeline.name, &plan.pipeline.rules, &plan.pipeline.route, &catalogue, &plan.pipeline.default_schema);
        let feeds = feeds.map_err(|errors| Failure::of(errors.first().expect("a failure has at least one error")))?;
        let topics: BTreeSet<Arc<str>> = feeds.iter().flat_map(|feed| feed.destinations_used().cloned()).collect();
        Ok(topics.into_iter().collect())
    }
}
