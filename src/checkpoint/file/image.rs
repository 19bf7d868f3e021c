//! The bytes of a checkpoint file: two slots of equal size. The newer valid slot is the current checkpoint.
//!
//! Layout of a slot, numbers in little endian:
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic |
//! | 4 | format version |
//! | 4 | size of a slot in bytes, the same in both |
//! | 8 | generation, increased by one with each write |
//! | 8 | size of the payload in bytes |
//! | any | payload: JSON |
//! | 4 | CRC-32C of everything before |
//!
//! This layout is the same in every version. The version tells how to read the payload.

use std::fmt;

/// The version that this build writes.
pub const VERSION: u32 = 1;

/// Smallest size of a slot. Every filesystem writes much less at once, so a write can be torn anywhere. The checksum detects it.
pub const SLOT_BYTES_MIN: usize = 256 << 10;

/// Largest size of a slot: enough for a hundred thousand tables.
pub const SLOT_BYTES_MAX: usize = 64 << 20;

/// Not valid UTF-8, so that no payload can contain it.
const MAGIC: [u8; 8] = *b"\x89feedln\n";
const HEADER_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 4;

/// A valid slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot<'i> {
    /// The version of the payload's format.
    pub version: u32,
    /// Number of the write: the slot with the higher generation is the current checkpoint.
    pub generation: u64,
    /// Which slot it is: 0 or 1. The other one is written next.
    pub index: usize,
    /// The size of each slot in bytes.
    pub slot_bytes: usize,
    /// The checkpoint: JSON.
    pub payload: &'i [u8],
}

/// Why a slot is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotFault {
    /// It was never written.
    Empty,
    /// The file ends before the slot or inside it.
    Short,
    /// It does not begin with the magic bytes.
    Magic,
    /// Its payload is larger than a slot, or its slot size is wrong.
    Length,
    /// The checksum does not match.
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

/// The newest valid slot in the bytes of a file.
///
/// # Errors
/// What is wrong with each slot, if neither is valid.
pub fn newest(image: &[u8]) -> Result<Slot<'_>, [SlotFault; 2]> {
    let first = read(image, 0, None);
    // A valid first slot tells where the second one begins. Without it, that is the middle of the file, unless the file was cut.
    let slot_bytes = first.as_ref().map_or(image.len() / 2, |first| first.slot_bytes);
    let second = read(image.get(slot_bytes..).unwrap_or_default(), 1, Some(slot_bytes));
    match (first, second) {
        (Ok(first), Ok(second)) if second.generation > first.generation => Ok(second),
        (Ok(first), _) => Ok(first),
        (Err(_), Ok(second)) => Ok(second),
        (Err(first), Err(second)) => Err([first, second]),
    }
}

/// What is wrong with the other slot. `None` if it is valid or was never written.
#[must_use]
pub fn other_slot_fault(image: &[u8], newest: &Slot<'_>) -> Option<SlotFault> {
    let other = 1 - newest.index;
    let bytes = image.get(other * newest.slot_bytes..).unwrap_or_default();
    read(bytes, other, Some(newest.slot_bytes)).err().filter(|fault| *fault != SlotFault::Empty)
}

fn read(bytes: &[u8], index: usize, expected: Option<usize>) -> Result<Slot<'_>, SlotFault> {
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
    if slot_bytes > SLOT_BYTES_MAX
        || expected.is_some_and(|expected| expected != slot_bytes)
        || payload_bytes > payload_bytes_max(slot_bytes)
    {
        return Err(SlotFault::Length);
    }
    let (payload, rest) = rest.split_at_checked(payload_bytes).ok_or(SlotFault::Short)?;
    let (checksum, _) = rest.split_at_checked(CHECKSUM_BYTES).ok_or(SlotFault::Short)?;
    if crc32c::crc32c(&bytes[..HEADER_BYTES + payload_bytes]).to_le_bytes() != checksum {
        return Err(SlotFault::Checksum);
    }
    let version = u32::try_from(number(0..4)).map_err(|_| SlotFault::Length)?;
    Ok(Slot { version, generation: number(8..16), index, slot_bytes, payload })
}

/// The largest payload of a slot, in bytes.
const fn payload_bytes_max(slot_bytes: usize) -> usize {
    slot_bytes.saturating_sub(HEADER_BYTES + CHECKSUM_BYTES)
}

/// The size of a slot that can hold twice this payload, or the largest size. `None` if the payload does not fit even that.
#[must_use]
pub fn slot_bytes_for(payload_bytes: usize) -> Option<usize> {
    let wanted = (2 * payload_bytes + HEADER_BYTES + CHECKSUM_BYTES).next_power_of_two().max(SLOT_BYTES_MIN);
    (payload_bytes <= payload_bytes_max(SLOT_BYTES_MAX)).then_some(wanted.min(SLOT_BYTES_MAX))
}

/// Whether the payload fits the slot.
#[must_use]
pub const fn fits(payload_bytes: usize, slot_bytes: usize) -> bool {
    payload_bytes <= payload_bytes_max(slot_bytes)
}

/// The bytes of a slot, without the unused rest.
///
/// # Panics
/// If the payload does not fit the slot.
#[must_use]
pub fn write(generation: u64, slot_bytes: usize, payload: &[u8]) -> Vec<u8> {
    assert!(fits(payload.len(), slot_bytes) && slot_bytes <= SLOT_BYTES_MAX, "the payload must fit the slot");
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
    use super::{SLOT_BYTES_MAX, Slot, SlotFault, fits, newest, other_slot_fault, slot_bytes_for, write};
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

    /// Asserts that one of the two checkpoints is found, or an error.
    fn assert_old_new_or_error(image: &[u8]) {
        if let Ok(found) = newest(image) {
            assert!([(6, OLD), (7, NEW)].contains(&(found.generation, found.payload)), "{found:?}");
        }
    }

    fn both_orders() -> [Vec<u8>; 2] {
        [image([Some((6, OLD)), Some((7, NEW))]), image([Some((7, NEW)), Some((6, OLD))])]
    }

    #[test]
    fn the_newest_valid_slot_is_current() {
        for (slots, index, generation, payload) in [
            ([Some((1, OLD)), None], 0, 1, OLD),
            ([Some((6, OLD)), Some((7, NEW))], 1, 7, NEW),
            ([Some((7, NEW)), Some((6, OLD))], 0, 7, NEW),
        ] {
            let expected = Slot { version: 1, generation, index, slot_bytes: SLOT_BYTES, payload };
            let image = image(slots);
            assert_eq!(newest(&image), Ok(expected));
            assert_eq!(other_slot_fault(&image, &expected), None);
        }
    }

    #[test]
    fn without_a_valid_slot_there_is_an_error() {
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
    fn a_damaged_other_slot_is_reported() {
        let mut image = image([Some((6, OLD)), Some((7, NEW))]);
        image[40] ^= 1;
        let found = newest(&image).unwrap();
        assert_eq!((found.generation, other_slot_fault(&image, &found)), (7, Some(SlotFault::Checksum)));
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
