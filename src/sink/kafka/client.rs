//! A client and the thread that polls it: made there, polled there, ended there.

use super::context::{Client, Context};
use super::error::Error;
use super::prover::Prover;
use super::renewal::Renewal;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{Producer as _, PurgeConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a broker has to answer when a session is opened.
const REACH: Duration = Duration::from_secs(10);
/// How long the client polls before it looks whether it is wanted; also how late a look at a failure may be.
const SLICE: Duration = Duration::from_millis(50);
/// The same while confirmations wait for a broker's answer.
const BUSY: Duration = Duration::from_millis(2);
/// How long a retired client waits for answers to what it has sent.
const RETIRE: Duration = Duration::from_secs(5);

/// A running client. Dropped, it is retired by its thread.
pub(super) struct Running {
    /// Dropped before the thread is told, so that the thread's is the last hold on the client, and ends it.
    client: Arc<Client>,
    stop: Stop,
}

/// Dropped, the thread retires the client.
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    fn is_told(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Lets the client run on.
    pub(super) fn disarm(&mut self) {
        self.0 = Arc::default();
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Running {
    pub(super) const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Another hold on the thread: for whoever waits while the client is used elsewhere, and may stop waiting.
    pub(super) fn stop(&self) -> Stop {
        Stop(Arc::clone(&self.stop.0))
    }

    /// Whether nobody waits for the client any more.
    pub(super) fn is_told_to_stop(&self) -> bool {
        self.stop.is_told()
    }

    pub(super) fn context(&self) -> &Context {
        self.client.client().context()
    }
}

/// The thread of a client, to be joined before the next client is made.
pub(super) struct Thread {
    handle: JoinHandle<()>,
    /// Its other end goes with the thread.
    ended: oneshot::Receiver<()>,
}

impl Thread {
    /// Makes a client in a thread of its own.
    pub(super) fn start(
        config: ClientConfig,
        context: Context,
        renewal: Renewal,
    ) -> Result<(Self, oneshot::Receiver<Result<Running, Error>>), Error> {
        let (running, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let handle = std::thread::Builder::new()
            .name("kafka".to_owned())
            .spawn(move || {
                run(&config, context, renewal, running);
                drop(end);
            })
            .map_err(|error| Error::Configuration { reason: format!("no thread for the client: {error}") })?;
        Ok((Self { handle, ended }, started))
    }

    /// Waits for its end. Cancel safe; the thread is joined by the last call.
    pub(super) async fn join(thread: &mut Option<Self>) {
        let Some(running) = thread else { return };
        // The thread never sends: what comes is that it has ended.
        let _ended = (&mut running.ended).await;
        if let Some(thread) = thread.take() {
            // A panic there was printed there; its receipts are lost and say so.
            let _panicked = thread.handle.join();
        }
    }
}

fn run(config: &ClientConfig, context: Context, mut renewal: Renewal, running: oneshot::Sender<Result<Running, Error>>) {
    let client: Arc<Client> = match config.create_with_context(context) {
        Ok(client) => Arc::new(client),
        Err(error) => {
            // Nobody waits any more: nothing was made.
            let _cancelled = running.send(Err(refused(&error)));
            return;
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    // A session that nobody waits for any more is dropped here, and so stops.
    let _cancelled = running.send(Ok(Running { client: Arc::clone(&client), stop: Stop(Arc::clone(&stop)) }));
    let context = client.client().context();
    let mut prover = Prover::new(&client);
    while !stop.load(Ordering::Acquire) {
        client.poll(if prover.is_busy() { BUSY } else { SLICE });
        if context.failure().is_none() {
            prover.turn();
        }
        // While all goes well nothing is to be read anew.
        if context.failure().is_none() && context.is_troubled() && renewal.is_due() {
            context.fail(Error::Unconfirmed { reason: "certificates or passwords were renewed; they are read anew".to_owned() });
        }
        if context.failure().is_some() {
            // The session is over: what waits is reported lost now, whether or not a broker can be reached. What is on its
            // way is left to arrive, see `retire`.
            client.purge(PurgeConfig::default().queue());
        }
    }
    drop(prover);
    retire(&client);
}

/// Ends a client. What was sent is waited for, so that nothing of it reaches a partition after the next session's records;
/// what was not sent is given up.
fn retire(client: &Client) {
    let poll = || client.poll(Duration::from_millis(5));
    let deadline = Instant::now() + RETIRE;
    while client.in_flight_count() > 0 && Instant::now() < deadline {
        client.purge(PurgeConfig::default().queue());
        poll();
    }
    // Every message is reported before the client goes, since each carries a share of its batch.
    let deadline = Instant::now() + RETIRE;
    while client.in_flight_count() > 0 && Instant::now() < deadline {
        client.purge(PurgeConfig::default().queue().inflight());
        poll();
    }
}

fn refused(error: &KafkaError) -> Error {
    let reason = match error {
        KafkaError::ClientConfig(_, description, name, _) => format!("\"{name}\": {description}"),
        KafkaError::ClientCreation(reason) => reason.clone(),
        other => other.to_string(),
    };
    if reason.contains("ssl.") { Error::Tls { reason } } else { Error::Configuration { reason } }
}

/// Asks a broker for metadata of one topic, or of all. Blocks, until it is there, the session fails, or time is up.
pub(super) fn metadata(running: &Running, topic: Option<&str>) -> Result<Metadata, Error> {
    let deadline = Instant::now() + REACH;
    loop {
        let error = match running.client.client().fetch_metadata(topic, Duration::from_millis(500)) {
            Ok(metadata) => {
                running.context().saw_brokers(metadata.brokers().len());
                return Ok(metadata);
            }
            Err(error) => error,
        };
        if let Some(failure) = running.context().failure() {
            return Err(failure.clone());
        }
        if deadline <= Instant::now() || running.is_told_to_stop() {
            return Err(running.context().unreachable(&error.to_string()));
        }
    }
}
