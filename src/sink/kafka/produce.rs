//! Hands records to librdkafka without copying their bodies and without an allocation of our own.
//!
//! The crate's safe call copies each body, and allocates a C string for the topic and for each header's name. Here the topic is a handle
//! that is looked up once, header names are constants, and a body stays in the arena of its batch, which lives until the last
//! message of the batch is settled (`delivery`).

#![expect(unsafe_code, reason = "librdkafka is a C library, and it reads bodies in place")]

use super::context::{Client, Context};
use super::delivery::PendingRecord;
use crate::batch::Record;
use crate::format::Headers;
use crate::sink::{DESTINATION_HEADER, ERROR_HEADER};
use rdkafka::bindings::{
    rd_kafka_header_add, rd_kafka_headers_destroy, rd_kafka_headers_new, rd_kafka_headers_t, rd_kafka_producev, rd_kafka_resp_err_t,
    rd_kafka_topic_destroy, rd_kafka_topic_new, rd_kafka_topic_t, rd_kafka_vtype_t,
};
use rdkafka::client::Client as NativeClient;
use rdkafka::producer::Producer as _;
use rdkafka::types::RDKafkaErrorCode;
use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// The partition of a record that goes to the partition of its key.
pub(super) const BY_KEY: i32 = -1;

/// The timestamp of a record that carries the time at which it is sent.
pub(super) const NOW: i64 = 0;

/// Why the client did not take a message.
#[derive(Debug)]
pub(super) enum ProduceError {
    /// Its queue is full.
    QueueFull,
    /// Any other error.
    Failed(RDKafkaErrorCode),
}

/// How a record becomes one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageOptions<'m> {
    /// The partition, or [`BY_KEY`].
    pub(super) partition: i32,
    /// Milliseconds since 1970, or [`NOW`].
    pub(super) timestamp: i64,
    /// The headers.
    pub(super) headers: HeaderSet<'m>,
}

/// Which headers a message has.
#[derive(Clone, Copy, Debug)]
pub(super) enum HeaderSet<'m> {
    /// None.
    None,
    /// Those of an event.
    Event(&'m Headers),
    /// Those of an event, and why it is in the dead-letter topic.
    DeadLetter {
        /// Those of an event.
        event: &'m Headers,
        /// The topic that did not accept it.
        topic: &'m str,
        /// Code and message.
        error: &'m str,
    },
}

/// A topic's handle in the client.
pub(super) struct Topic {
    handle: NonNull<rd_kafka_topic_t>,
    /// Keeps alive the client that made the handle.
    client: Arc<Client>,
}

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Topic {}
// SAFETY: as above.
unsafe impl Sync for Topic {}

impl Topic {
    /// Makes the handle; `None` if the client refuses the name.
    pub(super) fn open(client: &Arc<Client>, name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the client is alive, the name ends with a zero, no configuration is passed.
        let handle = unsafe { rd_kafka_topic_new(client.client().native_ptr(), name.as_ptr(), ptr::null_mut()) };
        NonNull::new(handle).map(|handle| Self { handle, client: Arc::clone(client) })
    }

    /// Hands one message to the client.
    pub(super) fn produce(&self, pending: &PendingRecord<'_>, options: &MessageOptions<'_>) -> Result<(), ProduceError> {
        let record = &pending.record;
        let headers = HeaderList::new(record, &options.headers);
        let (body, body_length) = record.body.map_or((ptr::null(), 0), |body| (body.as_ptr(), body.len()));
        let client: &NativeClient<Context> = self.client.client();
        // SAFETY: client and topic are alive and belong together. Each tag is followed by the arguments that librdkafka documents
        // at `rd_kafka_vtype_t`. The key is copied. The body is neither copied nor freed: it is in the arena of the batch, which
        // the message's opaque keeps alive until the message is reported. The headers belong to the message once the call succeeds.
        let error = unsafe {
            rd_kafka_producev(
                client.native_ptr(),
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT,
                self.handle.as_ptr(),
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
                options.partition,
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
                body.cast::<c_void>(),
                body_length,
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
                record.key.as_ptr().cast::<c_void>(),
                record.key.len(),
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE,
                pending.opaque(),
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP,
                options.timestamp,
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS,
                headers.as_ref().map_or(ptr::null_mut(), |headers| headers.0),
                rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
            )
        };
        match error {
            rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {
                std::mem::forget(headers);
                pending.handed_over();
                Ok(())
            }
            rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL => Err(ProduceError::QueueFull),
            other => Err(ProduceError::Failed(other.into())),
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_topic_new`, destroyed once, before the client.
        unsafe { rd_kafka_topic_destroy(self.handle.as_ptr()) };
    }
}

/// The headers of one message, until the message owns them.
struct HeaderList(*mut rd_kafka_headers_t);

impl HeaderList {
    /// `None` for a message without headers.
    fn new(record: &Record<'_>, set: &HeaderSet<'_>) -> Option<Self> {
        let (HeaderSet::Event(event) | HeaderSet::DeadLetter { event, .. }) = *set else { return None };
        // SAFETY: has no preconditions; makes an empty list.
        let headers = Self(unsafe { rd_kafka_headers_new(event.max()) });
        event.visit(record, |name, value| headers.add(name, value));
        if let HeaderSet::DeadLetter { topic, error, .. } = *set {
            headers.add(DESTINATION_HEADER, topic.as_bytes());
            headers.add(ERROR_HEADER, error.as_bytes());
        }
        Some(headers)
    }

    fn add(&self, name: &str, value: &[u8]) {
        // Slices are never longer than `isize::MAX`.
        let (name_length, value_length) = (name.len().cast_signed(), value.len().cast_signed());
        // SAFETY: the list is alive and ours; name and value have these lengths, and are copied.
        let error = unsafe { rd_kafka_header_add(self.0, name.as_ptr().cast(), name_length, value.as_ptr().cast(), value_length) };
        debug_assert_eq!(error, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "only a read-only list refuses a header");
    }
}

impl Drop for HeaderList {
    fn drop(&mut self) {
        // SAFETY: the list is still ours: `produce` forgets this guard when a message owns the list.
        unsafe { rd_kafka_headers_destroy(self.0) };
    }
}
