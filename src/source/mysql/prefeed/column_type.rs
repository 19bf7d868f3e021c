//! How the log stores the values of a column, by its type in the catalogue. So the prefeed describes a table as the log does.

use crate::source::mysql::binlog::{BINARY, Labels, Storage};
use crate::source::mysql::charset::{Charset, Charsets};
use crate::source::mysql::kind::Hint;
use crate::source::mysql::tables::Column;
use std::sync::Arc;

/// A type as the catalogue writes it: `decimal(10,2) unsigned`.
struct TypeName<'t> {
    name: &'t str,
    /// What stands in parentheses.
    arguments: &'t str,
    is_unsigned: bool,
}

impl<'t> TypeName<'t> {
    fn parse(text: &'t str) -> Self {
        let name = text.split(['(', ' ']).next().unwrap_or_default();
        let rest = text.get(name.len()..).unwrap_or_default();
        let arguments = rest.strip_prefix('(').map_or("", |rest| &rest[..end_of_arguments(rest)]);
        let attributes = rest.get(arguments.len()..).unwrap_or_default();
        // The labels of an ENUM may contain anything.
        Self { name, arguments, is_unsigned: attributes.split([' ', ')']).any(|word| word == "unsigned") }
    }

    fn number<T: std::str::FromStr + Default>(&self, index: usize) -> T {
        self.arguments.split(',').nth(index).and_then(|number| number.trim().parse().ok()).unwrap_or_default()
    }
}

/// Where the parenthesis closes: behind the last quoted label.
fn end_of_arguments(text: &str) -> usize {
    let mut is_quoted = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if is_quoted => escaped = true,
            b'\'' => is_quoted = !is_quoted,
            b')' if !is_quoted => return at,
            _ => {}
        }
    }
    text.len()
}

/// The labels of an `ENUM` or `SET`. A quote in a label is doubled, and some characters are escaped as in SQL.
fn labels(arguments: &str) -> Vec<Box<[u8]>> {
    let mut labels = Vec::new();
    let mut characters = arguments.chars().peekable();
    while characters.by_ref().any(|character| character == '\'') {
        let mut label = String::new();
        while let Some(character) = characters.next() {
            match character {
                '\'' if characters.next_if_eq(&'\'').is_none() => break,
                '\\' => label.push(match characters.next() {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('0') => '\0',
                    Some('Z') => '\u{1A}',
                    Some(other) => other,
                    None => break,
                }),
                other => label.push(other),
            }
        }
        labels.push(label.into_bytes().into());
    }
    labels
}

/// How the log stores a column of this type; `None` if the type or its character set is not known.
pub(super) fn storage(column: &Column, charsets: &Charsets) -> Option<Storage> {
    let of = TypeName::parse(&column.type_name);
    let integer = |bytes| Storage::Integer { bytes, unsigned: of.is_unsigned };
    let charset = || charsets.of_name(column.charset.as_deref()?);
    let characters = |length: Option<u16>, is_padded| {
        let (collation, _) = charset()?;
        Some(Storage::Characters { prefix: 4, length, collation, is_padded, is_compressed: false })
    };
    let bytes = |length, is_padded| Storage::Characters { prefix: 4, length, collation: BINARY, is_padded, is_compressed: false };
    let length_in_bytes = || charset().map(|(_, charset): (_, &Arc<Charset>)| charset.bytes(of.number(0)));
    let labels = || {
        charset()?;
        let (collation, _) = charsets.of_name("utf8mb4")?;
        Some(Labels { texts: labels(of.arguments).into(), collation })
    };
    Some(match of.name {
        "tinyint" => integer(1),
        "smallint" => integer(2),
        "mediumint" => integer(3),
        "int" => integer(4),
        "bigint" => integer(8),
        "float" => Storage::Float,
        "double" => Storage::Double,
        "decimal" => Storage::Decimal { precision: of.number(0), scale: of.number(1) },
        "year" => Storage::Year,
        "bit" => Storage::Bit { bits: of.number(0) },
        "date" => Storage::Date,
        "time" => Storage::Time { digits: of.number(0) },
        "datetime" => Storage::DateTime { digits: of.number(0) },
        "timestamp" => Storage::Timestamp { digits: of.number(0) },
        "enum" => Storage::Enumeration { bytes: 2, labels: labels()? },
        "set" => Storage::Set { bytes: 8, labels: labels()? },
        "char" => characters(Some(length_in_bytes()?), true)?,
        "varchar" => characters(Some(length_in_bytes()?), false)?,
        "tinytext" | "text" | "mediumtext" | "longtext" => characters(None, false)?,
        "binary" => bytes(Some(of.number(0)), true),
        "varbinary" => bytes(Some(of.number(0)), false),
        "tinyblob" | "blob" | "mediumblob" | "longblob" => bytes(None, false),
        "json" => Storage::Json { prefix: 4 },
        "vector" => Storage::Vector { prefix: 4 },
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon" | "geometrycollection"
        | "geomcollection" => Storage::Geometry { prefix: 4 },
        "uuid" | "inet6" if column.hint.is_some() => bytes(Some(16), true),
        "inet4" if column.hint == Some(Hint::Inet4) => bytes(Some(4), true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{TypeName, labels};

    #[test]
    fn a_type_is_read_as_the_catalogue_writes_it() {
        let read = |text| {
            let TypeName { name, arguments, is_unsigned } = TypeName::parse(text);
            (name, arguments, is_unsigned)
        };
        assert_eq!(read("int"), ("int", "", false));
        assert_eq!(read("bigint(20) unsigned zerofill"), ("bigint", "20", true));
        assert_eq!(read("decimal(10,2) unsigned"), ("decimal", "10,2", true));
        assert_eq!(read("varchar(9) /*M!100301 COMPRESSED*/"), ("varchar", "9", false));
        assert_eq!(read("enum('a) unsigned','b')"), ("enum", "'a) unsigned','b'", false));
        assert_eq!(TypeName::parse("decimal(10,2)").number::<u8>(1), 2);
        assert_eq!(TypeName::parse("time").number::<u8>(0), 0);
    }

    #[test]
    fn labels_may_contain_what_separates_them() {
        let read = |text| labels(text).into_iter().map(|label| String::from_utf8(label.into()).unwrap()).collect::<Vec<_>>();
        assert_eq!(read("'a','it''s','x,y',''"), ["a", "it's", "x,y", ""]);
        assert_eq!(read(r"'back\\slash','li\nne','ä)'"), ["back\\slash", "li\nne", "ä)"]);
        assert_eq!(read(""), [""; 0]);
    }
}
