//! Parses URLs of servers, such as `postgres://user@host:port/database` and `amqps://user@host:port/vhost`.

use super::address::host_and_port;
use super::setting_reader::SettingReader;
use crate::config::key::OptionalKey;
use crate::config::schema::Setting;
use crate::fault::Code;

/// The schemes and the form of a kind of URL.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) schemes: &'static [&'static str],
    pub(super) expected: &'static str,
}

/// The parts of a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) scheme: Option<&'static str>,
    pub(super) user: Option<String>,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    /// The database, or the virtual host.
    pub(super) path: Option<String>,
}

impl SettingReader<'_> {
    /// The parts of a URL. Settings for the same parts (`instead_of`) are refused.
    pub(super) fn url(&mut self, key: &OptionalKey<String>, form: Form, instead_of: &[&Setting]) -> Parts {
        let Some(text) = self.optional(key) else { return Parts::default() };
        for setting in instead_of {
            if self.is_given(setting) {
                self.refuse(Code::ConfigContradictory, setting, format!("is also set by {}: keep one of the two", key.path));
            }
        }
        parse(&text, form).unwrap_or_else(|message| {
            self.refuse(Code::ConfigInvalid, key, message);
            Parts::default()
        })
    }
}

/// Parses a URL; the error says what is wrong with it.
fn parse(url: &str, form: Form) -> Result<Parts, &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or(form.expected)?;
    let scheme = form.schemes.iter().find(|known| **known == scheme).ok_or(form.expected)?;
    if rest.contains(['?', '#']) {
        return Err("expected no parameters: use settings such as tls instead");
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if user.is_some_and(|user| user.contains(':')) {
        return Err("a password does not belong in a URL: use password_file or password_env");
    }
    let (host, port) = host_and_port(host)?;
    let some = |text: &str| if text.is_empty() { Ok(None) } else { decode(text).map(Some) };
    Ok(Parts { scheme: Some(scheme), user: user.map_or(Ok(None), some)?, host: some(host)?, port, path: some(path)? })
}

/// Decodes percent-encoding (RFC 3986, 2.1).
fn decode(text: &str) -> Result<String, &'static str> {
    let wrong = "expected two hexadecimal digits after %";
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or(wrong)?;
        bytes.push(code);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| "expected UTF-8")
}

#[cfg(test)]
mod tests {
    use super::{Form, Parts};

    const POSTGRES: Form = Form { schemes: &["postgres", "postgresql"], expected: "" };
    const AMQP: Form = Form { schemes: &["amqp", "amqps"], expected: "" };

    fn parse(url: &str) -> Result<Parts, &'static str> {
        super::parse(url, POSTGRES)
    }

    #[test]
    fn a_url_is_split_into_its_parts() {
        let full = Parts {
            scheme: Some("postgres"),
            user: Some("me".into()),
            host: Some("db".into()),
            port: Some(5433),
            path: Some("shop".into()),
        };
        assert_eq!(parse("postgres://me@db:5433/shop"), Ok(full));
        assert_eq!(parse("postgresql://db"), Ok(Parts { scheme: Some("postgresql"), host: Some("db".into()), ..Parts::default() }));
        let socket = Parts { scheme: Some("postgres"), host: Some("/run/pg".into()), path: Some("a b".into()), ..Parts::default() };
        assert_eq!(parse("postgres://%2Frun%2Fpg/a%20b"), Ok(socket));
        assert_eq!(parse("postgres://[::1]:6000/x").unwrap().host.as_deref(), Some("::1"));
    }

    #[test]
    fn a_virtual_host_is_a_part_of_the_path() {
        let broker = super::parse("amqps://me@rabbit:5671/%2Fshop", AMQP).unwrap();
        assert_eq!((broker.scheme, broker.path.as_deref()), (Some("amqps"), Some("/shop")));
        assert_eq!(super::parse("amqp://rabbit/", AMQP).unwrap().path, None);
        assert!(super::parse("postgres://rabbit", AMQP).is_err());
    }

    #[test]
    fn a_url_with_a_password_or_parameters_is_refused() {
        for url in
            ["postgres://me:secret@db/shop", "postgres://db/shop?sslmode=disable", "mysql://db", "postgres://db:0/x", "postgres://%2/x"]
        {
            assert!(parse(url).is_err(), "{url}");
        }
    }
}
