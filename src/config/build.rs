//! Makes the plan of checked values, and finds what only shows when several are seen together.

use crate::config::plan::{CheckpointPlan, LogFormat, LogPlan, Plan, SinkPlan, SourcePlan};
use crate::config::problem::{Origin, Problem};
use crate::config::read::{self, Typed};
use crate::config::schema::Default;
use crate::config::walk::{Found, Values, Walked};
use crate::config::{secrets, settings};
use crate::event::Operations;
use crate::fault::Code;
use crate::feed::PrefeedKind;
use crate::feed::pattern::TablePattern;
use crate::feed::resolve::FeedRule;
use crate::feed::route::Template;
use crate::net::secret::Secret;
use crate::pipeline::OnGap;
use figment::value::Value;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

mod amqp;
mod files;
mod kafka;
mod postgres;
mod server;

/// The plan, or `None` where a problem was found here or before.
pub(super) fn build(
    walked: &Walked,
    lookup: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Option<Plan> {
    let before = problems.len();
    let unread = unread(walked);
    let mut root = Reader { values: &walked.root, lookup, problems, warnings };
    let name: Arc<str> = root.text("name").into();
    let source = root.source(&name);
    let sink = root.sink(&name, walked.list("sink.queues"));
    let route = if matches!(sink, Some(SinkPlan::Amqp(_))) { Route::KEY } else { Route::TOPIC };
    let topic = root.template(route.sink, route.sink);
    let log = root.log();
    let on_gap = root.on_gap(unread);
    let plan = Plan {
        configuration: format!(
            "{:08x}",
            crc32c::crc32c(format!("{}\n{}\n", root.text("format.kind"), root.flag("sink.tombstones")).as_bytes())
        ),
        checkpoint: root.checkpoint(&name, sink.as_ref()),
        checkpoint_interval: root.period("checkpoint.interval"),
        memory_bytes: usize::try_from(root.number("pipeline.memory")).unwrap_or(usize::MAX),
        shutdown_deadline: root.period("pipeline.shutdown_deadline"),
        prefeed_slice: root.period("pipeline.prefeed_slice"),
        prefeed_readers: usize::try_from(root.number("pipeline.prefeed_readers")).unwrap_or(1),
        prefeed_bytes_per_second: root.rate("pipeline.prefeed_rate"),
        takeover_timeout: root.period("pipeline.takeover_timeout"),
        admin: root.listen("admin.listen"),
        feeds: walked
            .list("feeds")
            .iter()
            .enumerate()
            .map(|(index, values)| Reader { values, lookup, problems, warnings }.feed(index, source.as_ref(), route))
            .collect(),
        on_gap,
        source: source?,
        sink: sink?,
        topic: topic?,
        log,
        name,
    };
    Reader { values: &walked.root, lookup, problems, warnings }.check_files(&plan);
    (problems.len() == before).then_some(plan)
}

/// Reads checked values, defaults in place.
struct Reader<'a> {
    values: &'a Values,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: &'a mut Vec<Problem>,
    warnings: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    /// Where the checkpoint is kept: in a file, or in the broker to which events go.
    fn checkpoint(&mut self, name: &str, sink: Option<&SinkPlan>) -> CheckpointPlan {
        let (kind, path) = (self.text("checkpoint.kind"), self.optional_path("checkpoint.path"));
        let place = format!("{name}.checkpoint");
        if kind == "file" {
            return CheckpointPlan::File { path: path.unwrap_or_else(|| place.into()) };
        }
        if let Some(sink) = sink
            && sink.kind() != kind
        {
            let message = format!("keeps it in the broker to which events go: set sink.kind = \"{kind}\", or use \"file\"");
            self.refuse(Code::ConfigContradictory, "checkpoint.kind", message);
        }
        if path.is_some() {
            let message = format!("names a file, but checkpoint.kind = \"{kind}\" keeps it in the broker: leave one of the two out");
            self.refuse(Code::ConfigContradictory, "checkpoint.path", message);
        }
        CheckpointPlan::Broker { place }
    }

    fn found(&self, path: &str) -> Option<&Found> {
        self.values.found.get(path)
    }

    /// The value, or its default. Where a required one is missing that is reported already, and anything will do.
    fn typed(&self, path: &str) -> Option<Typed> {
        if let Some(found) = self.found(path) {
            return Some(found.typed.clone());
        }
        let setting = settings::find(path)?;
        let Default::Is(text) = setting.default else { return None };
        let value = if setting.kind.is_plain() { Value::from(text) } else { text.parse().unwrap_or_else(|_| Value::from(text)) };
        read::read(setting, &value).ok()
    }

    fn text(&self, path: &str) -> String {
        self.optional_text(path).unwrap_or_default()
    }

    fn optional_text(&self, path: &str) -> Option<String> {
        match self.typed(path) {
            Some(Typed::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn optional_path(&self, path: &str) -> Option<PathBuf> {
        self.optional_text(path).map(PathBuf::from)
    }

    fn flag(&self, path: &str) -> bool {
        matches!(self.typed(path), Some(Typed::Flag(true)))
    }

    fn number(&self, path: &str) -> u64 {
        match self.typed(path) {
            Some(Typed::Number(number)) => number,
            _ => 0,
        }
    }

    fn period(&self, path: &str) -> Duration {
        match self.typed(path) {
            Some(Typed::Period(period)) => period,
            _ => Duration::ZERO,
        }
    }

    fn rate(&self, path: &str) -> Option<NonZeroU64> {
        match self.typed(path) {
            Some(Typed::Rate(rate)) => rate,
            _ => None,
        }
    }

    fn listen(&self, path: &str) -> Option<SocketAddr> {
        match self.typed(path) {
            Some(Typed::Listen(address)) => address,
            _ => None,
        }
    }

    fn problem(&self, code: Code, path: &str, message: impl Into<String>) -> Problem {
        let found = self.found(path);
        Problem {
            code,
            path: path.to_owned(),
            value: found.and_then(|found| found.harmless.clone()),
            origin: found.and_then(|found| found.origin.clone()),
            message: message.into(),
        }
    }

    fn refuse(&mut self, code: Code, path: &str, message: impl Into<String>) {
        let problem = self.problem(code, path, message);
        self.problems.push(problem);
    }

    /// As [`Self::refuse`], under the path that a person sees.
    fn refuse_as(&mut self, code: Code, path: &str, shown: &str, message: impl Into<String>) {
        let problem = Problem { path: shown.to_owned(), ..self.problem(code, path, message) };
        self.problems.push(problem);
    }

    fn warn(&mut self, code: Code, path: &str, message: impl Into<String>) {
        let problem = self.problem(code, path, message);
        self.warnings.push(problem);
    }

    fn source(&mut self, name: &str) -> Option<SourcePlan> {
        match self.text("source.kind").as_str() {
            "sqlite" => Some(SourcePlan::Sqlite { path: self.text("source.path").into() }),
            "postgres" => Some(SourcePlan::Postgres(Box::new(self.postgres(name)))),
            _ => None,
        }
    }

    fn sink(&mut self, name: &str, queues: &[Values]) -> Option<SinkPlan> {
        match self.text("sink.kind").as_str() {
            "amqp" => Some(SinkPlan::Amqp(Box::new(self.amqp(name, queues)))),
            "kafka" => Some(SinkPlan::Kafka(Box::new(self.kafka(name)))),
            "stdout" => Some(SinkPlan::Stdout),
            "file" => Some(SinkPlan::File { path: self.text("sink.path").into() }),
            _ => None,
        }
    }

    /// Where events go that their destination does not take; `None` where the first of them stops the pipeline.
    fn dead_letter(&mut self, name: &str) -> Option<Arc<str>> {
        if self.text("sink.on_unpublishable") != "dead_letter" {
            if self.found("sink.dead_letter").is_some() {
                let message = "nothing goes there: set sink.on_unpublishable = \"dead_letter\", or leave it out";
                self.refuse(Code::ConfigContradictory, "sink.dead_letter", message);
            }
            return None;
        }
        let place = self.optional_text("sink.dead_letter").unwrap_or_else(|| format!("{name}.dead_letter"));
        if 249 < place.len() || place.starts_with("amq.") {
            self.refuse(Code::ConfigInvalid, "sink.dead_letter", "expected a name of at most 249 bytes that does not begin with \"amq.\"");
        }
        Some(place.into())
    }

    fn feed(&mut self, index: usize, source: Option<&SourcePlan>, route: Route) -> FeedRule {
        let list = |typed| match typed {
            Some(Typed::List(list)) => list,
            _ => Vec::new(),
        };
        let prefeed = match self.typed("feeds.prefeed") {
            Some(Typed::Prefeed(prefeed)) => prefeed,
            _ => PrefeedKind::Snapshot,
        };
        let mut tables = Vec::new();
        for text in list(self.typed("feeds.tables")) {
            match TablePattern::parse(&text) {
                Ok(pattern) => tables.push(pattern),
                Err(error) => self.refuse_as(Code::ConfigInvalid, "feeds.tables", &format!("feeds.{index}.tables"), error.to_string()),
            }
        }
        if matches!(prefeed, PrefeedKind::Query(_)) && matches!(source, Some(SourcePlan::Sqlite { .. })) {
            let message = "a query is not in this version for sqlite: set prefeed = \"snapshot\" or { file = \"...\" }";
            self.refuse_as(Code::ConfigUnsupported, "feeds.prefeed", &format!("feeds.{index}.prefeed"), message);
        }
        if matches!(prefeed, PrefeedKind::File(_) | PrefeedKind::Query(_)) && (tables.len() != 1 || !tables[0].is_literal()) {
            let message = "a query or a file stands for the rows of one table: name just that one in `tables`, without a pattern";
            self.refuse_as(Code::ConfigContradictory, "feeds.prefeed", &format!("feeds.{index}.prefeed"), message);
        }
        if self.found(route.elsewhere).is_some() {
            let message = format!("belongs to another kind of sink: set {} here", route.feed);
            self.refuse_as(Code::ConfigContradictory, route.elsewhere, &shown(index, route.elsewhere), message);
        }
        FeedRule {
            tables,
            operations: match self.typed("feeds.operations") {
                Some(Typed::Operations(operations)) => operations,
                _ => Operations::ALL,
            },
            prefeed,
            stage: u32::try_from(self.number("feeds.stage")).unwrap_or(u32::MAX),
            key: self.found("feeds.key").map(|_| list(self.typed("feeds.key")).into_iter().map(Arc::from).collect()),
            route: self.template(route.feed, &shown(index, route.feed)),
        }
    }

    /// The template, if there is one and it is right.
    fn template(&mut self, path: &str, shown: &str) -> Option<Template> {
        match Template::parse(&self.optional_text(path)?) {
            Ok(template) if path.ends_with(".routing_key") => Some(template.for_routing_keys()),
            Ok(template) => Some(template),
            Err(error) => {
                self.refuse_as(Code::ConfigInvalid, path, shown, error.to_string());
                None
            }
        }
    }

    /// The secret from its file, its variable, or (with a warning) from where it stands.
    fn secret(&mut self, path: &str) -> Option<Secret> {
        let (file, variable) = (format!("{path}_file"), format!("{path}_env"));
        let given: Vec<&str> = [path, &file, &variable].into_iter().filter(|key| self.found(key).is_some()).collect();
        let [key] = given.as_slice() else {
            if let [first, rest @ ..] = given.as_slice() {
                for other in rest {
                    self.refuse(Code::ConfigContradictory, other, format!("stands beside {first}, which is the same secret: keep one"));
                }
            }
            return None;
        };
        let found = self.found(key)?;
        match &found.typed {
            Typed::Secret(secret) => {
                let secret = secret.clone();
                if !matches!(found.origin, Some(Origin::Environment(_))) {
                    self.warn(Code::SecretLiteral, key, format!("a secret stands in the configuration itself: use {file} or {variable}"));
                }
                Some(secret)
            }
            Typed::Text(place) => {
                let place = place.clone();
                let read = if *key == file { secrets::from_file(&place) } else { secrets::from_variable(&place, self.lookup) };
                read.map_err(|message| self.refuse(Code::SecretUnreadable, key, message)).ok()
            }
            _ => None,
        }
    }

    /// What a gap leads to; `unread` is a feed whose rows could not be read again.
    fn on_gap(&mut self, unread: Option<usize>) -> OnGap {
        if self.text("source.on_gap") != "prefeed" {
            return OnGap::Stop;
        }
        if let Some(index) = unread {
            let message = format!("needs rows that can be read again: set feeds.{index}.prefeed to \"snapshot\" or a query");
            self.refuse(Code::ConfigContradictory, "source.on_gap", message);
        }
        OnGap::Prefeed
    }

    fn log(&mut self) -> LogPlan {
        let level = self.text("log.level");
        if let Some(word) = level.split(',').find(|word| is_no_level(word)) {
            let written = word.trim().to_ascii_lowercase();
            let nearest = LEVELS.into_iter().max_by(|a, b| strsim::jaro_winkler(&written, a).total_cmp(&strsim::jaro_winkler(&written, b)));
            let message = format!(
                "{word:?} is no level: did you mean \"{}\"? (known: {}; of one module: feedline::pipeline=debug)",
                nearest.unwrap_or("info"),
                LEVELS.join(", ")
            );
            self.refuse(Code::ConfigInvalid, "log.level", message);
        } else if let Err(error) = tracing_subscriber::EnvFilter::try_new(&level) {
            self.refuse(Code::ConfigInvalid, "log.level", format!("expected {}, or directives: {error}", LEVELS.join(", ")));
        }
        let format = match self.text("log.format").as_str() {
            "json" => LogFormat::Json,
            "pretty" => LogFormat::Pretty,
            _ => LogFormat::Auto,
        };
        LogPlan { format, level }
    }
}

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Whether a directive of a log's level is a bare word and not a level: it would be taken for a module's name, and all others be silent.
fn is_no_level(directive: &str) -> bool {
    let is_bare = !directive.is_empty() && !directive.contains(['=', '[', ']', '{', '}']);
    is_bare && directive.parse::<tracing_subscriber::filter::LevelFilter>().is_err()
}

/// The settings that say where events go, by the kind of sink.
#[derive(Clone, Copy)]
struct Route {
    sink: &'static str,
    feed: &'static str,
    elsewhere: &'static str,
}

impl Route {
    const TOPIC: Self = Self { sink: "sink.topic", feed: "feeds.topic", elsewhere: "feeds.routing_key" };
    const KEY: Self = Self { sink: "sink.routing_key", feed: "feeds.routing_key", elsewhere: "feeds.topic" };
}

/// The path of a feed's setting as a person sees it.
fn shown(index: usize, path: &str) -> String {
    path.replacen("feeds.", &format!("feeds.{index}."), 1)
}

/// The first feed whose rows are not in the database, or are not to be read there.
fn unread(walked: &Walked) -> Option<usize> {
    let prefeed = |values: &Values| values.found.get("feeds.prefeed").map(|found| found.typed.clone());
    walked.list("feeds").iter().position(|values| matches!(prefeed(values), Some(Typed::Prefeed(kind)) if !kind.is_read()))
}
