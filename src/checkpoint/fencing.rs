//! Fencing for checkpoints in a broker: each is numbered and signed, so that an instance notices when another has taken over.
//!
//! A checkpoint file is locked while it is open, and its lock ends with its process. A broker instead drops a connection that is
//! silent, while the process behind it may only be paused. So each checkpoint in a broker names its writer, and a writer that
//! opens its topic or queue again first checks what is stored there.

use crate::checkpoint::fold::Checkpoint;
use crate::fault::{Classify, Code, Fault};
use serde::{Deserialize, Serialize};

/// The version of the format that this build writes.
pub const VERSION: u32 = 1;

/// A checkpoint as a broker stores it: JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StampedCheckpoint {
    /// The version of the format.
    pub version: u32,
    /// Number of the write. The checkpoint with the highest generation is the current one.
    pub generation: u64,
    /// The random name of the process that wrote it.
    pub writer: String,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
}

/// Why the stored checkpoint cannot be used or replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FencingError {
    /// A later version of feedline wrote it.
    #[error(
        "the checkpoint in {location} has format version {found}, this feedline reads up to {VERSION}: run the version that wrote it, or a later one"
    )]
    Newer {
        /// Topic or queue.
        location: String,
        /// The version of the stored checkpoint.
        found: u32,
    },
    /// It is not a checkpoint.
    #[error(
        "{location} holds something that is not a checkpoint ({reason}): run `feedline checkpoint reset` and `feedline detach` to begin again"
    )]
    Foreign {
        /// Topic or queue.
        location: String,
        /// Why it is not a checkpoint.
        reason: String,
    },
    /// Another process has written a checkpoint since, or removed it.
    #[error("another instance has taken over or reset the checkpoint in {location}; this one stops: run only one instance")]
    TakenOver {
        /// Topic or queue.
        location: String,
    },
}

impl Classify for FencingError {
    fn fault(&self) -> Fault {
        Fault::Fatal
    }

    fn code(&self) -> Code {
        match self {
            Self::Newer { .. } => Code::CheckpointNewer,
            Self::Foreign { .. } => Code::CheckpointCorrupt,
            Self::TakenOver { .. } => Code::CheckpointTaken,
        }
    }
}

impl StampedCheckpoint {
    /// Parses what is stored at `location`.
    ///
    /// # Errors
    /// [`FencingError::Newer`] or [`FencingError::Foreign`].
    pub fn read(bytes: &[u8], location: &str) -> Result<Self, FencingError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let foreign = |error: serde_json::Error| FencingError::Foreign { location: location.to_owned(), reason: error.to_string() };
        let Version { version: found } = serde_json::from_slice(bytes).map_err(foreign)?;
        if found != VERSION {
            return Err(FencingError::Newer { location: location.to_owned(), found });
        }
        serde_json::from_slice(bytes).map_err(foreign)
    }
}

/// A process that writes checkpoints to one topic or queue.
#[derive(Debug)]
pub struct CheckpointWriter {
    location: String,
    name: String,
    predecessor: Predecessor,
    /// Whether a checkpoint must be stored: one was found, or a write of this process was confirmed.
    must_exist: bool,
    /// The highest generation that was found or used.
    newest: u64,
}

/// The checkpoint from which a writer continues.
#[derive(Debug, PartialEq, Eq)]
enum Predecessor {
    /// The writer has not taken over yet.
    Unknown,
    /// There was no checkpoint.
    None,
    /// The checkpoint's generation and writer.
    Stamp(u64, String),
}

impl CheckpointWriter {
    /// A writer that has not taken over yet.
    #[must_use]
    pub fn new(location: String) -> Self {
        let name = format!("{:016x}", fastrand::u64(..));
        Self { location, name, predecessor: Predecessor::Unknown, must_exist: false, newest: 0 }
    }

    /// The topic or queue.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Checks what is stored before this writer takes over. Before the first [`Self::take_over`] everything is accepted. After
    /// that, only the checkpoint of the predecessor or one of this writer, confirmed or not. `None` is accepted, because a
    /// stored checkpoint may become visible later.
    ///
    /// # Errors
    /// [`FencingError::TakenOver`] if another process has written since.
    pub fn check(&self, found: Option<&StampedCheckpoint>) -> Result<(), FencingError> {
        let Some(found) = found else { return Ok(()) };
        let is_expected = found.writer == self.name
            || match &self.predecessor {
                Predecessor::Unknown => true,
                Predecessor::None => false,
                Predecessor::Stamp(generation, writer) => (*generation, writer) == (found.generation, &found.writer),
            };
        if is_expected { Ok(()) } else { Err(self.taken_over()) }
    }

    /// Continues from what is stored. To be called when no other process can write there any more.
    ///
    /// # Errors
    /// Like [`Self::check`], and if nothing is stored although a checkpoint must exist.
    pub fn take_over(&mut self, found: Option<&StampedCheckpoint>) -> Result<(), FencingError> {
        self.check(found)?;
        if found.is_none() && self.must_exist {
            return Err(self.taken_over());
        }
        if self.predecessor == Predecessor::Unknown {
            self.predecessor = found.map_or(Predecessor::None, |found| Predecessor::Stamp(found.generation, found.writer.clone()));
        }
        self.must_exist |= found.is_some();
        self.newest = self.newest.max(found.map_or(0, |found| found.generation));
        Ok(())
    }

    /// Whether this writer may remove a checkpoint that is stored beside its own: one of its own, or an old one of its predecessor.
    #[must_use]
    pub fn may_replace(&self, other: &StampedCheckpoint) -> bool {
        let is_remnant = matches!(&self.predecessor,
            Predecessor::Stamp(generation, writer) if other.writer == *writer && other.generation <= *generation);
        other.writer == self.name || is_remnant
    }

    /// The error that says that another process has written or removed the checkpoint.
    #[must_use]
    pub fn taken_over(&self) -> FencingError {
        FencingError::TakenOver { location: self.location.clone() }
    }

    /// Records that a write of this process is stored.
    pub const fn confirmed(&mut self) {
        self.must_exist = true;
    }

    /// Records that this process has removed the checkpoint.
    pub fn removed(&mut self) {
        self.predecessor = Predecessor::None;
        self.must_exist = false;
    }

    /// The generation and bytes of the next checkpoint. A generation is used once, even if its write fails.
    ///
    /// # Panics
    /// Never: the maps have string keys, and JSON can represent every number.
    pub fn stamp(&mut self, checkpoint: &Checkpoint) -> (u64, Vec<u8>) {
        self.newest += 1;
        let generation = self.newest;
        let stamped = StampedCheckpoint { version: VERSION, generation, writer: self.name.clone(), checkpoint: checkpoint.clone() };
        (generation, serde_json::to_vec(&stamped).expect("the maps have string keys, and JSON can represent every number"))
    }
}

#[cfg(test)]
mod tests {
    use super::{CheckpointWriter, FencingError, Predecessor, StampedCheckpoint};
    use crate::checkpoint::{Checkpoint, Identity};
    use proptest::prelude::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint::intent("shop", "00".to_owned(), Identity::new(), String::new())
    }

    fn writer() -> CheckpointWriter {
        CheckpointWriter::new("shop.checkpoint".to_owned())
    }

    fn read(bytes: &[u8]) -> StampedCheckpoint {
        StampedCheckpoint::read(bytes, "shop.checkpoint").unwrap()
    }

    #[test]
    fn something_that_is_not_a_checkpoint_is_refused() {
        let refused = |bytes: &[u8]| StampedCheckpoint::read(bytes, "shop.checkpoint").unwrap_err();
        assert!(matches!(refused(b"hello"), FencingError::Foreign { .. }));
        assert!(matches!(refused(br#"{"version":1,"generation":3}"#), FencingError::Foreign { .. }));
        assert_eq!(refused(br#"{"version":7,"more":1}"#), FencingError::Newer { location: "shop.checkpoint".to_owned(), found: 7 });
    }

    #[test]
    fn a_write_whose_outcome_is_unknown_can_be_continued_either_way() {
        let mut writer = writer();
        writer.take_over(None).unwrap();
        let (first, stored) = writer.stamp(&checkpoint());
        let (second, unknown) = writer.stamp(&checkpoint());
        for found in [stored, unknown] {
            writer.take_over(Some(&read(&found))).unwrap();
        }
        assert_eq!((first, second, writer.stamp(&checkpoint()).0), (1, 2, 3));
    }

    proptest! {
        /// Two processes open and write in any order. Each opens again before a write, as after a broken connection. Some writes
        /// do not arrive, some arrive without a confirmation, and sometimes the checkpoint is reset in between.
        #[test]
        fn a_writer_that_another_has_replaced_never_writes_again(turns in prop::collection::vec((0..9_usize, any::<(bool, bool)>()), 1..40)) {
            let mut writers = [writer(), writer()];
            let mut stored: Option<StampedCheckpoint> = None;
            // Whether another has replaced each of them, and whether each knows that a checkpoint is stored.
            let (mut replaced, mut knows) = ([false; 2], [false; 2]);
            for (turn, (arrives, is_confirmed)) in turns {
                if turn == 8 {
                    stored = None;
                    replaced = knows;
                    continue;
                }
                let index = turn % 2;
                prop_assert!(writers[index].check(stored.as_ref()).is_ok() || replaced[index], "the check refuses what may be taken over");
                match writers[index].take_over(stored.as_ref()) {
                    Ok(()) => {
                        prop_assert!(!replaced[index], "it continues after another has replaced it");
                        knows[index] |= stored.is_some();
                        let next = read(&writers[index].stamp(&checkpoint()).1);
                        if arrives {
                            prop_assert!(stored.is_none_or(|stored| stored.generation < next.generation), "generations grow");
                            stored = Some(next);
                            replaced[1 - index] = writers[1 - index].predecessor != Predecessor::Unknown;
                            if is_confirmed {
                                writers[index].confirmed();
                                knows[index] = true;
                            }
                        }
                    }
                    Err(error) => {
                        let is_taken_over = matches!(error, FencingError::TakenOver { .. });
                        prop_assert!(is_taken_over);
                        prop_assert!(replaced[index], "it was refused, although no other process wrote or reset");
                    }
                }
            }
        }
    }

    #[test]
    fn an_instance_that_ran_during_a_reset_writes_nothing_after_it() {
        let mut old = writer();
        old.take_over(None).unwrap();
        let stored = (0..500).map(|_| old.stamp(&checkpoint()).1).last().unwrap();
        old.confirmed();
        let mut first = writer();
        first.take_over(Some(&read(&stored))).unwrap();
        assert_eq!(first.check(None), Ok(()), "a checkpoint may become visible later");
        assert!(matches!(first.take_over(None), Err(FencingError::TakenOver { .. })));
        let mut second = writer();
        second.take_over(None).unwrap();
        let low = read(&second.stamp(&checkpoint()).1);
        assert_eq!(low.generation, 1);
        assert!(matches!(first.check(Some(&low)), Err(FencingError::TakenOver { .. })), "a low generation proves nothing");
        // A writer that removed the checkpoint itself continues.
        second.confirmed();
        second.removed();
        second.take_over(None).unwrap();
    }
}
