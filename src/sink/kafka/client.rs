//! A client and the thread that serves it: made there, polled there, ended there.
//!
//! The thread sleeps until the client has something to tell, the session has, or something is to be looked at.

#![expect(unsafe_code, reason = "the crate has no call that tells of a producer's events")]

use super::context::{Client, Context, poll_all};
use super::error::Error;
use super::flush::{Flusher, Gate};
use super::identity::Known;
use super::prover::Prover;
use super::renewal::Renewal;
use rdkafka::ClientConfig;
use rdkafka::bindings::{rd_kafka_queue_cb_event_enable, rd_kafka_queue_destroy, rd_kafka_queue_get_main, rd_kafka_queue_t, rd_kafka_t};
use rdkafka::error::KafkaError;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{Producer as _, PurgeConfig};
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a broker has to answer when a session is opened.
const REACH: Duration = Duration::from_secs(10);
/// How long the thread sleeps at most while something is wrong: how late a renewed password is seen, and how often what waits is given up.
const TROUBLED: Duration = Duration::from_millis(50);
/// How long a retired client waits for answers to what it has sent.
const RETIRE: Duration = Duration::from_secs(5);

/// A running client. Dropped, it is retired by its thread.
pub(super) struct Running {
    /// Dropped before the thread is told, so that the thread's is the last hold on the client, and ends it.
    client: Arc<Client>,
    stop: Stop,
}

/// What is said to the thread.
struct Told {
    thread: thread::Thread,
    is_to_stop: AtomicBool,
    gate: Gate,
}

/// Dropped, the thread retires the client.
pub(super) struct Stop(Option<Arc<Told>>);

impl Stop {
    /// Lets the client run on.
    pub(super) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if let Some(told) = &self.0 {
            told.is_to_stop.store(true, Ordering::Release);
            told.thread.unpark();
        }
    }
}

impl Running {
    pub(super) const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Another hold on the thread: for whoever waits while the client is used elsewhere, and may stop waiting.
    pub(super) fn stop(&self) -> Stop {
        Stop(self.stop.0.clone())
    }

    fn told(&self) -> &Told {
        self.stop.0.as_deref().expect("only other holds are disarmed")
    }

    /// Whether nobody waits for the client any more.
    pub(super) fn is_told_to_stop(&self) -> bool {
        self.told().is_to_stop.load(Ordering::Acquire)
    }

    /// Whether messages may be handed over now.
    pub(super) fn gate(&self) -> &Gate {
        &self.told().gate
    }

    /// Nothing is handed over for now: what the client has gathered may leave.
    pub(super) fn rest(&self) {
        self.gate().rest();
        self.told().thread.unpark();
    }

    /// From now on each connection has to prove that it leads to this one.
    pub(super) fn know(&self, known: Known) {
        self.context().know(known);
        self.told().thread.unpark();
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
            // A panic there was printed there; its acks are lost and say so.
            let _panicked = thread.handle.join();
        }
    }
}

fn run(config: &ClientConfig, context: Context, renewal: Renewal, running: oneshot::Sender<Result<Running, Error>>) {
    let client: Arc<Client> = match config.create_with_context(context) {
        Ok(client) => Arc::new(client),
        Err(error) => {
            // Nobody waits any more: nothing was made.
            let _cancelled = running.send(Err(refused(&error)));
            return;
        }
    };
    let told = Arc::new(Told { thread: thread::current(), is_to_stop: AtomicBool::new(false), gate: Gate::default() });
    // A session that nobody waits for any more is dropped here, and so stops.
    let _cancelled = running.send(Ok(Running { client: Arc::clone(&client), stop: Stop(Some(Arc::clone(&told))) }));
    let bell = Bell::hang(&client, &told.thread);
    serve(&client, &told, renewal);
    drop(bell);
    retire(&client);
}

/// Does what is to be done, and sleeps until there is more.
fn serve(client: &Client, told: &Told, mut renewal: Renewal) {
    let context = client.client().context();
    let mut prover = Prover::new(client);
    let mut flusher = Flusher::new(client, &told.gate, renewal.options().linger());
    while !told.is_to_stop.load(Ordering::Acquire) {
        poll_all(client);
        if context.failure().is_none() {
            prover.turn();
        }
        // While all goes well nothing is to be read anew.
        if context.failure().is_none() && context.is_troubled() && renewal.is_due() {
            context.fail(Error::Unconfirmed { reason: "certificates or passwords were renewed; they are read anew".to_owned() });
        }
        let sleep = if context.failure().is_some() {
            // The session is over: what waits is reported lost now, whether or not a broker can be reached. What is on its
            // way is left to arrive, see `retire`.
            client.purge(PurgeConfig::default().queue());
            TROUBLED
        } else {
            let trouble = context.is_troubled().then_some(TROUBLED);
            flusher.turn().into_iter().chain(trouble).fold(prover.rests(), Duration::min)
        };
        if !sleep.is_zero() {
            thread::park_timeout(sleep);
        }
    }
}

/// Wakes a thread when events come into the client's empty queue. Dropped, it no longer does.
struct Bell<'c> {
    queue: NonNull<rd_kafka_queue_t>,
    /// Outlives the queue.
    _client: &'c Client,
    /// Stays where it is while the queue's callback has its address.
    _thread: &'c thread::Thread,
}

impl<'c> Bell<'c> {
    fn hang(client: &'c Client, thread: &'c thread::Thread) -> Self {
        // SAFETY: client and thread outlive the bell, which takes the callback back before it gives the queue back. librdkafka calls it
        // from its own threads with the queue locked, so that none is under way once it was taken back.
        let queue = unsafe {
            let queue = rd_kafka_queue_get_main(client.client().native_ptr());
            rd_kafka_queue_cb_event_enable(queue, Some(ring), ptr::from_ref(thread).cast_mut().cast());
            queue
        };
        Self { queue: NonNull::new(queue).expect("every client has a main queue"), _client: client, _thread: thread }
    }
}

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        // SAFETY: as in `hang`.
        unsafe {
            rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// # Safety
/// `thread` is what [`Bell::hang`] gave.
unsafe extern "C" fn ring(_client: *mut rd_kafka_t, thread: *mut c_void) {
    // SAFETY: as the caller says.
    unsafe { &*thread.cast::<thread::Thread>() }.unpark();
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
