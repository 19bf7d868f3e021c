//! What our user may do: the grants that `SHOW GRANTS` prints, those of its active roles included.
//!
//! Source: MySQL documentation, "SHOW GRANTS Statement" and "Privilege Restriction Using Partial Revokes"; MariaDB prints the same form.

use super::error::Error;
use super::quote::literal;
use super::session::Session;

/// The grants of our user.
#[derive(Clone, Debug)]
pub(super) struct Grants {
    /// The account that the server has for our user, as statements name it: `'feedline'@'%'`.
    pub(super) account: String,
    given: Vec<Grant>,
    /// What partial revokes take away from a schema.
    revoked: Vec<Grant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    /// In capitals; privileges on single columns are left out.
    privileges: Vec<String>,
    on: Scope,
}

/// What a grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    Everything,
    /// A pattern of names: `%`, `_`, and `\` before a character that stands for itself.
    Schema(String),
    Table(String, String),
}

impl Grants {
    pub(super) async fn read(session: &mut Session) -> Result<Self, Error> {
        let account = session.query("SELECT CURRENT_USER()").await?;
        let account = account.first().map_or("", |row| row.text(0));
        let (user, host) = account.rsplit_once('@').unwrap_or((account, "%"));
        let lines = session.query("SHOW GRANTS").await?;
        Ok(Self::parse(format!("{}@{}", literal(user), literal(host)), lines.iter().map(|row| row.text(0))))
    }

    fn parse<'l>(account: String, lines: impl Iterator<Item = &'l str>) -> Self {
        let (mut given, mut revoked) = (Vec::new(), Vec::new());
        for line in lines {
            if let Some(grant) = line.strip_prefix("GRANT ") {
                given.extend(grant_of(grant));
            } else if let Some(grant) = line.strip_prefix("REVOKE ") {
                revoked.extend(grant_of(grant));
            }
        }
        Self { account, given, revoked }
    }

    /// Whether our user has the privilege on everything.
    pub(super) fn has(&self, privilege: &str) -> bool {
        self.given.iter().any(|grant| grant.on == Scope::Everything && grant.includes(privilege))
    }

    /// Whether our user has the privilege on all tables of the schema.
    pub(super) fn has_on_schema(&self, privilege: &str, schema: &str) -> bool {
        let applies = |grant: &Grant| matches!(&grant.on, Scope::Schema(pattern) if is_like(schema, pattern)) && grant.includes(privilege);
        self.given.iter().any(applies) || (self.has(privilege) && !self.revoked.iter().any(applies))
    }

    /// Whether our user has the privilege on the whole table.
    pub(super) fn has_on_table(&self, privilege: &str, schema: &str, table: &str) -> bool {
        let is_it = |grant: &Grant| matches!(&grant.on, Scope::Table(of, name) if *of == *schema && *name == *table);
        self.has_on_schema(privilege, schema) || self.given.iter().any(|grant| is_it(grant) && grant.includes(privilege))
    }

    /// Whether our user has the privilege on anything.
    pub(super) fn has_anywhere(&self, privilege: &str) -> bool {
        self.given.iter().any(|grant| grant.includes(privilege))
    }

    /// The refusal of something that our user lacks a privilege for.
    pub(super) fn lacking(&self, what: &str, privilege: &str, on: &str) -> Error {
        Error::Privilege {
            what: format!("user {} may not {what}", self.account),
            remedy: format!("GRANT {privilege} ON {on} TO {}", self.account),
        }
    }
}

impl Grant {
    fn includes(&self, privilege: &str) -> bool {
        self.privileges.iter().any(|known| known == privilege || known == "ALL PRIVILEGES")
    }
}

/// Reads what follows `GRANT` or `REVOKE`; `None` for the grant of a role, of a proxy or of a routine.
fn grant_of(text: &str) -> Option<Grant> {
    let (privileges, object) = split_outside(text, " ON ")?;
    let on = if let Some(rest) = object.strip_prefix("*.*") {
        rest.starts_with(' ').then_some(Scope::Everything)?
    } else {
        let (schema, rest) = quoted(object)?;
        let rest = rest.strip_prefix('.')?;
        match rest.strip_prefix('*') {
            Some(_) => Scope::Schema(schema),
            None => Scope::Table(schema, quoted(rest)?.0),
        }
    };
    let mut granted = Vec::new();
    let mut rest = Some(privileges);
    while let Some((privilege, after)) = rest.map(first_of) {
        if !privilege.contains('(') {
            granted.push(privilege.trim().to_ascii_uppercase());
        }
        rest = after;
    }
    Some(Grant { privileges: granted, on })
}

/// The first privilege of a list, and what follows its comma. A privilege on columns has their names in parentheses.
fn first_of(list: &str) -> (&str, Option<&str>) {
    let (mut depth, mut is_quoted) = (0_u32, false);
    for (index, byte) in list.bytes().enumerate() {
        match byte {
            b'`' => is_quoted = !is_quoted,
            b'(' if !is_quoted => depth += 1,
            b')' if !is_quoted => depth = depth.saturating_sub(1),
            b',' if !is_quoted && depth == 0 => return (&list[..index], Some(&list[index + 1..])),
            _ => {}
        }
    }
    (list, None)
}

/// Splits at the first separator that is not in a quoted name.
fn split_outside<'t>(text: &'t str, separator: &str) -> Option<(&'t str, &'t str)> {
    let is_outside = |at: usize| text[..at].bytes().filter(|byte| *byte == b'`').count() % 2 == 0;
    let at = text.match_indices(separator).map(|(at, _)| at).find(|at| is_outside(*at))?;
    Some((&text[..at], &text[at + separator.len()..]))
}

/// A quoted name, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text.strip_prefix('`')?;
    loop {
        let (part, after) = rest.split_once('`')?;
        name.push_str(part);
        let Some(more) = after.strip_prefix('`') else { return Some((name, after)) };
        name.push('`');
        rest = more;
    }
}

/// Whether a name matches the pattern of a grant on a schema.
fn is_like(name: &str, pattern: &str) -> bool {
    let mut pattern_characters = pattern.chars();
    match pattern_characters.next() {
        None => name.is_empty(),
        Some('%') => {
            let rest = pattern_characters.as_str();
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| is_like(&name[at..], rest))
        }
        Some('_') => {
            let mut characters = name.chars();
            characters.next().is_some() && is_like(characters.as_str(), pattern_characters.as_str())
        }
        Some(first) => {
            let exactly = if first == '\\' { pattern_characters.next().unwrap_or(first) } else { first };
            name.strip_prefix(exactly).is_some_and(|rest| is_like(rest, pattern_characters.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Grants, is_like};

    fn grants(lines: &[&str]) -> Grants {
        Grants::parse("'me'@'%'".to_owned(), lines.iter().copied())
    }

    #[test]
    fn grants_apply_to_everything_to_schemas_and_to_tables() {
        let grants = grants(&[
            "GRANT `r1`@`%` TO `me`@`%`",
            "GRANT PROCESS, REPLICATION SLAVE ON *.* TO `me`@`%` WITH GRANT OPTION",
            "GRANT BACKUP_ADMIN,XA_RECOVER_ADMIN ON *.* TO `me`@`%`",
            "GRANT ALL PRIVILEGES ON `shop\\_%`.* TO `me`@`%`",
            "GRANT SELECT, INSERT ON `a``b`.`t ON x` TO `me`@`%`",
            "GRANT SELECT (`a`, `b, c`), DELETE ON `s`.`columns` TO `me`@`%`",
            "GRANT EXECUTE ON PROCEDURE `s`.`p` TO `me`@`%`",
            "GRANT PROXY ON ``@`` TO `me`@`%`",
        ]);
        assert!(grants.has("PROCESS") && grants.has("REPLICATION SLAVE") && grants.has("BACKUP_ADMIN") && !grants.has("SELECT"));
        assert!(grants.has_on_schema("LOCK TABLES", "shop_x") && !grants.has_on_schema("LOCK TABLES", "shopx"));
        assert!(grants.has_on_table("SELECT", "a`b", "t ON x") && !grants.has_on_table("SELECT", "a`b", "t"));
        assert!(grants.has_on_table("DELETE", "s", "columns") && !grants.has_on_table("SELECT", "s", "columns"));
        assert!(grants.has_on_table("PROCESS", "any", "table") && grants.has_anywhere("SELECT"));
        assert_eq!(
            grants.lacking("read table `s`.`t`", "SELECT", "`s`.`t`").to_string(),
            "user 'me'@'%' may not read table `s`.`t`; run: GRANT SELECT ON `s`.`t` TO 'me'@'%'"
        );
    }

    #[test]
    fn a_partial_revoke_takes_a_schema_away() {
        let grants = grants(&["GRANT SELECT ON *.* TO `me`@`%`", "REVOKE SELECT ON `secret`.* FROM `me`@`%`"]);
        assert!(grants.has_on_schema("SELECT", "shop") && !grants.has_on_table("SELECT", "secret", "t"));
    }

    #[test]
    fn patterns_have_wildcards_and_escapes() {
        for (name, pattern, fits) in [
            ("shop", "shop", true),
            ("shop", "sho_", true),
            ("shop", "sho\\_", false),
            ("sho_", "sho\\_", true),
            ("shop", "%", true),
            ("shop", "s%p", true),
            ("shop", "s%x", false),
            ("", "%", true),
            ("ä", "_", true),
        ] {
            assert_eq!(is_like(name, pattern), fits, "{name} {pattern}");
        }
    }
}
