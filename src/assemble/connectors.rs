//! Builds the source and sink connectors of a plan.

use crate::config::Plan;
use crate::config::plan::{SinkPlan, SourcePlan};
use crate::sink::{SinkConnector, stdout};
use crate::source::SourceConnector;
use crate::status::metrics::Metrics;

#[cfg(not(any(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "mongodb", feature = "rethinkdb")))]
compile_error!("a build needs a backend: enable the feature `sqlite`, `postgres`, `mysql`, `mongodb` or `rethinkdb`");

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
        SourcePlan::Sqlite(options) => {
            let source = crate::source::sqlite::Connector::new(options.clone(), metrics.source.clone());
            with_sink(plan, metrics, source, visitor).await
        }
        #[cfg(feature = "postgres")]
        SourcePlan::Postgres(options) => {
            let source = crate::source::postgres::Connector::new((**options).clone(), metrics.source.clone());
            with_sink(plan, metrics, source, visitor).await
        }
        #[cfg(feature = "mysql")]
        SourcePlan::MySql(options) => {
            let source = crate::source::mysql::Connector::new((**options).clone(), metrics.source.clone());
            with_sink(plan, metrics, source, visitor).await
        }
        #[cfg(feature = "mongodb")]
        SourcePlan::MongoDb(options) => {
            let source = crate::source::mongodb::Connector::new((**options).clone(), metrics.source.clone());
            with_sink(plan, metrics, source, visitor).await
        }
        #[cfg(feature = "rethinkdb")]
        SourcePlan::RethinkDb(options) => {
            let source = crate::source::rethinkdb::Connector::new((**options).clone(), metrics.source.clone());
            with_sink(plan, metrics, source, visitor).await
        }
    }
}

#[cfg_attr(not(any(feature = "kafka", feature = "amqp")), expect(unused_variables, reason = "a build without a broker"))]
async fn with_sink<V: Visit, C: SourceConnector>(plan: &Plan, metrics: &Metrics, source: C, visitor: V) -> V::Output {
    match &plan.sink {
        #[cfg(feature = "kafka")]
        SinkPlan::Kafka(options) => {
            visitor.visit(source, crate::sink::kafka::Connector::new((**options).clone(), metrics.sink.clone())).await
        }
        #[cfg(feature = "amqp")]
        SinkPlan::Amqp(options) => {
            visitor.visit(source, crate::sink::amqp::Connector::new((**options).clone(), metrics.sink.clone())).await
        }
        SinkPlan::Stdout(options) => visitor.visit(source, stdout::Connector::new(options.clone())).await,
    }
}
