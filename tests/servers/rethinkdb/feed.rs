//! One changefeed of the server: a scan of its table, and the changes that are queued.

use super::faults::Faults;
use super::protocol::{send, send_elements};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::net::TcpStream;
use std::ops::Bound;
use std::time::Duration;

/// The most that a batch holds.
#[derive(Clone, Copy)]
pub(super) struct Batch {
    /// Documents of the scan.
    pub(super) documents: usize,
    /// It is complete when its elements have so many bytes.
    pub(super) bytes: usize,
    /// How long the server needs for each element.
    pub(super) each: Duration,
}

impl Default for Batch {
    /// Few documents, so that a scan has several batches, and all changes that are queued.
    fn default() -> Self {
        Self { documents: 50, bytes: usize::MAX, each: Duration::ZERO }
    }
}

pub(super) struct Feed {
    pub(super) table: String,
    pub(super) token: u64,
    pub(super) out: TcpStream,
    batch: Batch,
    /// Elements as they are sent.
    pub(super) queue: VecDeque<Vec<u8>>,
    pub(super) queue_size: usize,
    pub(super) skipped: usize,
    /// The last key that the scan has sent; `None` once it is complete.
    pub(super) scan: Option<String>,
    /// Whether a batch was asked for that was not sent.
    pub(super) is_asked: bool,
    is_begun: bool,
    /// Whether `ready` was sent.
    pub(super) is_ready: bool,
}

impl Feed {
    /// A feed whose first batch was asked for.
    pub(super) fn open(table: &str, token: u64, out: TcpStream, queue_size: usize, batch: Batch) -> Self {
        Self {
            table: table.to_owned(),
            token,
            out,
            batch,
            queue: VecDeque::new(),
            queue_size,
            skipped: 0,
            scan: Some(String::new()),
            is_asked: true,
            is_begun: false,
            is_ready: false,
        }
    }

    /// Sends these elements, then what is queued, until the batch is full.
    pub(super) fn answer(&mut self, mut elements: Vec<Vec<u8>>, piece: usize) {
        let mut bytes: usize = elements.iter().map(Vec::len).sum();
        while bytes < self.batch.bytes
            && let Some(queued) = self.queue.pop_front()
        {
            bytes += queued.len();
            elements.push(queued);
        }
        self.is_asked = false;
        let needs = self.batch.each * u32::try_from(elements.len()).expect("few elements");
        if !needs.is_zero() {
            std::thread::sleep(needs);
        }
        send_elements(&mut self.out, self.token, &elements, piece);
    }

    /// A batch is asked for.
    pub(super) fn ask(&mut self, documents: &BTreeMap<String, Value>, faults: &Faults, piece: usize) {
        let state = |state: &str| json!({"state": state, "type": "state"}).to_string().into_bytes();
        self.is_asked = true;
        let mut elements = Vec::new();
        if !std::mem::replace(&mut self.is_begun, true) {
            elements.push(state("initializing"));
        }
        if let Some(scanned) = self.scan.take() {
            let rows = documents.range::<String, _>((Bound::Excluded(scanned), Bound::Unbounded)).take(self.batch.documents);
            let mut bytes = 0;
            for (key, document) in rows {
                let row = format!("{{\"new_val\":{document},\"type\":\"initial\"}}").into_bytes();
                bytes += row.len();
                elements.push(row);
                self.scan = Some(key.clone());
                if self.batch.bytes <= bytes {
                    break;
                }
            }
            if !elements.is_empty() {
                return self.answer(elements, piece);
            }
        }
        let skipped = std::mem::take(&mut self.skipped);
        if skipped != 0 {
            // Alone in its frame, also before `ready`.
            let error = json!({"error": format!("Changefeed cache over array size limit, skipped {skipped} elements.")});
            self.is_asked = false;
            return send(&mut self.out, self.token, &json!({"t": 3, "r": [error], "n": [1, 5]}), piece);
        }
        if !self.is_ready && faults.is_stalled {
            return;
        }
        if !std::mem::replace(&mut self.is_ready, true) {
            return self.answer(vec![state("ready")], piece);
        }
        if !self.queue.is_empty() {
            self.answer(elements, piece);
        }
    }
}
