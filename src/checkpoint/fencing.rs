//! Checkpoints that a broker keeps: numbered and signed, so that a writer whom another has succeeded notices it.
//!
//! A file is locked while it is open, and its lock ends with its process. A broker lets go of a connection that is silent, while
//! the process behind it may only have been paused. So each checkpoint there says who wrote it, and whoever opens its place
//! again looks first.

use crate::checkpoint::fold::Checkpoint;
use crate::fault::{Classify, Code, Fault};
use serde::{Deserialize, Serialize};

/// The version of the format that this build writes.
pub const VERSION: u32 = 1;

/// A checkpoint as a broker keeps it: JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamped {
    /// How to read the rest.
    pub version: u32,
    /// Its place in the order of writes: of two the higher one counts.
    pub generation: u64,
    /// The process that wrote it, by a name made at random.
    pub writer: String,
    /// What was written.
    pub checkpoint: Checkpoint,
}

/// Why what a broker keeps cannot be taken for the checkpoint, or not be replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A later feedline wrote it.
    #[error(
        "the checkpoint in {place} has format version {found}, this feedline reads up to {VERSION}: run the version that wrote it, or a later one"
    )]
    Newer {
        /// Topic or queue.
        place: String,
        /// Its version.
        found: u32,
    },
    /// It is no checkpoint.
    #[error(
        "{place} holds what is not a checkpoint ({reason}): it belongs to feedline alone; begin again after `feedline checkpoint reset` and `feedline detach`: every row is sent again then, and readers begin with empty tables"
    )]
    Foreign {
        /// Topic or queue.
        place: String,
        /// What does not fit.
        reason: String,
    },
    /// Another process has written since, or taken away what was there.
    #[error(
        "another instance of this pipeline has gone on from the checkpoint in {place}, or forgotten it: this one stops; one at a time may run"
    )]
    Taken {
        /// Topic or queue.
        place: String,
    },
}

impl Classify for Unfit {
    fn fault(&self) -> Fault {
        Fault::Fatal
    }

    fn code(&self) -> Code {
        match self {
            Self::Newer { .. } => Code::CheckpointNewer,
            Self::Foreign { .. } => Code::CheckpointCorrupt,
            Self::Taken { .. } => Code::CheckpointTaken,
        }
    }
}

impl Stamped {
    /// Reads what was found in `place`.
    ///
    /// # Errors
    /// [`Unfit::Newer`] or [`Unfit::Foreign`].
    pub fn read(bytes: &[u8], place: &str) -> Result<Self, Unfit> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let foreign = |error: serde_json::Error| Unfit::Foreign { place: place.to_owned(), reason: error.to_string() };
        let Version { version: found } = serde_json::from_slice(bytes).map_err(foreign)?;
        if found != VERSION {
            return Err(Unfit::Newer { place: place.to_owned(), found });
        }
        serde_json::from_slice(bytes).map_err(foreign)
    }
}

/// One process that writes checkpoints to one place.
#[derive(Debug)]
pub struct Writer {
    place: String,
    name: String,
    taken: Taken,
    /// Whether something must lie there: it was seen, or a write of ours is confirmed.
    is_kept: bool,
    /// The newest number seen or used.
    newest: u64,
}

/// What a writer found when it began.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// It has not looked.
    NotYet,
    /// There was none.
    Nothing,
    /// Its number and writer.
    From(u64, String),
}

impl Writer {
    /// A writer that has taken up nothing yet.
    #[must_use]
    pub fn new(place: String) -> Self {
        Self { place, name: format!("{:016x}", fastrand::u64(..)), taken: Taken::NotYet, is_kept: false, newest: 0 }
    }

    /// The topic or queue.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Judges what is seen in the place before it is taken over: before the first [`Self::take_up`] whatever is there, and from then
    /// on only what was taken up, or what this writer wrote itself, confirmed or not. That nothing is seen proves nothing yet.
    ///
    /// # Errors
    /// [`Unfit::Taken`] where another process has written since.
    pub fn judge(&self, seen: Option<&Stamped>) -> Result<(), Unfit> {
        let Some(seen) = seen else { return Ok(()) };
        let is_fit = seen.writer == self.name
            || match &self.taken {
                Taken::NotYet => true,
                Taken::Nothing => false,
                Taken::From(generation, writer) => (*generation, writer) == (seen.generation, &seen.writer),
            };
        if is_fit { Ok(()) } else { Err(self.lost()) }
    }

    /// Goes on from what lies in the place, once nobody else can write there.
    ///
    /// # Errors
    /// As [`Self::judge`], and where nothing lies there any more.
    pub fn take_up(&mut self, found: Option<&Stamped>) -> Result<(), Unfit> {
        self.judge(found)?;
        if found.is_none() && self.is_kept {
            return Err(self.lost());
        }
        if self.taken == Taken::NotYet {
            self.taken = found.map_or(Taken::Nothing, |found| Taken::From(found.generation, found.writer.clone()));
        }
        self.is_kept |= found.is_some();
        self.newest = self.newest.max(found.map_or(0, |found| found.generation));
        Ok(())
    }

    /// Whether what was met beside a write of this process is its own, or a remnant of the writer from whom it took up.
    #[must_use]
    pub fn may_replace(&self, met: &Stamped) -> bool {
        let is_remnant =
            |taken: &Taken| matches!(taken, Taken::From(generation, writer) if met.writer == *writer && met.generation <= *generation);
        met.writer == self.name || is_remnant(&self.taken)
    }

    /// The verdict that another process has written, or taken away what was there.
    #[must_use]
    pub fn lost(&self) -> Unfit {
        Unfit::Taken { place: self.place.clone() }
    }

    /// A write of this process is there.
    pub const fn confirmed(&mut self) {
        self.is_kept = true;
    }

    /// This process has taken away what was there.
    pub fn forgot(&mut self) {
        self.taken = Taken::Nothing;
        self.is_kept = false;
    }

    /// The next checkpoint's number and bytes. A number is used once, whatever becomes of it.
    ///
    /// # Panics
    /// Never: maps with text for keys, and no number that JSON lacks.
    pub fn stamp(&mut self, checkpoint: &Checkpoint) -> (u64, Vec<u8>) {
        self.newest += 1;
        let generation = self.newest;
        let stamped = Stamped { version: VERSION, generation, writer: self.name.clone(), checkpoint: checkpoint.clone() };
        (generation, serde_json::to_vec(&stamped).expect("maps with text for keys, and no number that JSON lacks"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Stamped, Taken, Unfit, Writer};
    use crate::checkpoint::{Checkpoint, Identity};
    use proptest::prelude::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint::intent("shop", "00".to_owned(), Identity::new(), String::new())
    }

    fn writer() -> Writer {
        Writer::new("shop.checkpoint".to_owned())
    }

    fn read(bytes: &[u8]) -> Stamped {
        Stamped::read(bytes, "shop.checkpoint").unwrap()
    }

    #[test]
    fn what_is_no_checkpoint_is_refused_by_name() {
        let refused = |bytes: &[u8]| Stamped::read(bytes, "shop.checkpoint").unwrap_err();
        assert!(matches!(refused(b"hello"), Unfit::Foreign { .. }));
        assert!(matches!(refused(br#"{"version":1,"generation":3}"#), Unfit::Foreign { .. }));
        assert_eq!(refused(br#"{"version":7,"more":1}"#), Unfit::Newer { place: "shop.checkpoint".to_owned(), found: 7 });
    }

    #[test]
    fn a_write_whose_outcome_is_unknown_is_no_riddle() {
        let mut writer = writer();
        writer.take_up(None).unwrap();
        let (first, stored) = writer.stamp(&checkpoint());
        let (second, unknown) = writer.stamp(&checkpoint());
        for found in [stored, unknown] {
            writer.take_up(Some(&read(&found))).unwrap();
        }
        assert_eq!((first, second, writer.stamp(&checkpoint()).0), (1, 2, 3));
    }

    proptest! {
        /// Two processes open and write in any order, each opening anew before a write, as after a broken connection; some
        /// writes do not arrive, of some it is not known that they did, and now and then the checkpoint is reset under their feet.
        #[test]
        fn of_two_writers_the_one_that_was_succeeded_never_writes_again(turns in prop::collection::vec((0..9_usize, any::<(bool, bool)>()), 1..40)) {
            let mut writers = [writer(), writer()];
            let mut stored: Option<Stamped> = None;
            // What each has to find for going on: what it took up, and what it knows to be there.
            let (mut succeeded, mut knows) = ([false; 2], [false; 2]);
            for (turn, (arrives, is_confirmed)) in turns {
                if turn == 8 {
                    stored = None;
                    succeeded = knows;
                    continue;
                }
                let index = turn % 2;
                prop_assert!(writers[index].judge(stored.as_ref()).is_ok() || succeeded[index], "a look refuses what may be taken up");
                match writers[index].take_up(stored.as_ref()) {
                    Ok(()) => {
                        prop_assert!(!succeeded[index], "it goes on after it was succeeded");
                        knows[index] |= stored.is_some();
                        let next = read(&writers[index].stamp(&checkpoint()).1);
                        if arrives {
                            prop_assert!(stored.is_none_or(|stored| stored.generation < next.generation), "numbers grow");
                            stored = Some(next);
                            succeeded[1 - index] = writers[1 - index].taken != Taken::NotYet;
                            if is_confirmed {
                                writers[index].confirmed();
                                knows[index] = true;
                            }
                        }
                    }
                    Err(error) => {
                        let is_taken = matches!(error, Unfit::Taken { .. });
                        prop_assert!(is_taken);
                        prop_assert!(succeeded[index], "it was refused, and nobody had written or reset");
                    }
                }
            }
        }
    }

    #[test]
    fn a_reset_is_not_undone_by_who_ran_then_nor_is_what_came_after_it() {
        let mut old = writer();
        old.take_up(None).unwrap();
        let stored = (0..500).map(|_| old.stamp(&checkpoint()).1).last().unwrap();
        old.confirmed();
        let mut first = writer();
        first.take_up(Some(&read(&stored))).unwrap();
        assert_eq!(first.judge(None), Ok(()), "a look may come too early");
        assert!(matches!(first.take_up(None), Err(Unfit::Taken { .. })));
        let mut second = writer();
        second.take_up(None).unwrap();
        let low = read(&second.stamp(&checkpoint()).1);
        assert_eq!(low.generation, 1);
        assert!(matches!(first.judge(Some(&low)), Err(Unfit::Taken { .. })), "a low number is no proof");
        // Who resets itself goes on.
        second.confirmed();
        second.forgot();
        second.take_up(None).unwrap();
    }
}
