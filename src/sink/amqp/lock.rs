//! The pipeline's lock: an exclusive queue that keeps other instances out while the connection lives.

use super::error::Error;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

/// A lock that this connection owns. Its queue has a consumer, for two reasons: a queue in use never expires, and the broker tells a
/// consumer when its queue is deleted.
#[derive(Debug)]
pub(super) struct Lock {
    /// `None` once it has ended.
    consumer: Option<Consumer>,
    channel: Channel,
    name: String,
}

impl Lock {
    /// Consumes an exclusive queue that this connection has declared.
    pub(super) async fn watch(channel: &Channel, name: &str) -> lapin::Result<Self> {
        let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(name.into(), "".into(), options, FieldTable::default()).await?;
        Ok(Self { consumer: Some(consumer), channel: channel.clone(), name: name.to_owned() })
    }

    /// Returns when the queue was deleted while the channel is open: then another instance may own the lock. Cancel safe.
    pub(super) async fn lost(&mut self) -> Error {
        while let Some(consumer) = &mut self.consumer {
            match consumer.next().await {
                // Only a foreign client would publish here; ignored.
                Some(Ok(_)) => {}
                Some(Err(_)) => self.consumer = None,
                None => {
                    self.consumer = None;
                    if self.channel.status().connected() {
                        return Error::Unconfirmed { reason: format!("queue {}, the pipeline's lock, was deleted", self.name) };
                    }
                }
            }
        }
        // The channel has ended and reports its own error.
        std::future::pending().await
    }

    /// Whether the lock is still owned, as far as is known now.
    pub(super) fn is_held(&mut self) -> bool {
        self.lost().now_or_never().is_none() && self.channel.status().connected()
    }
}
