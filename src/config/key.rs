//! Typed keys: settings as `settings` declares them and as the builders read them. The type of a value follows from its key.

use crate::config::schema::{Default, Setting};
use crate::config::value::{self, Typed};
use figment::value::Value;
use std::ops::Deref;

/// A setting that always has a value: the given one, or the default.
pub(super) struct Key<T> {
    setting: Setting,
    read: fn(Typed) -> Option<T>,
}

/// A setting that may have no value.
pub(super) struct OptionalKey<T>(Key<T>);

impl<T> Deref for Key<T> {
    type Target = Setting;

    fn deref(&self) -> &Setting {
        &self.setting
    }
}

impl<T> Deref for OptionalKey<T> {
    type Target = Setting;

    fn deref(&self) -> &Setting {
        &self.0.setting
    }
}

impl<T> Key<T> {
    pub(super) const fn new(setting: Setting, read: fn(Typed) -> Option<T>) -> Self {
        assert!(matches!(setting.default, Default::Required(_) | Default::Is(_)), "without a default, it is an optional key");
        Self { setting, read }
    }

    pub(super) const fn setting(&self) -> Setting {
        self.setting
    }

    /// The default. For a required setting, which is missing then, its example: this has been reported, and no plan comes of it.
    pub(super) fn default(&self) -> T {
        let (Default::Required(text) | Default::Is(text) | Default::Absent(text) | Default::Derived(text)) = self.default;
        let value = if self.kind.is_plain() { Value::from(text) } else { text.parse().unwrap_or_else(|_| Value::from(text)) };
        self.value(value::parse(self, &value).expect("a default is a value of its setting"))
    }

    /// The value that was given.
    pub(super) fn value(&self, given: Typed) -> T {
        (self.read)(given).expect("a value is of its setting's type")
    }
}

impl<T> OptionalKey<T> {
    pub(super) const fn new(setting: Setting, read: fn(Typed) -> Option<T>) -> Self {
        assert!(matches!(setting.default, Default::Absent(_) | Default::Derived(_)), "with a default, it is not optional");
        Self(Key { setting, read })
    }

    pub(super) const fn setting(&self) -> Setting {
        self.0.setting
    }

    /// The value that was given.
    pub(super) fn value(&self, given: Typed) -> T {
        self.0.value(given)
    }
}

#[cfg(test)]
impl<T> Key<T> {
    /// Asserts that the default and each bound are values of the setting.
    pub(super) fn assert_declared(&self) {
        use crate::config::schema::Type;
        // Tables are TOML, which only a document is parsed as. Derived defaults are descriptions.
        if !matches!(self.kind, Type::Properties) && !matches!(self.default, Default::Derived(_)) {
            self.default();
        }
        if let Type::Integer { least, most } | Type::Size { least, most } = self.kind {
            for bound in [least, most] {
                self.value(Typed::Number(bound));
            }
        }
    }
}

#[cfg(test)]
impl<T> OptionalKey<T> {
    /// Asserts that the example and each bound are values of the setting.
    pub(super) fn assert_declared(&self) {
        self.0.assert_declared();
    }
}
