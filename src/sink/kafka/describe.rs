//! Asks one broker for the ids of topics (`DescribeTopics`). An id is never used twice, so it shows which cluster the broker belongs to.
//!
//! The crate's safe calls ask any broker and return no topic ids. These requests name the broker, so that they use the same
//! connection as the records for this broker. librdkafka's own request for the cluster id (`DescribeCluster`) is not used: if a broker knows of
//! no other broker, as after a pause, its answer aborts the process (`rd_kafka_DescribeClusterResponse_parse` of 2.12.1 returns
//! neither a result nor an error). The client learns the cluster id from the answers here as well.

#![expect(unsafe_code, reason = "librdkafka is a C library")]

use rdkafka::bindings::{
    RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT, rd_kafka_AdminOptions_destroy, rd_kafka_AdminOptions_new, rd_kafka_AdminOptions_set_broker,
    rd_kafka_AdminOptions_set_request_timeout, rd_kafka_DescribeTopics, rd_kafka_DescribeTopics_result_topics,
    rd_kafka_TopicCollection_destroy, rd_kafka_TopicCollection_of_topic_names, rd_kafka_TopicDescription_error,
    rd_kafka_TopicDescription_name, rd_kafka_TopicDescription_t, rd_kafka_TopicDescription_topic_id, rd_kafka_Uuid_base64str,
    rd_kafka_Uuid_least_significant_bits, rd_kafka_Uuid_most_significant_bits, rd_kafka_admin_op_t, rd_kafka_error_code,
    rd_kafka_event_DescribeTopics_result, rd_kafka_event_destroy, rd_kafka_event_error, rd_kafka_event_t, rd_kafka_event_type,
    rd_kafka_queue_destroy, rd_kafka_queue_get_main, rd_kafka_queue_length, rd_kafka_queue_new, rd_kafka_queue_poll, rd_kafka_queue_t,
    rd_kafka_resp_err_t,
};
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::NonNull;
use std::time::Duration;

/// A broker's answer for one topic: its id, if it has one, or an error.
pub(super) type TopicId = Result<Option<String>, RDKafkaErrorCode>;

/// A broker's answer to a [`DescribeRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Description {
    /// The cluster's id, as any broker returned it last; brokers before 0.10.1 have none.
    pub(super) cluster: Option<String>,
    /// The answer for each topic.
    pub(super) topics: BTreeMap<String, TopicId>,
}

/// A request that was sent to one broker.
pub(super) struct DescribeRequest<'c, C: ClientContext> {
    queue: NonNull<rd_kafka_queue_t>,
    /// Outlives the queue.
    client: &'c Client<C>,
}

/// How many events of the client wait to be polled.
pub(super) fn pending_events<C: ClientContext>(client: &Client<C>) -> usize {
    // SAFETY: the client is alive; the reference that `get_main` returns is released.
    unsafe {
        let queue = rd_kafka_queue_get_main(client.native_ptr());
        let length = rd_kafka_queue_length(queue);
        rd_kafka_queue_destroy(queue);
        length
    }
}

impl<'c, C: ClientContext> DescribeRequest<'c, C> {
    /// Asks for the ids of topics; there must be at least one. The client connects to the broker if it is not connected.
    pub(super) fn send(client: &'c Client<C>, broker: i32, topics: &[CString], timeout: Duration) -> Self {
        let rk = client.native_ptr();
        // SAFETY: the client outlives the request.
        let queue = NonNull::new(unsafe { rd_kafka_queue_new(rk) }).expect("librdkafka makes a queue or aborts");
        let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        let mut message: [c_char; 128] = [0; 128];
        let mut names: Vec<*const c_char> = topics.iter().map(|topic| topic.as_ptr()).collect();
        // SAFETY: queue and client are alive. `rd_kafka_DescribeTopics` copies options and topics, which are freed here.
        unsafe {
            let options = rd_kafka_AdminOptions_new(rk, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            let is_set = rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, message.as_mut_ptr(), message.len());
            debug_assert_eq!(is_set, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
            let is_set = rd_kafka_AdminOptions_set_broker(options, broker, message.as_mut_ptr(), message.len());
            debug_assert_eq!(is_set, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
            let collection = rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            rd_kafka_DescribeTopics(rk, collection, options, queue.as_ptr());
            rd_kafka_TopicCollection_destroy(collection);
            rd_kafka_AdminOptions_destroy(options);
        }
        Self { queue, client }
    }

    /// Waits up to `timeout` for the answer; `None` if it has not come. It is returned once.
    pub(super) fn answer(&mut self, timeout: Duration) -> Option<Result<Description, RDKafkaErrorCode>> {
        let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is ours. The event is destroyed after it was read.
        unsafe {
            let event = NonNull::new(rd_kafka_queue_poll(self.queue.as_ptr(), timeout_ms))?;
            let topics = read(event.as_ptr());
            rd_kafka_event_destroy(event.as_ptr());
            Some(topics.map(|topics| Description { cluster: self.client.fetch_cluster_id(Duration::ZERO), topics }))
        }
    }
}

/// Reads an answer.
///
/// # Safety
/// The event is alive.
unsafe fn read(event: *mut rd_kafka_event_t) -> Result<BTreeMap<String, TopicId>, RDKafkaErrorCode> {
    // SAFETY: the event and its contents are alive; the result is read by the functions for its type.
    unsafe {
        let error = rd_kafka_event_error(event);
        if error != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error.into());
        }
        let mut found = BTreeMap::new();
        if rd_kafka_event_type(event) == RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT {
            let mut count = 0;
            let topics = rd_kafka_DescribeTopics_result_topics(rd_kafka_event_DescribeTopics_result(event), &raw mut count);
            for index in 0..count {
                let topic = *topics.add(index);
                found.insert(string_of(rd_kafka_TopicDescription_name(topic)), topic_id(topic));
            }
        }
        Ok(found)
    }
}

impl<C: ClientContext> Drop for DescribeRequest<'_, C> {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_queue_new`, destroyed once, before the client. librdkafka drops an answer that comes later.
        unsafe { rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// # Safety
/// The string is alive and ends with a zero.
unsafe fn string_of(text: *const c_char) -> String {
    // SAFETY: guaranteed by the caller.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// # Safety
/// The description is alive.
unsafe fn topic_id(topic: *const rd_kafka_TopicDescription_t) -> TopicId {
    // SAFETY: guaranteed by the caller; what is read belongs to the description.
    unsafe {
        let error = rd_kafka_error_code(rd_kafka_TopicDescription_error(topic));
        if error != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error.into());
        }
        let id = rd_kafka_TopicDescription_topic_id(topic);
        // Brokers before 2.8 have no topic ids, and return zero.
        if id.is_null() || (rd_kafka_Uuid_most_significant_bits(id), rd_kafka_Uuid_least_significant_bits(id)) == (0, 0) {
            return Ok(None);
        }
        let text = rd_kafka_Uuid_base64str(id);
        Ok((!text.is_null()).then(|| string_of(text)))
    }
}
