//! Puts a pipeline together: the only place that knows which adapters there are.

use crate::admin::scrapes::Scrapes;
use crate::admin::{self, Server, Subject};
use crate::config::Plan;
use crate::config::plan::{SinkPlan, SourcePlan};
use crate::fault::{Classify, Exit};
use crate::format::{Envelope, Format};
use crate::pipeline::restart::RestartPolicy;
use crate::pipeline::{Ending, Failure, Pipeline, Settings};
use crate::sink::{OnConsumed, SinkConnector, stdout};
use crate::source::SourceConnector;
use crate::status::Health;
use crate::status::metrics::{Metrics, State};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub mod store;

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!("a build needs a backend: enable the feature `sqlite` or `postgres`");

/// How often a checkpoint that another process holds is asked for.
const HELD_INTERVAL: Duration = Duration::from_millis(500);

/// What is done with the connectors of a plan, whichever they are.
pub trait Visit {
    /// What comes of it.
    type Output;

    /// Takes the connectors; nothing is open yet.
    fn visit<C: SourceConnector, K: SinkConnector>(self, source: C, sink: K) -> impl Future<Output = Self::Output>;
}

/// The connectors of `plan`, given to `visitor`.
pub async fn visit<V: Visit>(plan: &Plan, metrics: &Metrics, visitor: V) -> V::Output {
    match &plan.source {
        #[cfg(feature = "sqlite")]
        SourcePlan::Sqlite { path } => {
            use crate::source::sqlite;
            let database = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            let options = sqlite::Options { path: path.clone(), pipeline: Arc::clone(&plan.name) };
            let source = sqlite::Connector::new(options, format(plan, database), metrics.source.clone());
            with_sink(plan, metrics, source, visitor).await
        }
        #[cfg(feature = "postgres")]
        SourcePlan::Postgres(postgres) => {
            use crate::source::postgres as server;
            let options = server::Options {
                host: postgres.host.clone(),
                port: postgres.port,
                user: postgres.user.clone(),
                password: postgres.password.clone(),
                database: postgres.database.clone(),
                trust: postgres.trust.clone(),
                require_auth: postgres.require_auth,
                slot: postgres.slot.clone(),
                publication: postgres.publication.clone(),
                manage: postgres.manage,
                prefeed_readers: plan.prefeed_readers,
                on_added_default: if postgres.ignores_added_defaults {
                    server::OnAddedDefault::Ignore
                } else {
                    server::OnAddedDefault::Prefeed
                },
                pipeline: Arc::clone(&plan.name),
                server: server::SameServer::default(),
            };
            let source = server::Connector::new(options, format(plan, postgres.database.clone()), metrics.source.clone());
            with_sink(plan, metrics, source, visitor).await
        }
        #[cfg(not(all(feature = "sqlite", feature = "postgres")))]
        _ => unreachable!("the configuration refuses what is not in this build"),
    }
}

#[cfg_attr(not(any(feature = "kafka", feature = "amqp")), expect(unused_variables, reason = "a build without a broker"))]
async fn with_sink<V: Visit, C: SourceConnector>(plan: &Plan, metrics: &Metrics, source: C, visitor: V) -> V::Output {
    let target = match &plan.sink {
        #[cfg(feature = "kafka")]
        SinkPlan::Kafka(kafka) => {
            let connector = crate::sink::kafka::Connector::new(kafka_options(plan, kafka), metrics.sink.clone());
            return visitor.visit(source, connector).await;
        }
        #[cfg(feature = "amqp")]
        SinkPlan::Amqp(amqp) => {
            let connector = crate::sink::amqp::Connector::new(amqp_options(plan, amqp), metrics.sink.clone());
            return visitor.visit(source, connector).await;
        }
        #[cfg(not(feature = "kafka"))]
        SinkPlan::Kafka(_) => unreachable!("the configuration refuses what is not in this build"),
        #[cfg(not(feature = "amqp"))]
        SinkPlan::Amqp(_) => unreachable!("the configuration refuses what is not in this build"),
        SinkPlan::Stdout => stdout::Target::Stdout,
        SinkPlan::File { path } => stdout::Target::File(path.clone()),
    };
    visitor.visit(source, stdout::Connector::new(stdout::Options { target, pipeline: Arc::clone(&plan.name) })).await
}

#[cfg(feature = "kafka")]
fn kafka_options(plan: &Plan, kafka: &crate::config::plan::KafkaPlan) -> crate::sink::kafka::Options {
    use crate::sink::kafka::{CreateTopics, Options, Stamp};
    Options {
        bootstrap_servers: kafka.bootstrap_servers.clone(),
        pipeline: Arc::clone(&plan.name),
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
fn amqp_options(plan: &Plan, amqp: &crate::config::plan::AmqpPlan) -> crate::sink::amqp::Options {
    use crate::config::plan::{AmqpOrdering, QueuePlan, QueueType as Type};
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
        places: amqp.hosts.iter().map(|(host, port)| Address { host: host.clone(), port: *port }).collect(),
        trust: amqp.trust.clone(),
        external: amqp.external,
        user: amqp.user.clone(),
        password: amqp.password.clone(),
        vhost: amqp.vhost.clone(),
        exchange: amqp.exchange.clone(),
        declare: amqp.declare,
        dead_letter: amqp.dead_letter.clone(),
        queues: amqp.queues.iter().map(queue).collect(),
        ordering: match amqp.ordering {
            AmqpOrdering::GoBack => Ordering::GoBack,
            AmqpOrdering::PerKey => Ordering::PerKey,
        },
        window: amqp.window,
        management: amqp.management.clone().map(|(host, port, is_encrypted)| Management { place: Address { host, port }, is_encrypted }),
        pipeline: Arc::clone(&plan.name),
        keeps_checkpoint: matches!(plan.checkpoint, crate::config::plan::CheckpointPlan::Broker { .. }),
    }
}

/// What is listened to.
#[derive(Clone, Debug)]
pub enum Subscription {
    /// Events as they come: of these topics, or with these binding keys.
    Events {
        /// Topics or binding keys.
        of: Vec<Arc<str>>,
        /// Whether those that are there come first, where the broker keeps them.
        from_beginning: bool,
    },
    /// The dead letters that are there.
    DeadLetters,
}

/// Why nothing is heard.
#[derive(Debug)]
pub enum ConsumeError {
    /// The broker's side failed.
    Failed(Failure),
    /// This kind of sink has nothing to listen to, and why.
    Nothing(&'static str),
}

/// Listens to what a plan's sink holds or is given.
///
/// # Errors
/// [`ConsumeError`] says why.
#[cfg_attr(not(any(feature = "kafka", feature = "amqp")), expect(unused_variables, reason = "a build without a broker"))]
pub async fn consume(plan: &Plan, what: Subscription, on_consumed: OnConsumed<'_>) -> Result<(), ConsumeError> {
    #[cfg(any(feature = "kafka", feature = "amqp"))]
    const NO_LETTERS: &str = "there are no dead letters: sink.on_unpublishable is \"stop\"";
    match (&plan.sink, what) {
        #[cfg(feature = "kafka")]
        (SinkPlan::Kafka(kafka), what) => {
            use crate::sink::kafka::consume::{Span, consume};
            let (topics, span) = match what {
                Subscription::Events { of, from_beginning } => (of, if from_beginning { Span::All } else { Span::Coming }),
                Subscription::DeadLetters => (vec![kafka.dead_letter.clone().ok_or(ConsumeError::Nothing(NO_LETTERS))?], Span::Present),
            };
            consume(&kafka_options(plan, kafka), &topics, span, on_consumed)
                .await
                .map_err(|error| ConsumeError::Failed(Failure::of(&error)))
        }
        #[cfg(feature = "amqp")]
        (SinkPlan::Amqp(amqp), what) => {
            use crate::sink::amqp::consume::{consume, dead_letters};
            let options = amqp_options(plan, amqp);
            let consumed = match what {
                Subscription::Events { from_beginning: true, .. } => {
                    return Err(ConsumeError::Nothing("an exchange keeps nothing: there is no beginning"));
                }
                Subscription::Events { of, .. } => consume(&options, &of, on_consumed).await,
                Subscription::DeadLetters => {
                    let queue = amqp.dead_letter.clone().ok_or(ConsumeError::Nothing(NO_LETTERS))?;
                    dead_letters(&options, &queue, on_consumed).await
                }
            };
            consumed.map_err(|error| ConsumeError::Failed(Failure::of(&error)))
        }
        #[cfg(not(feature = "kafka"))]
        (SinkPlan::Kafka(_), _) => unreachable!("the configuration refuses what is not in this build"),
        #[cfg(not(feature = "amqp"))]
        (SinkPlan::Amqp(_), _) => unreachable!("the configuration refuses what is not in this build"),
        (SinkPlan::Stdout | SinkPlan::File { .. }, _) => {
            Err(ConsumeError::Nothing("this sink is not a broker: its lines are what it holds"))
        }
    }
}

fn format(plan: &Plan, database: String) -> Format {
    Format::Json(Arc::new(Envelope {
        name: Arc::clone(&plan.name),
        backend: plan.source.kind(),
        database: database.into(),
        tombstones: plan.sink.tombstones(),
    }))
}

/// What the engine is told.
fn settings(plan: &Plan, accept_config_change: bool) -> Settings {
    Settings {
        name: Arc::clone(&plan.name),
        configuration: plan.configuration.clone(),
        rules: plan.feeds.clone(),
        route: plan.topic.clone(),
        default_schema: plan.source.default_schema(),
        memory_bytes: plan.memory_bytes,
        checkpoint_interval: plan.checkpoint_interval,
        shutdown_deadline: plan.shutdown_deadline,
        prefeed_slice: plan.prefeed_slice,
        prefeed_bytes_per_second: plan.prefeed_bytes_per_second,
        takeover_timeout: plan.takeover_timeout,
        on_gap: plan.on_gap,
        accept_config_change,
        restart: RestartPolicy::default(),
    }
}

/// A pipeline's metrics and health, and the server that shows them; it runs once it is given to [`run`].
#[derive(Debug)]
pub struct Running {
    /// Its metrics.
    pub metrics: Metrics,
    /// Its health.
    pub health: Arc<Health>,
    admin: Option<Server>,
}

impl Running {
    /// Listens where the plan says so.
    ///
    /// # Errors
    /// Where the address cannot be listened on.
    pub async fn prepare(plan: &Plan) -> Result<Self, admin::Error> {
        let admin = match plan.admin {
            Some(address) => Some(Server::bind(address).await?),
            None => None,
        };
        let metrics = Metrics::new(&plan.name);
        metrics.set_pipeline(plan.source.kind(), plan.sink.kind(), plan.sink.delivery());
        Ok(Self { metrics, health: Arc::default(), admin })
    }

    /// Where metrics and health are served.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|server| server.address().ok())
    }
}

/// Runs the pipeline until `stop`, or until a fault that does not pass.
pub async fn run(plan: Plan, running: Running, accept_config_change: bool, stop: CancellationToken) -> Ending {
    let Running { metrics, health, admin } = running;
    let silent = CancellationToken::new();
    let (scrapes, ended) = (Scrapes::default(), Arc::clone(&health));
    let subject = Subject { metrics: metrics.clone(), health: Arc::clone(&health), scrapes: scrapes.clone() };
    // The server outlives the pipeline, so that its last state can be seen.
    let serving = async {
        if let Some(server) = admin {
            server.serve(subject, silent.clone()).await;
        }
    };
    let carrying = async {
        let ending = match open_store(&plan, &health, &stop).await {
            Ok(Some(store)) => {
                let start = Start { settings: settings(&plan, accept_config_change), store, metrics: metrics.clone(), health, stop };
                Box::pin(visit(&plan, &metrics, start)).await
            }
            Ok(None) => Ending::Drained,
            Err(failure) => Ending::Failed(failure),
        };
        // So that who watches can tell a stop in order from an end that nobody wanted, within the time that a stop may take.
        if ending == Ending::Drained {
            metrics.set_stopped();
            ended.set_stopped();
            scrapes.next(plan.shutdown_deadline.saturating_sub(ended.stopping_for())).await;
        }
        silent.cancel();
        ending
    };
    let (ending, ()) = tokio::join!(carrying, serving);
    ending
}

/// Opens the checkpoint, waiting for whoever holds it; `None` when the stop came first.
async fn open_store(plan: &Plan, health: &Health, stop: &CancellationToken) -> Result<Option<Store>, Failure> {
    let until = Instant::now() + plan.takeover_timeout;
    let mut told = false;
    loop {
        let error = match Store::open(plan) {
            Ok(store) => return Ok(Some(store)),
            Err(error) => error,
        };
        if error.code().exit() != Exit::Held || until <= Instant::now() {
            return Err(Failure::of(&error));
        }
        if !told {
            told = true;
            health.set_phase(State::Standby);
            tracing::warn!(code = %error.code(), error = %error, timeout = ?plan.takeover_timeout, "waiting for another instance");
        }
        tokio::select! { biased;
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(HELD_INTERVAL) => {}
        }
    }
}

/// Starts the engine on whichever connectors there are.
struct Start {
    settings: Settings,
    store: Store,
    metrics: Metrics,
    health: Arc<Health>,
    stop: CancellationToken,
}

impl Visit for Start {
    type Output = Ending;

    async fn visit<C: SourceConnector, K: SinkConnector>(self, source: C, sink: K) -> Ending {
        let Self { settings, store, metrics, health, stop } = self;
        Pipeline::new(settings, source, sink, store, metrics, health).run(stop).await
    }
}
