//! Builds the options of a PostgreSQL source.

use super::server::{Kind, Server};
use super::setting_reader::SettingReader;
use super::url;
use crate::config::settings::{process, source};
use crate::fault::Code;
use crate::source::postgres::{Options, SameServer};
use std::sync::Arc;

const KIND: Kind =
    Kind { url: url::Form { schemes: &["postgres", "postgresql"], expected: "expected postgres://user@host:port/database" }, port: 5432 };

impl SettingReader<'_> {
    pub(super) fn postgres(&mut self, name: &Arc<str>) -> Options {
        let Server { host, port, user, database, trust } = self.server(KIND);
        Options {
            host,
            port,
            user,
            password: self.optional(&source::PASSWORD),
            database,
            trust,
            require_auth: self.get(&source::REQUIRE_AUTH),
            slot: self.slot(name),
            publication: self.optional_or(&source::PUBLICATION, format!("feedline_{name}")),
            manage: self.get(&source::MANAGE),
            prefeed_readers: self.get(&process::PREFEED_READERS),
            on_added_default: self.get(&source::ON_ADDED_DEFAULT),
            pipeline: Arc::clone(name),
            server: SameServer::default(),
        }
    }

    fn slot(&mut self, name: &str) -> String {
        let slot = self.optional_or(&source::SLOT, format!("feedline_{name}"));
        // ReplicationSlotValidateName of PostgreSQL's slot.c: lower-case letters, digits, underscores, at most 63 bytes.
        if 63 < slot.len() || !slot.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
            self.refuse(Code::ConfigInvalid, &source::SLOT, "expected at most 63 lower-case letters, digits or underscores");
        }
        slot
    }
}
