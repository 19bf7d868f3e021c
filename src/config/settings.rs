//! All settings. Parsing, validation, documentation and `config print` use these declarations, and the builders read values by their keys.

use crate::config::key::Key;
use crate::config::kind;
use crate::config::schema::{Default::Required, Section, Setting};
use choices::ALL;
use std::sync::Arc;

/// Declares keys, and the list of their settings.
macro_rules! settings {
    ($($key:ident: $type:ty = $path:literal, $kinds:expr, $kind:expr, $default:expr, $meaning:literal;)*) => {
        $(pub(in crate::config) const $key: $type = {
            let (kind, path, meaning) = ($kind, $path, $meaning);
            let setting = crate::config::schema::Setting { path, kinds: $kinds, kind: kind.kind, default: $default, meaning };
            <$type>::new(setting, kind.read)
        };)*

        /// The settings, in the order of the documentation.
        pub(super) const TABLE: &[crate::config::schema::Setting] = &[$($key.setting()),*];

        #[test]
        fn every_default_and_example_is_a_value() {
            $($key.assert_declared();)*
        }
    };
}

pub(super) mod choices;
pub(super) mod feeds;
pub(super) mod process;
pub(super) mod sink;
pub(super) mod source;

pub(super) const FEEDS: Section =
    Section { path: "feeds", meaning: "The published tables. At least one section is required.", repeated: true, optional: false };

pub(super) const CREATE_TOPICS: Section = Section {
    path: "sink.create_topics",
    meaning: "How missing topics are created. Without this section, missing topics are an error.",
    repeated: false,
    optional: true,
};

pub(super) const QUEUES: Section = Section {
    path: "sink.queues",
    meaning: "A queue that is declared and bound to the exchange. Repeatable. Other clients may bind their own queues.",
    repeated: true,
    optional: true,
};

/// The sections, in the order of the documentation.
pub const SECTIONS: &[Section] = &[
    Section { path: "", meaning: "The pipeline.", repeated: false, optional: false },
    Section { path: "source", meaning: "The database whose changes are published.", repeated: false, optional: false },
    FEEDS,
    Section { path: "sink", meaning: "Where events go.", repeated: false, optional: false },
    CREATE_TOPICS,
    QUEUES,
    Section { path: "format", meaning: "The format of events.", repeated: false, optional: false },
    Section {
        path: "checkpoint",
        meaning: "Where the checkpoint (the position to resume from) is stored.",
        repeated: false,
        optional: false,
    },
    Section { path: "pipeline", meaning: "Memory and timeouts.", repeated: false, optional: false },
    Section { path: "admin", meaning: "The HTTP server for metrics and health.", repeated: false, optional: false },
    Section { path: "log", meaning: "Logging, on standard error.", repeated: false, optional: false },
];

settings! {
    NAME: Key<Arc<str>> = "name", ALL, kind::NAME, Required("shop"),
        "The pipeline's name. Part of event ids, topics, slot, checkpoint and metric labels: with another name it is another pipeline.";
}

/// The settings, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    [TABLE, source::TABLE, feeds::TABLE, sink::TABLE, process::TABLE].into_iter().flatten()
}

/// The setting with this path.
#[must_use]
pub fn find(path: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.path == path)
}

/// The setting that a key path sets. `NAME_file` and `NAME_env` set the secret `NAME`.
#[must_use]
pub fn written_by(path: &str) -> Option<&'static Setting> {
    find(path).or_else(|| {
        let secret = path.strip_suffix("_file").or_else(|| path.strip_suffix("_env"))?;
        find(secret).filter(|setting| setting.is_secret())
    })
}
