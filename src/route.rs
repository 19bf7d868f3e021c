//! Routes: templates that name a destination for each table and operation.

use std::sync::Arc;

/// The name of a Kafka topic, or an AMQP routing key.
pub type Destination = Arc<str>;
