//! Builds the options of a RethinkDB source.

use super::server::{Kind, Server};
use super::setting_reader::SettingReader;
use super::url;
use crate::config::settings::source;
use crate::source::rethinkdb::Options;
use std::sync::Arc;

const KIND: Kind =
    Kind { url: url::Form { schemes: &["rethinkdb"], expected: "expected rethinkdb://user@host:port/database" }, port: 28_015 };

impl SettingReader<'_> {
    pub(super) fn rethinkdb(&mut self, name: &Arc<str>) -> Options {
        let Server { host, port, user, database, trust } = self.server(KIND);
        Options {
            host,
            port,
            user,
            password: self.optional(&source::PASSWORD),
            database,
            trust,
            store: self.get(&source::STORE),
            store_log_max_bytes: self.get(&source::STORE_LOG_MAX),
            queue_size: self.get(&source::QUEUE_SIZE),
            pipeline: Arc::clone(name),
        }
    }
}
