//! The Kafka sink: an idempotent producer whose delivery reports confirm the acks of batches.
//!
//! One session is one librdkafka client. Any delivery error ends the session, and the engine goes back to the first unconfirmed record on
//! the next one. While every broker is down nothing fails and nothing is lost: records wait in bounded memory.
//!
//! | file | what it does |
//! |---|---|
//! | `connector` | opens sessions, verifies the cluster and its topics |
//! | `session`, `sender`, `routes`, `timestamps` | send a batch's records to their topics |
//! | `delivery`, `produce` | count a batch's messages, and hand them to librdkafka without copying bodies |
//! | `isolation` | finds records that a topic refuses |
//! | `client`, `context`, `flush` | the client's thread, librdkafka's callbacks, and when gathered messages are sent |
//! | `connections`, `verifier`, `identity`, `identify`, `describe` | make sure that only the known cluster's confirmations count |
//! | `topics`, `preflight` | look up, create and judge topics |
//! | `checkpoint` | keeps the checkpoint in a topic |
//! | `consume` | reads topics for `feedline tail` and `feedline dead-letters` |

mod blocking;
pub mod checkpoint;
mod client;
mod client_config;
mod connections;
mod connector;
pub mod consume;
mod context;
mod credentials;
mod delivery;
mod describe;
mod error;
mod flush;
mod hosts;
mod identify;
mod identity;
mod isolation;
mod options;
mod preflight;
mod produce;
pub mod properties;
mod routes;
mod sender;
mod session;
mod timestamps;
mod topics;
mod verifier;

pub use connector::Connector;
pub use error::Error;
pub use options::{CreateTopics, Options, Stamp};
pub use session::Session;
pub use topics::broken_rule;
