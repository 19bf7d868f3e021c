//! The reading thread: reads the log into pages, and compares the tables' definitions with the triggers.

use crate::checkpoint;
use crate::source::live::TableChange;
use crate::source::sqlite::capture::OnLostTriggers;
use crate::source::sqlite::database::Database;
use crate::source::sqlite::error::Error;
use crate::source::sqlite::layout::Layout;
use crate::source::sqlite::log_query::{self, Width};
use crate::source::sqlite::log_row::Anchor;
use crate::source::sqlite::open::OpenFile;
use crate::source::sqlite::operation;
use crate::source::sqlite::page::Page;
use crate::source::sqlite::sql::quoted;
use crate::source::sqlite::wake::{CommitWait, Stop};
use rusqlite::{Connection, OptionalExtension as _};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What the thread sends.
#[derive(Debug)]
pub(super) enum Message {
    /// A version of a table that rows from here on may belong to.
    Layout(i64, Arc<Layout>),
    /// Tables that changed.
    TableChanges(Vec<TableChange>),
    /// Rows, perhaps none. Every row with a number below `next` is in this page or in an earlier one.
    Page {
        /// The rows.
        page: Page,
        /// The first number that is not read yet.
        next: i64,
    },
    /// The thread has ended.
    Failed(Error),
}

/// Reads one log.
pub(super) struct Reader {
    pub(super) database: Database,
    pub(super) connection: Connection,
    pub(super) file: OpenFile,
    /// The first number that is not read yet.
    pub(super) next: i64,
    /// The last row that was read.
    pub(super) last: Option<Anchor>,
    /// `PRAGMA schema_version` when the definitions were last compared with the triggers.
    pub(super) definitions: i64,
    /// When that was. Whoever writes to `sqlite_schema` directly does not change the version.
    pub(super) compared: Instant,
    /// How the tables were seen last, by feed.
    pub(super) known: Vec<Option<checkpoint::Layout>>,
    /// Rows below this were written by triggers that knew their table. Rows from here on must not be trimmed.
    pub(super) settled: Arc<AtomicI64>,
    pub(super) stop: Arc<Stop>,
    pub(super) pages: mpsc::Sender<Message>,
    /// Used pages.
    pub(super) spent: std::sync::mpsc::Receiver<Page>,
    /// By version.
    pub(super) layouts: HashMap<i64, Arc<Layout>>,
    pub(super) width: Width,
}

/// How reading one page ended.
enum PageRead {
    /// The page is full: there may be more rows.
    More,
    /// The end of the log.
    End,
    /// The end of the log. Definitions could not be compared, because the application holds the write lock.
    Busy,
}

impl Reader {
    /// Between two checks of the file's inode.
    const FILE_CHECK: Duration = Duration::from_secs(1);
    /// Between two comparisons of definitions whose version has not changed, while somebody writes.
    const COMPARE_PERIOD: Duration = Duration::from_mins(1);
    /// How long a comparison waits for the application's write lock.
    const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

    /// Runs until it fails or is asked to stop.
    pub(super) fn run(mut self) {
        if let Err(error) = self.follow() {
            // Fails where the source has been dropped.
            let _dropped = self.pages.blocking_send(Message::Failed(error));
        }
    }

    fn follow(&mut self) -> Result<(), Error> {
        let mut wait = CommitWait::new(&self.database.path, Arc::clone(&self.stop));
        let mut checked = Instant::now();
        loop {
            let version = self.data_version()?;
            let is_busy = loop {
                if self.stop.is_asked() {
                    return Ok(());
                }
                match self.read_page()? {
                    PageRead::More => {}
                    PageRead::End => break false,
                    PageRead::Busy => break true,
                }
            };
            if is_busy {
                wait.expect_more();
            }
            loop {
                if Self::FILE_CHECK <= checked.elapsed() {
                    self.file.check()?;
                    checked = Instant::now();
                }
                wait.pause();
                if self.stop.is_asked() {
                    return Ok(());
                }
                if self.data_version()? != version {
                    wait.saw_a_commit();
                    break;
                }
                if is_busy {
                    break;
                }
            }
        }
    }

    fn failed(&self, action: &'static str) -> impl Fn(rusqlite::Error) -> Error + use<> {
        let path = self.database.path.clone();
        move |source| Error::sqlite(action, &path, source)
    }

    fn data_version(&self) -> Result<i64, Error> {
        let mut statement = self.connection.prepare_cached("PRAGMA data_version").map_err(self.failed("look for a commit"))?;
        statement.query_row([], |row| row.get(0)).map_err(self.failed("look for a commit"))
    }

    /// Reads and sends one page, in one read transaction. At the end of the log it compares definitions.
    fn read_page(&mut self) -> Result<PageRead, Error> {
        let failed = self.failed("read the change log");
        let mut page = self.spent.try_recv().unwrap_or_default();
        page.clear();
        let before = self.next;
        self.connection.execute_batch("BEGIN").map_err(&failed)?;
        let read = self.fill_page(&mut page);
        let end = self.connection.execute_batch("COMMIT").map_err(&failed);
        let (outcome, definitions) = read?;
        end?;
        let is_end = matches!(outcome, PageRead::End);
        self.database.checked.moved(self.next, self.last);
        if is_end && definitions == self.definitions {
            self.settled.store(self.next, Ordering::Release);
        }
        if self.next != before {
            self.send(Message::Page { page, next: self.next })?;
        }
        if is_end && (definitions != self.definitions || Self::COMPARE_PERIOD <= self.compared.elapsed()) {
            // Everything in the log is sent already: a table that cannot be followed holds up nothing that comes before.
            return self.compare(definitions);
        }
        Ok(outcome)
    }

    fn fill_page(&mut self, page: &mut Page) -> Result<(PageRead, i64), Error> {
        let failed = self.failed("read the change log");
        let definitions = self.connection.query_row("PRAGMA main.schema_version", [], |row| row.get(0)).map_err(&failed)?;
        let head = self.database.checked.check(&self.database.history(&self.connection), self.next, self.last)?;
        let outcome = loop {
            match self.rows(page)? {
                Some(unknown) => self.load_layout(unknown)?,
                None if page.is_full() => break PageRead::More,
                None => {
                    // The last numbers may have no row: a replaced row's log row is deleted again.
                    self.next = self.next.max(head);
                    break PageRead::End;
                }
            }
        };
        Ok((outcome, definitions))
    }

    /// Appends rows to the page. Returns the version of the next row, if its layout is not known yet.
    fn rows(&mut self, page: &mut Page) -> Result<Option<i64>, Error> {
        let failed = self.failed("read the change log");
        let sql = log_query::select(&self.database.names, self.width);
        let mut statement = self.connection.prepare_cached(&sql).map_err(&failed)?;
        let mut rows = statement.query([self.next]).map_err(&failed)?;
        while !page.is_full() {
            let Some(row) = rows.next().map_err(&failed)? else { break };
            let heading = log_query::heading(row).map_err(&failed)?;
            if heading.op != operation::MARK {
                let Some(layout) = self.layouts.get(&heading.tid) else { return Ok(Some(heading.tid)) };
                log_query::push(page, row, heading, Some(layout), self.width).map_err(&failed)?;
                self.last = page.newest();
            }
            self.next = heading.seq + 1;
        }
        Ok(None)
    }

    /// Reads and sends the layout of a version. A new version may have widened the log.
    fn load_layout(&mut self, tid: i64) -> Result<(), Error> {
        let failed = self.failed("read the captured tables");
        let sql = format!("SELECT layout FROM main.{} WHERE tid = ?1", quoted(&self.database.names.tables));
        let text: Option<String> = self.connection.query_row(&sql, [tid], |row| row.get(0)).optional().map_err(&failed)?;
        let text = text.ok_or_else(|| Error::Malformed { what: format!("the description of table version {tid}") })?;
        let layout = Arc::new(Layout::parse(tid, &text)?);
        self.width = Width::read(&self.connection, &self.database.names).map_err(&failed)?;
        self.layouts.insert(tid, Arc::clone(&layout));
        self.send(Message::Layout(tid, layout))
    }

    /// Brings the triggers in line with the tables, in transactions of its own.
    fn compare(&mut self, definitions: i64) -> Result<PageRead, Error> {
        self.connection.busy_timeout(Self::BUSY_TIMEOUT).map_err(self.failed("wait for the application"))?;
        let capture = self.database.capture();
        let settled = self.settled.load(Ordering::Acquire);
        match capture.follow(&mut self.connection, settled, |_| OnLostTriggers::Refuse) {
            // Our own commit does not change the data version. So the next page is read at once; it finds everything in line.
            Ok(true) => {
                tracing::info!("rebuilt the triggers after a change of a table's definition");
                Ok(PageRead::More)
            }
            Ok(false) => {
                let table_changes = capture.table_changes(&self.connection, &mut self.known)?;
                self.definitions = definitions;
                self.compared = Instant::now();
                self.settled.store(self.next, Ordering::Release);
                if !table_changes.is_empty() {
                    self.send(Message::TableChanges(table_changes))?;
                }
                Ok(PageRead::End)
            }
            Err(error) if error.is_busy() => {
                tracing::debug!(%error, "definitions cannot be compared now: the database is locked");
                Ok(PageRead::Busy)
            }
            Err(error) => Err(error),
        }
    }

    fn send(&self, message: Message) -> Result<(), Error> {
        self.pages.blocking_send(message).map_err(|_| Error::Ended)
    }
}
