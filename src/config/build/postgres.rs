//! Builds the plan of a PostgreSQL source.

use super::setting_reader::SettingReader;
use crate::config::plan::PostgresPlan;
use crate::config::url;
use crate::fault::Code;
use crate::net::RequireAuth;

impl SettingReader<'_> {
    pub(super) fn postgres(&mut self, name: &str) -> PostgresPlan {
        let parts = self.url("source.url", url::POSTGRES, &["source.host", "source.port", "source.user", "source.database"]);
        // An invalid URL has no scheme, and was refused already.
        if parts.scheme.is_some() && parts.path.is_none() {
            self.refuse(Code::ConfigMissing, "source.url", "names no database: expected postgres://user@host:port/database");
        }
        let host = parts.host.unwrap_or_else(|| self.text("source.host"));
        let path = if parts.scheme.is_some() { "source.url" } else { "source.host" };
        if host.starts_with('/') {
            self.refuse(Code::ConfigUnsupported, path, "Unix sockets are not supported in this version: name a host");
        } else if !host.is_empty() && !url::is_host(&host) {
            let message = "expected one host name or address; set the port in source.port, or use source.url";
            self.refuse(Code::ConfigInvalid, path, message);
        }
        let trust = self.trust("source", self.tls_mode("source"), [host.as_str()]);
        PostgresPlan {
            host,
            port: parts.port.unwrap_or_else(|| u16::try_from(self.number("source.port")).unwrap_or(5432)),
            user: parts.user.unwrap_or_else(|| self.text("source.user")),
            password: self.secret("source.password"),
            database: parts.path.unwrap_or_else(|| self.text("source.database")),
            trust,
            require_auth: self.require_auth(),
            slot: self.slot(name),
            publication: self.optional_text("source.publication").unwrap_or_else(|| format!("feedline_{name}")),
            manage: self.flag("source.manage"),
            ignores_added_defaults: self.text("source.on_added_default") == "ignore",
        }
    }

    fn require_auth(&self) -> RequireAuth {
        let named = self.text("source.require_auth");
        let all = [RequireAuth::None, RequireAuth::Password, RequireAuth::Md5];
        all.into_iter().find(|auth| auth.name() == named).unwrap_or_default()
    }

    fn slot(&mut self, name: &str) -> String {
        let Some(slot) = self.optional_text("source.slot") else { return format!("feedline_{name}") };
        // ReplicationSlotValidateName of PostgreSQL's slot.c: lower-case letters, digits, underscores, at most 63 bytes.
        if 63 < slot.len() || !slot.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
            self.refuse(Code::ConfigInvalid, "source.slot", "expected at most 63 lower-case letters, digits or underscores");
        }
        slot
    }
}
