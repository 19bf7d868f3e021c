//! Verifies that each connection leads to the known cluster, by asking the broker at its other end. Runs on the thread that polls the
//! client. `connections` says what an unverified connection means.

use super::connections::Connection;
use super::context::{Client, Context, poll_all};
use super::describe::{DescribeRequest, Description, pending_events};
use super::error::Error;
use super::identity::{Comparison, KnownCluster};
use rdkafka::client::{Client as NativeClient, ClientContext};
use rdkafka::producer::Producer as _;
use rdkafka::types::RDKafkaErrorCode;
use std::time::{Duration, Instant};

/// How often a broker is asked although all connections are verified: a topic that is deleted and created again breaks no connection.
const RECHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How often to look for answers.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The same while confirmations are held back.
const HELD_POLL_INTERVAL: Duration = Duration::from_millis(2);
/// How long one answer may take. The client closes a connection that is silent for as long (`socket.timeout.ms`).
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// The same in [`verify_all`], where a caller waits.
const BLOCKING_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a request that makes an idle client reconnect.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long records wait without any connection before the session ends. A client that reconnects by itself repeats no record;
/// a session that ends makes the outage visible.
const DISCONNECTED_MAX: Duration = Duration::from_mins(1);
/// How long to wait before a broker that did not answer is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How long a broker that has just started may not know a topic.
const UNKNOWN_TOPIC_MAX: Duration = Duration::from_secs(15);

/// Asks brokers for their ids, each over its own connection.
pub(super) struct Verifier<'c> {
    client: &'c Client,
    requests: Vec<(Connection, DescribeRequest<'c, Context>)>,
    /// No broker is asked before this time.
    next_request: Instant,
    next_recheck: Instant,
    /// Sent while no connection is left, to make the client reconnect: an idle client does not.
    reconnect: Option<DescribeRequest<'c, Context>>,
    /// When the last connection ended.
    disconnected_since: Option<Instant>,
    /// The broker that was asked last; -1 if none was.
    last_asked: i32,
    /// Since when a broker has answered that it does not know a topic.
    unknown_since: Option<Instant>,
}

impl<'c> Verifier<'c> {
    pub(super) fn new(client: &'c Client) -> Self {
        let now = Instant::now();
        Self {
            client,
            requests: Vec::new(),
            next_request: now,
            next_recheck: now + RECHECK_INTERVAL,
            reconnect: None,
            disconnected_since: None,
            last_asked: -1,
            unknown_since: None,
        }
    }

    fn context(&self) -> &'c Context {
        self.client.client().context()
    }

    /// How long until [`Self::poll`] should be called again, if no event comes before.
    pub(super) fn next_poll_in(&self) -> Duration {
        let (context, connections) = (self.context(), self.context().connections());
        if context.known().is_none() {
            return RECHECK_INTERVAL;
        }
        if connections.held_count() != 0 {
            return HELD_POLL_INTERVAL;
        }
        if !self.requests.is_empty() || self.reconnect.is_some() || !connections.unverified().is_empty() {
            return POLL_INTERVAL;
        }
        self.next_recheck.saturating_duration_since(Instant::now()).max(POLL_INTERVAL)
    }

    /// Handles one answer, or sends the requests that are due. Does not block.
    pub(super) fn poll(&mut self) {
        let connections = self.context().connections();
        let Some(known) = self.context().known().filter(|known| !known.names().is_empty()) else { return };
        if connections.has_lost() {
            self.settle_lost();
            return;
        }
        // A request over a connection that has ended may be answered over another one.
        self.requests.retain(|(connection, _)| connections.is_current(*connection));
        let answered =
            self.requests.iter_mut().enumerate().find_map(|(index, (_, request))| Some((index, request.answer(Duration::ZERO)?)));
        match answered {
            Some((index, answer)) => {
                let (connection, _request) = self.requests.swap_remove(index);
                self.handle(connection, answer, known);
            }
            None => self.send_requests(known),
        }
        self.keep_connected(known);
    }

    /// Makes an idle client that has lost all its connections reconnect. The new connection is then verified like any other.
    fn keep_connected(&mut self, known: &KnownCluster) {
        if self.context().connections().next_after(self.last_asked).is_some() {
            (self.reconnect, self.disconnected_since) = (None, None);
            return;
        }
        let disconnected_for = self.disconnected_since.get_or_insert_with(Instant::now).elapsed();
        let Some(request) = &mut self.reconnect else {
            if self.next_recheck <= Instant::now() && 0 <= self.last_asked {
                self.reconnect = Some(DescribeRequest::send(self.client.client(), self.last_asked, known.names(), RECONNECT_TIMEOUT));
            }
            return;
        };
        if let Some(answer) = request.answer(Duration::ZERO) {
            self.reconnect = None;
            if answer.is_err() && (self.client.in_flight_count() == 0 || DISCONNECTED_MAX <= disconnected_for) {
                self.context().fail(self.context().unreachable("no broker can be reached"));
            }
        }
    }

    fn send_requests(&mut self, known: &KnownCluster) {
        let now = Instant::now();
        if now < self.next_request {
            return;
        }
        let connections = self.context().connections();
        let recheck = if self.next_recheck <= now { connections.next_after(self.last_asked) } else { None };
        for connection in connections.unverified().into_iter().chain(recheck) {
            if self.requests.iter().all(|(asked, _)| *asked != connection) {
                self.last_asked = connection.0;
                let request = DescribeRequest::send(self.client.client(), connection.0, known.names(), ANSWER_TIMEOUT);
                self.requests.push((connection, request));
            }
        }
    }

    /// Handles an answer. It counts only if the connection that it was asked over is still there.
    fn handle(&mut self, connection: Connection, answer: Result<Description, RDKafkaErrorCode>, known: &KnownCluster) {
        // Changes of connections are reported ahead of the answer.
        poll_all(self.client);
        let context = self.context();
        if !context.connections().is_current(connection) {
            return;
        }
        let now = Instant::now();
        match answer.map(|description| known.compare(&description)) {
            Ok(Comparison::Same) => {
                self.next_recheck = now + RECHECK_INTERVAL;
                self.unknown_since = None;
                context.release(context.connections().verified(connection));
            }
            // The next session returns the new identity, and the engine compares it.
            Ok(Comparison::Different(reason)) => context.fail(Error::Unconfirmed { reason }),
            Ok(Comparison::UnknownTopic(topic)) => {
                if UNKNOWN_TOPIC_MAX <= self.unknown_since.get_or_insert(now).elapsed() {
                    context.fail(Error::Unconfirmed { reason: format!("topic {topic} does not exist any more") });
                }
                self.next_request = now + RETRY_DELAY;
            }
            // The connection ended, or the broker is slow; then records wait for it as well.
            Err(code) => {
                tracing::debug!(broker = connection.0, error = %code, "a broker did not return its ids; it is asked again");
                self.next_request = now + RETRY_DELAY;
            }
        }
    }

    /// A connection ended unverified: confirmations that came over it do not count.
    fn settle_lost(&mut self) {
        // Confirmations that came over it may not have been polled yet.
        poll_all(self.client);
        let context = self.context();
        if let Some(confirmations) = context.connections().forget_lost() {
            context.release(confirmations);
        } else {
            let reason = "a connection ended before it was verified which cluster had confirmed the records".to_owned();
            context.fail(Error::Unconfirmed { reason });
        }
    }
}

/// Verifies all connections of a client whose results are used one at a time, after they have come. `poll` handles one event. Blocks.
pub(super) fn verify_all<C: ClientContext>(
    client: &NativeClient<C>,
    context: &Context,
    known: &KnownCluster,
    poll: impl Fn(),
    is_given_up: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let deadline = Instant::now() + BLOCKING_TIMEOUT;
    let poll_all = || (0..pending_events(client)).for_each(|_| poll());
    loop {
        poll_all();
        known.check_cluster(client.fetch_cluster_id(Duration::ZERO).as_deref())?;
        if let Some(failure) = context.failure() {
            return Err(failure.clone());
        }
        if context.connections().has_lost() {
            return Err(Error::Unconfirmed { reason: "a connection ended before it was verified which cluster had answered".to_owned() });
        }
        let Some(connection) = context.connections().unverified().first().copied() else { return Ok(()) };
        let mut request = DescribeRequest::send(client, connection.0, known.names(), BLOCKING_TIMEOUT);
        let answer = loop {
            if let Some(answer) = request.answer(RETRY_DELAY) {
                break Some(answer);
            }
            if deadline <= Instant::now() || is_given_up() || !context.connections().is_current(connection) {
                break None;
            }
            poll_all();
        };
        poll_all();
        match answer {
            Some(Ok(description)) if context.connections().is_current(connection) => match known.compare(&description) {
                Comparison::Same => context.release(context.connections().verified(connection)),
                Comparison::Different(reason) => {
                    known.check_cluster(description.cluster.as_deref())?;
                    return Err(Error::Unconfirmed { reason });
                }
                Comparison::UnknownTopic(topic) => {
                    return Err(Error::Unconfirmed { reason: format!("topic {topic} does not exist any more") });
                }
            },
            _ if deadline <= Instant::now() || is_given_up() => return Err(context.unreachable("a broker did not return its ids")),
            _ => {}
        }
    }
}
