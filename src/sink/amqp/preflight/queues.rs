//! The configured queues, and those that lose or hoard what they took.

use super::Look;
use super::questions::{Answer, Question};
use crate::fault::Code;
use crate::preflight::Warning;
use crate::sink::amqp::error::Error;
use crate::sink::amqp::management::QueueFacts;
use crate::sink::amqp::permissions::Resource;
use crate::sink::amqp::{Queue, link};

/// From here on what waits in a queue without a consumer is a backlog that grows.
const BACKLOG_MESSAGES: u64 = 10_000;
/// The same in bytes.
const BACKLOG_BYTES: u64 = 64 << 20;

impl Look<'_> {
    /// Whether a configured queue is there and fits, and whether it may be made and bound.
    pub(super) async fn queue(&mut self, queue: &Queue, exchange: &str) -> Result<(), Error> {
        self.configuring_queue(&queue.name).await?;
        let unfit = |reason: &str| Error::Queue { queue: queue.name.clone(), reason: reason.to_owned() };
        let made = match self.ask(Question::Queue(&queue.name)).await? {
            Answer::Yes => {
                // The same again is no change, and the broker says whether it is the same.
                let same = self.ask(Question::SameQueue(queue)).await?;
                if let Answer::Unfit(reason) | Answer::Locked(reason) = same {
                    self.refuse(&unfit(&reason));
                    return Ok(());
                }
                "bind queue"
            }
            Answer::Missing(_) => "make and bind queue",
            Answer::Silence => return Err(link::silent(&self.party)),
            Answer::Refused(_) => {
                self.saw_none_of(&Resource::Queue(queue.name.clone()));
                return Ok(());
            }
            answer => {
                self.refuse(&unfit(answer.reason()));
                return Ok(());
            }
        };
        let keys = if queue.keys.iter().all(String::is_empty) { String::new() } else { format!(" with {}", queue.keys.join(", ")) };
        self.will(format!("{made} {:?} ({}){keys}", queue.name, queue.kind.name()));
        self.binding(&queue.name, exchange, &queue.keys).await
    }
}

/// What a bound queue leaves to be regretted.
pub(super) fn warnings(queue: &str, facts: &QueueFacts) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |message| found.push(Warning { code: Code::QueueDoubtful, message });
    if !facts.durable {
        warn(format!("queue {queue:?} is not durable: its messages are lost when the broker restarts; make a durable one"));
    }
    let is_stream = facts.holds("x-queue-type").and_then(|kind| kind.as_str()) == Some("stream");
    let is_limited = ["x-max-length", "x-max-length-bytes", "x-max-age"].iter().any(|limit| facts.holds(limit).is_some());
    let refuses =
        facts.holds("x-overflow").and_then(|overflow| overflow.as_str()).is_some_and(|overflow| overflow.starts_with("reject-publish"));
    if is_limited && is_stream {
        warn(format!(
            "stream {queue:?} has a limit and drops its oldest events, read or not; give it more than its slowest reader is behind"
        ));
    } else if is_limited && !refuses {
        warn(format!(
            "queue {queue:?} has a length limit and drops its oldest messages, which no publisher can see; set x-overflow to reject-publish, or take the limit away"
        ));
    }
    if facts.holds("x-message-ttl").is_some() {
        warn(format!("queue {queue:?} drops messages after a time (x-message-ttl), read or not; take the limit away"));
    }
    if is_stream && !is_limited {
        warn(format!(
            "stream {queue:?} keeps all events for ever and fills the broker's disk until publishers are blocked; set x-max-age or x-max-length-bytes by a policy"
        ));
    } else if facts.consumers == 0 && !is_stream {
        warn(unread(queue, facts));
    }
    found
}

/// A queue that nobody reads.
fn unread(queue: &str, facts: &QueueFacts) -> String {
    let QueueFacts { messages, message_bytes, .. } = facts;
    let holds = format!("{messages} messages ({} MiB)", message_bytes >> 20);
    let remedy = "start its reader, or delete the queue, or limit it with x-max-length-bytes and x-overflow=reject-publish";
    if *messages < BACKLOG_MESSAGES && *message_bytes < BACKLOG_BYTES {
        return format!("queue {queue:?} has no consumer, and {holds}: it fills the broker's disk until publishers are blocked; {remedy}");
    }
    format!(
        "queue {queue:?} has a backlog of {holds} and no consumer: it grows with every event and fills the broker's disk until all publishers are blocked; {remedy}"
    )
}

#[cfg(test)]
mod tests {
    use super::warnings;
    use serde_json::json;

    fn said(facts: serde_json::Value) -> String {
        let found = warnings("billing", &serde_json::from_value(facts).unwrap());
        found.into_iter().map(|warning| warning.message).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_queue_is_doubted_for_what_it_loses_and_what_it_hoards() {
        let read = json!({"durable": true, "consumers": 1, "messages": 1_000_000});
        assert_eq!(said(read), "");
        for (facts, words) in [
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
            let said = said(facts);
            assert!(said.contains(words) && !said.contains('\n'), "{words} in {said}");
        }
        let refusing = json!({"durable": true, "consumers": 1, "arguments": {"x-max-length": 5, "x-overflow": "reject-publish"}});
        assert_eq!(said(refusing), "");
    }
}
