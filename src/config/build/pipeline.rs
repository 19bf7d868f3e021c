//! Builds the [`Plan`]: the engine's settings, and which source, sink and checkpoint it works with.

use super::feeds::RouteKeys;
use super::setting_reader::{Found, SettingReader};
use crate::config::plan::{CheckpointPlan, Plan, SinkPlan, SourcePlan};
use crate::config::settings::choices::{CheckpointKind, FormatKind, SinkKind, SourceKind};
use crate::config::settings::{self, FEEDS, feeds, process, sink, source};
use crate::config::validate::Validated;
use crate::fault::Code;
use crate::format::cloudevents::Mode;
use crate::format::{Envelope, Format};
use crate::pipeline::restart::RestartPolicy;
use crate::pipeline::{OnGap, Settings};
use crate::sink::stdout::{self, Target};
use std::sync::Arc;

/// Builds the plan; `None` if the source or the sink is not known. It is of use only if no problem was found.
pub(in crate::config) fn build(validated: &Validated, found: &mut Found) -> Option<Plan> {
    let mut root = SettingReader { values: &validated.root, index: None, found };
    let name = root.get(&settings::NAME);
    let source = root.source(&name);
    let format = root.format(&name, source.as_ref());
    let sink = root.sink(&name, &format, validated);
    let route = sink.as_ref().map_or(RouteKeys::TOPIC, route_keys);
    let log = root.log();
    let checkpoint = root.checkpoint(&name, source.as_ref(), sink.as_ref());
    let on_gap = root.on_gap(validated);
    let feeds = validated.list(&FEEDS).iter().enumerate();
    let rules = feeds.map(|(index, values)| root.table(index, values).feed(source.as_ref(), &route)).collect();
    let (source, sink) = (source?, sink?);
    let plan = Plan {
        pipeline: Settings {
            name,
            configuration: root.configuration(),
            rules,
            route: root.get(&route.sink),
            format,
            default_schema: source.default_schema().into(),
            memory_bytes: root.get(&process::MEMORY),
            checkpoint_interval: root.get(&process::CHECKPOINT_INTERVAL),
            shutdown_deadline: root.get(&process::SHUTDOWN_DEADLINE),
            prefeed_slice: root.get(&process::PREFEED_SLICE),
            prefeed_bytes_per_second: root.get(&process::PREFEED_RATE),
            takeover_timeout: root.get(&process::TAKEOVER_TIMEOUT),
            on_gap,
            accept_config_change: false,
            restart: RestartPolicy::default(),
        },
        source,
        sink,
        checkpoint,
        admin: root.get(&process::ADMIN_LISTEN),
        log,
    };
    root.check_files(&plan);
    Some(plan)
}

fn route_keys(sink: &SinkPlan) -> RouteKeys {
    match sink {
        #[cfg(feature = "amqp")]
        SinkPlan::Amqp(_) => RouteKeys::ROUTING_KEY,
        #[cfg(feature = "kafka")]
        SinkPlan::Kafka(_) => RouteKeys::TOPIC,
        SinkPlan::Stdout(_) => RouteKeys::TOPIC,
    }
}

impl SettingReader<'_> {
    /// Hash of the settings that shape the records of every table: format and tombstones. Feeds are not part of it: the engine compares
    /// their names and keys with the checkpoint itself.
    fn configuration(&self) -> String {
        let format = match (self.get(&process::FORMAT_KIND), self.get(&process::FORMAT_MODE)) {
            (FormatKind::Json, _) => "json",
            (FormatKind::CloudEvents, Mode::Binary) => "cloudevents binary",
            (FormatKind::CloudEvents, Mode::Structured) => "cloudevents structured",
        };
        format!("{:08x}", crc32c::crc32c(format!("{format}\n{}\n", self.get(&sink::TOMBSTONES)).as_bytes()))
    }

    fn source(&mut self, name: &Arc<str>) -> Option<SourcePlan> {
        Some(match self.given(&source::KIND)? {
            #[cfg(feature = "sqlite")]
            SourceKind::Sqlite => {
                SourcePlan::Sqlite(crate::source::sqlite::Options { path: self.get(&source::PATH), pipeline: Arc::clone(name) })
            }
            #[cfg(feature = "postgres")]
            SourceKind::Postgres => SourcePlan::Postgres(Box::new(self.postgres(name))),
            #[cfg(feature = "mysql")]
            SourceKind::MySql => SourcePlan::MySql(Box::new(self.mysql(name))),
            #[cfg(feature = "mongodb")]
            SourceKind::MongoDb => SourcePlan::MongoDb(Box::new(self.mongodb(name))),
            #[cfg(feature = "rethinkdb")]
            SourceKind::RethinkDb => SourcePlan::RethinkDb(Box::new(self.rethinkdb(name))),
        })
    }

    /// The configured format, with what is the same in all events of the pipeline. Where messages have no headers, the attributes of CloudEvents
    /// are in the body.
    fn format(&mut self, name: &Arc<str>, source: Option<&SourcePlan>) -> Format {
        let database = match source {
            #[cfg(feature = "sqlite")]
            Some(SourcePlan::Sqlite(options)) => options.path.file_name().unwrap_or(options.path.as_os_str()).to_string_lossy().into(),
            #[cfg(feature = "postgres")]
            Some(SourcePlan::Postgres(options)) => options.database.as_str().into(),
            #[cfg(feature = "mysql")]
            Some(SourcePlan::MySql(options)) => options.database.as_str().into(),
            #[cfg(feature = "mongodb")]
            Some(SourcePlan::MongoDb(options)) => options.database.as_str().into(),
            #[cfg(feature = "rethinkdb")]
            Some(SourcePlan::RethinkDb(options)) => options.database.as_str().into(),
            None => Arc::default(),
        };
        let (has_headers, tombstones) = match self.given(&sink::KIND) {
            #[cfg(feature = "kafka")]
            Some(SinkKind::Kafka) => (true, self.get(&sink::TOMBSTONES)),
            #[cfg(feature = "amqp")]
            Some(SinkKind::Amqp) => (true, false),
            Some(SinkKind::Stdout | SinkKind::File) | None => (false, false),
        };
        let envelope = Arc::new(Envelope { name: Arc::clone(name), backend: source.map_or("", SourcePlan::kind), database, tombstones });
        match (self.get(&process::FORMAT_KIND), self.get(&process::FORMAT_MODE)) {
            (FormatKind::Json, mode) => {
                if mode == Mode::Structured {
                    let message = "unused: set format.kind = \"cloudevents\", or leave it out";
                    self.refuse(Code::ConfigContradictory, &process::FORMAT_MODE, message);
                }
                Format::Json(envelope)
            }
            (FormatKind::CloudEvents, Mode::Binary) if has_headers => Format::CloudEvents(envelope, Mode::Binary),
            (FormatKind::CloudEvents, _) => Format::CloudEvents(envelope, Mode::Structured),
        }
    }

    #[cfg_attr(not(feature = "amqp"), expect(unused_variables, reason = "only RabbitMQ has queues"))]
    fn sink(&mut self, name: &Arc<str>, format: &Format, validated: &Validated) -> Option<SinkPlan> {
        let target = match self.given(&sink::KIND)? {
            #[cfg(feature = "amqp")]
            SinkKind::Amqp => return Some(SinkPlan::Amqp(Box::new(self.amqp(name, format, validated.list(&settings::QUEUES))))),
            #[cfg(feature = "kafka")]
            SinkKind::Kafka => return Some(SinkPlan::Kafka(Box::new(self.kafka(name, format)))),
            SinkKind::Stdout => Target::Stdout,
            SinkKind::File => Target::File(self.get(&sink::PATH)),
        };
        Some(SinkPlan::Stdout(stdout::Options { target, pipeline: Arc::clone(name) }))
    }

    fn checkpoint(&mut self, name: &str, source: Option<&SourcePlan>, sink: Option<&SinkPlan>) -> CheckpointPlan {
        let given = self.optional(&process::CHECKPOINT_PATH);
        let path = given.clone().unwrap_or_else(|| format!("{name}.checkpoint").into());
        let CheckpointKind::Broker(kind) = self.get(&process::CHECKPOINT_KIND) else {
            self.note(&process::CHECKPOINT_PATH, &path.display().to_string());
            return CheckpointPlan::File(path);
        };
        if given.is_some() {
            let message = format!("a file, but checkpoint.kind = \"{kind}\" keeps the checkpoint in the broker: leave one of the two out");
            self.refuse(Code::ConfigContradictory, &process::CHECKPOINT_PATH, message);
        }
        if source.is_some_and(SourcePlan::needs_volume) {
            let message = "the source's local store needs a volume, and so may the checkpoint be there: set checkpoint.kind = \"file\"";
            self.refuse(Code::ConfigContradictory, &process::CHECKPOINT_KIND, message);
        }
        match sink {
            #[cfg(feature = "kafka")]
            Some(SinkPlan::Kafka(options)) if kind == "kafka" => return CheckpointPlan::Kafka(options.clone()),
            #[cfg(feature = "amqp")]
            Some(SinkPlan::Amqp(options)) if kind == "amqp" => return CheckpointPlan::Amqp(options.clone()),
            Some(_) => {
                let message = format!("needs the sink to be that broker: set sink.kind = \"{kind}\", or use \"file\"");
                self.refuse(Code::ConfigContradictory, &process::CHECKPOINT_KIND, message);
            }
            // The sink's kind has been refused.
            None => {}
        }
        CheckpointPlan::File(path)
    }

    /// What to do about a gap in the log. The tables of all feeds must be such that their rows can be read again.
    fn on_gap(&mut self, validated: &Validated) -> OnGap {
        let on_gap = self.get(&source::ON_GAP);
        let mut feeds = validated.list(&FEEDS).iter().enumerate();
        if on_gap == OnGap::Prefeed
            && let Some((index, _)) = feeds.find(|(index, values)| !self.table(*index, values).get(&feeds::PREFEED).is_read())
        {
            let message = format!("needs feeds that can be read again: set feeds.{index}.prefeed to \"snapshot\" or a query");
            self.refuse(Code::ConfigContradictory, &source::ON_GAP, message);
        }
        on_gap
    }
}
