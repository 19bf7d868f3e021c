//! What the log does not say of a table's columns, and how the checkpoint remembers it.

use super::kind::Hint;
use super::tables::Table;
use crate::checkpoint::Layout;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The types of a table's columns that the log shows as other ones. Events that are older than a change of the table have the types that it
/// had then, so they are read with what was remembered, and not with what the catalogue says today.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hints(BTreeMap<Arc<str>, Hint>);

/// The names in a checkpoint.
const NAMES: [(Hint, &str); 4] = [(Hint::Json, "json"), (Hint::Uuid, "uuid"), (Hint::Inet4, "inet4"), (Hint::Inet6, "inet6")];

impl Hints {
    /// Those of the catalogue.
    pub(super) fn of(table: &Table) -> Self {
        Self(table.columns.iter().filter_map(|column| Some((Arc::clone(&column.name), column.hint?))).collect())
    }

    /// Those that a checkpoint remembers; `None` if it is not a layout of this source.
    pub(super) fn parse(layout: &Layout) -> Option<Self> {
        let names: BTreeMap<Arc<str>, &str> = serde_json::from_str(&layout.0).ok()?;
        let hint = |name: &str| NAMES.iter().find(|(_, known)| *known == name).map(|(hint, _)| *hint);
        names.into_iter().map(|(column, name)| Some((column, hint(name)?))).collect::<Option<_>>().map(Self)
    }

    /// The layout to remember.
    pub(super) fn layout(&self) -> Layout {
        let name = |hint: &Hint| NAMES.iter().find(|(known, _)| known == hint).map_or("", |(_, name)| name);
        let names: serde_json::Map<String, serde_json::Value> =
            self.0.iter().map(|(column, hint)| (column.to_string(), name(hint).into())).collect();
        Layout(serde_json::Value::Object(names).to_string().into())
    }

    /// The hint for this column.
    pub(super) fn get(&self, column: &str) -> Option<Hint> {
        self.0.get(column).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{Hint, Hints, Layout};

    #[test]
    fn a_layout_is_read_again() {
        let hints = Hints([("a \"b\"".into(), Hint::Json), ("u".into(), Hint::Uuid), ("i".into(), Hint::Inet6)].into());
        assert_eq!(Hints::parse(&hints.layout()), Some(hints));
        assert_eq!(&*Hints::default().layout().0, "{}");
        assert_eq!((Hints::parse(&Layout("{\"a\":\"vector\"}".into())), Hints::parse(&Layout("7".into()))), (None, None));
    }
}
