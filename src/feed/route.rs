//! Routes: templates for the destination of each table and operation.

use crate::event::Operation;
use crate::fault::{Classify, Code, Fault};
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// The name of a Kafka topic, or an AMQP routing key.
pub type Destination = Arc<str>;

/// A placeholder of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Name,
    Database,
    Schema,
    Table,
    Operation,
}

impl Placeholder {
    const ALL: [Self; 5] = [Self::Name, Self::Database, Self::Schema, Self::Table, Self::Operation];

    const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Database => "database",
            Self::Schema => "schema",
            Self::Table => "table",
            Self::Operation => "operation",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Placeholder(Placeholder),
}

/// Text with placeholders in braces: `{name}`, `{database}`, `{schema}`, `{table}`, `{operation}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: Arc<str>,
    parts: Vec<Part>,
    spelling: Spelling,
}

/// How the values of placeholders are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Unchanged.
    Plain,
    /// As one word of an AMQP routing key.
    RoutingKeyWords,
}

/// The values of the placeholders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteValues<'a> {
    /// The pipeline's name.
    pub name: &'a str,
    /// The source's database.
    pub database: &'a str,
    /// The table's schema.
    pub schema: &'a str,
    /// The table.
    pub table: &'a str,
    /// The operation.
    pub operation: Operation,
}

/// Why a string is not a template. Columns count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is empty.
    #[error("the template is empty, so it names no destination")]
    Empty,
    /// A brace is not closed.
    #[error("the brace at column {column} of `{text}` is not closed: write a placeholder as {{table}}")]
    Unclosed {
        /// The whole template.
        text: String,
        /// The position of the brace.
        column: usize,
    },
    /// A closing brace has no opening brace.
    #[error("the brace at column {column} of `{text}` has no opening brace: write a placeholder as {{table}}")]
    Unopened {
        /// The whole template.
        text: String,
        /// The position of the brace.
        column: usize,
    },
    /// A placeholder does not exist.
    #[error("placeholder {{{found}}} at column {column} of `{text}` does not exist: did you mean {{{nearest}}}? (known: {})", known())]
    Unknown {
        /// The whole template.
        text: String,
        /// The position of its brace.
        column: usize,
        /// The text between the braces.
        found: String,
        /// The most similar placeholder.
        nearest: &'static str,
    },
}

impl Classify for TemplateError {
    fn fault(&self) -> Fault {
        Fault::Fatal
    }

    fn code(&self) -> Code {
        Code::ConfigInvalid
    }
}

fn known() -> String {
    Placeholder::ALL.map(|placeholder| format!("{{{}}}", placeholder.name())).join(" ")
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// [`TemplateError`] says what is wrong, and at which column.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let column = |rest: &str| text[..text.len() - rest.len()].chars().count() + 1;
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(brace) = rest.find(['{', '}']) {
            let (plain, braced) = rest.split_at(brace);
            if !plain.is_empty() {
                parts.push(Part::Text(plain.into()));
            }
            let Some(inside) = braced.strip_prefix('{') else {
                return Err(TemplateError::Unopened { text: text.to_owned(), column: column(braced) });
            };
            let Some((found, tail)) = inside.split_once('}').filter(|(found, _)| !found.contains('{')) else {
                return Err(TemplateError::Unclosed { text: text.to_owned(), column: column(braced) });
            };
            let placeholder = Placeholder::ALL.into_iter().find(|placeholder| placeholder.name() == found);
            let placeholder = placeholder.ok_or_else(|| TemplateError::Unknown {
                text: text.to_owned(),
                column: column(braced),
                found: found.to_owned(),
                nearest: nearest(found),
            })?;
            parts.push(Part::Placeholder(placeholder));
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self { text: text.into(), parts, spelling: Spelling::Plain })
    }

    /// The same template for AMQP routing keys. There a dot separates words, and `*` and `#` are wildcards of bindings. So in the
    /// values of placeholders these characters, `%` and control characters are percent-encoded (`%2E` for a dot).
    #[must_use]
    pub fn for_routing_keys(self) -> Self {
        Self { spelling: Spelling::RoutingKeyWords, ..self }
    }

    /// The destination of one table and operation.
    #[must_use]
    pub fn expand(&self, values: &RouteValues<'_>) -> Destination {
        let written = |value| match self.spelling {
            Spelling::Plain => Cow::Borrowed(value),
            Spelling::RoutingKeyWords => word(value),
        };
        let parts = self.parts.iter().map(|part| match part {
            Part::Text(text) => Cow::Borrowed(&**text),
            Part::Placeholder(Placeholder::Name) => written(values.name),
            Part::Placeholder(Placeholder::Database) => written(values.database),
            Part::Placeholder(Placeholder::Schema) => written(values.schema),
            Part::Placeholder(Placeholder::Table) => written(values.table),
            Part::Placeholder(Placeholder::Operation) => written(values.operation.name()),
        });
        parts.collect::<String>().into()
    }

    /// Whether each operation of a table has its own destination.
    #[must_use]
    pub fn names_operation(&self) -> bool {
        self.parts.contains(&Part::Placeholder(Placeholder::Operation))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The name as one word of a routing key.
fn word(name: &str) -> Cow<'_, str> {
    let is_special = |byte: u8| matches!(byte, b'.' | b'*' | b'#' | b'%') || byte.is_ascii_control();
    if !name.bytes().any(is_special) {
        return Cow::Borrowed(name);
    }
    let mut word = String::with_capacity(name.len() + 8);
    for letter in name.chars() {
        match u8::try_from(letter) {
            Ok(byte) if is_special(byte) => write!(word, "%{byte:02X}").expect("writing to a string cannot fail"),
            _ => word.push(letter),
        }
    }
    Cow::Owned(word)
}

fn nearest(found: &str) -> &'static str {
    let begins = |placeholder: &Placeholder| !found.is_empty() && placeholder.name().starts_with(found);
    if let Some(meant) = Placeholder::ALL.into_iter().find(begins) {
        return meant.name();
    }
    let distance = |placeholder: &Placeholder| strsim::damerau_levenshtein(found, placeholder.name());
    Placeholder::ALL.into_iter().min_by_key(distance).expect("there are five").name()
}

#[cfg(test)]
mod tests {
    use super::{RouteValues, Template, TemplateError};
    use crate::event::Operation;
    use proptest::prelude::*;

    const VALUES: RouteValues<'static> =
        RouteValues { name: "shop", database: "db", schema: "public", table: "or{d}ers", operation: Operation::Truncate };

    #[test]
    fn placeholders_are_replaced_by_their_values() {
        for (text, expected, names_operation) in [
            ("{name}.{schema}.{table}", "shop.public.or{d}ers", false),
            ("{schema}.{table}.{operation}", "public.or{d}ers.truncate", true),
            ("{database}{database}-é", "dbdb-é", false),
            ("orders", "orders", false),
        ] {
            let template = Template::parse(text).unwrap();
            assert_eq!(&*template.expand(&VALUES), expected);
            assert_eq!(template.names_operation(), names_operation);
            assert_eq!(template.to_string(), text);
        }
    }

    #[test]
    fn a_name_is_one_word_of_a_routing_key() {
        let template = Template::parse("a.{schema}.{table}.#").unwrap().for_routing_keys();
        let values = RouteValues { schema: "v1.2", table: "50% *#\t\u{e9}", ..VALUES };
        assert_eq!(&*template.expand(&values), "a.v1%2E2.50%25 %2A%23%09\u{e9}.#");
    }

    #[test]
    fn errors_name_the_column() {
        let text = |text: &str| text.to_owned();
        for (template, expected) in [
            ("", TemplateError::Empty),
            ("é{table", TemplateError::Unclosed { text: text("é{table"), column: 2 }),
            ("{{table}}", TemplateError::Unclosed { text: text("{{table}}"), column: 1 }),
            ("{table}}", TemplateError::Unopened { text: text("{table}}"), column: 8 }),
            ("a.{tabel}", TemplateError::Unknown { text: text("a.{tabel}"), column: 3, found: text("tabel"), nearest: "table" }),
            ("{op}", TemplateError::Unknown { text: text("{op}"), column: 1, found: text("op"), nearest: "operation" }),
        ] {
            assert_eq!(Template::parse(template), Err(expected));
        }
    }

    #[test]
    fn the_most_similar_placeholder_is_suggested() {
        let message = Template::parse("{name}.{tabel}").unwrap_err().to_string();
        assert_eq!(
            message,
            "placeholder {tabel} at column 8 of `{name}.{tabel}` does not exist: did you mean {table}? \
             (known: {name} {database} {schema} {table} {operation})"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_or_an_error_with_a_column_inside_it(text in "[{}a-z.é]{0,24}") {
            match Template::parse(&text) {
                Ok(template) => prop_assert_eq!(template.to_string(), text),
                Err(TemplateError::Empty) => prop_assert!(text.is_empty()),
                Err(TemplateError::Unclosed { column, .. } | TemplateError::Unknown { column, .. }) => {
                    prop_assert_eq!(text.chars().nth(column - 1), Some('{'));
                }
                Err(TemplateError::Unopened { column, .. }) => prop_assert_eq!(text.chars().nth(column - 1), Some('}')),
            }
        }

        #[test]
        fn text_without_braces_is_unchanged(text in "[^{}]{1,24}") {
            prop_assert_eq!(&*Template::parse(&text).unwrap().expand(&VALUES), text);
        }
    }
}
