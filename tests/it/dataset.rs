//! A file of rows as a prefeed: what a line may be, where reading resumes, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use crate::contract_source::feed;
use crate::session::encoders;
use feedline::batch::Budget;
use feedline::checkpoint::ScanPosition;
use feedline::event::{Operations, Timestamp};
use feedline::fault::{Classify, Code};
use feedline::feed::{Feed, PrefeedKind};
use feedline::source::file::{Dataset, Error};
use feedline::source::{RowEmitter, Slice};
use std::path::{Path, PathBuf};

struct Seed(PathBuf);

impl Seed {
    fn new(name: &str, text: impl AsRef<[u8]>) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.jsonl", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn feed(&self) -> Feed {
        Feed {
            prefeed: PrefeedKind::File(self.0.as_path().into()),
            columns: ["id", "region", "note"].map(Into::into).to_vec(),
            ..feed("main", "t", &["id", "region"], Operations::ALL)
        }
    }

    /// What one call writes: keys with rows, the position behind them, and whether the file ends there.
    async fn load(
        &self,
        dataset: &mut Dataset,
        after: Option<&ScanPosition>,
        batch_bytes: usize,
    ) -> Result<(Vec<String>, ScanPosition, bool), Error> {
        let mut out = Budget::new(batch_bytes * 4, batch_bytes).writer().await;
        let mut slice = Slice { number: 1, next_row: 0 };
        let mut written = RowEmitter::new(encoders("shop", "sqlite", "d"), "cut", Timestamp(0), &mut slice, &mut out);
        let scanned = dataset.load(&self.feed(), after, &mut written).await?;
        let written = written.written();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let rows: Vec<_> = out
            .records()
            .map(|record| format!("{} {}", text(record.key), crate::postgres::reading::after(&text(record.body.unwrap()))))
            .collect();
        assert_eq!(rows.len() as u64, written);
        Ok((rows, scanned.after.unwrap(), scanned.done))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

const ROWS: &str = "{\"id\": 1, \"region\": \"e\\u00fc\", \"note\": [1, 2.50]}\n\n  {\"note\":null,\"region\":\"\\\"us\\\"\",\"id\":2}\r\n{\"id\":3,\"region\":\"x\"}";
const EXPECTED: [&str; 3] = [
    "{\"id\":1,\"region\":\"eü\"} {\"id\":1,\"region\":\"eü\",\"note\":[1,2.50]}",
    "{\"id\":2,\"region\":\"\\\"us\\\"\"} {\"id\":2,\"region\":\"\\\"us\\\"\",\"note\":null}",
    "{\"id\":3,\"region\":\"x\"} {\"id\":3,\"region\":\"x\"}",
];

#[tokio::test]
async fn rows_are_sent_as_they_are_written_and_resumed_anywhere() {
    let seed = Seed::new("dataset-rows", ROWS);
    let (rows, _, done) = seed.load(&mut Dataset::default(), None, 1 << 20).await.unwrap();
    assert_eq!((rows, done), (EXPECTED.map(str::to_owned).to_vec(), true));
    // One row per batch, with one reader, and with a new reader for each.
    for is_reopened in [false, true] {
        let (mut reader, mut after, mut rows) = (Dataset::default(), None, Vec::new());
        loop {
            if is_reopened {
                reader = Dataset::default();
            }
            let (more, position, done) = seed.load(&mut reader, after.as_ref(), 520).await.unwrap();
            rows.extend(more);
            after = Some(position);
            if done {
                break;
            }
        }
        assert_eq!(rows, EXPECTED);
    }
}

#[tokio::test]
async fn a_line_that_is_no_row_is_named_by_its_number() {
    for (line, reason) in [
        ("{\"id\":1", "it is not a JSON object"),
        ("[1]", "it is not a JSON object"),
        ("{\"id\":1,\"region\":\"a\",\"nota\":2}", "has no column \"nota\": did you mean \"note\"?"),
        ("{\"id\":1,\"region\":\"a\",\"id\":2}", "column \"id\" is named twice"),
        ("{\"id\":1}", "key column \"region\" is missing or null"),
        ("{\"id\":null,\"region\":\"a\"}", "key column \"id\" is missing or null"),
        ("{\"id\":1,\"region\":\"\u{7f}\\q\"}", "it is not a JSON object"),
    ] {
        let seed = Seed::new("dataset-lines", format!("{{\"id\":7,\"region\":\"before\"}}\n\n{line}\n"));
        let error = seed.load(&mut Dataset::default(), None, 1 << 20).await.unwrap_err();
        let text = error.to_string();
        assert!(error.code() == Code::DatasetLine && text.contains("line 3: ") && text.contains(reason), "{text}");
    }
    let bytes = Seed::new("dataset-bytes", b"{\"id\":1,\"region\":\"\xff\"}");
    let error = bytes.load(&mut Dataset::default(), None, 1 << 20).await.unwrap_err();
    assert!(error.to_string().contains("line 1: it is not UTF-8"), "{error}");
}

#[tokio::test]
async fn a_file_that_changed_or_is_gone_is_refused() {
    let seed = Seed::new("dataset-changed", ROWS);
    let (_, position, _) = seed.load(&mut Dataset::default(), None, 520).await.unwrap();
    // Rows may still be appended.
    std::fs::write(&seed.0, format!("{ROWS}\n{{\"id\":4,\"region\":\"y\"}}")).unwrap();
    assert_eq!(seed.load(&mut Dataset::default(), Some(&position), 1 << 20).await.unwrap().0.len(), 3);
    for changed in [ROWS.replace("\"id\": 1", "\"id\": 9"), ROWS[..20].to_owned()] {
        std::fs::write(&seed.0, changed).unwrap();
        let error = seed.load(&mut Dataset::default(), Some(&position), 1 << 20).await.unwrap_err();
        assert_eq!(error.code(), Code::DatasetChanged, "{error}");
    }
    let gone = Seed::new("dataset-gone", "");
    let feeds = feedline::feed::Feeds::new(vec![gone.feed()]);
    assert!(feedline::source::file::check(&feeds).is_empty());
    std::fs::remove_file(&gone.0).unwrap();
    assert_eq!(feedline::source::file::check(&feeds)[0].code(), Code::DatasetUnreadable);
    std::fs::write(&gone.0, "").unwrap();
}
