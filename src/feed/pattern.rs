//! Patterns of table names.

use crate::fault::{Classify, Code, Fault};
use std::fmt;
use std::sync::Arc;

/// `schema.table`, where `*` matches any characters and `?` matches one. Without a schema, the source's default schema is meant.
///
/// A part in double quotes is matched literally, as in SQL: `"a.b"` is one name, and `""` inside stands for a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePattern {
    text: Arc<str>,
    schema: Option<Vec<Glyph>>,
    table: Vec<Glyph>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Glyph {
    Exactly(char),
    AnyOne,
    AnyMany,
}

/// Why a string is not a pattern. Columns count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A name is empty.
    #[error("a name is missing at column {column} of `{text}`: write schema.table, table, or \"quoted.name\"")]
    Empty {
        /// The whole pattern.
        text: String,
        /// Where the name is missing.
        column: usize,
    },
    /// A quote is not closed.
    #[error("the quote at column {column} of `{text}` is not closed: add the closing quote")]
    Unclosed {
        /// The whole pattern.
        text: String,
        /// The position of the quote.
        column: usize,
    },
    /// A quote inside a name, or characters next to a quoted name.
    #[error("unexpected character at column {column} of `{text}` after a name: quote the whole name, and double a quote inside it")]
    Misquoted {
        /// The whole pattern.
        text: String,
        /// Where the name should have ended.
        column: usize,
    },
    /// Tables are left out, and none are named.
    #[error("every pattern begins with `!`, which leaves tables out: name the published tables too, for example `*`")]
    NothingIncluded,
    /// There are more than two names.
    #[error("a third name begins at column {column} of `{text}`: put a name that contains a dot in double quotes")]
    TooManyNames {
        /// The whole pattern.
        text: String,
        /// Where the name begins.
        column: usize,
    },
}

impl Classify for PatternError {
    fn fault(&self) -> Fault {
        Fault::Fatal
    }

    fn code(&self) -> Code {
        Code::ConfigInvalid
    }
}

impl TablePattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong, and at which column.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let characters: Vec<char> = text.chars().collect();
        let (first, end) = name(text, &characters, 0)?;
        if end == characters.len() {
            return Ok(Self { text: text.into(), schema: None, table: first });
        }
        let (second, end) = name(text, &characters, end + 1)?;
        if end < characters.len() {
            return Err(PatternError::TooManyNames { text: text.to_owned(), column: end + 2 });
        }
        Ok(Self { text: text.into(), schema: Some(first), table: second })
    }

    /// Whether the pattern matches this table. Without a schema it matches tables of the default schema.
    #[must_use]
    pub fn matches(&self, schema: &str, table: &str, default_schema: &str) -> bool {
        let schema_fits = match &self.schema {
            Some(glyphs) => fits(glyphs, schema),
            None => schema == default_schema,
        };
        schema_fits && fits(&self.table, table)
    }

    /// Whether the pattern matches the table with this feed name (`schema.table`, quoted where necessary).
    #[must_use]
    pub fn matches_name(&self, name: &str, default_schema: &str) -> bool {
        let Ok(named) = Self::parse(name) else { return false };
        // `*` and `?` in a name stand for themselves.
        let text = |glyphs: &[Glyph]| -> String {
            let character = |glyph: &Glyph| match glyph {
                Glyph::Exactly(character) => *character,
                Glyph::AnyOne => '?',
                Glyph::AnyMany => '*',
            };
            glyphs.iter().map(character).collect()
        };
        let schema = named.schema.as_deref().map_or_else(|| default_schema.to_owned(), text);
        self.matches(&schema, &text(&named.table), default_schema)
    }

    /// Whether it has no wildcards, and so matches at most one table.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.schema.iter().flatten().chain(&self.table).all(|glyph| matches!(glyph, Glyph::Exactly(_)))
    }

    /// Whether it has a schema.
    #[must_use]
    pub const fn names_schema(&self) -> bool {
        self.schema.is_some()
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Parses one name from `start` on. Also returns where it ends: at a dot or at the end of the text.
fn name(text: &str, characters: &[char], start: usize) -> Result<(Vec<Glyph>, usize), PatternError> {
    let (glyphs, end) = match characters.get(start) {
        Some('"') => quoted(text, characters, start)?,
        _ => plain(&characters[start..], start),
    };
    if glyphs.is_empty() {
        return Err(PatternError::Empty { text: text.to_owned(), column: start + 1 });
    }
    match characters.get(end) {
        None | Some('.') => Ok((glyphs, end)),
        Some(_) => Err(PatternError::Misquoted { text: text.to_owned(), column: end + 1 }),
    }
}

fn plain(characters: &[char], start: usize) -> (Vec<Glyph>, usize) {
    let letters = characters.iter().take_while(|character| !matches!(character, '.' | '"'));
    let glyphs: Vec<Glyph> = letters
        .map(|character| match character {
            '*' => Glyph::AnyMany,
            '?' => Glyph::AnyOne,
            other => Glyph::Exactly(*other),
        })
        .collect();
    let end = start + glyphs.len();
    (glyphs, end)
}

fn quoted(text: &str, characters: &[char], start: usize) -> Result<(Vec<Glyph>, usize), PatternError> {
    let mut glyphs = Vec::new();
    let mut at = start + 1;
    loop {
        match (characters.get(at), characters.get(at + 1)) {
            (None, _) => return Err(PatternError::Unclosed { text: text.to_owned(), column: start + 1 }),
            (Some('"'), Some('"')) => {
                glyphs.push(Glyph::Exactly('"'));
                at += 2;
            }
            (Some('"'), _) => return Ok((glyphs, at + 1)),
            (Some(other), _) => {
                glyphs.push(Glyph::Exactly(*other));
                at += 1;
            }
        }
    }
}

/// Whether the glyphs match the whole name. Remembers only the last `*`, so the time is bounded by the product of the lengths.
fn fits(glyphs: &[Glyph], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut glyph, mut letter) = (0, 0);
    let mut retry = None;
    while letter < name.len() {
        match glyphs.get(glyph) {
            Some(Glyph::AnyMany) => {
                retry = Some((glyph + 1, letter));
                glyph += 1;
            }
            Some(Glyph::AnyOne) => (glyph, letter) = (glyph + 1, letter + 1),
            Some(Glyph::Exactly(expected)) if *expected == name[letter] => (glyph, letter) = (glyph + 1, letter + 1),
            _ => {
                let Some((after_star, taken)) = retry else { return false };
                retry = Some((after_star, taken + 1));
                (glyph, letter) = (after_star, taken + 1);
            }
        }
    }
    glyphs[glyph..].iter().all(|glyph| *glyph == Glyph::AnyMany)
}

#[cfg(test)]
mod tests {
    use super::{PatternError, TablePattern};
    use crate::feed::feed_name;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_tables() {
        for (pattern, schema, table, expected) in [
            ("orders", "main", "orders", true),
            ("orders", "other", "orders", false),
            ("public.orders", "public", "orders", true),
            ("public.orders", "public", "order", false),
            ("public.customer_*", "public", "customer_", true),
            ("public.customer_*", "public", "customer_eu", true),
            ("public.customer_*", "public", "customers", false),
            ("*.*", "a", "b.c", true),
            ("p?.a*b*c", "p1", "aXbXbc", true),
            ("p?.a*b*c", "p1", "aXbXb", false),
            ("*", "main", "anything", true),
            ("*", "other", "anything", false),
            ("\"a.b\".\"c*\"", "a.b", "c*", true),
            ("\"a.b\".\"c*\"", "a.b", "cd", false),
            ("\"a\"\"b\"", "main", "a\"b", true),
            ("été.t?t", "été", "tét", true),
        ] {
            assert_eq!(TablePattern::parse(pattern).unwrap().matches(schema, table, "main"), expected, "{pattern} {schema}.{table}");
        }
    }

    #[test]
    fn errors_name_the_column() {
        let text = |text: &str| text.to_owned();
        for (pattern, expected) in [
            ("", PatternError::Empty { text: text(""), column: 1 }),
            ("a.", PatternError::Empty { text: text("a."), column: 3 }),
            (".a", PatternError::Empty { text: text(".a"), column: 1 }),
            ("\"\"", PatternError::Empty { text: text("\"\""), column: 1 }),
            ("a.\"b", PatternError::Unclosed { text: text("a.\"b"), column: 3 }),
            ("a\"b", PatternError::Misquoted { text: text("a\"b"), column: 2 }),
            ("\"a\"b", PatternError::Misquoted { text: text("\"a\"b"), column: 4 }),
            ("a.b.c", PatternError::TooManyNames { text: text("a.b.c"), column: 5 }),
            ("a.b.", PatternError::TooManyNames { text: text("a.b."), column: 5 }),
        ] {
            assert_eq!(TablePattern::parse(pattern), Err(expected));
        }
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let pattern = TablePattern::parse(&format!("{}b", "*a".repeat(40))).unwrap();
        assert!(!pattern.matches("main", &"a".repeat(10_000), "main"));
    }

    proptest! {
        #[test]
        fn the_name_of_a_table_is_a_pattern_that_matches_only_it(schema in "[a-c.\"]{1,6}", table in "[a-c.\" é]{1,6}", other in "[a-c.\" é]{1,6}") {
            let pattern = TablePattern::parse(&feed_name(&schema, &table)).unwrap();
            prop_assert!(pattern.is_literal() && pattern.matches(&schema, &table, "main"));
            prop_assert_eq!(pattern.matches(&schema, &other, "main"), other == table);
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error(text in "[a.\"*? é]{0,12}") {
            if let Ok(pattern) = TablePattern::parse(&text) {
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }
}
