//! What a server says of itself before the login (`hello`; MongoDB manual, "hello").

use super::bson::{Document, Malformed, Value, Writer};
use super::error::Error;
use super::options::Login;

/// The oldest wire version that is served: that of MongoDB 6.0.
const WIRE_VERSION_MIN: i64 = 17;

/// What a server is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    /// A router of a sharded cluster.
    Router,
    /// The member of a replica set that takes writes.
    Primary,
    /// A member that does not, or one that waits for its replica set.
    Member,
    /// It has no replica set.
    #[default]
    Standalone,
}

/// What a server is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) role: Role,
    /// The name of its replica set.
    pub(super) set_name: Option<String>,
    /// The primary, if it knows one: host and port.
    pub(super) primary: Option<(String, u16)>,
    /// The members of its replica set.
    pub(super) members: Vec<(String, u16)>,
    wire_version: i64,
    /// The user has a password for SCRAM-SHA-1 and for no other mechanism.
    pub(super) has_sha1_only: bool,
}

/// The command.
pub(super) fn command(pipeline: &str, login: Option<&Login>) -> Vec<u8> {
    let driver = Writer::new().text("name", "feedline").text("version", env!("CARGO_PKG_VERSION")).finish();
    let system = Writer::new().text("type", std::env::consts::OS).finish();
    let application = Writer::new().text("name", &format!("feedline/{pipeline}")).finish();
    let client = Writer::new().document("application", &application).document("driver", &driver).document("os", &system).finish();
    let hello = Writer::new().int("hello", 1).document("client", &client);
    let hello = match login {
        Some(Login::Scram { user, database, .. }) => hello.text("saslSupportedMechs", &format!("{database}.{user}")),
        Some(Login::X509) | None => hello,
    };
    hello.text("$db", "admin").finish()
}

impl Hello {
    /// Reads the reply.
    pub(super) fn read(reply: Document<'_>) -> Result<Self, Malformed> {
        let mut hello = Self::default();
        let (mut is_router, mut is_primary, mut is_uninitiated) = (false, false, false);
        for element in reply.elements() {
            let element = element?;
            match (element.name, element.value) {
                (b"msg", value) => is_router = value.text() == Some("isdbgrid"),
                (b"isWritablePrimary", Value::Boolean(value)) => is_primary = value,
                (b"isreplicaset", Value::Boolean(value)) => is_uninitiated = value,
                (b"setName", value) => hello.set_name = value.text().map(str::to_owned),
                (b"primary", value) => hello.primary = value.text().and_then(member),
                (b"hosts", Value::Array(members)) => {
                    hello.members = members.elements().flatten().filter_map(|element| element.value.text().and_then(member)).collect();
                }
                (b"maxWireVersion", value) => hello.wire_version = value.number().unwrap_or(0),
                (b"saslSupportedMechs", Value::Array(mechanisms)) => {
                    let names: Vec<_> = mechanisms.elements().flatten().filter_map(|element| element.value.text()).collect();
                    hello.has_sha1_only = names.contains(&"SCRAM-SHA-1") && !names.contains(&"SCRAM-SHA-256");
                }
                _ => {}
            }
        }
        hello.role = match &hello.set_name {
            _ if is_router => Role::Router,
            Some(_) if is_primary => Role::Primary,
            Some(_) => Role::Member,
            None if is_uninitiated => Role::Member,
            None => Role::Standalone,
        };
        Ok(hello)
    }

    /// Refuses a server that can never serve a changefeed.
    pub(super) fn check(&self, address: &str) -> Result<(), Error> {
        let unsuitable = |reason: &str| Error::Unsuitable { address: address.to_owned(), reason: reason.to_owned() };
        if self.wire_version < WIRE_VERSION_MIN {
            return Err(unsuitable("it is older than MongoDB 6.0; upgrade it"));
        }
        if self.role == Role::Standalone {
            return Err(unsuitable("it is standalone and has no oplog; start it with replSetName, and run rs.initiate()"));
        }
        Ok(())
    }
}

/// Host and port, as servers name each other.
fn member(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::bson::{Document, Writer};
    use super::{Hello, Role};

    fn read(reply: Writer) -> Hello {
        Hello::read(Document::new(&reply.finish()).unwrap()).unwrap()
    }

    #[test]
    fn a_server_that_cannot_serve_is_refused_with_the_reason() {
        let modern = || Writer::new().int("maxWireVersion", 25).boolean("isWritablePrimary", true);
        let refused = |reply: Writer| read(reply).check("db:27017").unwrap_err().to_string();
        assert!(refused(modern()).contains("standalone"));
        assert!(refused(Writer::new().int("maxWireVersion", 13).text("setName", "rs0")).contains("older than MongoDB 6.0"));
        assert!(read(modern().text("setName", "rs0")).check("").is_ok());
        let router = read(modern().text("msg", "isdbgrid"));
        assert!(router.role == Role::Router && router.check("").is_ok());
        assert!(read(modern().boolean("isreplicaset", true)).check("").is_ok(), "it may become one");
    }

    #[test]
    fn a_secondary_tells_the_primary() {
        let secondary =
            read(Writer::new().boolean("isWritablePrimary", false).text("primary", "[::1]:27018").texts("hosts", ["a:1", "b:2", "c"]));
        assert_eq!(secondary.primary, Some(("::1".to_owned(), 27_018)));
        assert_eq!(secondary.members, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    }
}
