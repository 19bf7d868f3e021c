//! A client and its thread: the client is created, polled and destroyed there.
//!
//! The thread sleeps until the client or the session wakes it, or until a check is due.

#![expect(unsafe_code, reason = "the crate has no call that reports a producer's events")]

use super::context::{Client, Context, poll_all};
use super::credentials::CredentialWatch;
use super::error::Error;
use super::flush::{Flusher, Gate};
use super::identity::KnownCluster;
use super::verifier::Verifier;
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
use tracing::Span;

/// How long a broker has to answer when a session is opened.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest sleep of the thread while a connection is in trouble or the session has failed. Renewed passwords are noticed, and waiting
/// messages given up, at this interval.
const TROUBLED_INTERVAL: Duration = Duration::from_millis(50);
/// How long a client that is being destroyed waits for answers to what it has sent.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A running client. When the handle is dropped, the client's thread destroys the client.
pub(super) struct ClientHandle {
    /// Dropped before `stop`, so that the thread has the last reference to the client, and destroys it.
    client: Arc<Client>,
    stop: StopOnDrop,
}

/// State that the client's thread shares with the session.
struct Control {
    thread: thread::Thread,
    is_stopping: AtomicBool,
    gate: Gate,
}

/// Tells the thread to destroy the client when it is dropped.
pub(super) struct StopOnDrop(Option<Arc<Control>>);

impl StopOnDrop {
    /// Lets the client run on.
    pub(super) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(control) = &self.0 {
            control.is_stopping.store(true, Ordering::Release);
            control.thread.unpark();
        }
    }
}

impl ClientHandle {
    pub(super) const fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Another guard that stops the client: for a caller that waits while the handle is used by another thread, and may be cancelled.
    pub(super) fn stop_on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.stop.0.clone())
    }

    fn control(&self) -> &Control {
        self.stop.0.as_deref().expect("only other guards are disarmed")
    }

    /// Whether the client was told to stop, so that nobody waits for results any more.
    pub(super) fn is_stopping(&self) -> bool {
        self.control().is_stopping.load(Ordering::Acquire)
    }

    /// Says whether messages may be handed over now.
    pub(super) fn gate(&self) -> &Gate {
        &self.control().gate
    }

    /// No message is handed over for now: the client may send what it has gathered.
    pub(super) fn allow_flush(&self) {
        self.gate().close();
        self.control().thread.unpark();
    }

    /// Sets the cluster that every connection must lead to from now on.
    pub(super) fn set_known(&self, known: KnownCluster) {
        self.context().set_known(known);
        self.control().thread.unpark();
    }

    pub(super) fn context(&self) -> &Context {
        self.client.client().context()
    }
}

/// The thread of a client, to be joined before the next client is created.
pub(super) struct ClientThread {
    handle: JoinHandle<()>,
    /// The sender is dropped when the thread ends.
    ended: oneshot::Receiver<()>,
}

impl ClientThread {
    /// Creates a client on a thread of its own. The receiver returns the client's handle.
    pub(super) fn start(
        config: ClientConfig,
        context: Context,
        credentials: CredentialWatch,
    ) -> Result<(Self, oneshot::Receiver<Result<ClientHandle, Error>>), Error> {
        let (created, client) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let span = Span::current();
        let handle = std::thread::Builder::new()
            .name("kafka".to_owned())
            .spawn(move || {
                span.in_scope(|| run(&config, context, credentials, created));
                drop(end);
            })
            .map_err(|error| Error::Configuration { reason: format!("no thread for the client: {error}") })?;
        Ok((Self { handle, ended }, client))
    }

    /// Waits until the thread has ended. Cancel safe: the call that completes joins the thread.
    pub(super) async fn join(thread: &mut Option<Self>) {
        let Some(running) = thread else { return };
        // Nothing is ever sent: the receiver resolves when the thread drops the sender.
        let _ended = (&mut running.ended).await;
        if let Some(thread) = thread.take() {
            // The thread has printed its panic, and the acks that it dropped report the loss.
            let _panicked = thread.handle.join();
        }
    }
}

fn run(config: &ClientConfig, context: Context, credentials: CredentialWatch, created: oneshot::Sender<Result<ClientHandle, Error>>) {
    let client: Arc<Client> = match config.create_with_context(context) {
        Ok(client) => Arc::new(client),
        Err(error) => {
            // If the connector no longer waits, there is nothing to clean up.
            let _cancelled = created.send(Err(creation_error(&error)));
            return;
        }
    };
    let control = Arc::new(Control { thread: thread::current(), is_stopping: AtomicBool::new(false), gate: Gate::default() });
    // If the connector no longer waits, the handle is dropped here, and stops the client.
    let _cancelled = created.send(Ok(ClientHandle { client: Arc::clone(&client), stop: StopOnDrop(Some(Arc::clone(&control))) }));
    let waker = EventWaker::install(&client, &control.thread);
    serve(&client, &control, credentials);
    drop(waker);
    retire(&client);
}

/// Polls the client, its connections, flushes and credentials until the client is told to stop.
fn serve(client: &Client, control: &Control, mut credentials: CredentialWatch) {
    let context = client.client().context();
    let mut verifier = Verifier::new(client);
    let mut flusher = Flusher::new(client, &control.gate, credentials.options().linger());
    while !control.is_stopping.load(Ordering::Acquire) {
        poll_all(client);
        if context.failure().is_none() {
            verifier.poll();
        }
        // While connections work, renewed files are not needed.
        if context.failure().is_none() && context.is_troubled() && credentials.is_renewed() {
            context.fail(Error::Unconfirmed { reason: "certificates or passwords were renewed, and are read again".to_owned() });
        }
        let sleep = if context.failure().is_some() {
            // The session is over: waiting messages are reported as lost now, whether or not a broker can be reached. What was sent
            // may still arrive, see `retire`.
            client.purge(PurgeConfig::default().queue());
            TROUBLED_INTERVAL
        } else {
            let troubled = context.is_troubled().then_some(TROUBLED_INTERVAL);
            flusher.poll().into_iter().chain(troubled).fold(verifier.next_poll_in(), Duration::min)
        };
        if !sleep.is_zero() {
            thread::park_timeout(sleep);
        }
    }
}

/// Wakes a thread when events come into the client's empty queue, until it is dropped.
struct EventWaker<'c> {
    queue: NonNull<rd_kafka_queue_t>,
    /// Outlives the queue.
    _client: &'c Client,
    /// Must not move: the queue's callback has its address.
    _thread: &'c thread::Thread,
}

impl<'c> EventWaker<'c> {
    fn install(client: &'c Client, thread: &'c thread::Thread) -> Self {
        // SAFETY: client and thread outlive the waker, which removes the callback before it releases the queue. librdkafka calls it
        // from its own threads with the queue locked, so that no call is under way once it was removed.
        let queue = unsafe {
            let queue = rd_kafka_queue_get_main(client.client().native_ptr());
            rd_kafka_queue_cb_event_enable(queue, Some(wake), ptr::from_ref(thread).cast_mut().cast());
            queue
        };
        Self { queue: NonNull::new(queue).expect("every client has a main queue"), _client: client, _thread: thread }
    }
}

impl Drop for EventWaker<'_> {
    fn drop(&mut self) {
        // SAFETY: as in `install`.
        unsafe {
            rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// # Safety
/// `thread` is the pointer that [`EventWaker::install`] passed.
unsafe extern "C" fn wake(_client: *mut rd_kafka_t, thread: *mut c_void) {
    // SAFETY: guaranteed by the caller.
    unsafe { &*thread.cast::<thread::Thread>() }.unpark();
}

/// Prepares a client for its destruction. Waits for answers to what was sent, so that none of it reaches a partition behind the next
/// session's records. What was not sent is given up.
fn retire(client: &Client) {
    let poll = || client.poll(Duration::from_millis(5));
    let deadline = Instant::now() + RETIRE_TIMEOUT;
    while client.in_flight_count() > 0 && Instant::now() < deadline {
        client.purge(PurgeConfig::default().queue());
        poll();
    }
    // Every message must be reported before the client is destroyed, since each holds a reference to its batch.
    let deadline = Instant::now() + RETIRE_TIMEOUT;
    while client.in_flight_count() > 0 && Instant::now() < deadline {
        client.purge(PurgeConfig::default().queue().inflight());
        poll();
    }
}

fn creation_error(error: &KafkaError) -> Error {
    let reason = match error {
        KafkaError::ClientConfig(_, description, name, _) => format!("\"{name}\": {description}"),
        KafkaError::ClientCreation(reason) => reason.clone(),
        other => other.to_string(),
    };
    if reason.contains("ssl.") { Error::Tls { reason } } else { Error::Configuration { reason } }
}

/// Asks a broker for the metadata of one topic, or of all. Blocks until the answer comes, the session fails, or time is up.
pub(super) fn metadata(client: &ClientHandle, topic: Option<&str>) -> Result<Metadata, Error> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        let error = match client.client.client().fetch_metadata(topic, Duration::from_millis(500)) {
            Ok(metadata) => {
                client.context().set_broker_count(metadata.brokers().len());
                return Ok(metadata);
            }
            Err(error) => error,
        };
        if let Some(failure) = client.context().failure() {
            return Err(failure.clone());
        }
        if deadline <= Instant::now() || client.is_stopping() {
            return Err(client.context().unreachable(&error.to_string()));
        }
    }
}
