//! Parses SQL text of the schema: unique indexes and triggers.
//!
//! SQLite's catalogue lists the columns of an index, but neither its expressions nor its condition: they stand in the text only.

/// What the text of an index says beyond its columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexDefinition {
    /// Each term as it is written, without `ASC` or `DESC`.
    pub(super) terms: Vec<String>,
    /// The condition of a partial index.
    pub(super) predicate: Option<String>,
}

/// Parses `CREATE UNIQUE INDEX`; `None` where the text is something else.
pub(super) fn unique_index(sql: &str) -> Option<IndexDefinition> {
    let sql = &without_comments(sql)?;
    let words = words(sql)?;
    let open = words.iter().position(|word| word.text == "(")?;
    let mut depth = 0_usize;
    let mut start = words[open].end;
    let mut terms = Vec::new();
    let mut tail = None;
    for (index, word) in words.iter().enumerate().skip(open) {
        match word.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            terms.push(term(sql.get(start..word.start)?));
            tail = words.get(index + 1);
            break;
        }
        if depth == 1 && word.text == "," {
            terms.push(term(sql.get(start..word.start)?));
            start = word.end;
        }
    }
    let predicate = match tail {
        None => None,
        Some(word) if word.text.eq_ignore_ascii_case("where") => Some(sql.get(word.end..)?.trim().to_owned()),
        Some(_) => return None,
    };
    (!terms.is_empty()).then_some(IndexDefinition { terms, predicate })
}

/// The statement with a space in place of each comment. A `--` comment would hide what is appended to a term.
fn without_comments(sql: &str) -> Option<String> {
    let mut text = String::with_capacity(sql.len());
    let mut end = 0;
    for word in words(sql)? {
        if end < word.start {
            text.push(' ');
        }
        text.push_str(word.text);
        end = word.end;
    }
    Some(text)
}

/// A term without `ASC` or `DESC`. COLLATE stays: it is part of the expression, and repeating it changes nothing.
fn term(text: &str) -> String {
    let text = text.trim();
    let Some(words) = words(text) else { return text.to_owned() };
    match words.last() {
        Some(last) if last.text.eq_ignore_ascii_case("asc") || last.text.eq_ignore_ascii_case("desc") => {
            text[..last.start].trim_end().to_owned()
        }
        _ => text.to_owned(),
    }
}

/// A statement without its names: signs, numbers and string literals only.
pub(super) fn without_names(sql: &str) -> String {
    let is_sign = |word: &&Word<'_>| {
        let first = word.text.as_bytes().first().copied().unwrap_or(b'"');
        !matches!(first, b'"' | b'`' | b'[') && (!is_name(first) || first.is_ascii_digit())
    };
    words(sql).unwrap_or_default().iter().filter(is_sign).map(|word| word.text).collect()
}

/// Whether the text is an AFTER trigger with `RAISE(IGNORE)`, which skips all triggers of the row that have not run yet.
pub(super) fn skips_later_triggers(trigger: &str) -> bool {
    let words: Vec<_> = words(trigger).unwrap_or_default().iter().map(|word| word.text.to_ascii_uppercase()).collect();
    let head = words.iter().take_while(|word| *word != "ON");
    head.clone().any(|word| word == "AFTER") && words.windows(3).any(|three| three == ["RAISE", "(", "IGNORE"])
}

struct Word<'s> {
    text: &'s str,
    start: usize,
    end: usize,
}

/// Splits a statement into names, literals and signs, without comments; `None` where a quote is not closed.
fn words(sql: &str) -> Option<Vec<Word<'_>>> {
    let bytes = sql.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        let rest = &bytes[at..];
        match byte {
            _ if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            _ if rest.starts_with(b"--") => {
                at += memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                continue;
            }
            _ if rest.starts_with(b"/*") => {
                at += memchr::memmem::find(rest, b"*/").map_or(rest.len(), |end| end + 2);
                continue;
            }
            b'\'' | b'"' | b'`' | b'[' => {
                let close = if byte == b'[' { b']' } else { byte };
                at += 1;
                loop {
                    at += memchr::memchr(close, bytes.get(at..)?)? + 1;
                    // A doubled quote is one quote of the name; brackets are not doubled.
                    if close == b']' || bytes.get(at) != Some(&close) {
                        break;
                    }
                    at += 1;
                }
            }
            _ if is_name(byte) => at += rest.iter().take_while(|byte| is_name(**byte)).count(),
            _ => at += 1,
        }
        words.push(Word { text: sql.get(start..at)?, start, end: at });
    }
    Some(words)
}

const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::unique_index;

    fn check(sql: &str, terms: &[&str], predicate: Option<&str>) {
        let found = unique_index(sql).unwrap_or_else(|| panic!("{sql}"));
        assert_eq!(found.terms, terms, "{sql}");
        assert_eq!(found.predicate.as_deref(), predicate, "{sql}");
    }

    #[test]
    fn terms_and_condition_are_found() {
        check("CREATE UNIQUE INDEX i ON t(a)", &["a"], None);
        check("CREATE UNIQUE INDEX i ON t (a, b DESC, lower(c || ',)') asc)", &["a", "b", "lower(c || ',)')"], None);
        check("CREATE UNIQUE INDEX \"i(\" ON [t)](a) WHERE b IS NOT NULL", &["a"], Some("b IS NOT NULL"));
        check("CREATE UNIQUE INDEX i ON t(a /* ) */, -- ,\n b) where (c > 0)", &["a", "b"], Some("(c > 0)"));
        check("CREATE UNIQUE INDEX i ON t(a||b) WHERE c>=0 -- why", &["a||b"], Some("c>=0"));
        check("CREATE UNIQUE INDEX i ON t(\"été\" COLLATE nocase DESC)", &["\"été\" COLLATE nocase"], None);
        check("CREATE UNIQUE INDEX i ON t('a''b(' , `c`)", &["'a''b('", "`c`"], None);
    }

    #[test]
    fn renaming_a_column_changes_names_only() {
        let made = "CREATE TRIGGER \"t\" WHEN OLD.\"a\" IS NOT NEW.\"a\" BEGIN SELECT 'x', 1; END";
        assert_eq!(super::without_names(made), super::without_names(&made.replace("\"a\"", "\"b\"\"c\"")));
        assert_ne!(super::without_names(made), super::without_names(&made.replace(", 1", "")));
        assert_ne!(super::without_names(made), super::without_names(&made.replace("WHEN OLD", "WHEN 0 AND OLD")));
    }

    #[test]
    fn a_trigger_that_skips_others_is_found() {
        let ends = "CREATE TRIGGER \"after\" AFTER UPDATE OF a ON t BEGIN SELECT raise ( ignore ) WHERE NEW.a; END";
        assert!(super::skips_later_triggers(ends));
        for other in [ends.replace("AFTER", "BEFORE"), ends.replace(" AFTER", ""), ends.replace("ignore", "abort")] {
            assert!(!super::skips_later_triggers(&other), "{other}");
        }
    }

    #[test]
    fn text_that_is_no_index_is_refused() {
        for sql in
            ["", "CREATE TABLE t", "CREATE UNIQUE INDEX i ON t(a", "CREATE UNIQUE INDEX i ON t(a) USING x", "CREATE INDEX i ON t('a)"]
        {
            assert!(unique_index(sql).is_none(), "{sql}");
        }
    }
}
