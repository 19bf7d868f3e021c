//! An exclusive queue that keeps others out while the connection lives.

use super::error::Error;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};

/// A lock while it is owned. It is consumed: a queue that is used never expires, and its loss is told.
#[derive(Debug)]
pub(super) struct Lock {
    /// `None` once it has nothing more to tell.
    consumer: Option<Consumer>,
    channel: Channel,
    name: String,
}

impl Lock {
    /// Watches over a queue that this connection owns.
    pub(super) async fn watch(channel: &Channel, name: &str) -> lapin::Result<Self> {
        let options = BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(name.into(), "".into(), options, FieldTable::default()).await?;
        Ok(Self { consumer: Some(consumer), channel: channel.clone(), name: name.to_owned() })
    }

    /// Returns when the queue is gone while the channel lives: then somebody else may own it. Cancel safe.
    pub(super) async fn lost(&mut self) -> Error {
        while let Some(consumer) = &mut self.consumer {
            match consumer.next().await {
                // Nobody publishes there; what is found is no word of the broker.
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
        // The channel ended, and says why by itself.
        std::future::pending().await
    }

    /// Whether it is still owned, as far as the broker has said.
    pub(super) fn is_held(&mut self) -> bool {
        self.lost().now_or_never().is_none() && self.channel.status().connected()
    }
}
