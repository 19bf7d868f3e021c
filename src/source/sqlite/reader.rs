//! The reading thread: follows the log, and the tables' definitions with it, and hands over pages.

use crate::checkpoint;
use crate::feed::Feeds;
use crate::source::TableChange;
use crate::source::sqlite::capture::{Capture, Lost, Names, parse_layout};
use crate::source::sqlite::history::{self, Anchor, History, Proved, Width};
use crate::source::sqlite::identity::File;
use crate::source::sqlite::page::{Heading, Page};
use crate::source::sqlite::schema::Layout;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::trigger::op;
use crate::source::sqlite::wake::{Stop, Wake};
use crate::source::sqlite::{Error, error};
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What the thread hands over.
#[derive(Debug)]
pub(super) enum Message {
    /// The version of a table that rows from here on may belong to.
    Layout(i64, Arc<Layout>),
    /// How tables look now, where that is not as they were seen last.
    TableChanges(Vec<TableChange>),
    /// Rows, perhaps none; every row with a number below `next` is in this page or came before.
    Page {
        /// The rows.
        page: Page,
        /// The first number that has not been read.
        next: i64,
    },
    /// The thread has ended.
    Failed(Error),
}

/// Follows one log.
pub(super) struct Reader {
    pub(super) connection: Connection,
    /// For triggers: made only where a table's definition changes.
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) names: Names,
    pub(super) feeds: Arc<Feeds>,
    /// The first number that has not been read.
    pub(super) next: i64,
    /// What the definitions were when they were last compared with the triggers.
    pub(super) definitions: i64,
    /// When that was: who writes the schema's own table leaves no sign.
    pub(super) compared: Instant,
    /// How the tables were seen last, by feed.
    pub(super) known: Vec<Option<checkpoint::Layout>>,
    /// Rows below this were written by triggers that knew their table; what is not below it must not be trimmed.
    pub(super) settled: Arc<AtomicI64>,
    pub(super) stop: Arc<Stop>,
    pub(super) pages: mpsc::Sender<Message>,
    pub(super) spent: std::sync::mpsc::Receiver<Page>,
    pub(super) layouts: HashMap<i64, Arc<Layout>>,
    /// How many key and value columns the log has.
    pub(super) width: Width,
    /// The last row that was read.
    pub(super) last: Option<Anchor>,
    /// The same, for who else looks at this log.
    pub(super) proved: Proved,
}

/// What one look brought.
enum Look {
    /// A full page: more is waiting.
    More,
    /// The end of the log.
    End,
    /// The end of the log, and definitions that are still to be compared: the application is writing.
    Busy,
}

impl Reader {
    /// Between two looks at the file's inode.
    const FILE_CHECK: Duration = Duration::from_secs(1);
    /// Between two comparisons of definitions where nothing says that they changed, while somebody writes.
    const COMPARE_PERIOD: Duration = Duration::from_mins(1);
    /// How long the thread waits for the application's transaction to compare definitions.
    const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

    /// Runs until it fails or is asked to stop.
    pub(super) fn run(mut self) {
        if let Err(error) = self.follow() {
            // Where nobody listens any more, the source has been dropped.
            let _dropped = self.pages.blocking_send(Message::Failed(error));
        }
    }

    fn follow(&mut self) -> Result<(), Error> {
        let mut wake = Wake::new(&self.path, Arc::clone(&self.stop));
        let mut checked = Instant::now();
        loop {
            let version = self.data_version()?;
            let is_busy = loop {
                if self.stop.is_asked() {
                    return Ok(());
                }
                match self.look()? {
                    Look::More => {}
                    Look::End => break false,
                    Look::Busy => break true,
                }
            };
            if is_busy {
                wake.was_kept_waiting();
            }
            loop {
                if Self::FILE_CHECK <= checked.elapsed() {
                    self.file.check()?;
                    checked = Instant::now();
                }
                wake.pause();
                if self.stop.is_asked() {
                    return Ok(());
                }
                if self.data_version()? != version {
                    wake.saw_a_commit();
                    break;
                }
                if is_busy {
                    break;
                }
            }
        }
    }

    fn failed(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> Error + use<> {
        let path = self.path.clone();
        move |source| error::Error::sqlite(action, &path, source)
    }

    fn history(&self) -> History<'_> {
        History { connection: &self.connection, names: &self.names, path: &self.path }
    }

    fn data_version(&self) -> Result<i64, Error> {
        let mut statement = self.connection.prepare_cached("PRAGMA data_version").map_err(self.failed("look for a commit"))?;
        statement.query_row([], |row| row.get(0)).map_err(self.failed("look for a commit"))
    }

    /// Reads one page in one read transaction.
    fn look(&mut self) -> Result<Look, Error> {
        let failed = self.failed("read the change log");
        let mut page = self.spent.try_recv().unwrap_or_default();
        page.clear();
        let before = self.next;
        self.connection.execute_batch("BEGIN").map_err(&failed)?;
        let read = self.read(&mut page);
        let end = self.connection.execute_batch("COMMIT").map_err(&failed);
        let (look, definitions) = read?;
        end?;
        let is_end = matches!(look, Look::End);
        self.proved.moved(self.next, self.last);
        if is_end && definitions == self.definitions {
            self.settled.store(self.next, Ordering::Release);
        }
        if self.next != before {
            self.send(Message::Page { page, next: self.next })?;
        }
        if is_end && (definitions != self.definitions || Self::COMPARE_PERIOD <= self.compared.elapsed()) {
            // What the log holds has been handed over, so that a table that cannot be followed stops nothing before it.
            return self.compare(definitions);
        }
        Ok(look)
    }

    fn read(&mut self, page: &mut Page) -> Result<(Look, i64), Error> {
        let failed = self.failed("read the change log");
        let definitions = self.connection.query_row("PRAGMA main.schema_version", [], |row| row.get(0)).map_err(&failed)?;
        let head = self.proved.check(&self.history(), self.next, self.last)?;
        let look = loop {
            match self.rows(page)? {
                Some(unknown) => self.learn(unknown)?,
                None if page.is_full() => break Look::More,
                None => {
                    // Numbers may be missing at the end: a row that was replaced leaves none behind.
                    self.next = self.next.max(head);
                    break Look::End;
                }
            }
        };
        Ok((look, definitions))
    }

    /// Fills the page; returns the table version of the next row where it is not known yet.
    fn rows(&mut self, page: &mut Page) -> Result<Option<i64>, Error> {
        let failed = self.failed("read the change log");
        let sql = history::select(&self.names, self.width);
        let mut statement = self.connection.prepare_cached(&sql).map_err(&failed)?;
        let mut rows = statement.query([self.next]).map_err(&failed)?;
        while !page.is_full() {
            let Some(row) = rows.next().map_err(&failed)? else { break };
            let number = |index: usize| row.get::<_, i64>(index).map_err(&failed);
            let heading = Heading { seq: number(0)?, tid: number(1)?, op: number(2)?, at: number(3)? };
            if heading.op != op::MARK {
                let Some(layout) = self.layouts.get(&heading.tid) else { return Ok(Some(heading.tid)) };
                history::push(page, row, heading, Some(layout), self.width).map_err(&failed)?;
                self.last = page.newest();
            }
            self.next = heading.seq + 1;
        }
        Ok(None)
    }

    /// Reads what a table version's rows hold. A new one may have made the log wider.
    fn learn(&mut self, tid: i64) -> Result<(), Error> {
        let failed = self.failed("read the captured tables");
        let sql = format!("SELECT layout FROM main.{} WHERE tid = ?1", quoted(&self.names.tables));
        let text: Option<String> = self.connection.query_row(&sql, [tid], |row| row.get(0)).optional().map_err(&failed)?;
        let text = text.ok_or_else(|| Error::Malformed { what: format!("the description of table version {tid}") })?;
        let layout = Arc::new(parse_layout(tid, &text)?);
        self.width = history::width(&self.connection, &self.names).map_err(&failed)?;
        self.layouts.insert(tid, Arc::clone(&layout));
        self.send(Message::Layout(tid, layout))
    }

    /// Brings the triggers in line with the tables, in a transaction of its own.
    fn compare(&mut self, definitions: i64) -> Result<Look, Error> {
        self.connection.busy_timeout(Self::BUSY_TIMEOUT).map_err(self.failed("wait for the application"))?;
        let capture = Capture { names: &self.names, feeds: &self.feeds, path: &self.path };
        let settled = self.settled.load(Ordering::Acquire);
        match capture.follow(&mut self.connection, settled, |_| Lost::Refuse) {
            // Our own change is no commit of others: what it logged is read by a look of its own, which finds all in line.
            Ok(true) => {
                tracing::info!("rebuilt the triggers after a change of a table's definition");
                Ok(Look::More)
            }
            Ok(false) => {
                let table_changes = capture.table_changes(&self.connection, &mut self.known)?;
                self.definitions = definitions;
                self.compared = Instant::now();
                self.settled.store(self.next, Ordering::Release);
                if !table_changes.is_empty() {
                    self.send(Message::TableChanges(table_changes))?;
                }
                Ok(Look::End)
            }
            Err(error) if error.is_busy() => {
                tracing::debug!(%error, "compare definitions again at the next look");
                Ok(Look::Busy)
            }
            Err(error) => Err(error),
        }
    }

    fn send(&self, message: Message) -> Result<(), Error> {
        self.pages.blocking_send(message).map_err(|_| Error::Ended)
    }
}
