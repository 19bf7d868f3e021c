//! Whether the replication connection is alive.
//!
//! A server that decodes changes of unpublished tables, such as a table that is being rewritten, sends nothing until it is done; up to
//! version 15 it does not even answer a request. So a silent server is given up only if it was not seen working either.

use crate::source::postgres::error::Error;
use crate::source::postgres::monitor::{Monitor, Observation};
use std::time::Duration;
use tokio::time::Instant;

pub(super) struct Liveness {
    monitor: Monitor,
    address: String,
    received_at: Instant,
    /// When the server was asked for a reply; `None` once it has sent something.
    asked_at: Option<Instant>,
    /// How long the server may be silent.
    limit: Duration,
    /// The same, doubled each time the silent server was seen working.
    extended_limit: Duration,
    /// Whether the server was seen working since it was asked; `None` until an observation has ended.
    is_working: Option<bool>,
}

impl Liveness {
    pub(super) fn new(monitor: Monitor, limit: Duration, address: String) -> Self {
        Self { monitor, address, received_at: Instant::now(), asked_at: None, limit, extended_limit: limit, is_working: None }
    }

    /// Notes that the server has sent something.
    pub(super) fn received(&mut self) {
        self.received_at = Instant::now();
        self.asked_at = None;
        self.extended_limit = self.limit;
    }

    /// When the server last sent something.
    pub(super) const fn received_at(&self) -> Instant {
        self.received_at
    }

    /// When to call [`Self::expired`]: at half of the limit, and at its end. A read finds bytes that arrived while nobody read before it
    /// looks at the time, so only real silence counts.
    pub(super) fn deadline(&self) -> Instant {
        self.received_at + if self.asked_at.is_some() { self.extended_limit } else { self.limit / 2 }
    }

    /// Handles a deadline that has passed. Returns true if the caller must ask the server for a reply now. Cancel safe.
    ///
    /// # Errors
    /// If the server was asked, has sent nothing, and was not seen working. An observation must have ended first, however slow this machine is.
    pub(super) async fn expired(&mut self) -> Result<bool, Error> {
        if self.asked_at.is_none() {
            self.asked_at = Some(Instant::now());
            self.is_working = None;
            return Ok(true);
        }
        let Some(is_working) = self.is_working else {
            self.monitor.start_now();
            return self.observed().await.map(|()| false);
        };
        let seconds = self.extended_limit.as_secs();
        if !is_working {
            return Err(Error::Silent { address: self.address.clone(), seconds, what: "the replication stream" });
        }
        self.is_working = None;
        self.extended_limit *= 2;
        tracing::info!(seconds, "the server is still decoding and has sent nothing yet; waiting longer");
        Ok(false)
    }

    /// Starts an observation of the server if one is due.
    pub(super) fn start_observation(&mut self) {
        self.monitor.start_if_due(self.asked_at.is_some());
    }

    /// Waits for the observation to end. Cancel safe.
    pub(super) async fn observed(&mut self) -> Result<(), Error> {
        let observed = self.monitor.observed().await;
        self.note(observed)
    }

    /// Takes the result of an observation if it is ready, and starts the next one.
    pub(super) async fn poll_observation(&mut self) -> Result<(), Error> {
        // One that is ready shows the server as it was when it started, so another one starts at once.
        for _ in 0..2 {
            self.start_observation();
            let observed = tokio::select! { biased;
                observed = self.monitor.observed() => observed,
                () = std::future::ready(()) => return Ok(()),
            };
            self.note(observed)?;
        }
        Ok(())
    }

    fn note(&mut self, observed: Result<Observation, Error>) -> Result<(), Error> {
        match observed {
            Ok(Observation { commits_wait: Some(reason), .. }) => {
                return Err(Error::CommitsWait { address: self.address.clone(), reason });
            }
            Ok(Observation { is_working: Some(is_working), .. }) => *self.is_working.get_or_insert_default() |= is_working,
            Ok(_) => {}
            Err(error) if error.is_other_primary() => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "the server could not be observed");
                self.is_working.get_or_insert_default();
            }
        }
        Ok(())
    }
}
