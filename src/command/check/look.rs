//! Looks at checkpoint, source and sink, each as far as it can, whatever is wrong with the others.

use super::{Action, Finding, Published, Report, Severity};
use crate::assemble::Visit;
use crate::assemble::store::Store;
use crate::checkpoint::{Checkpoint, FeedState};
use crate::config::Plan;
use crate::fault::{Classify, Code, Exit};
use crate::feed::resolve::resolve_all;
use crate::feed::{Feed, Feeds};
use crate::pipeline::{Failure, agreement};
use crate::preflight::Findings;
use crate::sink::SinkConnector;
use crate::source::{Reread, Resume, SourceConnector, TableChange};
use std::sync::Arc;

/// How often a checkpoint is judged that a pipeline moves on meanwhile.
const ATTEMPTS: usize = 5;

/// Looks, and writes down what it sees.
pub(super) struct Look<'p> {
    pub(super) plan: &'p Plan,
    pub(super) report: &'p mut Report,
}

/// What is known of the source.
struct Seen {
    /// Its feeds: those that there are.
    feeds: Arc<Feeds>,
    /// Whether they are all that are configured.
    is_complete: bool,
    is_reached: bool,
}

impl Visit for Look<'_> {
    type Output = ();

    async fn visit<C: SourceConnector, K: SinkConnector>(mut self, mut source: C, mut sink: K) {
        let seen = self.source(&mut source).await;
        sink.select(Arc::clone(&seen.feeds));
        let findings = sink.preflight().await;
        let is_sink_reached = findings.is_ok();
        self.report("sink", findings, seen.is_complete);
        let findings = Store::preflight(self.plan).await;
        let is_place_fit = findings.is_ok();
        self.report("checkpoint", findings, true);
        if is_place_fit {
            let sink = is_sink_reached.then_some(sink);
            self.checkpoint(&mut source, sink, &seen).await;
        }
    }
}

impl Look<'_> {
    async fn source<C: SourceConnector>(&mut self, source: &mut C) -> Seen {
        self.report.looked_at.push("source");
        let plan = self.plan;
        let catalogue = match source.catalogue().await {
            Ok(catalogue) => catalogue,
            Err(error) => {
                self.found("source", &error);
                return Seen { feeds: Arc::default(), is_complete: false, is_reached: false };
            }
        };
        let (feeds, errors) = resolve_all(&plan.name, &plan.feeds, &plan.topic, &catalogue, plan.source.default_schema());
        let seen = Seen { feeds: Arc::new(feeds), is_complete: errors.is_empty(), is_reached: true };
        self.all("source", &errors);
        for feed in seen.feeds.iter() {
            let mut destinations: Vec<String> = feed.destinations_used().map(ToString::to_string).collect();
            destinations.dedup();
            self.report.tables.push(Published { table: feed.name.to_string(), key: feed.key.clone(), destinations });
        }
        source.select(Arc::clone(&seen.feeds));
        match source.verify().await {
            Err(errors) => self.all("source", &errors),
            // Who it is may be asked on a connection of another kind, on which the log is read.
            Ok(()) => {
                if let Err(error) = source.identity().await {
                    self.found("source", &error);
                }
            }
        }
        let findings = source.preflight().await;
        self.report("source", findings, seen.is_complete);
        seen
    }

    /// What a start would make of the checkpoint; the parts that were not reached have no say.
    async fn checkpoint<C: SourceConnector, K: SinkConnector>(&mut self, source: &mut C, sink: Option<K>, seen: &Seen) {
        let known = match Store::inspect(self.plan).await {
            Ok(Some(known)) => known,
            Ok(None) if seen.is_reached => {
                if let Err(error) = source.unclaimed().await {
                    self.found("source", &error);
                }
                return;
            }
            Ok(None) => return,
            Err(error) => return self.found("checkpoint", &error),
        };
        if let Err(error) = agreement::check_name(&known, &self.plan.name) {
            // What another pipeline's says of source and sink is of no use.
            return self.found("checkpoint", &error);
        }
        if let Err(error) = agreement::check_configuration(&known, &self.plan.configuration, &seen.feeds) {
            self.found("checkpoint", &error);
        }
        if let Some(mut sink) = sink
            && !known.sink.is_empty()
        {
            sink.expect(&known.sink);
            match sink.identity().await {
                Ok(now) => {
                    if let Err(error) = agreement::check_sink(&known, &now) {
                        self.found("sink", &error);
                    }
                }
                Err(error) => self.found("sink", &error),
            }
        }
        if seen.is_reached {
            self.place(source, known, &seen.feeds).await;
        }
    }

    /// Whether the source can go on where the checkpoint ends. A pipeline that runs moves both on between two looks: only what is
    /// said of a checkpoint that stays counts.
    async fn place<C: SourceConnector>(&mut self, source: &mut C, mut known: Checkpoint, feeds: &Feeds) {
        for _ in 0..ATTEMPTS {
            let Some(token) = known.token.clone() else { return };
            let resume = agreement::resume(&known, feeds, token);
            let Err(error) = source.resumable(&known.source, &resume).await else {
                return self.rereads(source, &known, feeds, &resume).await;
            };
            match Store::inspect(self.plan).await {
                Ok(Some(now)) if now.token != known.token => known = now,
                _ => return self.found("source", &error),
            }
        }
    }

    /// Which tables a start would read again, and why.
    async fn rereads<C: SourceConnector>(&mut self, source: &mut C, known: &Checkpoint, feeds: &Feeds, resume: &Resume) {
        for (feed, state) in feeds.iter().zip(&resume.feeds) {
            let FeedState::Again { reset, .. } = state else { continue };
            let returns = !known.feeds.contains_key(&feed.name);
            let reason = if returns { "it was published before" } else { "that was begun or asked for" };
            self.acts("checkpoint", reread(feed, *reset, reason));
        }
        let table_changes = match source.unseen(resume).await {
            Ok(table_changes) => table_changes,
            Err(error) => return self.found("source", &error),
        };
        for TableChange { feed, reread: reason, .. } in table_changes {
            let feed = feeds.get(feed);
            let is_begun = resume.feeds.get(feed.id.index()).is_some_and(|state| state.start().is_some());
            if let Some(Reread { reset, reason }) = reason.filter(|_| is_begun) {
                self.acts("source", reread(feed, reset, &reason));
            }
        }
    }

    fn acts(&mut self, part: &'static str, action: String) {
        self.report.actions.push(Action { part, action });
    }

    fn report<E: Classify>(&mut self, part: &'static str, findings: Result<Findings, E>, is_complete: bool) {
        self.report.looked_at.push(part);
        let Findings { actions, refusals, warnings } = match findings {
            Ok(findings) => findings,
            Err(error) => return self.found(part, &error),
        };
        // What is done for some of the feeds is not what a start would do.
        if is_complete {
            self.report.actions.extend(actions.into_iter().map(|action| Action { part, action }));
        }
        for found in refusals {
            self.push(Severity::Error, part, found.code, found.message);
        }
        for found in warnings {
            self.push(Severity::Warning, part, found.code, found.message);
        }
    }

    fn all<E: Classify>(&mut self, part: &'static str, errors: &[E]) {
        for error in errors {
            self.found(part, error);
        }
    }

    fn found(&mut self, part: &'static str, error: &impl Classify) {
        let failure = Failure::of(error);
        // A start waits for whoever holds the pipeline, who is often the one that runs.
        let severity = if failure.code.exit() == Exit::Held { Severity::Warning } else { Severity::Error };
        self.push(severity, part, failure.code, failure.message);
    }

    /// Writes a finding down, once.
    fn push(&mut self, severity: Severity, part: &'static str, code: Code, message: String) {
        let finding = Finding::new(severity, part, code, message);
        if !self.report.findings.contains(&finding) {
            self.report.findings.push(finding);
        }
    }
}

/// What a start does with a table whose rows are to be read again.
fn reread(feed: &Feed, reset: bool, reason: &str) -> String {
    let name = &feed.name;
    match (feed.prefeed.is_read(), reset) {
        (true, true) => format!("read table {name} again after a reset: {reason}"),
        (true, false) => format!("read table {name} again: {reason}"),
        (false, _) => format!("not read table {name} again, since its prefeed is neither \"snapshot\" nor a query, although {reason}"),
    }
}
