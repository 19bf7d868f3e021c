//! The kinds of values: the type of a setting, and the Rust type that its value has.

use crate::config::schema::{Choice, Type};
use crate::config::value::Typed;
use crate::event::Operations;
use crate::feed::PrefeedKind;
use crate::feed::route::Template;
use crate::net::secret::Secret;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A kind of values that are read as `T`.
pub(super) struct Kind<T> {
    pub(super) kind: Type,
    /// `None` for a value of another kind.
    pub(super) read: fn(Typed) -> Option<T>,
}

/// A closed set: each value by its name, with its meaning or with the reason why it is refused.
pub(super) trait Chosen: Copy + 'static {
    const CHOICES: &'static [(&'static str, Result<Self, &'static str>)];
}

macro_rules! kind {
    ($kind:expr, $variant:ident => $value:expr) => {
        Kind { kind: $kind, read: |typed| if let Typed::$variant(value) = typed { $value(value) } else { None } }
    };
}

pub(super) const TEXT: Kind<String> = kind!(Type::Text, Text => Some);
pub(super) const NAME: Kind<Arc<str>> = kind!(Type::Name, Text => |text: String| Some(text.into()));
pub(super) const PATH: Kind<PathBuf> = kind!(Type::Path, Text => |text: String| Some(text.into()));
pub(super) const TOPIC: Kind<Template> = kind!(Type::Template, Template => Some);
pub(super) const ROUTING_KEY: Kind<Template> = kind!(Type::Template, Template => |template: Template| Some(template.for_routing_keys()));
pub(super) const BOOLEAN: Kind<bool> = kind!(Type::Boolean, Flag => Some);
pub(super) const RATE: Kind<Option<NonZeroU64>> = kind!(Type::Rate, Rate => Some);
pub(super) const LIST: Kind<Vec<String>> = kind!(Type::List, List => Some);
pub(super) const OPERATIONS: Kind<Operations> = kind!(Type::Operations, Operations => Some);
pub(super) const LISTEN: Kind<Option<SocketAddr>> = kind!(Type::Listen, Listen => Some);
pub(super) const SECRET: Kind<Secret> = kind!(Type::Secret, Secret => Some);
pub(super) const PROPERTIES: Kind<BTreeMap<String, String>> = kind!(Type::Properties, Properties => Some);
pub(super) const PREFEED: Kind<PrefeedKind> = kind!(Type::Prefeed, Prefeed => Some);

pub(super) const fn integer<T: TryFrom<u64>>(least: u64, most: u64) -> Kind<T> {
    kind!(Type::Integer { least, most }, Number => |number| T::try_from(number).ok())
}

pub(super) const fn size<T: TryFrom<u64>>(least: u64, most: u64) -> Kind<T> {
    kind!(Type::Size { least, most }, Number => |number| T::try_from(number).ok())
}

pub(super) const fn period(least: Duration, most: Duration) -> Kind<Duration> {
    kind!(Type::Period { least, most }, Period => Some)
}

pub(super) const fn choice<T: Chosen>() -> Kind<T> {
    let choices = || T::CHOICES.iter().map(|(value, meaning)| Choice { value, refused: meaning.err() }).collect();
    kind!(Type::Choice(choices), Choice => |name| T::CHOICES.iter().find(|(value, _)| *value == name).and_then(|(_, meaning)| meaning.ok()))
}
