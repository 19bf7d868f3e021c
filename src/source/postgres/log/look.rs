//! Looks beside the log: what the catalogue says of the feeds' tables, each minute and whenever the log describes one.

use super::{LOOK_TIMEOUT, Log, leads_elsewhere};
use crate::event::FeedId;
use crate::fault::Code;
use crate::feed::Feed;
use crate::source::TableChange;
use crate::source::postgres::error::Error;
use crate::source::postgres::flow::Shown;
use crate::source::postgres::session::{Mode, Session};
use crate::source::postgres::survey::{self, Survey};
use crate::source::postgres::token::Lsn;
use crate::source::postgres::{publication, tables};
use tokio::time::{Instant, timeout};

impl Log {
    /// Looks whether the publication still holds every table, and whether rows changed without a word in the log. That it could
    /// not be looked at is no reason to stop.
    pub(super) async fn look_at_catalogue(&mut self) -> Result<(), Error> {
        self.looked_at = Instant::now();
        let look = async {
            let mut session = Session::open(&self.options, Mode::Ordinary).await?;
            publication::check_whole(&self.options, &self.feeds, &mut session).await?;
            let known = |feed: &Feed| self.layouts[feed.id.index()].as_ref().and_then(survey::membership);
            let begun = self.feeds.iter().filter(|feed| self.flow.has_begun(feed.id)).map(|feed| (feed, known(feed)));
            publication::check_kept(&self.options, begun, &mut session).await?;
            let problems = tables::check::look(&self.options, &self.feeds, &mut session).await?;
            let survey = survey::survey(&self.options, &self.feeds, &self.layouts, &mut session).await?;
            Ok((problems, survey, survey::newcomers(&self.feeds, &mut session).await?))
        };
        match timeout(LOOK_TIMEOUT, look).await {
            Ok(Err(
                lost @ (Error::LogLost { .. } | Error::Publication { .. } | Error::PublicationUnfit { .. } | Error::Keyless { .. }),
            )) => return Err(lost),
            Ok(Err(error)) if leads_elsewhere(&error) => return Err(error),
            Ok(Err(error)) => tracing::debug!(%error, "the catalogue could not be looked at"),
            Ok(Ok((problems, survey, newcomers))) => {
                for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
                    tracing::warn!(code = %Code::TableKeyless, "{problem}");
                }
                self.problems = problems;
                self.sight(survey);
                self.compare_shown();
                if self.newcomers != newcomers {
                    let tables = newcomers.join(", ");
                    tracing::warn!(
                        tables,
                        "made since the start and meant by the feeds: published from the next start on, existing rows included"
                    );
                    self.newcomers = newcomers;
                }
            }
            Err(_) => tracing::debug!("the catalogue did not answer in time"),
        }
        Ok(())
    }

    /// Remembers what was noticed, until it is asked for.
    pub(crate) fn sight(&mut self, survey: Survey) {
        for table_change in survey.table_changes {
            if table_change.reread.is_some() {
                self.overtaken[table_change.feed.index()] = survey.head;
            }
            survey::teach([&table_change.layout], &mut self.types);
            self.layouts[table_change.feed.index()] = Some(table_change.layout.clone());
            self.table_changes.push(table_change);
        }
    }

    /// Nothing that the log shows of this feed's table before this place matters.
    pub(crate) fn overtake(&mut self, feed: FeedId, head: Lsn) {
        self.overtaken[feed.index()] = head;
    }

    /// Compares what the log showed with what the looks saw. Columns that were renamed and named back between two looks left rows with
    /// other names behind, and nothing in the catalogue tells of it.
    fn compare_shown(&mut self) {
        for Shown { feed, columns, commit } in std::mem::take(self.flow.shown()) {
            let Some(layout) = &self.layouts[feed.index()] else { continue };
            if commit < self.overtaken[feed.index()] || survey::has_had(layout, &columns) {
                continue;
            }
            let reread = Some(survey::renamed_for_a_while(&columns));
            self.table_changes.push(TableChange { feed, layout: layout.clone(), reread });
        }
    }
}
