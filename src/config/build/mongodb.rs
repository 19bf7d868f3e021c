//! Builds the options of a MongoDB source.

use super::address::{host_and_port, is_host};
use super::server::{Kind, Server};
use super::setting_reader::SettingReader;
use super::url;
use crate::config::settings::choices::SourceAuth;
use crate::config::settings::{process, source};
use crate::fault::Code;
use crate::net::TlsMode;
use crate::source::mongodb::{Login, Options, SameCluster};
use std::sync::Arc;

const PORT: u16 = 27_017;
const KIND: Kind = Kind {
    url: url::Form {
        schemes: &["mongodb"],
        expected: "expected mongodb://user@host:port/database; name the hosts behind a mongodb+srv:// in source.host and source.members",
    },
    port: PORT,
};

impl SettingReader<'_> {
    pub(super) fn mongodb(&mut self, name: &Arc<str>) -> Options {
        let Server { host, port, user, database, trust } = self.server(KIND);
        let mut hosts = vec![(host, port)];
        for member in self.optional(&source::MEMBERS).unwrap_or_default() {
            match host_and_port(&member) {
                Ok((host, port)) if is_host(host) => hosts.push((host.to_owned(), port.unwrap_or(PORT))),
                _ => self.refuse(Code::ConfigInvalid, &source::MEMBERS, "expected hosts like \"db2.example.com:27017\""),
            }
        }
        let (auth, password, auth_database) = (self.get(&source::AUTH), self.optional(&source::PASSWORD), self.get(&source::AUTH_DATABASE));
        let login = match (auth, password) {
            (SourceAuth::Scram, password) => password.map(|password| Login::Scram { user, password, database: auth_database }),
            (SourceAuth::X509, None) if trust.client.is_some() && trust.mode != TlsMode::Disable => Some(Login::X509),
            (SourceAuth::X509, None) => {
                let message = "a login by certificate needs one: set source.cert_file and source.key_file, and encrypt";
                self.refuse(Code::ConfigContradictory, &source::AUTH, message);
                None
            }
            (SourceAuth::X509, Some(_)) => {
                self.refuse(Code::ConfigContradictory, &source::AUTH, "a login by certificate has no password: leave source.password out");
                None
            }
        };
        Options {
            hosts,
            login,
            database,
            trust,
            full_document: self.get(&source::FULL_DOCUMENT),
            pre_images: self.get(&source::PRE_IMAGES),
            spelling: self.get(&source::SPELLING),
            prefeed_readers: self.get(&process::PREFEED_READERS),
            pipeline: Arc::clone(name),
            cluster: SameCluster::default(),
        }
    }
}
