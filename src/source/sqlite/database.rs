//! One database, with what every thread that works on it needs to know.

use crate::feed::Feeds;
use crate::source::sqlite::capture::Capture;
use crate::source::sqlite::history::{CheckedLog, History};
use crate::source::sqlite::names::Names;
use crate::source::sqlite::options::Options;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::Arc;

/// One database, for one pipeline. Clones share what is known of the open log.
#[derive(Clone)]
pub(super) struct Database {
    pub(super) path: PathBuf,
    pub(super) names: Names,
    pub(super) feeds: Arc<Feeds>,
    /// What is known of the open log.
    pub(super) checked: CheckedLog,
}

impl Database {
    pub(super) fn new(options: Options) -> Self {
        let names = Names::new(&options.pipeline);
        Self { path: options.path, names, feeds: Arc::default(), checked: CheckedLog::default() }
    }

    pub(super) fn capture(&self) -> Capture<'_> {
        Capture { names: &self.names, feeds: &self.feeds, path: &self.path }
    }

    pub(super) fn history<'c>(&'c self, connection: &'c Connection) -> History<'c> {
        History { connection, names: &self.names, path: &self.path }
    }
}
