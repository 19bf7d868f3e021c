//! Changes to a JSON value, which MySQL logs instead of the new value (`binlog_row_value_options = PARTIAL_JSON`).
//!
//! Source: MySQL 9.7 `sql/json_diff.h`, `json_diff.cc` (`Json_diff_vector::read_binary`, `apply_json_diffs`).

use super::bytes::{Malformed, Reader};
use super::jsonb;
use serde_json::value::RawValue;

const MALFORMED: Malformed = Malformed("value: changes to JSON");

/// The deepest document that the server stores.
const DEPTH_MAX: u8 = 100;

/// A JSON value, of which only what changes is taken apart.
enum Node {
    Text(Box<RawValue>),
    Array(Vec<Node>),
    /// In the order in which the server stores the keys.
    Object(Vec<(String, Node)>),
}

/// One step of a path.
enum Step {
    Member(String),
    Element(usize),
}

/// Applies changes to the text of a document, and appends the text of the new one.
///
/// # Errors
/// Where they do not fit the document.
pub fn apply(document: &str, changes: &[u8], out: &mut String) -> Result<(), Malformed> {
    let mut root = Node::Text(RawValue::from_string(document.to_owned()).map_err(|_| MALFORMED)?);
    let mut reader = Reader::new(changes, MALFORMED.0);
    while !reader.is_empty() {
        let operation = reader.byte()?;
        let path = path(std::str::from_utf8(reader.packed_bytes()?).map_err(|_| MALFORMED)?).ok_or(MALFORMED)?;
        match operation {
            0 => *root.descend(&path).ok_or(MALFORMED)? = node(reader.packed_bytes()?)?,
            1 => root.insert(&path, node(reader.packed_bytes()?)?).ok_or(MALFORMED)?,
            2 => root.remove(&path).ok_or(MALFORMED)?,
            _ => return Err(MALFORMED),
        }
    }
    root.write(out)
}

fn node(document: &[u8]) -> Result<Node, Malformed> {
    let mut text = String::new();
    jsonb::write(document, &mut text)?;
    RawValue::from_string(text).map(Node::Text).map_err(|_| MALFORMED)
}

/// Reads a path: `$.name`, `."quoted name"` and `[0]`.
fn path(text: &str) -> Option<Vec<Step>> {
    let mut rest = text.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if steps.len() > usize::from(DEPTH_MAX) {
            return None;
        }
        if let Some(element) = rest.strip_prefix('[') {
            let (index, after) = element.split_once(']')?;
            steps.push(Step::Element(index.parse().ok()?));
            rest = after;
        } else {
            let member = rest.strip_prefix('.')?;
            let end = if member.starts_with('"') { end_of_string(member)? } else { member.find(['.', '[']).unwrap_or(member.len()) };
            let (name, after) = member.split_at(end);
            let name = if name.starts_with('"') { serde_json::from_str(name).ok()? } else { name.to_owned() };
            steps.push(Step::Member(name));
            rest = after;
        }
    }
    Some(steps)
}

/// The end of a JSON string that begins here.
fn end_of_string(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

impl Node {
    /// Takes the value apart by one level.
    fn open(&mut self) -> Option<()> {
        let Self::Text(text) = self else { return Some(()) };
        let text = text.get();
        *self = match text.as_bytes().first()? {
            b'[' => {
                let elements: Vec<Box<RawValue>> = serde_json::from_str(text).ok()?;
                Self::Array(elements.into_iter().map(Self::Text).collect())
            }
            b'{' => Self::Object(members(text)?),
            _ => return None,
        };
        Some(())
    }

    fn descend(&mut self, path: &[Step]) -> Option<&mut Self> {
        let mut node = self;
        for step in path {
            node.open()?;
            node = match (node, step) {
                (Self::Array(elements), Step::Element(index)) => elements.get_mut(*index)?,
                (Self::Object(members), Step::Member(name)) => members.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value)?,
                _ => return None,
            };
        }
        Some(node)
    }

    /// Adds a member or an element. An element beyond the end is appended.
    fn insert(&mut self, path: &[Step], value: Self) -> Option<()> {
        let (last, path) = path.split_last()?;
        let parent = self.descend(path)?;
        parent.open()?;
        match (parent, last) {
            (Self::Array(elements), Step::Element(index)) => elements.insert((*index).min(elements.len()), value),
            (Self::Object(members), Step::Member(name)) => {
                // The server keeps shorter keys first, and keys of one length in the order of their bytes.
                let order = |key: &str| (key.len(), key.to_owned());
                let at = members.partition_point(|(key, _)| order(key) < order(name));
                members.insert(at, (name.clone(), value));
            }
            _ => return None,
        }
        Some(())
    }

    fn remove(&mut self, path: &[Step]) -> Option<()> {
        let (last, path) = path.split_last()?;
        let parent = self.descend(path)?;
        parent.open()?;
        match (parent, last) {
            (Self::Array(elements), Step::Element(index)) if *index < elements.len() => drop(elements.remove(*index)),
            (Self::Object(members), Step::Member(name)) => {
                let at = members.iter().position(|(key, _)| key == name)?;
                members.remove(at);
            }
            _ => return None,
        }
        Some(())
    }

    fn write(&self, out: &mut String) -> Result<(), Malformed> {
        match self {
            Self::Text(text) => out.push_str(text.get()),
            Self::Array(elements) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    if 0 < index {
                        out.push(',');
                    }
                    element.write(out)?;
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (key, value)) in members.iter().enumerate() {
                    if 0 < index {
                        out.push(',');
                    }
                    jsonb::string(key.as_bytes(), out)?;
                    out.push(':');
                    value.write(out)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }
}

/// The members of an object in their order, each value as it is written.
fn members(text: &str) -> Option<Vec<(String, Node)>> {
    struct Members;

    impl<'de> serde::de::Visitor<'de> for Members {
        type Value = Vec<(String, Node)>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                members.push((key, Node::Text(value)));
            }
            Ok(members)
        }
    }

    serde::Deserializer::deserialize_map(&mut serde_json::Deserializer::from_str(text), Members).ok()
}

#[cfg(test)]
mod tests {
    use super::apply;

    fn change(operation: u8, path: &str, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![operation, u8::try_from(path.len()).unwrap()];
        bytes.extend(path.as_bytes());
        if operation != 2 {
            bytes.push(u8::try_from(value.len()).unwrap());
            bytes.extend(value);
        }
        bytes
    }

    fn applied(document: &str, changes: &[Vec<u8>]) -> Option<String> {
        let mut out = String::new();
        apply(document, &changes.concat(), &mut out).ok().map(|()| out)
    }

    #[test]
    fn changes_apply_in_order_and_leave_the_rest_as_it_was() {
        let seven = [5, 7, 0];
        let document = r#"{"a":1,"b":[1.50,{"x y":2}],"cc":"s"}"#;
        let expected = r#"{"a":1,"b":[1.50,{"x y":7}],"cc":"s"}"#;
        assert_eq!(applied(document, &[change(0, "$.b[1].\"x y\"", &seven)]).unwrap(), expected);
        let changes = [change(2, "$.a", &[]), change(1, "$.z", &seven), change(1, "$.b[9]", &seven), change(2, "$.b[0]", &[])];
        assert_eq!(applied(document, &changes).unwrap(), r#"{"b":[{"x y":2},7],"z":7,"cc":"s"}"#);
        assert_eq!(applied(document, &[change(0, "$", &seven)]).unwrap(), "7");
    }

    #[test]
    fn changes_that_do_not_fit_are_refused() {
        for bad in [change(0, "$.q", &[4, 0]), change(2, "$.a[0]", &[]), change(2, "a", &[]), change(3, "$", &[]), change(0, "$[", &[4, 0])]
        {
            assert_eq!(applied(r#"{"a":1}"#, &[bad]), None);
        }
    }
}
