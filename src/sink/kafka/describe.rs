//! Asks one broker for the ids of topics, which are given once: they tell whether it is of the known cluster.
//!
//! The crate's safe calls ask any broker, and know no topic ids. Here the broker is named, so that the question goes over the same
//! connection as the records for that broker. librdkafka's question for a cluster's id is not asked: where a broker knows of no
//! other, as after a pause, the answer aborts the process (`rd_kafka_DescribeClusterResponse_parse` of 2.12.1 gives neither a
//! result nor an error). Each answer renews what the client knows of the cluster's id all the same.

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

/// What a broker said of a topic: its id, where it has one, or why it says nothing.
pub(super) type TopicId = Result<Option<String>, RDKafkaErrorCode>;

/// Who a broker is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    /// The id of its cluster, as any broker named it last; brokers before 0.10.1 have none.
    pub(super) cluster: Option<String>,
    /// What it says of each topic.
    pub(super) topics: BTreeMap<String, TopicId>,
}

/// A question on its way to one broker.
pub(super) struct Question<'c, C: ClientContext> {
    queue: NonNull<rd_kafka_queue_t>,
    /// Outlives the queue.
    client: &'c Client<C>,
}

/// How many events wait to be polled.
pub(super) fn waiting<C: ClientContext>(client: &Client<C>) -> usize {
    // SAFETY: the client is alive; the reference that `get_main` makes is given back.
    unsafe {
        let queue = rd_kafka_queue_get_main(client.native_ptr());
        let length = rd_kafka_queue_length(queue);
        rd_kafka_queue_destroy(queue);
        length
    }
}

impl<'c, C: ClientContext> Question<'c, C> {
    /// Asks for topics, one at least. The client connects to the broker where it is not connected.
    pub(super) fn ask(client: &'c Client<C>, broker: i32, topics: &[CString], patience: Duration) -> Self {
        let rk = client.native_ptr();
        // SAFETY: the client is alive for as long as the question.
        let queue = NonNull::new(unsafe { rd_kafka_queue_new(rk) }).expect("librdkafka makes a queue or aborts");
        let timeout = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        let mut text: [c_char; 128] = [0; 128];
        let mut names: Vec<*const c_char> = topics.iter().map(|topic| topic.as_ptr()).collect();
        // SAFETY: queue and client are alive. Options and topics are copied by the call that takes them, and given back here.
        unsafe {
            let options = rd_kafka_AdminOptions_new(rk, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            let is_set = rd_kafka_AdminOptions_set_request_timeout(options, timeout, text.as_mut_ptr(), text.len());
            debug_assert_eq!(is_set, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
            let is_set = rd_kafka_AdminOptions_set_broker(options, broker, text.as_mut_ptr(), text.len());
            debug_assert_eq!(is_set, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
            let collection = rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            rd_kafka_DescribeTopics(rk, collection, options, queue.as_ptr());
            rd_kafka_TopicCollection_destroy(collection);
            rd_kafka_AdminOptions_destroy(options);
        }
        Self { queue, client }
    }

    /// The answer, waiting so long for it; `None` where it has not come. It comes once.
    pub(super) fn answer(&mut self, patience: Duration) -> Option<Result<Described, RDKafkaErrorCode>> {
        let patience = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is ours. The event is destroyed after it was read.
        unsafe {
            let event = NonNull::new(rd_kafka_queue_poll(self.queue.as_ptr(), patience))?;
            let topics = read(event.as_ptr());
            rd_kafka_event_destroy(event.as_ptr());
            Some(topics.map(|topics| Described { cluster: self.client.fetch_cluster_id(Duration::ZERO), topics }))
        }
    }
}

/// Reads an answer.
///
/// # Safety
/// The event is alive.
unsafe fn read(event: *mut rd_kafka_event_t) -> Result<BTreeMap<String, TopicId>, RDKafkaErrorCode> {
    // SAFETY: the event is alive, and so is what it holds; the result is read by the calls that belong to its type.
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
                found.insert(text_of(rd_kafka_TopicDescription_name(topic)), topic_id(topic));
            }
        }
        Ok(found)
    }
}

impl<C: ClientContext> Drop for Question<'_, C> {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_queue_new`, given back once, before the client ends. An answer that comes later is dropped.
        unsafe { rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// # Safety
/// The text is alive and ends with a zero.
unsafe fn text_of(text: *const c_char) -> String {
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// # Safety
/// The description is alive.
unsafe fn topic_id(topic: *const rd_kafka_TopicDescription_t) -> TopicId {
    // SAFETY: as the caller says; what is read belongs to it.
    unsafe {
        let error = rd_kafka_error_code(rd_kafka_TopicDescription_error(topic));
        if error != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error.into());
        }
        let id = rd_kafka_TopicDescription_topic_id(topic);
        // Brokers before 2.8 have none, and say zero.
        if id.is_null() || (rd_kafka_Uuid_most_significant_bits(id), rd_kafka_Uuid_least_significant_bits(id)) == (0, 0) {
            return Ok(None);
        }
        let text = rd_kafka_Uuid_base64str(id);
        Ok((!text.is_null()).then(|| text_of(text)))
    }
}
