//! RabbitMQ sink over AMQP 0-9-1: persistent, mandatory messages to a durable topic exchange, with pipelined publisher confirms.
//!
//! A session is one connection that owns the pipeline's lock, and one channel. Any failure ends the session; the engine opens the
//! next one and sends everything from the first unconfirmed event again. The lock is free only when the broker has processed all
//! that the earlier connection sent. The broker returns an event that no queue takes; such an event never counts as delivered.

pub mod checkpoint;
mod confirm_timeout;
mod connect;
mod connector;
pub mod consume;
mod declare;
mod dial;
mod error;
mod frame_check;
mod in_flight;
mod link;
mod lock;
mod management;
mod message;
mod options;
mod permissions;
mod preflight;
mod publisher;
mod send_order;
mod send_queue;
mod send_window;
mod session;
mod socket;
mod unroutable_retries;

pub use connector::Connector;
pub use error::Error;
pub use options::{Address, Management, Options, Ordering, Queue, QueueType};
pub use session::Session;
