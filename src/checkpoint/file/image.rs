//! What a checkpoint file looks like: two slots of one size, of which the newer valid one counts.
//!
//! A slot, numbers in little endian:
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic |
//! | 4 | format version |
//! | 4 | bytes of a slot, the same in both |
//! | 8 | generation, one more for each write |
//! | 8 | bytes of the payload |
//! | any | payload: JSON |
//! | 4 | CRC-32C of all before |
//!
//! This frame is the same in every version; the version says how to read the payload.

use std::fmt;

/// The version that this build writes.
pub const VERSION: u32 = 1;

/// Bytes of a slot at first. Every filesystem writes far less at once, so a write may be torn anywhere: the checksum tells.
pub const SLOT_BYTES_MIN: usize = 256 << 10;

/// Bytes of a slot at most: a hundred thousand tables.
pub const SLOT_BYTES_MAX: usize = 64 << 20;

/// Not UTF-8, so that no payload can contain it.
const MAGIC: [u8; 8] = *b"\x89feedln\n";
const HEADER_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;

/// The checkpoint that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newest<'i> {
    /// How to read the payload.
    pub version: u32,
    /// Its place in the order of writes.
    pub generation: u64,
    /// Which slot holds it: 0 or 1. The other one is written next.
    pub slot: usize,
    /// Bytes of each slot.
    pub slot_bytes: usize,
    /// JSON.
    pub payload: &'i [u8],
}

/// Why a slot does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotFault {
    /// It was never written.
    Empty,
    /// The file ends before it or inside it.
    Short,
    /// It does not begin as a slot does.
    Magic,
    /// It says that it is larger than a slot, or that slots have another size.
    Length,
    /// Its bytes are not those that were written.
    Checksum,
}

impl fmt::Display for SlotFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "never written",
            Self::Short => "cut short",
            Self::Magic => "not a checkpoint",
            Self::Length => "of an impossible length",
            Self::Checksum => "damaged",
        })
    }
}

/// The newest valid slot of a file's bytes.
///
/// # Errors
/// What is wrong with each slot, where neither is valid.
pub fn newest(image: &[u8]) -> Result<Newest<'_>, [SlotFault; 2]> {
    let first = slot(image, 0, None);
    // A valid first slot knows where the second begins; half of the file is where it does in a file that was not cut.
    let slot_bytes = first.as_ref().map_or(image.len() / 2, |first| first.slot_bytes);
    let second = slot(image.get(slot_bytes..).unwrap_or_default(), 1, Some(slot_bytes));
    match (first, second) {
        (Ok(first), Ok(second)) if second.generation > first.generation => Ok(second),
        (Ok(first), _) => Ok(first),
        (Err(_), Ok(second)) => Ok(second),
        (Err(first), Err(second)) => Err([first, second]),
    }
}

/// What is wrong with the slot beside the newest one; `None` where it is valid or was never written.
#[must_use]
pub fn damage(image: &[u8], newest: &Newest<'_>) -> Option<SlotFault> {
    let other = 1 - newest.slot;
    let bytes = image.get(other * newest.slot_bytes..).unwrap_or_default();
    slot(bytes, other, Some(newest.slot_bytes)).err().filter(|fault| *fault != SlotFault::Empty)
}

fn slot(bytes: &[u8], slot: usize, expected: Option<usize>) -> Result<Newest<'_>, SlotFault> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES).ok_or(SlotFault::Short)?;
    if header.iter().all(|byte| *byte == 0) {
        return Err(SlotFault::Empty);
    }
    let (magic, numbers) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(SlotFault::Magic);
    }
    let number = |range: std::ops::Range<usize>| numbers[range].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let length = |number: u64| usize::try_from(number).map_err(|_| SlotFault::Length);
    let (slot_bytes, payload_bytes) = (length(number(4..8))?, length(number(16..24))?);
    if slot_bytes > SLOT_BYTES_MAX || expected.is_some_and(|expected| expected != slot_bytes) || payload_bytes > room(slot_bytes) {
        return Err(SlotFault::Length);
    }
    let (payload, rest) = rest.split_at_checked(payload_bytes).ok_or(SlotFault::Short)?;
    let (checksum, _) = rest.split_at_checked(CHECKSUM_BYTES).ok_or(SlotFault::Short)?;
    if crc32c::crc32c(&bytes[..HEADER_BYTES + payload_bytes]).to_le_bytes() != checksum {
        return Err(SlotFault::Checksum);
    }
    let version = u32::try_from(number(0..4)).map_err(|_| SlotFault::Length)?;
    Ok(Newest { version, generation: number(8..16), slot, slot_bytes, payload })
}

/// Bytes of a payload that fits a slot.
const fn room(slot_bytes: usize) -> usize {
    slot_bytes.saturating_sub(HEADER_BYTES + CHECKSUM_BYTES)
}

/// Bytes of a slot that has room for the payload and its double; `None` where it would be too large.
#[must_use]
pub fn slot_bytes_for(payload_bytes: usize) -> Option<usize> {
    let wanted = (2 * payload_bytes + HEADER_BYTES + CHECKSUM_BYTES).next_power_of_two().max(SLOT_BYTES_MIN);
    (payload_bytes <= room(SLOT_BYTES_MAX)).then_some(wanted.min(SLOT_BYTES_MAX))
}

/// Whether a slot has room for the payload.
#[must_use]
pub const fn fits(payload_bytes: usize, slot_bytes: usize) -> bool {
    payload_bytes <= room(slot_bytes)
}

/// A slot's bytes, without the unused rest.
///
/// # Panics
/// When the payload does not fit the slot.
#[must_use]
pub fn write(generation: u64, slot_bytes: usize, payload: &[u8]) -> Vec<u8> {
    assert!(fits(payload.len(), slot_bytes) && slot_bytes <= SLOT_BYTES_MAX, "the slot was made for the payload");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len() + CHECKSUM_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(slot_bytes).expect("64 MiB fit").to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Newest, SLOT_BYTES_MAX, SlotFault, damage, fits, newest, slot_bytes_for, write};
    use proptest::prelude::*;

    const SLOT_BYTES: usize = 128;
    const OLD: &[u8] = br#"{"token":"old"}"#;
    const NEW: &[u8] = br#"{"token":"newer"}"#;

    /// A file of two slots; `None` is an empty one.
    fn image(slots: [Option<(u64, &[u8])>; 2]) -> Vec<u8> {
        let mut image = vec![0; 2 * SLOT_BYTES];
        for (index, slot) in slots.into_iter().enumerate() {
            let Some((generation, payload)) = slot else { continue };
            let bytes = write(generation, SLOT_BYTES, payload);
            image[index * SLOT_BYTES..][..bytes.len()].copy_from_slice(&bytes);
        }
        image
    }

    /// Either of two neighbours in time, and nothing else.
    fn assert_old_new_or_error(image: &[u8]) {
        if let Ok(found) = newest(image) {
            assert!([(6, OLD), (7, NEW)].contains(&(found.generation, found.payload)), "{found:?}");
        }
    }

    fn both_orders() -> [Vec<u8>; 2] {
        [image([Some((6, OLD)), Some((7, NEW))]), image([Some((7, NEW)), Some((6, OLD))])]
    }

    #[test]
    fn the_newest_valid_slot_counts() {
        for (slots, slot, generation, payload) in [
            ([Some((1, OLD)), None], 0, 1, OLD),
            ([Some((6, OLD)), Some((7, NEW))], 1, 7, NEW),
            ([Some((7, NEW)), Some((6, OLD))], 0, 7, NEW),
        ] {
            let expected = Newest { version: 1, generation, slot, slot_bytes: SLOT_BYTES, payload };
            let image = image(slots);
            assert_eq!(newest(&image), Ok(expected));
            assert_eq!(damage(&image, &expected), None);
        }
    }

    #[test]
    fn nothing_valid_is_an_error_and_not_a_beginning() {
        assert_eq!(newest(&[]), Err([SlotFault::Short; 2]));
        assert_eq!(newest(&image([None, None])), Err([SlotFault::Empty; 2]));
        assert_eq!(newest(&[b'x'; 256]), Err([SlotFault::Magic; 2]));
    }

    #[test]
    fn any_changed_byte_leaves_the_old_the_new_or_an_error() {
        for image in both_orders() {
            for at in 0..image.len() {
                for flip in 1..=255 {
                    let mut damaged = image.clone();
                    damaged[at] ^= flip;
                    let found = newest(&damaged);
                    assert!(found.is_ok(), "one slot is whole: {at} {flip}");
                    assert_old_new_or_error(&damaged);
                }
            }
        }
    }

    #[test]
    fn any_cut_leaves_the_old_the_new_or_an_error() {
        for image in both_orders() {
            for length in 0..image.len() {
                assert_old_new_or_error(&image[..length]);
            }
        }
    }

    #[test]
    fn a_write_torn_anywhere_leaves_the_old_or_the_new() {
        let before = image([Some((6, OLD)), Some((5, b"an older and longer payload"))]);
        let after = image([Some((6, OLD)), Some((7, NEW))]);
        for written in 0..=after.len() {
            let torn = [&after[..written], &before[written..]].concat();
            assert!(newest(&torn).is_ok());
            assert_old_new_or_error(&torn);
        }
        let first = image([Some((6, OLD)), None]);
        for written in 0..=after.len() {
            let torn = [&after[..written], &first[written..]].concat();
            assert!(newest(&torn).is_ok());
            assert_old_new_or_error(&torn);
        }
    }

    #[test]
    fn a_damaged_neighbour_is_told() {
        let mut image = image([Some((6, OLD)), Some((7, NEW))]);
        image[40] ^= 1;
        let found = newest(&image).unwrap();
        assert_eq!((found.generation, damage(&image, &found)), (7, Some(SlotFault::Checksum)));
    }

    #[test]
    fn slots_grow_with_their_payload() {
        for payload in [0, 1, 100_000, 131_054, 131_055, 262_108, 262_109, 1 << 24, 1 << 25, SLOT_BYTES_MAX - 36] {
            let slot_bytes = slot_bytes_for(payload).unwrap();
            assert!(fits(payload, slot_bytes) && slot_bytes <= SLOT_BYTES_MAX, "{payload}");
        }
        assert_eq!(slot_bytes_for(SLOT_BYTES_MAX - 35), None);
        assert!(!fits(SLOT_BYTES - 35, SLOT_BYTES) && fits(SLOT_BYTES - 36, SLOT_BYTES));
    }

    proptest! {
        #[test]
        fn sectors_written_in_any_order_leave_the_old_or_the_new(kept in prop::collection::vec(any::<bool>(), 16)) {
            let before = image([Some((6, OLD)), Some((5, b"an older and longer payload"))]);
            let mut torn = image([Some((6, OLD)), Some((7, NEW))]);
            for (sector, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
                torn[sector * 16..][..16].copy_from_slice(&before[sector * 16..][..16]);
            }
            prop_assert!(newest(&torn).is_ok());
            assert_old_new_or_error(&torn);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
            let mut image = bytes;
            if magic {
                image.splice(0..8.min(image.len()), super::MAGIC);
            }
            prop_assert!(newest(&image).is_err());
        }
    }
}
