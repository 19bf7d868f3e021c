//! Splits a statement into words, as far as the names of tables and what follows them are concerned.

use crate::source::mysql::binlog::Writing;

/// A table's name as a statement writes it; without a schema it is in the session's default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) schema: Option<String>,
    pub(super) name: String,
}

impl TableName {
    /// Whether a character of it could not be decoded.
    pub(super) fn is_unclear(&self) -> bool {
        is_unclear(&self.name) || self.schema.as_deref().is_some_and(is_unclear)
    }
}

/// Whether a character of a name could not be decoded.
pub(super) fn is_unclear(name: &str) -> bool {
    name.contains(char::REPLACEMENT_CHARACTER)
}

/// Whether a name may be this one, if each run of characters that could not be decoded is anything.
pub(super) fn may_be(unclear: &str, name: &str) -> bool {
    let mut parts = unclear.split(char::REPLACEMENT_CHARACTER);
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

/// What is left of a statement.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    rest: &'a str,
    writing: Writing,
}

/// One word of a statement.
enum Word<'a> {
    /// A keyword, or a name without quotes.
    Bare(&'a str),
    /// A quoted name.
    Name(String),
    /// A string, or a number.
    Value,
    Symbol(char),
}

impl<'a> Words<'a> {
    pub(super) const fn new(sql: &'a str, writing: Writing) -> Self {
        Self { rest: sql, writing }
    }

    /// What follows, as it is.
    pub(super) const fn rest(&self) -> &'a str {
        self.rest
    }

    /// The next word, which stays the next one.
    fn peek(&self) -> Option<(Word<'a>, &'a str)> {
        let rest = skip_space(self.rest);
        let first = rest.chars().next()?;
        Some(match first {
            '`' | '"' if first == '`' || self.writing.has_ansi_quotes => {
                let (name, rest) = quoted(rest, first, false);
                (Word::Name(name), rest)
            }
            '\'' | '"' => (Word::Value, quoted(rest, first, !self.writing.has_plain_backslashes).1),
            _ if is_bare(first) => {
                let (word, rest) = rest.split_at(rest.find(|character| !is_bare(character)).unwrap_or(rest.len()));
                (Word::Bare(word), rest)
            }
            _ => (Word::Symbol(first), &rest[first.len_utf8()..]),
        })
    }

    /// The next word in upper case, if it is without quotes; it stays the next one.
    pub(super) fn peek_keyword(&self) -> Option<String> {
        match self.peek()? {
            (Word::Bare(word), _) => Some(word.to_ascii_uppercase()),
            _ => None,
        }
    }

    /// As [`Self::peek_keyword`], and goes on.
    pub(super) fn keyword(&mut self) -> Option<String> {
        let (Word::Bare(word), rest) = self.peek()? else { return None };
        self.rest = rest;
        Some(word.to_ascii_uppercase())
    }

    /// Goes on if this keyword comes next.
    pub(super) fn take(&mut self, keyword: &str) -> bool {
        match self.peek() {
            Some((Word::Bare(word), rest)) if word.eq_ignore_ascii_case(keyword) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Goes on if this symbol comes next.
    pub(super) fn symbol(&mut self, symbol: char) -> bool {
        match self.peek() {
            Some((Word::Symbol(found), rest)) if found == symbol => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Passes over `IF EXISTS` and `IF NOT EXISTS`.
    pub(super) fn take_if_exists(&mut self) {
        if self.take("IF") {
            self.take("NOT");
            self.take("EXISTS");
        }
    }

    /// Passes over how long MariaDB waits for a table: `WAIT 5`, `NOWAIT`.
    pub(super) fn skip_wait(&mut self) {
        if self.take("WAIT") {
            self.keyword();
        }
        self.take("NOWAIT");
    }

    /// A name, with quotes or without.
    pub(super) fn identifier(&mut self) -> Option<String> {
        let (word, rest) = self.peek()?;
        let name = match word {
            Word::Bare(word) => word.to_owned(),
            Word::Name(name) => name,
            Word::Value | Word::Symbol(_) => return None,
        };
        self.rest = rest;
        // MySQL keeps names in utf8mb3, and makes a question mark of what that does not have. MariaDB refuses it.
        Some(name.replace(|character| '\u{FFFF}' < character, "?"))
    }

    /// A table's name, perhaps with its schema. A point before it means the default schema.
    pub(super) fn table(&mut self) -> Option<TableName> {
        if self.symbol('.') {
            return Some(TableName { schema: None, name: self.identifier()? });
        }
        let first = self.identifier()?;
        if !self.symbol('.') {
            return Some(TableName { schema: None, name: first });
        }
        Some(TableName { schema: Some(first), name: self.identifier()? })
    }

    /// Names of tables, separated by commas.
    pub(super) fn tables(&mut self) -> Vec<TableName> {
        let mut tables: Vec<_> = self.table().into_iter().collect();
        while self.symbol(',') {
            tables.extend(self.table());
        }
        tables
    }

    pub(super) fn is_at_end(&self) -> bool {
        match self.peek() {
            None => true,
            Some((Word::Symbol(';'), rest)) => skip_space(rest).is_empty(),
            Some(_) => false,
        }
    }

    /// The words up to the next comma that is in no parentheses, in upper case. The comma stays.
    pub(super) fn until_comma(&mut self) -> Vec<String> {
        let (mut words, mut depth) = (Vec::new(), 0_u32);
        while let Some((word, rest)) = self.peek() {
            match word {
                Word::Symbol(',') if depth == 0 => break,
                Word::Symbol('(') => depth += 1,
                Word::Symbol(')') => depth = depth.saturating_sub(1),
                Word::Bare(word) => words.push(word.to_ascii_uppercase()),
                Word::Name(_) | Word::Value | Word::Symbol(_) => {}
            }
            self.rest = rest;
        }
        words
    }

    /// Goes on behind the parenthesis that closes the open one.
    pub(super) fn skip_to_parenthesis(&mut self) {
        let mut depth = 1_u32;
        while let Some((word, rest)) = self.peek() {
            self.rest = rest;
            match word {
                Word::Symbol('(') => depth += 1,
                Word::Symbol(')') if depth == 1 => return,
                Word::Symbol(')') => depth -= 1,
                Word::Bare(_) | Word::Name(_) | Word::Value | Word::Symbol(_) => {}
            }
        }
    }

    /// The names before parentheses, in upper case; one with a schema or in quotes with these.
    pub(super) fn called(&mut self) -> Vec<String> {
        let (mut names, mut before, mut is_part) = (Vec::new(), None, false);
        while let Some((word, rest)) = self.peek() {
            self.rest = rest;
            let was_part = std::mem::replace(&mut is_part, matches!(word, Word::Symbol('.')));
            before = match word {
                Word::Bare(name) if was_part => Some(format!(".{name}")),
                Word::Bare(name) => Some(name.to_ascii_uppercase()),
                Word::Name(name) => Some(format!("`{name}`")),
                Word::Symbol('(') => {
                    names.extend(before.take());
                    None
                }
                Word::Value | Word::Symbol(_) => None,
            };
        }
        names
    }

    /// Goes on behind the next keyword of this name.
    pub(super) fn skip_behind(&mut self, keyword: &str) {
        while !self.take(keyword) {
            let Some((_, rest)) = self.peek() else { return };
            self.rest = rest;
        }
    }

    /// Whether a query is in what follows.
    pub(super) fn has_query(&self) -> bool {
        let mut words = self.clone();
        let mut before = None;
        while let Some((word, rest)) = words.peek() {
            words.rest = rest;
            let Word::Bare(word) = word else {
                before = None;
                continue;
            };
            let is = |other: &str| word.eq_ignore_ascii_case(other);
            // Other words of these names must be quoted.
            if is("SELECT") || is("TABLE") || (is("ROW") && before.is_some_and(|before: &str| before.eq_ignore_ascii_case("VALUES"))) {
                return true;
            }
            before = Some(word);
        }
        false
    }

    /// Goes on behind the next comma that is in no parentheses; false at the end.
    pub(super) fn skip_to_comma(&mut self) -> bool {
        self.until_comma();
        self.symbol(',')
    }
}

/// A character of a name without quotes (MySQL documentation, "Schema Object Names").
fn is_bare(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$' | '@') || '\u{80}' <= character
}

/// The text behind white space and comments. What stands in `/*! */` is executed, so only its marks are passed over.
fn skip_space(text: &str) -> &str {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let conditional = rest.strip_prefix("/*!").or_else(|| rest.strip_prefix("/*M!"));
        rest = if let Some(inside) = conditional {
            inside.trim_start_matches(|digit: char| digit.is_ascii_digit())
        } else if let Some(end) = rest.strip_prefix("*/") {
            end
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, rest)| rest)
        } else if rest.starts_with('#') || rest.starts_with("-- ") || rest.starts_with("--\n") || rest.starts_with("--\t") {
            rest.split_once('\n').map_or("", |(_, rest)| rest)
        } else {
            return rest;
        };
    }
}

/// What stands in quotes, and the text behind them. A doubled quote is one. With `escapes` a backslash hides the next character.
fn quoted(text: &str, quote: char, escapes: bool) -> (String, &str) {
    let mut content = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((_, character)) = characters.next() {
        if character == '\\' && escapes {
            characters.next();
        } else if character != quote {
            content.push(character);
        } else if characters.peek().is_some_and(|(_, next)| *next == quote) {
            characters.next();
            content.push(quote);
        } else {
            let end = characters.peek().map_or(text.len(), |(index, _)| *index);
            return (content, &text[end..]);
        }
    }
    (content, "")
}

#[cfg(test)]
mod tests {
    use super::may_be;

    #[test]
    fn an_unclear_name_may_be_many() {
        for (unclear, name, expected) in [
            ("t\u{FFFD}", "té", true),
            ("t\u{FFFD}\u{FFFD}_x", "t_表_x", true),
            ("\u{FFFD}", "anything", true),
            ("t\u{FFFD}", "u", false),
            ("t\u{FFFD}x", "ty", false),
            ("t\u{FFFD}a\u{FFFD}", "t_b_", false),
            ("t", "t", true),
            ("t", "tt", false),
        ] {
            assert_eq!(may_be(unclear, name), expected, "{unclear} {name}");
        }
    }
}
