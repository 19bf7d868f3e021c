//! Builds the source and sink connectors of a plan.

#[cfg(feature = "amqp")]
use super::options::amqp_options;
use super::options::format;
#[cfg(feature = "kafka")]
use super::options::kafka_options;
use crate::config::Plan;
use crate::config::plan::{SinkPlan, SourcePlan};
use crate::sink::{SinkConnector, stdout};
use crate::source::SourceConnector;
use crate::status::metrics::Metrics;
use std::sync::Arc;

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!("a build needs a backend: enable the feature `sqlite` or `postgres`");

/// An operation on the connectors of a plan, whatever their types.
pub trait Visit {
    /// The result of the operation.
    type Output;

    /// Performs the operation. No connection is open yet.
    fn visit<C: SourceConnector, K: SinkConnector>(self, source: C, sink: K) -> impl Future<Output = Self::Output>;
}

/// Builds the connectors of `plan` and passes them to `visitor`.
pub async fn visit<V: Visit>(plan: &Plan, metrics: &Metrics, visitor: V) -> V::Output {
    match &plan.source {
        #[cfg(feature = "sqlite")]
        SourcePlan::Sqlite { path } => {
            use crate::source::sqlite;
            let options = sqlite::Options { path: path.clone(), pipeline: Arc::clone(&plan.name) };
            let source = sqlite::Connector::new(options, format(plan), metrics.source.clone());
            with_sink(plan, metrics, source, visitor).await
        }
        #[cfg(feature = "postgres")]
        SourcePlan::Postgres(server) => {
            use crate::source::postgres;
            let options = postgres::Options {
                host: server.host.clone(),
                port: server.port,
                user: server.user.clone(),
                password: server.password.clone(),
                database: server.database.clone(),
                trust: server.trust.clone(),
                require_auth: server.require_auth,
                slot: server.slot.clone(),
                publication: server.publication.clone(),
                manage: server.manage,
                prefeed_readers: plan.prefeed_readers,
                on_added_default: if server.ignores_added_defaults {
                    postgres::OnAddedDefault::Ignore
                } else {
                    postgres::OnAddedDefault::Prefeed
                },
                pipeline: Arc::clone(&plan.name),
                server: postgres::SameServer::default(),
            };
            let source = postgres::Connector::new(options, format(plan), metrics.source.clone());
            with_sink(plan, metrics, source, visitor).await
        }
        #[cfg(not(all(feature = "sqlite", feature = "postgres")))]
        _ => unreachable!("the configuration refuses adapters that are not in this build"),
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
        SinkPlan::Kafka(_) => unreachable!("the configuration refuses adapters that are not in this build"),
        #[cfg(not(feature = "amqp"))]
        SinkPlan::Amqp(_) => unreachable!("the configuration refuses adapters that are not in this build"),
        SinkPlan::Stdout => stdout::Target::Stdout,
        SinkPlan::File { path } => stdout::Target::File(path.clone()),
    };
    visitor.visit(source, stdout::Connector::new(stdout::Options { target, pipeline: Arc::clone(&plan.name) })).await
}
