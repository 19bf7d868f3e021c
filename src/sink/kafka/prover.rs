//! Proves each connection of a session, from the thread that polls it: see `trust`.

use super::context::{Client, Context, poll_all};
use super::describe::{Described, Question, waiting};
use super::error::Error;
use super::identity::{Known, Verdict};
use super::trust::Connection;
use rdkafka::client::{Client as NativeClient, ClientContext};
use rdkafka::producer::Producer as _;
use rdkafka::types::RDKafkaErrorCode;
use std::time::{Duration, Instant};

/// How often the topics are looked at beside new connections: one that is deleted and made anew breaks none.
const LOOK: Duration = Duration::from_secs(10);
/// How often answers are looked for.
const SLICE: Duration = Duration::from_millis(50);
/// The same while confirmations wait for one.
const BUSY: Duration = Duration::from_millis(2);
/// How long one answer may take; the connection of a broker that is silent for so long is given up by the client (`socket.timeout.ms`).
const ANSWER: Duration = Duration::from_mins(1);
/// The same where somebody waits.
const REACH: Duration = Duration::from_secs(10);
/// The same where an idle client has no connection left.
const WAKE: Duration = Duration::from_secs(20);
/// How long records wait while no connection is left: a client that goes on by itself repeats nothing, a session that ends is seen.
const AWAY: Duration = Duration::from_mins(1);
/// How long to wait before a broker that gave no proof is asked again.
const REST: Duration = Duration::from_millis(200);
/// How long a broker that has just started may not know a topic.
const UNKNOWN: Duration = Duration::from_secs(15);

/// Asks brokers who they are, each over its connection.
pub(super) struct Prover<'c> {
    client: &'c Client,
    questions: Vec<(Connection, Question<'c, Context>)>,
    /// Not asked before.
    next: Instant,
    next_look: Instant,
    /// Asked while no connection is left, so that one is made: an idle client makes none.
    wake: Option<Question<'c, Context>>,
    /// Since when none was made.
    away_since: Option<Instant>,
    /// The broker that was asked last.
    last: i32,
    /// Since when a broker says that it knows a topic no more.
    unknown_since: Option<Instant>,
}

impl<'c> Prover<'c> {
    pub(super) fn new(client: &'c Client) -> Self {
        let now = Instant::now();
        Self {
            client,
            questions: Vec::new(),
            next: now,
            next_look: now + LOOK,
            wake: None,
            away_since: None,
            last: -1,
            unknown_since: None,
        }
    }

    fn context(&self) -> &'c Context {
        self.client.client().context()
    }

    /// When to look again, where nothing happens before.
    pub(super) fn rests(&self) -> Duration {
        let (context, trust) = (self.context(), self.context().trust());
        if context.known().is_none() {
            return LOOK;
        }
        if trust.held() != 0 {
            return BUSY;
        }
        if !self.questions.is_empty() || self.wake.is_some() || !trust.unproven().is_empty() {
            return SLICE;
        }
        self.next_look.saturating_duration_since(Instant::now()).max(SLICE)
    }

    /// Does what is to be done now; does not block.
    pub(super) fn turn(&mut self) {
        let trust = self.context().trust();
        let Some(known) = self.context().known().filter(|known| !known.names().is_empty()) else { return };
        if trust.has_lost() {
            self.settle_lost();
            return;
        }
        // What was asked over a connection that has ended may be answered over another.
        self.questions.retain(|(connection, _)| trust.is_present(*connection));
        let answered =
            self.questions.iter_mut().enumerate().find_map(|(place, (_, question))| Some((place, question.answer(Duration::ZERO)?)));
        match answered {
            Some((place, answer)) => {
                let (connection, _question) = self.questions.swap_remove(place);
                self.judge(connection, answer, known);
            }
            None => self.ask(known),
        }
        self.wake(known);
    }

    /// Where an idle client has lost its connections, has it make one, which then has to prove where it leads.
    fn wake(&mut self, known: &Known) {
        let trust = self.context().trust();
        if trust.any_after(self.last).is_some() {
            (self.wake, self.away_since) = (None, None);
            return;
        }
        let away_for = self.away_since.get_or_insert_with(Instant::now).elapsed();
        let Some(question) = &mut self.wake else {
            if self.next_look <= Instant::now() && 0 <= self.last {
                self.wake = Some(Question::ask(self.client.client(), self.last, known.names(), WAKE));
            }
            return;
        };
        if let Some(answer) = question.answer(Duration::ZERO) {
            self.wake = None;
            if answer.is_err() && (self.client.in_flight_count() == 0 || AWAY <= away_for) {
                self.context().fail(self.context().unreachable("no broker can be reached"));
            }
        }
    }

    fn ask(&mut self, known: &Known) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let trust = self.context().trust();
        let look = if self.next_look <= now { trust.any_after(self.last) } else { None };
        for connection in trust.unproven().into_iter().chain(look) {
            if self.questions.iter().all(|(asked, _)| *asked != connection) {
                self.last = connection.0;
                self.questions.push((connection, Question::ask(self.client.client(), connection.0, known.names(), ANSWER)));
            }
        }
    }

    /// The answer counts for a connection that was there when it was asked, and is when the answer has come.
    fn judge(&mut self, connection: Connection, answer: Result<Described, RDKafkaErrorCode>, known: &Known) {
        // Also what tells of connections, which comes first.
        poll_all(self.client);
        let context = self.context();
        if !context.trust().is_present(connection) {
            return;
        }
        let now = Instant::now();
        match answer.map(|described| known.judge(&described)) {
            Ok(Verdict::Same) => {
                self.next_look = now + LOOK;
                self.unknown_since = None;
                context.release(context.trust().proven(connection));
            }
            // The next session says who it is, and the engine judges.
            Ok(Verdict::Another(reason)) => context.fail(Error::Unconfirmed { reason }),
            Ok(Verdict::Unknown(topic)) => {
                if UNKNOWN <= self.unknown_since.get_or_insert(now).elapsed() {
                    context.fail(Error::Unconfirmed { reason: format!("topic {topic} is gone") });
                }
                self.next = now + REST;
            }
            // The connection ended, or the broker is slow; records wait for it as well.
            Err(code) => {
                tracing::debug!(broker = connection.0, error = %code, "a broker did not say who it is; it is asked again");
                self.next = now + REST;
            }
        }
    }

    /// A connection ended before its proof: what came over it counts no more.
    fn settle_lost(&mut self) {
        // Also what tells of connections, which comes first.
        poll_all(self.client);
        let context = self.context();
        if let Some(held) = context.trust().polled() {
            context.release(held);
        } else {
            let reason = "a connection ended before it was known who confirmed records there".to_owned();
            context.fail(Error::Unconfirmed { reason });
        }
    }
}

/// Proves all connections of a client whose results are used one at a time, after they came. `poll` handles one event. Blocks.
pub(super) fn prove<C: ClientContext>(
    client: &NativeClient<C>,
    context: &Context,
    known: &Known,
    poll: impl Fn(),
    is_given_up: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let deadline = Instant::now() + REACH;
    let poll_all = || (0..waiting(client)).for_each(|_| poll());
    loop {
        poll_all();
        known.expect_cluster(client.fetch_cluster_id(Duration::ZERO).as_deref())?;
        if let Some(failure) = context.failure() {
            return Err(failure.clone());
        }
        if context.trust().has_lost() {
            return Err(Error::Unconfirmed { reason: "a connection ended before it was known who answered there".to_owned() });
        }
        let Some(connection) = context.trust().unproven().first().copied() else { return Ok(()) };
        let mut question = Question::ask(client, connection.0, known.names(), REACH);
        let answer = loop {
            if let Some(answer) = question.answer(REST) {
                break Some(answer);
            }
            if deadline <= Instant::now() || is_given_up() || !context.trust().is_present(connection) {
                break None;
            }
            poll_all();
        };
        poll_all();
        match answer {
            Some(Ok(described)) if context.trust().is_present(connection) => match known.judge(&described) {
                Verdict::Same => context.release(context.trust().proven(connection)),
                Verdict::Another(reason) => {
                    known.expect_cluster(described.cluster.as_deref())?;
                    return Err(Error::Unconfirmed { reason });
                }
                Verdict::Unknown(topic) => return Err(Error::Unconfirmed { reason: format!("topic {topic} is gone") }),
            },
            _ if deadline <= Instant::now() || is_given_up() => return Err(context.unreachable("a broker did not say who it is")),
            _ => {}
        }
    }
}
