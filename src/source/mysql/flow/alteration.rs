//! The parts of an `ALTER TABLE`: what each does to rows and names.

use super::words::{TableName, Words};

/// A table whose rows go to a partition of another one, or come from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OtherTable {
    /// It has other rows.
    Changed(TableName),
    /// It is no more.
    Gone(TableName),
}

/// What a new definition does to the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// They may have other values.
    Values,
    /// Some may be gone, or new.
    Rows,
}

/// One part of an `ALTER TABLE`.
pub(super) struct Alteration {
    pub(super) effect: Effect,
    /// The name that it gives to the table.
    pub(super) renamed: Option<TableName>,
    pub(super) other: Option<OtherTable>,
}

impl From<Effect> for Alteration {
    fn from(effect: Effect) -> Self {
        Self { effect, renamed: None, other: None }
    }
}

/// Reads one part.
pub(super) fn alteration(words: &mut Words<'_>) -> Alteration {
    let first = words.keyword().unwrap_or_default();
    match first.as_str() {
        "ADD" => addition(words).into(),
        "MODIFY" | "CHANGE" => Effect::Values.into(),
        "CONVERT" => conversion(words),
        "EXCHANGE" => {
            words.skip_behind("WITH");
            words.take("TABLE");
            Alteration { other: words.table().map(OtherTable::Changed), ..Effect::Rows.into() }
        }
        "DROP" | "TRUNCATE" | "DISCARD" | "IMPORT" => {
            let is_part = words.keyword().is_some_and(|word| word == "PARTITION" || word == "TABLESPACE");
            if is_part { Effect::Rows.into() } else { Effect::None.into() }
        }
        "RENAME" => {
            if words.take("COLUMN") {
                // Readers have the values of rows that do not change under the old name.
                return Effect::Values.into();
            }
            if words.take("INDEX") || words.take("KEY") {
                return Effect::None.into();
            }
            while words.take("TO") || words.take("AS") || words.symbol('=') {}
            Alteration { renamed: words.table(), ..Effect::None.into() }
        }
        _ => Effect::None.into(),
    }
}

/// MariaDB makes a partition of a table, and a table of a partition.
fn conversion(words: &mut Words<'_>) -> Alteration {
    if words.take("TABLE") {
        return Alteration { other: words.table().map(OtherTable::Gone), ..Effect::Rows.into() };
    }
    if words.take("PARTITION") {
        words.skip_behind("TABLE");
        return Alteration { other: words.table().map(OtherTable::Changed), ..Effect::Rows.into() };
    }
    // To another character set.
    Effect::Values.into()
}

/// A new column may have values in the rows that are there.
fn addition(words: &mut Words<'_>) -> Effect {
    const NO_COLUMN: [&str; 12] =
        ["INDEX", "KEY", "CONSTRAINT", "PRIMARY", "UNIQUE", "FULLTEXT", "SPATIAL", "FOREIGN", "CHECK", "PARTITION", "PERIOD", "SYSTEM"];
    if words.peek_keyword().is_some_and(|word| NO_COLUMN.contains(&word.as_str())) {
        return Effect::None;
    }
    let definition = words.until_comma();
    let has = |word: &str| definition.iter().any(|known| known == word);
    let default_is_null = definition.windows(2).any(|pair| pair[0] == "DEFAULT" && pair[1] == "NULL");
    let has_values = (has("DEFAULT") && !default_is_null) || has("NOT") || has("AS") || has("AUTO_INCREMENT") || has("ON") || has("SERIAL");
    if has_values { Effect::Values } else { Effect::None }
}

impl Effect {
    /// What does more.
    pub(super) const fn most(self, other: Self) -> Self {
        match (self, other) {
            (Self::Rows, _) | (_, Self::Rows) => Self::Rows,
            (Self::Values, _) | (_, Self::Values) => Self::Values,
            (Self::None, Self::None) => Self::None,
        }
    }
}
