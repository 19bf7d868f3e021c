//! Translates the plan into the format, and into the options of the brokers' adapters.

use crate::config::Plan;
#[cfg(feature = "amqp")]
use crate::config::plan::AmqpPlan;
#[cfg(feature = "kafka")]
use crate::config::plan::KafkaPlan;
use crate::config::plan::{FormatPlan, SinkPlan, SourcePlan};
use crate::format::cloudevents::Mode;
use crate::format::{Envelope, Format};
use std::sync::Arc;

/// The format of the events. Where messages have no headers, the attributes of CloudEvents are in the body.
pub(super) fn format(plan: &Plan) -> Format {
    let database = match &plan.source {
        SourcePlan::Sqlite { path } => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy(),
        SourcePlan::Postgres(server) => server.database.as_str().into(),
    };
    let (name, tombstones) = (Arc::clone(&plan.name), plan.sink.tombstones());
    let envelope = Arc::new(Envelope { name, backend: plan.source.kind(), database: database.into(), tombstones });
    let has_headers = matches!(plan.sink, SinkPlan::Kafka(_) | SinkPlan::Amqp(_));
    match plan.format {
        FormatPlan::Json => Format::Json(envelope),
        FormatPlan::CloudEventsBinary if has_headers => Format::CloudEvents(envelope, Mode::Binary),
        FormatPlan::CloudEventsBinary | FormatPlan::CloudEventsStructured => Format::CloudEvents(envelope, Mode::Structured),
    }
}

#[cfg(feature = "kafka")]
pub(super) fn kafka_options(plan: &Plan, kafka: &KafkaPlan) -> crate::sink::kafka::Options {
    use crate::sink::kafka::{CreateTopics, Options, Stamp};
    Options {
        bootstrap_servers: kafka.bootstrap_servers.clone(),
        pipeline: Arc::clone(&plan.name),
        format: format(plan),
        headers: kafka.headers,
        create_topics: kafka.create_topics.as_ref().map(|create| CreateTopics {
            partitions: create.partitions,
            replication: create.replication,
            config: create.config.clone(),
        }),
        dead_letter: kafka.dead_letter.clone(),
        tombstones: kafka.tombstones,
        stamp: if kafka.is_stamped_on_arrival { Stamp::Append } else { Stamp::Commit },
        properties: kafka.properties.clone(),
        queue_bytes: plan.memory_bytes,
        sasl_password: kafka.sasl_password.clone(),
        ssl_key_password: kafka.ssl_key_password.clone(),
    }
}

#[cfg(feature = "amqp")]
pub(super) fn amqp_options(plan: &Plan, amqp: &AmqpPlan) -> crate::sink::amqp::Options {
    use crate::config::plan::{AmqpOrdering, CheckpointPlan, QueuePlan, QueueType as Type};
    use crate::sink::amqp::{Address, Management, Options, Ordering, Queue, QueueType};
    let queue = |queue: &QueuePlan| Queue {
        name: queue.name.clone(),
        keys: queue.keys.clone(),
        kind: match queue.kind {
            Type::Quorum => QueueType::Quorum,
            Type::Classic => QueueType::Classic,
            Type::Stream => QueueType::Stream,
        },
    };
    Options {
        addresses: amqp.hosts.iter().map(|(host, port)| Address { host: host.clone(), port: *port }).collect(),
        trust: amqp.trust.clone(),
        external: amqp.external,
        user: amqp.user.clone(),
        password: amqp.password.clone(),
        vhost: amqp.vhost.clone(),
        exchange: amqp.exchange.clone(),
        declare: amqp.declare,
        dead_letter: amqp.dead_letter.clone(),
        queues: amqp.queues.iter().map(queue).collect(),
        format: format(plan),
        ordering: match amqp.ordering {
            AmqpOrdering::GoBack => Ordering::GoBack,
            AmqpOrdering::PerKey => Ordering::PerKey,
        },
        window: amqp.window,
        management: amqp.management.clone().map(|(host, port, is_encrypted)| Management { address: Address { host, port }, is_encrypted }),
        pipeline: Arc::clone(&plan.name),
        keeps_checkpoint: matches!(plan.checkpoint, CheckpointPlan::Broker { .. }),
    }
}
