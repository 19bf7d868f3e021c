//! One session: each record to its topic, in order, and what a topic does not take to the dead letters.

use super::client::Running;
use super::error::Error;
use super::isolation::{Advice, Isolation};
use super::produce::{BY_KEY, Held, Label, Refusal, Submission, Topic};
use super::topics::{self, Terms};
use super::{Options, Stamp, blocking};
use crate::batch::{Ack, Batch, Record};
use crate::event::{Operation, Timestamp};
use crate::fault::{Classify as _, Code, Fault};
use crate::feed::Feeds;
use crate::sink::Sink;
use crate::status::metrics::{DeadLetter, SinkMetrics};
use rdkafka::producer::Producer as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where records of one topic go.
struct Destination {
    topic: Topic,
    name: Arc<str>,
    terms: Terms,
}

/// How often it is told that records are as old as their topic keeps them, or ahead of the clock.
const TOLD: Duration = Duration::from_mins(10);

/// One session with Kafka.
pub struct Session {
    destinations: Vec<Destination>,
    /// For each feed and operation a place in `destinations`.
    routes: Vec<[Option<usize>; Operation::ALL.len()]>,
    /// The place of what its own destination does not accept.
    dead_letters: Option<usize>,
    feeds: Arc<Feeds>,
    headers: bool,
    stamp: Stamp,
    /// Whether the broker counts fewer bytes than are sent.
    is_compressed: bool,
    /// This machine's clock when the batch at hand was submitted, in milliseconds.
    now: i64,
    /// When it was last told of times that do not fit.
    told: Option<Instant>,
    metrics: SinkMetrics,
    isolation: Isolation,
    /// Whether it met a refusal of which the next session makes something.
    has_learnt: bool,
    /// Dropped last: the topics are its handles.
    running: Arc<Running>,
}

impl Session {
    /// A session that sends these feeds' records with this client.
    pub(super) fn new(
        running: Running,
        options: &Options,
        feeds: &Arc<Feeds>,
        terms: &topics::Limits,
        partitions: &BTreeMap<Arc<str>, u32>,
        isolation: &Isolation,
        metrics: &SinkMetrics,
    ) -> Result<Self, Error> {
        let topics = topics::of_feeds(feeds, options.dead_letter.as_ref());
        if partitions.len() < topics.len() {
            return Err(topics::all_missing(&running, topics.keys().filter(|name| !partitions.contains_key(*name))));
        }
        let mut destinations = Vec::new();
        let mut places = BTreeMap::new();
        for (name, table) in topics {
            let topic = Topic::open(running.client(), &name).ok_or_else(|| Error::TopicName {
                table: table.to_string(),
                topic: name.to_string(),
                rule: "the client refuses it",
            })?;
            places.insert(name.clone(), destinations.len());
            destinations.push(Destination { topic, terms: terms.of(&name), name });
        }
        let routes = feeds.iter().map(|feed| Operation::ALL.map(|operation| places.get(feed.destination(operation)).copied())).collect();
        Ok(Self {
            destinations,
            routes,
            dead_letters: options.dead_letter.as_ref().map(|name| places[name]),
            feeds: Arc::clone(feeds),
            headers: options.headers,
            stamp: options.stamp,
            is_compressed: options.is_compressed(),
            now: 0,
            told: None,
            metrics: metrics.clone(),
            isolation: isolation.clone(),
            has_learnt: false,
            running: Arc::new(running),
        })
    }

    fn failure_or(&self, otherwise: impl FnOnce() -> Error) -> Error {
        let failure = self.running.context().failure().cloned().unwrap_or_else(otherwise);
        // Where the idempotent producer gave up, records are reported before the cause is, and say less than it.
        match self.running.client().client().fatal_error() {
            Some((code, reason)) if failure.fault() == Fault::Transient => Error::of_giving_up(code, reason),
            _ => failure,
        }
    }

    /// The record's place among the destinations.
    fn place(&self, record: &Record<'_>) -> usize {
        let place = self.routes[record.head.feed.index()][record.head.operation as usize];
        place.expect("no operation passes that the feed does not send")
    }

    /// Whether the record fits into a place, beside so many more bytes.
    fn fit(&self, record: &Record<'_>, place: usize, more_bytes: usize) -> Result<(), Error> {
        let destination = &self.destinations[place];
        let table = &self.feeds.get(record.head.feed).name;
        let size_bytes = size(record, table) + more_bytes;
        let id = || String::from_utf8_lossy(record.id).into_owned();
        let limit_bytes = destination.terms.limit_bytes;
        if limit_bytes < size_bytes {
            return Err(Error::TooLarge {
                topic: destination.name.to_string(),
                table: table.to_string(),
                id: id(),
                size_bytes,
                limit_bytes,
            });
        }
        if let Some(limit) = destination.terms.earliest(self.now)
            && self.stamp == Stamp::Commit
            && self.dead_letters != Some(place)
            && record.head.timestamp.millis() < limit
        {
            return Err(Error::TooOld {
                topic: destination.name.to_string(),
                table: table.to_string(),
                id: id(),
                hours: (self.now - record.head.timestamp.millis()) / 3_600_000,
                limit_ms: destination.terms.before_ms.unwrap_or_default(),
            });
        }
        Ok(())
    }

    /// The time that a record carries; 0 for that of its arrival.
    fn time(&mut self, record: &Record<'_>, place: usize) -> i64 {
        let committed = record.head.timestamp.millis();
        if self.stamp == Stamp::Append {
            return 0;
        }
        let destination = &self.destinations[place];
        if destination.terms.latest(self.now) < committed {
            // The row was written by a clock that is ahead. Its event says when; the topic would refuse that time.
            if self.told.is_none_or(|told| TOLD <= told.elapsed()) {
                self.told = Some(Instant::now());
                tracing::warn!(
                    code = %Code::RecordRefused,
                    event = %String::from_utf8_lossy(record.id),
                    table = %self.feeds.get(record.head.feed).name,
                    topic = %destination.name,
                    ahead_seconds = (committed - self.now) / 1000,
                    limit_ms = destination.terms.after_ms,
                    "an event's commit time is further ahead than its topic accepts (message.timestamp.after.max.ms): its record carries the time \
                     of its arrival; set the clock of the database, or raise the limit"
                );
            }
            return 0;
        }
        committed
    }

    /// Tells where records are about as old as their topics keep them: Kafka deletes by the time that they carry.
    fn look_at_age(&mut self, batch: &Batch) {
        const SHARE: i64 = 2;
        let is_old = |retention_ms: i64, timestamp: Timestamp| retention_ms / SHARE < self.now - timestamp.millis();
        let shortest = self.destinations.iter().filter_map(|destination| destination.terms.retention_ms).min();
        let (Some(shortest), Some(oldest)) = (shortest, batch.oldest_live()) else { return };
        if self.stamp == Stamp::Append || !is_old(shortest, oldest) || self.told.is_some_and(|told| told.elapsed() < TOLD) {
            return;
        }
        let found = batch.records().find_map(|record| {
            let destination = &self.destinations[self.place(&record)];
            let retention_ms = destination.terms.retention_ms.filter(|retention| is_old(*retention, record.head.timestamp))?;
            Some((Arc::clone(&destination.name), retention_ms, (self.now - record.head.timestamp.millis()) / 1000))
        });
        if let Some((topic, retention_ms, age_seconds)) = found {
            self.told = Some(Instant::now());
            tracing::warn!(
                code = %Code::TopicForgets, %topic, retention_ms, age_seconds,
                "events are older than half of the time for which their topic keeps them, which counts from their commit: what is older is deleted as \
                 it arrives; raise retention.ms, or set sink.timestamp = \"append\""
            );
        }
    }

    /// Sends a record that its own topic does not accept where such records are kept.
    async fn bury(&self, held: &Held<'_>, place: usize, unfit: Error, reason: DeadLetter) -> Result<(), Error> {
        const NAMES_BYTES: usize = 64;
        let Some(grave) = self.dead_letters else { return Err(unfit) };
        let error = format!("{} {unfit}", unfit.code());
        let topic = &*self.destinations[place].name;
        self.fit(&held.record, grave, NAMES_BYTES + topic.len() + error.len())?;
        let table = &*self.feeds.get(held.record.head.feed).name;
        // With the time of its arrival, which no topic refuses.
        self.hand_over(held, grave, (BY_KEY, 0), &Label::DeadLetter { table, topic, error: &error }).await?;
        // It counts, and need not be sent again, when it is there.
        self.settled().await?;
        self.isolation.arrived(held.record_index());
        self.metrics.count_dead_letter(reason);
        tracing::warn!(error, dead_letter = &*self.destinations[grave].name, "an event went to the dead letters");
        Ok(())
    }

    async fn hand_over(&self, held: &Held<'_>, place: usize, (partition, time): (i32, i64), label: &Label<'_>) -> Result<(), Error> {
        let destination = &self.destinations[place];
        let gate = self.running.gate();
        let mut pause = Pause::new(&self.metrics);
        loop {
            if !gate.is_open() {
                gate.open().await;
            }
            match destination.topic.produce(held, label, partition, time) {
                Ok(()) => {
                    gate.count();
                    return Ok(());
                }
                Err(Refusal::Full) => {}
                Err(Refusal::Failed(code)) => {
                    let error = Error::of_delivery(code, &destination.name);
                    if matches!(error, Error::Refused { .. }) {
                        self.isolation.refused(&error);
                    }
                    return Err(self.failure_or(|| error));
                }
            }
            if let Some(failure) = self.running.context().failure() {
                return Err(failure.clone());
            }
            self.running.rest();
            pause.wait().await;
        }
    }

    /// How many partitions the destination has now.
    async fn partitions(&self, place: usize) -> Result<u32, Error> {
        let (running, name) = (Arc::clone(&self.running), self.destinations[place].name.clone());
        let found = blocking(move || topics::partitions(&running, std::iter::once(&name))).await?;
        let count = found.into_values().next().filter(|count| *count != 0);
        count.ok_or_else(|| topics::all_missing(&self.running, [&self.destinations[place].name]))
    }
}

/// What a record needs on the wire and in the log at most: a batch of its own (61 bytes, KIP-98), its fields with their
/// lengths as variable integers, and its headers.
fn size(record: &Record<'_>, table: &str) -> usize {
    const BATCH: usize = 61;
    const FIELDS: usize = 40;
    // Four names of headers, the longest operation, and their lengths.
    const HEADERS: usize = 120;
    let related = record.related_key.map_or(0, <[u8]>::len);
    BATCH + FIELDS + HEADERS + table.len() + record.id.len() + record.key.len() + related + record.body.map_or(0, <[u8]>::len)
}

/// Waits while the client's queue is full, a little longer each time: with every broker down it stays full.
struct Pause<'m> {
    metrics: &'m SinkMetrics,
    next: Duration,
}

impl<'m> Pause<'m> {
    const FIRST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(32);

    const fn new(metrics: &'m SinkMetrics) -> Self {
        Self { metrics, next: Self::FIRST }
    }

    async fn wait(&mut self) {
        self.metrics.blocked.set(1);
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(Self::LONGEST);
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        if self.next != Self::FIRST {
            self.metrics.blocked.set(0);
        }
    }
}

impl Sink for Session {
    type Error = Error;

    async fn submit(&mut self, batch: Arc<Batch>, ack: Ack) -> Result<(), Error> {
        if let Some(failure) = self.running.context().failure().cloned() {
            return Err(self.explain(failure));
        }
        self.now = Timestamp::now().millis();
        self.look_at_age(&batch);
        let sent = self.send(&Submission::new(batch, ack)).await;
        self.running.rest();
        sent.map_err(|error| self.explain(error))
    }

    fn failure(&mut self) -> Error {
        let failure = self.failure_or(|| Error::Unconfirmed { reason: "the session ended first".to_owned() });
        self.explain(failure)
    }

    async fn failed(&mut self) -> Error {
        self.running.context().failed().await;
        self.failure()
    }

    fn has_learnt(&self) -> bool {
        self.has_learnt
    }

    async fn close(self) -> Result<(), Error> {
        self.settled().await
    }
}

impl Session {
    /// Hands all records of a batch over.
    async fn send(&mut self, submission: &Submission) -> Result<(), Error> {
        let care = self.isolation.advise(submission.seq());
        for held in submission.records() {
            let place = self.place(&held.record);
            let advice = care(held.index);
            let unfit = match &advice {
                Advice::Pass => {
                    held.pass();
                    continue;
                }
                Advice::Bury(refusal) => Some(refusal.clone()),
                Advice::Send | Advice::SendAlone => self.fit(&held.record, place, 0).err(),
            };
            match unfit {
                // The broker counts what is compressed: it decides.
                Some(unfit @ Error::TooLarge { .. }) if self.is_compressed && !matches!(advice, Advice::Bury(_)) => {
                    self.send_alone(&held, place, Some(&unfit)).await?;
                }
                Some(unfit) => {
                    let reason = if unfit.code() == Code::RecordTooLarge { DeadLetter::TooLarge } else { DeadLetter::Refused };
                    self.bury(&held, place, unfit, reason).await?;
                }
                None if advice == Advice::SendAlone => self.send_alone(&held, place, None).await?,
                None => self.send_one(&held, place).await?,
            }
        }
        Ok(())
    }

    /// Sends a record while nothing else is on its way, so that a refusal is its own; `unfit` says what is known to be unfit in it.
    async fn send_alone(&mut self, held: &Held<'_>, place: usize, unfit: Option<&Error>) -> Result<(), Error> {
        self.settled().await?;
        self.isolation.sends_alone(held.record_index());
        let sent = async {
            self.send_one(held, place).await?;
            self.settled().await
        };
        match (sent.await, unfit) {
            (Ok(()), _) => self.isolation.arrived(held.record_index()),
            (Err(Error::Refused { topic, .. }), Some(unfit)) => {
                self.isolation.refused(unfit);
                return Err(if self.dead_letters.is_some() { Error::Refused { topic, reason: unfit.to_string() } } else { unfit.clone() });
            }
            (Err(error), _) => return Err(error),
        }
        Ok(())
    }

    /// Hands a record over to its own topic; one that is of a whole table to each partition.
    async fn send_one(&mut self, held: &Held<'_>, place: usize) -> Result<(), Error> {
        let time = self.time(&held.record, place);
        let table = &*self.feeds.get(held.record.head.feed).name;
        let label = if self.headers { Label::Event { table } } else { Label::Bare };
        if !held.record.head.operation.is_table_wide() {
            return self.hand_over(held, place, (BY_KEY, time), &label).await;
        }
        // Counted anew each time, and again behind the copies: a partition that was made since may have got rows as well.
        let mut sent = 0;
        loop {
            let count = self.partitions(place).await?;
            if count <= sent {
                return Ok(());
            }
            held.expect_copies(count - sent, sent == 0);
            for partition in sent..count {
                self.hand_over(held, place, (partition.cast_signed(), time), &label).await?;
            }
            sent = count;
        }
    }

    /// Where refused records may go to the dead letters a refusal is no end: the next session knows what to do about it.
    fn explain(&mut self, error: Error) -> Error {
        self.has_learnt |= matches!(error, Error::BatchTooLarge { .. });
        let Error::Refused { topic, reason } = &error else { return error };
        let Some(grave) = self.dead_letters else { return error };
        if *topic == *self.destinations[grave].name {
            return error;
        }
        self.has_learnt = true;
        Error::Unconfirmed { reason: format!("topic {topic} refused a record ({reason}), which goes to the dead letters") }
    }

    /// Waits until nothing is on its way.
    async fn settled(&self) -> Result<(), Error> {
        self.running.rest();
        let mut wait = Duration::from_millis(1);
        loop {
            // Looked for first: what fails says so before it is no longer on its way.
            let is_idle = self.running.client().in_flight_count() == 0 && self.running.context().trust().held() == 0;
            if let Some(failure) = self.running.context().failure() {
                return Err(failure.clone());
            }
            if is_idle {
                return Ok(());
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(16));
        }
    }
}
