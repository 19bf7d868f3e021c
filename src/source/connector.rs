//! The port to one database: what a start prepares and checks, and what opens the log, the prefeed and the probe.

use crate::checkpoint::{FeedState, Identity, Layout, ResumeToken};
use crate::event::FeedId;
use crate::fault::Classify;
use crate::feed::{Catalogue, Feeds};
use crate::preflight::Findings;
use crate::source::live::{Source, TableChange};
use crate::source::prefeed::Prefeed;
use crate::source::probe::Probe;
use crate::source::token::LogToken as _;
use std::sync::Arc;

/// Prepares one database, and opens its log, its prefeed and its probe.
///
/// One task owns it and calls one method at a time. The order of the calls at a start:
///
/// 1. The preflight: [`Self::catalogue`]; with a checkpoint [`Self::recognize`]; then [`Self::select`] and [`Self::preflight`]; without a
///    checkpoint [`Self::unclaimed`] and [`Self::identity`].
/// 2. Without a checkpoint the *intent* is saved: a checkpoint without a token.
/// 3. Without a token in the checkpoint [`Self::establish`] and [`Self::identity`]; then the checkpoint is saved.
/// 4. [`Self::probe`] once; [`Self::connect`] for each session; [`Self::prefeed`] in a session that has rows to send;
///    [`Self::renew`] after a gap, if the configuration says so.
///
/// `feedline check` makes the same preflight, then calls [`Self::resumable`] and [`Self::unseen`] with the checkpoint.
///
/// Only [`Self::establish`], [`Self::connect`], [`Self::renew`] and [`Self::detach`] may change anything in the database. Every
/// connection that is opened for any method proves that it reached the known server before what that server says is used (G6).
///
/// Errors, where nothing else is said: [`Classify::fault`] decides. A transient error is tried again from the beginning of the start
/// (1 to 3) or with a new session (4); each method must therefore work again after it failed or was dropped half-way. Other errors end
/// the run. A call is only dropped when the pipeline stops.
pub trait SourceConnector: Send + 'static {
    /// The log.
    type Source: Source<Error = Self::Error>;
    /// The existing rows.
    type Prefeed: Prefeed<Error = Self::Error>;
    /// The end of the log.
    type Probe: Probe<Error = Self::Error>;
    /// Why a call failed.
    type Error: Classify;

    /// Lists the tables that the database has, with columns and primary keys. Changes nothing.
    ///
    /// Called first at each start and by each command that looks at the source: the feeds' patterns are resolved with it.
    fn catalogue(&mut self) -> impl Future<Output = Result<Catalogue, Self::Error>> + Send;

    /// Returns what identifies this database. Changes nothing.
    ///
    /// Called at a first start before the intent is saved, and again after [`Self::establish`]; then it must not be empty. Before that it
    /// may be: an embedded database is identified by its change log, which `establish` makes.
    fn identity(&mut self) -> impl Future<Output = Result<Identity, Self::Error>> + Send;

    /// Refuses a database that is not the known one. Changes nothing.
    ///
    /// Called with the checkpoint's identity, before the checkpoint is adapted to what the database has, and before a detach. Values that
    /// `known` does not have are not compared.
    ///
    /// # Errors
    /// A gap with the code of a foreign source where another database answers; other errors where nothing answers.
    fn recognize(&mut self, known: &Identity) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Sets the feeds that the following calls serve. Called once per start, after [`Self::catalogue`].
    fn select(&mut self, feeds: Arc<Feeds>);

    /// Finds whether the log can be read (settings, privileges), whether every selected table can be followed (key, replica identity), what a
    /// start would change, and what is risky. Changes nothing.
    ///
    /// Called after [`Self::select`], at each start and by `check`. A start fails with all refusals at once, and logs the warnings.
    ///
    /// # Errors
    /// Where the database cannot be asked, and nothing was found that a person must act on.
    fn preflight(&mut self) -> impl Future<Output = Result<Findings, Self::Error>> + Send;

    /// Checks that nothing of this pipeline's name is in the database yet. Changes nothing.
    ///
    /// Called where there is no checkpoint at all, before the intent is saved. A slot or a change log without a checkpoint means that a
    /// checkpoint was lost, and with it the knowledge of what was sent. The default is for a database in which [`Self::establish`] makes
    /// nothing.
    ///
    /// # Errors
    /// An error with the code of a claimed source where something is there.
    fn unclaimed(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::ready(Ok(()))
    }

    /// Checks that the log can be opened where a checkpoint ends, as [`Self::connect`] would. Changes nothing.
    ///
    /// Called by `check` alone, also while the pipeline runs. The default is for a log that several can read, and in which
    /// [`Self::connect`] changes nothing.
    ///
    /// # Errors
    /// The error that `connect` would return.
    fn resumable(&mut self, known: &Identity, resume: &Resume) -> impl Future<Output = Result<(), Self::Error>> + Send {
        async { self.connect(known, resume).await.map(drop) }
    }

    /// Returns the table changes that a start from `resume` would find (`SourceProgress::table_changes`). Changes nothing.
    ///
    /// Called by `check` after [`Self::resumable`].
    fn unseen(&mut self, _resume: &Resume) -> impl Future<Output = Result<Vec<TableChange>, Self::Error>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Makes what the source needs (slot, publication, triggers) and returns where its log begins.
    ///
    /// Called where no token is known, after the intent is durable. Afterwards every change of the selected tables behind the returned
    /// token is kept by the database until it is acknowledged.
    ///
    /// # Errors
    /// As for all calls. After an error or a crash the next start calls it again: it takes over what an earlier call made.
    fn establish(&mut self) -> impl Future<Output = Result<ResumeToken, Self::Error>> + Send;

    /// Opens the log at `resume.token`.
    ///
    /// Called for each session: at a start with the checkpoint's state, after a restart with the state in memory. `known` identifies the
    /// database of the checkpoint. It may adapt what `establish` made to the selected feeds (triggers, publication).
    ///
    /// # Errors
    /// A gap where `known` is another database, or where the log does not hold what follows the token. Then, with
    /// `source.on_gap = "prefeed"`, [`Self::renew`] is called; otherwise the run ends.
    fn connect(&mut self, known: &Identity, resume: &Resume) -> impl Future<Output = Result<Self::Source, Self::Error>> + Send;

    /// Finds or makes a position after a gap at which the log can go on.
    ///
    /// Called after an error of [`Self::connect`] or of the session says that the log is lost or was rewound, with the state with which
    /// the next session would have resumed. The returned progress is durable before the log is opened: until then each start must find
    /// the gap again, so nothing may be changed that would hide it.
    ///
    /// # Errors
    /// Refused where the database is not the known one, and where positions from there on would not sort behind those that were
    /// published. Such an error ends the run.
    fn renew(&mut self, known: &Identity, lost: &Resume) -> impl Future<Output = Result<Renewed, Self::Error>> + Send;

    /// Returns whether going on at `token` instead of at `stored` leaves changes out. Also `true` where `stored` cannot be read, so that
    /// it is unknown.
    ///
    /// Called by `feedline checkpoint rewind --token`, and after the rows of a file were sent. It asks no server.
    ///
    /// # Errors
    /// Where `token` is not a position in this source's log.
    fn skips(&self, stored: &ResumeToken, token: &ResumeToken) -> Result<bool, Self::Error> {
        let token = Token::<Self>::parse(token)?;
        Ok(Token::<Self>::parse(stored).map_or(true, |stored| stored.is_before(&token)))
    }

    /// Opens a connection for the prefeed.
    ///
    /// Called in a session that has rows to send, after [`Self::connect`].
    fn prefeed(&mut self) -> impl Future<Output = Result<Self::Prefeed, Self::Error>> + Send;

    /// Opens a connection for the probe. Called once, before the first session.
    fn probe(&mut self) -> impl Future<Output = Result<Self::Probe, Self::Error>> + Send;

    /// Removes everything from the database that the pipeline made there.
    ///
    /// Called by `feedline detach`, after [`Self::recognize`] if there is a checkpoint. Returns a line for each thing that was removed, and
    /// for each that stays because others are to drop it. Where nothing is there it returns no line. The default is for a database in which
    /// [`Self::establish`] makes nothing.
    fn detach(&mut self) -> impl Future<Output = Result<Vec<String>, Self::Error>> + Send {
        std::future::ready(Ok(Vec::new()))
    }
}

/// A position in a connector's log.
type Token<C> = <<C as SourceConnector>::Source as Source>::Token;

/// Where a session resumes: from the checkpoint at a start, from memory after a restart of the source side.
#[derive(Clone, Debug)]
pub struct Resume {
    /// Everything before it has been handed over.
    pub token: ResumeToken,
    /// State of each feed, by [`FeedId`].
    pub feeds: Vec<FeedState>,
    /// How each feed's table was seen last, by [`FeedId`].
    pub layouts: Vec<Option<Layout>>,
}

/// Where the log goes on after a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The token at which the log goes on.
    pub token: ResumeToken,
    /// The feeds of which changes are missing: their rows are read again.
    pub feeds: Vec<FeedId>,
}
