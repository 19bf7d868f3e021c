//! Checks the configured queues, and warns of bound queues that lose messages or grow without limit.

use super::inspection::Inspection;
use super::question::{Answer, Question};
use crate::fault::Code;
use crate::preflight::Warning;
use crate::sink::amqp::connect::no_answer;
use crate::sink::amqp::error::Error;
use crate::sink::amqp::management::{QueueFacts, get_if_present};
use crate::sink::amqp::options::Queue;
use crate::sink::amqp::permissions::Permission::Configure;
use crate::sink::amqp::permissions::Resource;
use std::collections::BTreeSet;

/// A queue without a consumer has a backlog from so many messages on.
const BACKLOG_MESSAGES: u64 = 10_000;
/// A queue without a consumer has a backlog from so many bytes on.
const BACKLOG_BYTES: u64 = 64 << 20;
/// How many bound queues are checked.
const QUEUES_MAX: usize = 100;

impl Inspection<'_> {
    /// Checks whether a configured queue exists and fits, and whether the user may declare and bind it.
    pub(super) async fn check_queue(&mut self, queue: &Queue, exchange: &str) -> Result<(), Error> {
        let unfit = |reason: &str| Error::Queue { queue: queue.name.clone(), reason: reason.to_owned() };
        let action = match self.ask(Question::Queue(&queue.name)).await? {
            Answer::Yes => {
                // Declaring an existing queue changes nothing, and the broker compares it.
                let same = self.ask(Question::SameQueue(queue)).await?;
                self.note_permission((Configure, Resource::Queue(queue.name.clone())), same.is_permitted());
                if let Answer::Unfit(reason) | Answer::Locked(reason) = same {
                    self.refuse(&unfit(&reason));
                    return Ok(());
                }
                "bind queue"
            }
            Answer::Missing(_) => {
                self.check_configuring_queue(&queue.name).await?;
                "make and bind queue"
            }
            Answer::Timeout => return Err(no_answer(&self.peer)),
            Answer::Refused(_) => {
                self.note_no_permission(&Resource::Queue(queue.name.clone()));
                return Ok(());
            }
            answer => {
                self.check_configuring_queue(&queue.name).await?;
                self.refuse(&unfit(answer.reason()));
                return Ok(());
            }
        };
        let keys = if queue.keys.iter().all(String::is_empty) { String::new() } else { format!(" with {}", queue.keys.join(", ")) };
        self.add_action(format!("{action} {:?} ({}){keys}", queue.name, queue.kind.name()));
        self.check_binding(&queue.name, exchange, &queue.keys).await
    }

    /// Warns of bound queues that lose messages or grow without limit.
    pub(super) async fn check_bound_queues(&mut self, queues: &BTreeSet<String>) {
        let options = self.options;
        let Some(management) = &options.management else { return };
        for queue in queues.iter().take(QUEUES_MAX) {
            match get_if_present::<QueueFacts>(options, management, &["queues", &options.vhost, queue]).await {
                Ok(facts) => self.findings.warnings.extend(facts.iter().flat_map(|facts| warnings(queue, facts))),
                // An API that fails once would fail for all queues.
                Err(_) => break,
            }
        }
        if let Some(more) = queues.len().checked_sub(QUEUES_MAX).filter(|more| 0 < *more) {
            let message =
                format!("{more} more bound queues were not checked; look on the management page for those that lose or hoard events");
            self.warn(Code::QueueUnsafe, message);
        }
    }
}

/// The warnings for one bound queue.
fn warnings(queue: &str, facts: &QueueFacts) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |message| found.push(Warning { code: Code::QueueUnsafe, message });
    if !facts.durable {
        warn(format!("queue {queue:?} is not durable: its messages are lost when the broker restarts; make a durable one"));
    }
    let is_stream = facts.argument("x-queue-type").and_then(|kind| kind.as_str()) == Some("stream");
    let is_limited = ["x-max-length", "x-max-length-bytes", "x-max-age"].iter().any(|limit| facts.argument(limit).is_some());
    let refuses =
        facts.argument("x-overflow").and_then(|overflow| overflow.as_str()).is_some_and(|overflow| overflow.starts_with("reject-publish"));
    if is_limited && is_stream {
        warn(format!(
            "stream {queue:?} has a limit and drops its oldest events, read or not; make the limit larger than the lag of its slowest reader"
        ));
    } else if is_limited && !refuses {
        warn(format!(
            "queue {queue:?} has a length limit and drops its oldest messages unseen; set x-overflow=reject-publish, or remove the limit"
        ));
    }
    if facts.argument("x-message-ttl").is_some() {
        warn(format!("queue {queue:?} drops messages after a time (x-message-ttl), read or not; remove the limit"));
    }
    if is_stream && !is_limited {
        warn(format!(
            "stream {queue:?} keeps all events for ever and fills the broker's disk; set x-max-age or x-max-length-bytes by a policy"
        ));
    } else if facts.consumers == 0 && !is_stream {
        warn(unread(queue, facts));
    }
    found
}

/// The warning for a queue without a consumer.
fn unread(queue: &str, facts: &QueueFacts) -> String {
    let QueueFacts { messages, message_bytes, .. } = facts;
    let holds = format!("{messages} messages ({} MiB)", message_bytes >> 20);
    let remedy = "start its reader, delete it, or limit it (x-max-length-bytes, x-overflow=reject-publish)";
    if *messages < BACKLOG_MESSAGES && *message_bytes < BACKLOG_BYTES {
        return format!("queue {queue:?} has no consumer, and {holds}: it fills the broker's disk; {remedy}");
    }
    format!("queue {queue:?} has a backlog of {holds} and no consumer: it fills the broker's disk; {remedy}")
}

#[cfg(test)]
mod tests {
    use super::warnings;
    use serde_json::json;

    fn messages(facts: serde_json::Value) -> String {
        let found = warnings("billing", &serde_json::from_value(facts).unwrap());
        found.into_iter().map(|warning| warning.message).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_queue_that_loses_messages_or_grows_without_limit_is_warned_of() {
        let read = json!({"durable": true, "consumers": 1, "messages": 1_000_000});
        assert_eq!(messages(read), "");
        for (facts, expected) in [
            (json!({"durable": false, "consumers": 1}), "not durable"),
            (json!({"durable": true, "consumers": 1, "arguments": {"x-max-length": 5}}), "reject-publish"),
            (json!({"durable": true, "consumers": 1, "effective_policy_definition": {"max-length-bytes": 5}}), "reject-publish"),
            (json!({"durable": true, "consumers": 1, "arguments": {"x-message-ttl": 5}}), "x-message-ttl"),
            (json!({"durable": true, "messages": 3}), "no consumer, and 3 messages (0 MiB)"),
            (json!({"durable": true, "messages": 10_000}), "backlog of 10000 messages"),
            (json!({"durable": true, "messages": 2, "message_bytes": 128 << 20}), "backlog of 2 messages (128 MiB)"),
            (json!({"durable": true, "arguments": {"x-queue-type": "stream"}}), "for ever"),
            (json!({"durable": true, "arguments": {"x-queue-type": "stream", "x-max-age": "1D"}}), "slowest reader"),
        ] {
            let messages = messages(facts);
            assert!(messages.contains(expected) && !messages.contains('\n'), "{expected} in {messages}");
        }
        let refusing = json!({"durable": true, "consumers": 1, "arguments": {"x-max-length": 5, "x-overflow": "reject-publish"}});
        assert_eq!(messages(refusing), "");
    }
}
