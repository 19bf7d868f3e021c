//! Reads the log: takes the events that the server sends, and gives their changes to the emitter.

use super::binlog::{Event, Header, Message, Payload, PayloadEvents, decode};
use super::error::Error;
use super::events::Events;
use super::flow::{Applied, Flow};
use super::lookup::Lookup;
use super::options::Options;
use super::replay::{Replay, Step};
use super::token::{Place, Token};
use crate::source::{Emission, Emitter, Filled, Gathering, SocketLog, Source, SourceProgress, gather};
use crate::status::metrics::SourceMetrics;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long the server may send nothing: three of its heartbeats.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// An open changefeed.
pub struct Log {
    events: Events,
    /// The compressed transaction that is being read.
    packed: Option<PackedTransaction>,
    /// The XA transaction whose rows are given, because the next event commits it.
    replay: Option<Replay>,
    flow: Flow,
    /// Where the session began.
    begun_at: Place,
    lookup: Lookup,
    options: Options,
    metrics: SourceMetrics,
    gathering: Gathering<Error>,
}

/// A compressed transaction, whose events are unpacked one by one.
struct PackedTransaction {
    /// The header of the event that holds it.
    header: Header,
    events: PayloadEvents,
    /// The event that was unpacked last.
    event: Vec<u8>,
    /// Whether it must still be applied.
    is_waiting: bool,
}

impl PackedTransaction {
    fn new(header: Header, payload: &Payload<'_>) -> Result<Self, Error> {
        Ok(Self { header, events: payload.events()?, event: Vec::new(), is_waiting: false })
    }
}

impl Log {
    pub(super) fn new(events: Events, flow: Flow, lookup: Lookup, options: Options, metrics: SourceMetrics) -> Self {
        let begun_at = flow.place();
        Self { events, packed: None, replay: None, flow, begun_at, lookup, options, metrics, gathering: Gathering::default() }
    }

    /// Applies the next event. Cancel safe: an event is consumed only after it has been applied.
    async fn take(&mut self, out: &mut Emitter<'_, Token>, until: Option<&Token>) -> Result<Taken, Error> {
        let Self { events, packed, replay, flow, lookup, options, .. } = self;
        let Some(arrived) = events.arrived()? else { return Ok(Taken::Nothing) };
        let event = events.event(&arrived)?;
        let header = event.header;
        let message = decode(&event)?;
        if let (Some(until), Some(place)) = (until, flow.begins_at(&header, &message)?)
            && until.place() <= place
        {
            flow.caught_up_to(until);
            return Ok(Taken::Beyond);
        }
        if let Message::Payload(payload) = &message {
            *packed = Some(PackedTransaction::new(header, payload)?);
        } else {
            match flow.apply(&header, &message, lookup, out).await? {
                Applied::Whole => flow.pass(&header)?,
                Applied::Part => return Ok(Taken::Part),
                Applied::Replay(file, offset) => {
                    *replay = Some(Replay::begin(options.clone(), &flow.file(file), offset));
                    flow.begin_replay();
                    return Ok(Taken::Whole);
                }
            }
        }
        events.consume(&arrived)?;
        Ok(Taken::Whole)
    }

    /// Applies the next event of a compressed transaction. Cancel safe.
    async fn unpack(&mut self, out: &mut Emitter<'_, Token>) -> Result<Taken, Error> {
        let Self { packed, flow, lookup, .. } = self;
        let Some(transaction) = packed else { return Ok(Taken::Whole) };
        if !transaction.is_waiting && !transaction.events.next(&mut transaction.event)? {
            if flow.is_inside() {
                return Err(Error::Protocol { what: "a compressed transaction without its end" });
            }
            flow.pass(&transaction.header)?;
            *packed = None;
            return Ok(Taken::Whole);
        }
        transaction.is_waiting = true;
        let event = Event::read_inner(&transaction.event)?;
        match flow.apply(&event.header, &decode(&event)?, lookup, out).await? {
            Applied::Whole => transaction.is_waiting = false,
            Applied::Part => return Ok(Taken::Part),
            Applied::Replay(..) => return Err(Error::Protocol { what: "a compressed XA transaction" }),
        }
        Ok(Taken::Whole)
    }

    /// Gives the next rows of an XA transaction. Cancel safe.
    async fn step(&mut self, out: &mut Emitter<'_, Token>) -> Result<Taken, Error> {
        let Some(replay) = &mut self.replay else { return Ok(Taken::Whole) };
        match replay.step(&mut self.flow, out).await? {
            Step::More => {}
            Step::Full => return Ok(Taken::Part),
            Step::Done => self.replay = None,
        }
        Ok(Taken::Whole)
    }

    /// An event that is cut off is the end of a file if the session that got so far can be followed by one that begins behind it. A session that
    /// began there already has not what follows.
    fn explain(&self, error: Error) -> Error {
        match error {
            Error::CutOff { what } if self.begun_at == self.flow.place() => Error::LogLost { what },
            other => other,
        }
    }

    fn silent(&self) -> Error {
        Error::Silent { address: self.events.address().to_owned(), seconds: SILENCE_MAX.as_secs(), what: "the log" }
    }

    fn received(&mut self, count: usize) {
        self.gathering.received(count);
        self.metrics.bytes.inc_by(count as u64);
        self.metrics.message_received();
    }
}

/// What became of the next event.
enum Taken {
    /// It was applied.
    Whole,
    /// The batch is full before its end.
    Part,
    /// It begins a transaction beyond the limit.
    Beyond,
    /// None has arrived.
    Nothing,
}

impl SocketLog for Log {
    fn gathering(&mut self) -> &mut Gathering<Error> {
        &mut self.gathering
    }

    async fn drain(&mut self, out: &mut Emitter<'_, Token>, until: Option<&Token>) -> Result<Option<Filled>, Error> {
        loop {
            if !self.flow.is_inside() && until.is_some_and(|until| until.place() <= self.flow.place()) {
                return Ok(Some(Filled::Reached));
            }
            if out.is_full() {
                return Ok(Some(Filled::Full));
            }
            let taken = if self.replay.is_some() {
                self.step(out).await
            } else if self.packed.is_some() {
                self.unpack(out).await
            } else {
                self.take(out, until).await
            };
            match taken.map_err(|error| self.explain(error))? {
                Taken::Whole => {}
                Taken::Part => return Ok(Some(Filled::Full)),
                Taken::Beyond => return Ok(Some(Filled::Reached)),
                Taken::Nothing => return Ok(None),
            }
        }
    }

    fn try_receive(&mut self) -> Result<bool, Error> {
        let count = self.events.try_read()?;
        if let Some(count) = count {
            self.received(count);
        }
        Ok(count.is_some())
    }

    async fn wait(&mut self, _has_limit: bool) -> Result<bool, Error> {
        let idle_due = self.flow.has_advanced().then(|| self.gathering.idle_due());
        if idle_due.is_some_and(|due| due <= Instant::now()) {
            return Ok(false);
        }
        let silent_at = self.gathering.received_at() + SILENCE_MAX;
        let deadline = idle_due.map_or(silent_at, |due| due.min(silent_at));
        match timeout_at(deadline, self.events.read()).await {
            Ok(count) => {
                self.received(count?);
                Ok(true)
            }
            Err(_) if deadline < silent_at => Ok(false),
            // A read finds bytes that arrived while nobody read before it looks at the time, so only real silence counts.
            Err(_) => Err(self.silent()),
        }
    }
}

impl Source for Log {
    type Error = Error;
    type Token = Token;

    async fn fill(&mut self, out: &mut Emitter<'_, Token>, until: Option<&Token>) -> Result<Filled, Error> {
        let filled = gather(self, out, until).await?;
        self.flow.reset_advanced();
        Ok(filled)
    }

    fn progress(&mut self, written: &Emission<Token>) -> SourceProgress {
        SourceProgress { token: (&self.flow.token(written)).into(), table_changes: self.flow.take_table_changes() }
    }

    /// The server keeps its log by its own rules, and is told nothing. While the log is held, a lost connection shows here.
    async fn acknowledge(&mut self, _durable: Option<&Token>, _written: &Emission<Token>) -> Result<(), Error> {
        if self.events.arrived()?.is_none() && !self.try_receive()? && SILENCE_MAX < self.gathering.received_at().elapsed() {
            return Err(self.silent());
        }
        Ok(())
    }

    const HEARTBEAT: Duration = Duration::from_secs(1);
}
