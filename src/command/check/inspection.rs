//! Inspects source, sink and checkpoint, each as far as possible, even if another one has errors.

use super::report::{Action, PublishedTable, Report, Severity};
use crate::assemble::Visit;
use crate::assemble::store::Store;
use crate::checkpoint::{Checkpoint, FeedState};
use crate::config::Plan;
use crate::fault::{Classify, Exit};
use crate::feed::resolve::resolve_all;
use crate::feed::{Feed, Feeds};
use crate::pipeline::{Failure, agreement};
use crate::preflight::Findings;
use crate::sink::SinkConnector;
use crate::source::{Reread, Resume, SourceConnector, TableChange};
use std::sync::Arc;

/// How often a checkpoint is checked again that a running pipeline has replaced meanwhile.
const ATTEMPTS: usize = 5;

/// Inspects the connectors of a plan and adds to the report.
pub(super) struct Inspection<'p> {
    pub(super) plan: &'p Plan,
    pub(super) report: &'p mut Report,
}

/// The result of inspecting the source.
struct InspectedSource {
    /// The configured feeds whose tables exist.
    feeds: Arc<Feeds>,
    /// Whether the tables of all configured feeds exist.
    is_complete: bool,
    is_reached: bool,
}

impl Visit for Inspection<'_> {
    type Output = ();

    async fn visit<C: SourceConnector, K: SinkConnector>(mut self, mut source: C, mut sink: K) {
        let inspected = self.source(&mut source).await;
        sink.select(Arc::clone(&inspected.feeds));
        let findings = sink.preflight().await;
        let is_sink_reached = findings.is_ok();
        self.add_findings("sink", findings, inspected.is_complete);
        let findings = Store::preflight(self.plan).await;
        let is_store_usable = findings.is_ok();
        self.add_findings("checkpoint", findings, true);
        if is_store_usable {
            let sink = is_sink_reached.then_some(sink);
            self.checkpoint(&mut source, sink, &inspected).await;
        }
    }
}

impl Inspection<'_> {
    async fn source<C: SourceConnector>(&mut self, source: &mut C) -> InspectedSource {
        self.report.add_checked("source");
        let plan = self.plan;
        let catalogue = match source.catalogue().await {
            Ok(catalogue) => catalogue,
            Err(error) => {
                self.add_error("source", &error);
                return InspectedSource { feeds: Arc::default(), is_complete: false, is_reached: false };
            }
        };
        let (feeds, errors) =
            resolve_all(&plan.pipeline.name, &plan.pipeline.rules, &plan.pipeline.route, &catalogue, plan.pipeline.default_schema);
        let inspected = InspectedSource { feeds: Arc::new(feeds), is_complete: errors.is_empty(), is_reached: true };
        self.add_errors("source", &errors);
        for feed in inspected.feeds.iter() {
            let mut destinations: Vec<String> = feed.destinations_used().map(ToString::to_string).collect();
            destinations.dedup();
            self.report.tables.push(PublishedTable { table: feed.name.to_string(), key: feed.key.clone(), destinations });
        }
        source.select(Arc::clone(&inspected.feeds));
        match source.verify().await {
            Err(errors) => self.add_errors("source", &errors),
            // Asking for the identity may need another kind of connection: the one that reads the log.
            Ok(()) => {
                if let Err(error) = source.identity().await {
                    self.add_error("source", &error);
                }
            }
        }
        let findings = source.preflight().await;
        self.add_findings("source", findings, inspected.is_complete);
        inspected
    }

    /// Checks whether the checkpoint fits the pipeline, and the source and sink that were reached.
    async fn checkpoint<C: SourceConnector, K: SinkConnector>(&mut self, source: &mut C, sink: Option<K>, inspected: &InspectedSource) {
        let checkpoint = match Store::inspect(self.plan).await {
            Ok(Some(checkpoint)) => checkpoint,
            Ok(None) if inspected.is_reached => {
                if let Err(error) = source.unclaimed().await {
                    self.add_error("source", &error);
                }
                return;
            }
            Ok(None) => return,
            Err(error) => return self.add_error("checkpoint", &error),
        };
        if let Err(error) = agreement::check_name(&checkpoint, &self.plan.pipeline.name) {
            // The rest of another pipeline's checkpoint is not compared.
            return self.add_error("checkpoint", &error);
        }
        if let Err(error) = agreement::check_configuration(&checkpoint, &self.plan.pipeline.configuration, &inspected.feeds) {
            self.add_error("checkpoint", &error);
        }
        if let Some(mut sink) = sink
            && !checkpoint.sink.is_empty()
        {
            sink.expect(&checkpoint.sink);
            match sink.identity().await {
                Ok(identity) => {
                    if let Err(error) = agreement::check_sink(&checkpoint, &identity) {
                        self.add_error("sink", &error);
                    }
                }
                Err(error) => self.add_error("sink", &error),
            }
        }
        if inspected.is_reached {
            self.resume_position(source, checkpoint, &inspected.feeds).await;
        }
    }

    /// Checks whether the source can resume from the checkpoint. A running pipeline advances both meanwhile, so an error counts only if the
    /// checkpoint has not changed.
    async fn resume_position<C: SourceConnector>(&mut self, source: &mut C, mut checkpoint: Checkpoint, feeds: &Feeds) {
        for _ in 0..ATTEMPTS {
            let Some(token) = checkpoint.token.clone() else { return };
            let resume = agreement::resume(&checkpoint, feeds, token);
            let Err(error) = source.resumable(&checkpoint.source, &resume).await else {
                return self.rereads(source, &checkpoint, feeds, &resume).await;
            };
            match Store::inspect(self.plan).await {
                Ok(Some(newer)) if newer.token != checkpoint.token => checkpoint = newer,
                _ => return self.add_error("source", &error),
            }
        }
    }

    /// Adds the tables that a start would read again, with the reason.
    async fn rereads<C: SourceConnector>(&mut self, source: &mut C, checkpoint: &Checkpoint, feeds: &Feeds, resume: &Resume) {
        for (feed, state) in feeds.iter().zip(&resume.feeds) {
            let FeedState::Again { reset, .. } = state else { continue };
            let returns = !checkpoint.feeds.contains_key(&feed.name);
            let reason = if returns { "it was published before" } else { "this was requested, or begun before" };
            self.add_action("checkpoint", reread_action(feed, *reset, reason));
        }
        let table_changes = match source.unseen(resume).await {
            Ok(table_changes) => table_changes,
            Err(error) => return self.add_error("source", &error),
        };
        for TableChange { feed, reread, .. } in table_changes {
            let feed = feeds.get(feed);
            let is_begun = resume.feeds.get(feed.id.index()).is_some_and(|state| state.start().is_some());
            if let Some(Reread { reset, reason }) = reread.filter(|_| is_begun) {
                self.add_action("source", reread_action(feed, reset, &reason));
            }
        }
    }

    fn add_action(&mut self, part: &'static str, action: String) {
        self.report.actions.push(Action { part, action });
    }

    fn add_findings<E: Classify>(&mut self, part: &'static str, findings: Result<Findings, E>, is_complete: bool) {
        self.report.add_checked(part);
        let Findings { actions, refusals, warnings } = match findings {
            Ok(findings) => findings,
            Err(error) => return self.add_error(part, &error),
        };
        // Actions for only some of the feeds are not what a start would do.
        if is_complete {
            self.report.actions.extend(actions.into_iter().map(|action| Action { part, action }));
        }
        for refusal in refusals {
            self.report.add(Severity::Error, part, refusal.code, refusal.message);
        }
        for warning in warnings {
            self.report.add(Severity::Warning, part, warning.code, warning.message);
        }
    }

    fn add_errors<E: Classify>(&mut self, part: &'static str, errors: &[E]) {
        for error in errors {
            self.add_error(part, error);
        }
    }

    fn add_error(&mut self, part: &'static str, error: &impl Classify) {
        let failure = Failure::of(error);
        // A start waits for another instance, which is often the running pipeline itself.
        let severity = if failure.code.exit() == Exit::Held { Severity::Warning } else { Severity::Error };
        self.report.add(severity, part, failure.code, failure.message);
    }
}

/// What a start does with a table that must be read again.
fn reread_action(feed: &Feed, reset: bool, reason: &str) -> String {
    let name = &feed.name;
    match (feed.prefeed.is_read(), reset) {
        (true, true) => format!("read table {name} again after a reset: {reason}"),
        (true, false) => format!("read table {name} again: {reason}"),
        (false, _) => format!("not read table {name} again, because its prefeed is neither \"snapshot\" nor a query: {reason}"),
    }
}
