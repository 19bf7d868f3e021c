//! The open log: takes the events of the change stream, and gives their changes to the emitter.

use super::change_event::ChangeEvent;
use super::change_stream::{ChangeStream, Next};
use super::error::Error;
use super::flow::Flow;
use super::options::Options;
use super::session::Session;
use super::token::Token;
use crate::source::{Emission, Emitter, Filled, Gathering, SocketLog, Source, SourceProgress, gather};
use crate::status::metrics::SourceMetrics;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long the server may send nothing. It answers each second; but a stream that has to pass much of the oplog that does not concern it answers
/// when it has. A server that hangs is found much earlier, by [`Log::check_server`].
const SILENCE_MAX: Duration = Duration::from_mins(10);
/// After so long without an answer the server is asked on another connection whether it answers at all.
const DOUBT_AFTER: Duration = Duration::from_secs(15);
/// How long it may take to say so.
const DOUBT_TIMEOUT: Duration = Duration::from_secs(10);

/// An open changefeed.
pub struct Log {
    stream: ChangeStream,
    flow: Flow,
    options: Options,
    metrics: SourceMetrics,
    gathering: Gathering<Error>,
    /// When the server answered last on another connection.
    answered_at: Instant,
}

/// What became of the next event.
enum Taken {
    /// It was applied, or a reply was read to its end.
    Whole,
    /// It lies beyond the limit.
    Beyond,
    /// None has arrived.
    Nothing,
}

impl Log {
    pub(super) fn new(stream: ChangeStream, flow: Flow, options: Options, metrics: SourceMetrics) -> Self {
        Self { stream, flow, options, metrics, gathering: Gathering::default(), answered_at: Instant::now() }
    }

    /// Applies the next event. Cancel safe: an event is passed only after it has been applied.
    async fn take(&mut self, out: &mut Emitter<'_, Token>, until: Option<&Token>) -> Result<Taken, Error> {
        let Self { stream, flow, options, .. } = self;
        match stream.next()? {
            Next::Nothing => Ok(Taken::Nothing),
            Next::End(end) => {
                flow.pass(&end, until.map(|until| until.place), out);
                stream.pass_reply();
                Ok(Taken::Whole)
            }
            Next::Event(event, next) => {
                let event = ChangeEvent::read(event, &options.database)?;
                let place = flow.place_of(&event)?;
                if let Some(until) = until
                    && until.place <= place
                    && !flow.goes_on_with(&event)
                {
                    flow.end_transaction(out);
                    flow.caught_up_to(until.place);
                    return Ok(Taken::Beyond);
                }
                flow.apply(&event, place, out).await?;
                stream.pass(next);
                Ok(Taken::Whole)
            }
        }
    }

    /// Asks the server on another connection whether it answers, where it has been silent for long.
    async fn check_server(&mut self) -> Result<(), Error> {
        let heard_at = self.gathering.received_at().max(self.answered_at);
        if heard_at.elapsed() < DOUBT_AFTER || self.stream.has_arrived()? {
            return Ok(());
        }
        // The answer proves the same cluster. If another member has become the primary, this one is not read any longer.
        let asked = timeout(DOUBT_TIMEOUT, Session::open(&self.options)).await;
        let session = asked.map_err(|_| self.silent(heard_at.elapsed()))??;
        if session.address() != self.stream.address() && !session.is_router() {
            return Err(self.silent(heard_at.elapsed()));
        }
        self.answered_at = Instant::now();
        Ok(())
    }

    fn silent(&self, since: Duration) -> Error {
        Error::Silent { address: self.stream.address().to_owned(), seconds: since.as_secs(), what: "the change stream" }
    }

    fn received(&mut self, count: usize) {
        self.gathering.received(count);
        self.metrics.bytes.inc_by(count as u64);
        self.metrics.message_received();
    }
}

impl SocketLog for Log {
    fn gathering(&mut self) -> &mut Gathering<Error> {
        &mut self.gathering
    }

    async fn drain(&mut self, out: &mut Emitter<'_, Token>, until: Option<&Token>) -> Result<Option<Filled>, Error> {
        loop {
            if !self.flow.is_inside() && until.is_some_and(|until| until.place <= self.flow.place()) {
                return Ok(Some(Filled::Reached));
            }
            if out.is_full() {
                return Ok(Some(Filled::Full));
            }
            // While these events are published, the server reads on.
            if self.stream.take_reply()? {
                self.stream.ask(until.is_some() || self.flow.is_inside());
                self.stream.flush().await?;
            }
            match self.take(out, until).await? {
                Taken::Whole => {}
                Taken::Beyond => return Ok(Some(Filled::Reached)),
                Taken::Nothing => return Ok(None),
            }
        }
    }

    fn try_receive(&mut self) -> Result<bool, Error> {
        let count = self.stream.try_read()?;
        if let Some(count) = count {
            self.received(count);
        }
        Ok(count.is_some())
    }

    /// On the way to a limit progress without records is not due.
    async fn wait(&mut self, has_limit: bool) -> Result<bool, Error> {
        self.stream.flush().await?;
        let idle_due = (!has_limit && self.flow.has_advanced()).then(|| self.gathering.idle_due());
        if idle_due.is_some_and(|due| due <= Instant::now()) {
            return Ok(false);
        }
        let silent_at = self.gathering.received_at() + SILENCE_MAX;
        let deadline = idle_due.map_or(silent_at, |due| due.min(silent_at));
        match timeout_at(deadline, self.stream.read()).await {
            Ok(count) => {
                self.received(count?);
                Ok(true)
            }
            Err(_) if deadline < silent_at => Ok(false),
            Err(_) => Err(self.silent(SILENCE_MAX)),
        }
    }
}

impl Source for Log {
    type Error = Error;
    type Token = Token;

    const HEARTBEAT: Duration = Duration::from_secs(1);

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
        if !self.stream.has_arrived()? {
            self.try_receive()?;
        }
        self.check_server().await
    }
}
