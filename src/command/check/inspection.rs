//! Inspects source, sink and checkpoint, each as far as possible, even if another one has errors.

use super::report::{Action, PublishedTable, Report, Severity};
use crate::assemble::Visit;
use crate::assemble::store::Store;
use crate::checkpoint::{Checkpoint, FeedState};
use crate::config::Plan;
use crate::fault::{Classify, Exit};
use crate::feed::{Feed, Feeds};
use crate::pipeline::{Failure, Known, Observer, Part, agreement, note, preflight};
use crate::preflight::{Findings, Warning};
use crate::sink::SinkConnector;
use crate::source::{Reread, Resume, SourceConnector, TableChange};
use std::convert::Infallible;

/// How often a checkpoint is checked again that a running pipeline has replaced meanwhile.
const ATTEMPTS: usize = 5;

/// Inspects the connectors of a plan and adds to the report.
pub(super) struct Inspection<'p> {
    pub(super) plan: &'p Plan,
    pub(super) report: &'p mut Report,
}

/// An error that is in the report.
struct Reported;

impl Visit for Inspection<'_> {
    type Output = ();

    async fn visit<C: SourceConnector, K: SinkConnector>(mut self, mut source: C, mut sink: K) {
        for part in [Part::Checkpoint, Part::Source, Part::Sink] {
            self.report.add_checked(name(part));
        }
        let stored = self.stored().await;
        let known = match &stored {
            Ok(Some(checkpoint)) => Known::Checkpoint(checkpoint),
            Ok(None) => Known::Nothing,
            Err(Reported) => Known::Unusable,
        };
        let settings = self.plan.pipeline.clone();
        let Ok(found) = preflight(&mut source, &mut sink, &settings, known, &mut self).await;
        for feed in found.feeds.iter() {
            let mut destinations: Vec<String> = feed.destinations_used().map(ToString::to_string).collect();
            destinations.dedup();
            self.report.tables.push(PublishedTable { table: feed.name.to_string(), key: feed.key.clone(), destinations });
        }
        if found.is_sink_reached {
            let findings = sink.preflight().await;
            self.add_findings(Part::Sink, findings, found.is_complete);
        }
        if let Ok(Some(checkpoint)) = stored
            && *checkpoint.name == *settings.name
            && found.is_source_reached
        {
            self.resume_position(&mut source, checkpoint, &found.feeds).await;
        }
    }
}

impl Observer for Inspection<'_> {
    type Stop = Infallible;

    fn refuse(&mut self, part: Part, problems: Vec<Failure>) -> Result<(), Infallible> {
        for Failure { code, message, .. } in problems {
            // A start waits for another instance, which is often the running pipeline itself.
            let severity = if code.exit() == Exit::Held { Severity::Warning } else { Severity::Error };
            self.report.add(severity, name(part), code, message);
        }
        Ok(())
    }

    fn note(&mut self, part: Part, actions: Vec<String>, warnings: Vec<Warning>) {
        self.report.actions.extend(actions.into_iter().map(|action| Action { part: name(part), action }));
        for Warning { code, message } in warnings {
            self.report.add(Severity::Warning, name(part), code, message);
        }
    }
}

impl Inspection<'_> {
    /// The stored checkpoint, read without a lock.
    async fn stored(&mut self) -> Result<Option<Checkpoint>, Reported> {
        let findings = Store::preflight(self.plan).await;
        let is_usable = findings.is_ok();
        self.add_findings(Part::Checkpoint, findings, true);
        if !is_usable {
            return Err(Reported);
        }
        Store::inspect(self.plan).await.map_err(|error| {
            self.add_error(Part::Checkpoint, &error);
            Reported
        })
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
                _ => return self.add_error(Part::Source, &error),
            }
        }
    }

    /// Adds the tables that a start would read again, with the reason.
    async fn rereads<C: SourceConnector>(&mut self, source: &mut C, checkpoint: &Checkpoint, feeds: &Feeds, resume: &Resume) {
        for (feed, state) in feeds.iter().zip(&resume.feeds) {
            let FeedState::Again { reset, .. } = state else { continue };
            let returns = !checkpoint.feeds.contains_key(&feed.name);
            let reason = if returns { "it was published before" } else { "this was requested, or begun before" };
            self.note(Part::Checkpoint, vec![reread_action(feed, *reset, reason)], Vec::new());
        }
        let table_changes = match source.unseen(resume).await {
            Ok(table_changes) => table_changes,
            Err(error) => return self.add_error(Part::Source, &error),
        };
        for TableChange { feed, reread, .. } in table_changes {
            let feed = feeds.get(feed);
            let is_begun = resume.feeds.get(feed.id.index()).is_some_and(|state| state.start().is_some());
            if let Some(Reread { reset, reason }) = reread.filter(|_| is_begun) {
                self.note(Part::Source, vec![reread_action(feed, reset, &reason)], Vec::new());
            }
        }
    }

    fn add_findings<E: Classify>(&mut self, part: Part, findings: Result<Findings, E>, is_complete: bool) {
        match findings {
            Ok(findings) => {
                let Ok(_is_fit) = note(self, part, findings, is_complete);
            }
            Err(error) => self.add_error(part, &error),
        }
    }

    fn add_error(&mut self, part: Part, error: &impl Classify) {
        let Ok(()) = self.refuse(part, vec![Failure::of(error)]);
    }
}

/// The part's name in the report.
const fn name(part: Part) -> &'static str {
    match part {
        Part::Checkpoint => "checkpoint",
        Part::Source => "source",
        Part::Sink => "sink",
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
