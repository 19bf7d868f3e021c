//! Which tables a section of the feeds names.

use super::pattern::{PatternError, TablePattern};

/// The tables that one of the patterns matches, without those that a pattern behind `!` matches. By default none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    included: Vec<TablePattern>,
    excluded: Vec<TablePattern>,
}

impl Selection {
    /// Parses a list of patterns.
    ///
    /// # Errors
    /// What is wrong with each of them; and where all of them are behind `!`.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, Vec<PatternError>> {
        let (mut included, mut excluded, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for text in texts.iter().map(AsRef::as_ref) {
            let (list, pattern) = match text.strip_prefix('!') {
                Some(pattern) => (&mut excluded, pattern),
                None => (&mut included, text),
            };
            match TablePattern::parse(pattern) {
                Ok(pattern) => list.push(pattern),
                Err(error) => errors.push(error),
            }
        }
        if included.is_empty() && !excluded.is_empty() {
            errors.push(PatternError::NothingIncluded);
        }
        if errors.is_empty() { Ok(Self { included, excluded }) } else { Err(errors) }
    }

    /// The patterns without `!`.
    #[must_use]
    pub fn included(&self) -> &[TablePattern] {
        &self.included
    }

    /// Whether it has this table. A pattern without a schema matches tables of the default schema.
    #[must_use]
    pub fn has(&self, schema: &str, table: &str, default_schema: &str) -> bool {
        let is_matched = |patterns: &[TablePattern]| patterns.iter().any(|pattern| pattern.matches(schema, table, default_schema));
        is_matched(&self.included) && !is_matched(&self.excluded)
    }

    /// Whether it has one table at most, whatever tables there are.
    #[must_use]
    pub fn is_one_table(&self) -> bool {
        matches!(self.included.as_slice(), [pattern] if pattern.is_literal())
    }
}

#[cfg(test)]
mod tests {
    use super::{PatternError, Selection};

    #[test]
    fn what_is_behind_an_exclamation_mark_is_left_out() {
        let selection = Selection::parse(&["shop.*", "audit.orders", "!shop._*_gho", "!*.secret", "!\"!\""]).unwrap();
        for (schema, table, expected) in [
            ("shop", "orders", true),
            ("shop", "_orders_gho", false),
            ("shop", "orders_gho", true),
            ("shop", "secret", false),
            ("audit", "orders", true),
            ("audit", "_orders_gho", false),
            ("main", "!", false),
        ] {
            assert_eq!(selection.has(schema, table, "main"), expected, "{schema}.{table}");
        }
        assert!(Selection::parse(&["\"!a\""]).unwrap().has("main", "!a", "main"), "a quoted name may begin with it");
    }

    #[test]
    fn something_must_be_included() {
        assert_eq!(Selection::parse(&["!a", "!b"]), Err(vec![PatternError::NothingIncluded]));
        assert_eq!(Selection::parse(&["a.", "!"]).unwrap_err().len(), 2);
        assert_eq!(Selection::parse::<&str>(&[]), Ok(Selection::default()));
    }

    #[test]
    fn one_table_is_one_name_without_wildcards() {
        for (texts, expected) in [(&["a"][..], true), (&["a", "!b"], true), (&["a", "b"], false), (&["a*"], false)] {
            assert_eq!(Selection::parse(texts).unwrap().is_one_table(), expected, "{texts:?}");
        }
    }
}
