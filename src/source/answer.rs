//! A row of the answer to a query, as text.

/// One row of a query's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(Vec<Option<String>>);

impl Answer {
    /// A row of these values; `None` for null.
    #[must_use]
    pub const fn new(values: Vec<Option<String>>) -> Self {
        Self(values)
    }

    /// Bytes of memory that it takes beside the values.
    #[must_use]
    pub fn overhead(&self) -> usize {
        size_of_val(self.0.as_slice())
    }

    /// The value of this column; `None` if it is null or missing.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        self.0.get(index)?.as_deref()
    }

    /// The value of this column; empty if it is null or missing.
    #[must_use]
    pub fn text(&self, index: usize) -> &str {
        self.get(index).unwrap_or_default()
    }
}
