//! Builds the options of a MySQL or MariaDB source.

use super::server::{Kind, Server};
use super::setting_reader::SettingReader;
use super::url;
use crate::config::settings::{process, source};
use crate::source::mysql::{Options, SameServer};
use std::sync::Arc;

const KIND: Kind =
    Kind { url: url::Form { schemes: &["mysql", "mariadb"], expected: "expected mysql://user@host:port/database" }, port: 3306 };

/// From here on up a number is chosen at random. Persons number their servers from 1, or by an address or a date.
const RANDOM_FROM: u32 = 0xF000_0000;

impl SettingReader<'_> {
    pub(super) fn mysql(&mut self, name: &Arc<str>) -> Options {
        let Server { host, port, user, database, trust } = self.server(KIND);
        Options {
            host,
            port,
            user,
            password: self.optional(&source::PASSWORD),
            database,
            trust,
            require_auth: self.get(&source::REQUIRE_AUTH),
            server_id: self.optional(&source::SERVER_ID).unwrap_or_else(|| fastrand::u32(RANDOM_FROM..)),
            prefeed_readers: self.get(&process::PREFEED_READERS),
            pipeline: Arc::clone(name),
            server: SameServer::default(),
        }
    }
}
