//! Checks the catalogue while the log is read: whether the publication still holds the feeds' tables, and whether rows changed in ways
//! that the log does not show. It does so every minute, and when the log describes a table again.

use crate::checkpoint::Layout;
use crate::event::FeedId;
use crate::fault::Code;
use crate::feed::{Feed, Feeds};
use crate::source::postgres::error::Error;
use crate::source::postgres::flow::{Flow, ShownColumns};
use crate::source::postgres::options::Options;
use crate::source::postgres::publication::{self, Definition};
use crate::source::postgres::session::{Mode, Session};
use crate::source::postgres::survey::{self, Survey};
use crate::source::postgres::tables;
use crate::source::postgres::token::{Lsn, Token};
use crate::source::postgres::types::Types;
use crate::source::{Emission, TableChange};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How often the catalogue is checked.
const INTERVAL: Duration = Duration::from_mins(1);
/// How long one check may take.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct CatalogueWatch {
    options: Options,
    feeds: Arc<Feeds>,
    /// When the last check started.
    checked_at: Instant,
    /// How each feed's table looked at the last check.
    layouts: Vec<Option<Layout>>,
    /// By feed: columns that the log shows before this position do not matter, because the rows are read again at a later one.
    ignored_before: Vec<Lsn>,
    /// What was found, until the engine takes it.
    table_changes: Vec<TableChange>,
    /// The problems of the last check. Each is logged once.
    problems: Vec<String>,
}

impl CatalogueWatch {
    pub(super) fn new(options: Options, feeds: Arc<Feeds>, layouts: Vec<Option<Layout>>) -> Self {
        Self {
            options,
            feeds,
            checked_at: Instant::now(),
            ignored_before: vec![Lsn::default(); layouts.len()],
            layouts,
            table_changes: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn is_due(&self) -> bool {
        INTERVAL <= self.checked_at.elapsed()
    }

    pub(super) fn take_table_changes(&mut self) -> Vec<TableChange> {
        std::mem::take(&mut self.table_changes)
    }

    /// Ignores what the log shows of the columns of this feed's table before `position`.
    pub(super) fn ignore_columns_before(&mut self, feed: FeedId, position: Lsn) {
        self.ignored_before[feed.index()] = position;
    }

    /// Checks the catalogue once. A check that fails or takes too long is no reason to stop.
    ///
    /// # Errors
    /// If a table cannot be followed any more, or another primary answers.
    pub(super) async fn check(&mut self, flow: &mut Flow, types: &mut Types, written: &Emission<Token>) -> Result<(), Error> {
        self.checked_at = Instant::now();
        let check = async {
            let mut session = Session::open(&self.options, Mode::Ordinary).await?;
            let publication = Definition::read(&self.options, &mut session).await?;
            publication::check_whole(&self.options, &self.feeds, publication.as_ref(), &mut session).await?;
            let known = |feed: &Feed| self.layouts[feed.id.index()].as_ref().and_then(survey::membership);
            let begun = self.feeds.iter().filter(|feed| written.has_started(feed.id)).map(|feed| (feed, known(feed)));
            publication::check_kept(&self.options, publication.as_ref(), begun)?;
            let problems = tables::check::look(&self.options, &self.feeds, &mut session).await?;
            let survey = survey::survey(&self.options, &self.feeds, &self.layouts, publication.as_ref(), &mut session).await?;
            Ok((problems, survey))
        };
        match timeout(TIMEOUT, check).await {
            Ok(Err(
                fatal @ (Error::LogLost { .. } | Error::Publication { .. } | Error::PublicationUnfit { .. } | Error::Keyless { .. }),
            )) => return Err(fatal),
            Ok(Err(error)) if error.is_other_primary() => return Err(error),
            Ok(Err(error)) => tracing::debug!(%error, "the catalogue could not be checked"),
            Ok(Ok((problems, survey))) => {
                for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
                    tracing::warn!(code = %Code::TableKeyless, "{problem}");
                }
                self.problems = problems;
                self.record(survey, types);
                self.compare_columns(flow);
            }
            Err(_) => tracing::debug!("checking the catalogue took too long"),
        }
        Ok(())
    }

    /// Remembers what a survey found, until the engine takes it.
    pub(super) fn record(&mut self, survey: Survey, types: &mut Types) {
        for table_change in survey.table_changes {
            if table_change.reread.is_some() {
                self.ignored_before[table_change.feed.index()] = survey.head;
            }
            survey::teach([&table_change.layout], types);
            self.layouts[table_change.feed.index()] = Some(table_change.layout.clone());
            self.table_changes.push(table_change);
        }
    }

    /// Compares the columns that the log showed with those that the surveys saw. A column that was renamed and renamed back between two
    /// surveys leaves no trace in the catalogue, but rows were published with the other name.
    fn compare_columns(&mut self, flow: &mut Flow) {
        for ShownColumns { feed, columns, commit } in flow.take_shown_columns() {
            let Some(layout) = &self.layouts[feed.index()] else { continue };
            if commit < self.ignored_before[feed.index()] || survey::has_had(layout, &columns) {
                continue;
            }
            let reread = Some(survey::renamed_for_a_while(&columns));
            self.table_changes.push(TableChange { feed, layout: layout.clone(), reread });
        }
    }
}
