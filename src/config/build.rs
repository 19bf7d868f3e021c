//! Builds the [`Plan`] from the validated values, and checks settings that depend on each other.

mod amqp;
mod feeds;
mod files;
mod kafka;
mod log;
mod postgres;
mod server;
mod setting_reader;

use crate::config::plan::{CheckpointPlan, FormatPlan, Plan, SinkPlan, SourcePlan};
use crate::config::problem::Problem;
use crate::config::validate::{Validated, Values};
use crate::fault::Code;
use crate::pipeline::OnGap;
use feeds::RouteSettings;
use setting_reader::SettingReader;
use std::sync::Arc;

/// Builds the plan; `None` if this finds a problem, or found one before.
pub(super) fn build(
    validated: &Validated,
    lookup: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Option<Plan> {
    let before = problems.len();
    let without_reread = feeds::first_without_reread(validated);
    let mut root = SettingReader { values: &validated.root, lookup, problems, warnings };
    let name: Arc<str> = root.text("name").into();
    let source = root.source(&name);
    let sink = root.sink(&name, validated.list("sink.queues"));
    let route = if matches!(sink, Some(SinkPlan::Amqp(_))) { RouteSettings::ROUTING_KEY } else { RouteSettings::TOPIC };
    let topic = root.template(route.sink, route.sink);
    let format = root.format(sink.as_ref());
    let log = root.log();
    let on_gap = root.on_gap(without_reread);
    let plan = Plan {
        configuration: format!("{:08x}", crc32c::crc32c(format!("{}\n{}\n", format.name(), root.flag("sink.tombstones")).as_bytes())),
        checkpoint: root.checkpoint(&name, sink.as_ref()),
        checkpoint_interval: root.period("checkpoint.interval"),
        memory_bytes: usize::try_from(root.number("pipeline.memory")).unwrap_or(usize::MAX),
        shutdown_deadline: root.period("pipeline.shutdown_deadline"),
        prefeed_slice: root.period("pipeline.prefeed_slice"),
        prefeed_readers: usize::try_from(root.number("pipeline.prefeed_readers")).unwrap_or(1),
        prefeed_bytes_per_second: root.rate("pipeline.prefeed_rate"),
        takeover_timeout: root.period("pipeline.takeover_timeout"),
        admin: root.listen("admin.listen"),
        feeds: validated
            .list("feeds")
            .iter()
            .enumerate()
            .map(|(index, values)| SettingReader { values, lookup, problems, warnings }.feed(index, source.as_ref(), route))
            .collect(),
        on_gap,
        source: source?,
        sink: sink?,
        format,
        topic: topic?,
        log,
        name,
    };
    SettingReader { values: &validated.root, lookup, problems, warnings }.check_files(&plan);
    (problems.len() == before).then_some(plan)
}

impl SettingReader<'_> {
    fn checkpoint(&mut self, name: &str, sink: Option<&SinkPlan>) -> CheckpointPlan {
        let (kind, path) = (self.text("checkpoint.kind"), self.optional_path("checkpoint.path"));
        let default_name = format!("{name}.checkpoint");
        if kind == "file" {
            return CheckpointPlan::File { path: path.unwrap_or_else(|| default_name.into()) };
        }
        if let Some(sink) = sink
            && sink.kind() != kind
        {
            let message = format!("needs the sink to be that broker: set sink.kind = \"{kind}\", or use \"file\"");
            self.refuse(Code::ConfigContradictory, "checkpoint.kind", message);
        }
        if path.is_some() {
            let message = format!("a file, but checkpoint.kind = \"{kind}\" keeps the checkpoint in the broker: leave one of the two out");
            self.refuse(Code::ConfigContradictory, "checkpoint.path", message);
        }
        CheckpointPlan::Broker { name: default_name }
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

    fn format(&mut self, sink: Option<&SinkPlan>) -> FormatPlan {
        match (self.text("format.kind").as_str(), self.text("format.mode").as_str()) {
            ("cloudevents", "structured") => FormatPlan::CloudEventsStructured,
            ("cloudevents", _) => {
                if matches!(sink, Some(SinkPlan::Kafka(kafka)) if !kafka.headers) {
                    let message = "\"binary\" needs headers: set \"structured\", or sink.headers = true";
                    self.refuse(Code::ConfigContradictory, "format.mode", message);
                }
                FormatPlan::CloudEventsBinary
            }
            (_, mode) => {
                if mode == "structured" {
                    self.refuse(Code::ConfigContradictory, "format.mode", "unused: set format.kind = \"cloudevents\", or leave it out");
                }
                FormatPlan::Json
            }
        }
    }

    /// The dead-letter topic or exchange; `None` if the first event that cannot be published stops the pipeline.
    fn dead_letter(&mut self, name: &str) -> Option<Arc<str>> {
        if self.text("sink.on_unpublishable") != "dead_letter" {
            if self.given("sink.dead_letter").is_some() {
                let message = "unused: set sink.on_unpublishable = \"dead_letter\", or leave it out";
                self.refuse(Code::ConfigContradictory, "sink.dead_letter", message);
            }
            return None;
        }
        let dead_letter = self.optional_text("sink.dead_letter").unwrap_or_else(|| format!("{name}.dead_letter"));
        if 249 < dead_letter.len() || dead_letter.starts_with("amq.") {
            self.refuse(Code::ConfigInvalid, "sink.dead_letter", "expected a name of at most 249 bytes that does not begin with \"amq.\"");
        }
        Some(dead_letter.into())
    }

    /// What to do about a gap in the log; `without_reread` is a feed whose rows could not be read again.
    fn on_gap(&mut self, without_reread: Option<usize>) -> OnGap {
        if self.text("source.on_gap") != "prefeed" {
            return OnGap::Stop;
        }
        if let Some(index) = without_reread {
            let message = format!("needs feeds that can be read again: set feeds.{index}.prefeed to \"snapshot\" or a query");
            self.refuse(Code::ConfigContradictory, "source.on_gap", message);
        }
        OnGap::Prefeed
    }
}
