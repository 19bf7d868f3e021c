//! Consumes events from a plan's broker, for `feedline tail` and `feedline dead-letters`.

use crate::config::Plan;
use crate::config::plan::SinkPlan;
use crate::pipeline::Failure;
use crate::sink::OnConsumed;
use std::sync::Arc;

/// What to consume.
#[derive(Clone, Debug)]
pub enum Subscription {
    /// Events of topics or binding keys, as they arrive.
    Events {
        /// Topics or binding keys.
        destinations: Vec<Arc<str>>,
        /// Whether to begin with the oldest stored event. Only Kafka stores events.
        from_beginning: bool,
    },
    /// The stored dead letters.
    DeadLetters,
}

/// Why events cannot be consumed.
#[derive(Debug)]
pub enum ConsumeError {
    /// The broker failed.
    Failed(Failure),
    /// The sink does not support it, for this reason.
    Unsupported(&'static str),
}

/// Consumes events from the broker of a plan, until `on_consumed` breaks.
///
/// # Errors
/// If the broker fails, or the sink does not support the subscription.
#[cfg_attr(not(any(feature = "kafka", feature = "amqp")), expect(unused_variables, reason = "a build without a broker"))]
pub async fn consume(plan: &Plan, subscription: Subscription, on_consumed: OnConsumed<'_>) -> Result<(), ConsumeError> {
    #[cfg(any(feature = "kafka", feature = "amqp"))]
    const NO_DEAD_LETTERS: &str = "there are no dead letters: sink.on_unpublishable is \"stop\"";
    match (&plan.sink, subscription) {
        #[cfg(feature = "kafka")]
        (SinkPlan::Kafka(options), subscription) => {
            use crate::sink::kafka::consume::{Span, consume};
            let (topics, span) = match subscription {
                Subscription::Events { destinations, from_beginning } => {
                    (destinations, if from_beginning { Span::All } else { Span::Coming })
                }
                Subscription::DeadLetters => {
                    (vec![options.dead_letter.clone().ok_or(ConsumeError::Unsupported(NO_DEAD_LETTERS))?], Span::Present)
                }
            };
            consume(options, &topics, span, on_consumed).await.map_err(|error| ConsumeError::Failed(Failure::of(&error)))
        }
        #[cfg(feature = "amqp")]
        (SinkPlan::Amqp(options), subscription) => {
            use crate::sink::amqp::consume::{consume, dead_letters};
            let consumed = match subscription {
                Subscription::Events { from_beginning: true, .. } => {
                    return Err(ConsumeError::Unsupported("a RabbitMQ exchange stores no events: leave out --from-beginning"));
                }
                Subscription::Events { destinations, .. } => consume(options, &destinations, on_consumed).await,
                Subscription::DeadLetters => {
                    let queue = options.dead_letter.clone().ok_or(ConsumeError::Unsupported(NO_DEAD_LETTERS))?;
                    dead_letters(options, &queue, on_consumed).await
                }
            };
            consumed.map_err(|error| ConsumeError::Failed(Failure::of(&error)))
        }
        (SinkPlan::Stdout(_), _) => Err(ConsumeError::Unsupported("this sink is not a broker: read its output instead")),
    }
}
