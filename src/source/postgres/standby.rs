//! Whether the server would treat feedline as a synchronous standby, for which commits wait (`syncrep.c`).
//!
//! Any walsender that streams counts, even one that decodes, if `synchronous_standby_names` holds `*` or its `application_name` in any case.
//! Since feedline confirms only what is durable in the sink, each commit of an application would wait for the broker. The setting cannot be
//! changed for one session, and a session cannot exclude itself.

use super::error::Error;
use super::quote::literal;
use super::session::{Answer, Session};

/// Why commits would wait for feedline, and the SQL that prevents it; `None` if they would not.
pub(super) async fn check(session: &mut Session) -> Result<Option<String>, Error> {
    let row = session
        .query_one("SELECT pg_catalog.current_setting('synchronous_standby_names'), pg_catalog.current_setting('application_name')")
        .await?;
    let Some(mut names) = names_beside_feedline(&row) else { return Ok(None) };
    if names.contains("*") {
        names.others.retain(|name| name != "*");
        let standbys = session
            .query(
                "SELECT DISTINCT a.application_name FROM pg_catalog.pg_stat_get_wal_senders() w \
                 JOIN pg_catalog.pg_stat_activity a ON a.pid = w.pid WHERE a.datid IS NULL AND a.application_name <> '' ORDER BY 1",
            )
            .await?;
        for standby in standbys.iter().map(|row| row.text(0)) {
            if !names.contains(standby) {
                names.others.push(standby.to_owned());
            }
        }
    }
    Ok(Some(format!(
        "commits would wait for feedline, because synchronous_standby_names = {} includes it; run: \
         ALTER SYSTEM SET synchronous_standby_names = {}; SELECT pg_reload_conf()",
        literal(row.text(0)),
        literal(&names.to_setting())
    )))
}

/// The other names in the setting; `None` if it does not include feedline.
fn names_beside_feedline(row: &Answer) -> Option<Names> {
    let names = Names::parse(row.text(0));
    let ours = row.text(1);
    let (us, others): (Vec<_>, Vec<_>) = names.others.into_iter().partition(|name| name.eq_ignore_ascii_case(ours));
    let names = Names { method: names.method, others };
    (!us.is_empty() || names.contains("*")).then_some(names)
}

/// The parts of `synchronous_standby_names`: `ANY 2 (a, "b c", *)`.
struct Names {
    /// The text before the names: how many of them count, and by which method.
    method: String,
    others: Vec<String>,
}

impl Names {
    /// Parses a list of names, or a method with a list in parentheses (`syncrep_gram.y`).
    fn parse(setting: &str) -> Self {
        let (mut method, mut names) = (String::new(), Vec::new());
        let (mut name, mut is_quoted, mut is_open) = (String::new(), false, false);
        let mut characters = setting.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '"' if is_open && characters.peek() == Some(&'"') => {
                    characters.next();
                    name.push('"');
                }
                '"' => {
                    if !is_open {
                        name.clear();
                    }
                    (is_open, is_quoted) = (!is_open, true);
                }
                _ if is_open => name.push(character),
                _ if is_quoted && character.is_whitespace() => {}
                '(' => (method, name, is_quoted) = (format!("{} ", name.trim()), String::new(), false),
                ',' | ')' => {
                    names.push(finished(&name, is_quoted));
                    (name, is_quoted) = (String::new(), false);
                }
                _ => name.push(character),
            }
        }
        names.push(finished(&name, is_quoted));
        names.retain(|name| !name.is_empty());
        Self { method, others: names }
    }

    fn contains(&self, name: &str) -> bool {
        self.others.iter().any(|other| other.eq_ignore_ascii_case(name))
    }

    /// The setting with the other names alone.
    fn to_setting(&self) -> String {
        if self.others.is_empty() {
            return String::new();
        }
        let quoted: Vec<_> = self.others.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        let list = quoted.join(", ");
        if self.method.is_empty() { list } else { format!("{}({list})", self.method) }
    }
}

/// Removes white space around a name that is not quoted.
fn finished(name: &str, is_quoted: bool) -> String {
    if is_quoted { name.to_owned() } else { name.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn names_are_read_as_the_server_reads_them() {
        for (setting, method, names) in [
            ("", "", &[][..]),
            ("*", "", &["*"]),
            (" s1 , \"s 2\",S3", "", &["s1", "s 2", "S3"]),
            ("2 (a, b)", "2 ", &["a", "b"]),
            ("ANY 1 (*)", "ANY 1 ", &["*"]),
            ("FIRST 1(\"feedline/shop\", \"a\"\"b\")", "FIRST 1 ", &["feedline/shop", "a\"b"]),
            ("any 2 (\"a(b\", \"c,d\")", "any 2 ", &["a(b", "c,d"]),
            ("\"*\"", "", &["*"]),
        ] {
            let parsed = Names::parse(setting);
            assert_eq!(
                (parsed.method.as_str(), parsed.others.as_slice()),
                (method, &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..]),
                "{setting}"
            );
        }
    }

    #[test]
    fn a_parsed_setting_prints_as_it_was() {
        for setting in ["\"s1\", \"s 2\"", "ANY 2 (\"a(b\", \"c\"\"d\")", "2 (\"x\")"] {
            assert_eq!(Names::parse(setting).to_setting(), setting);
        }
    }
}
