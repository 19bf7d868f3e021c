//! Converts the text of databases whose encoding is not UTF-8.
//!
//! A server that converts text itself fails at a byte that its encoding does not define, and fails again at the same position of the log with
//! every attempt. So the server sends the bytes as they are, and they are converted here, by a table that the server's own conversions fill.

use super::error::Error;
use super::session::Session;
use std::borrow::Cow;
use std::collections::HashMap;

/// A database's encoding, with its conversion to UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Charset {
    lengths: Lengths,
    /// The characters beyond ASCII that the server can convert, by their bytes.
    characters: HashMap<Vec<u8>, Box<str>>,
}

/// How many bytes a character has, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lengths {
    One,
    /// Extended Unix code: two bytes. With shifts, 8E begins a character of two bytes, and 8F one of three.
    Extended {
        /// Whether the encoding has the shifts 8E and 8F.
        shifts: bool,
    },
    /// The same with shifts, but 8E begins a character of four bytes, the second of which is its plane.
    Planes,
}

/// The planes of `EUC_TW` that the server can convert.
const PLANES: [u8; 2] = [0xA1, 0xA2];

/// How many characters one query converts. The server accepts 1664 columns.
const AT_ONCE: usize = 512;

impl Lengths {
    /// The character lengths of an encoding; `None` if nothing is converted: UTF-8 and `SQL_ASCII`. For `MULE_INTERNAL` the server has no
    /// conversion to UTF-8, so no session can be opened.
    fn of(encoding: &str) -> Option<Self> {
        match encoding {
            "EUC_JP" | "EUC_JIS_2004" => Some(Self::Extended { shifts: true }),
            "EUC_TW" => Some(Self::Planes),
            "EUC_KR" | "EUC_CN" => Some(Self::Extended { shifts: false }),
            _ if ["WIN", "LATIN", "ISO_8859", "KOI8"].iter().any(|family| encoding.starts_with(family)) => Some(Self::One),
            _ => None,
        }
    }

    fn of_character(self, first: u8) -> usize {
        match (self, first) {
            (_, ..0x80) | (Self::One, _) => 1,
            (Self::Planes, 0x8E) => 4,
            (Self::Extended { shifts: true } | Self::Planes, 0x8F) => 3,
            (Self::Extended { .. } | Self::Planes, _) => 2,
        }
    }

    /// All byte sequences beyond ASCII that may be characters.
    fn characters(self) -> Vec<Vec<u8>> {
        let high = 0xA1..=0xFE_u8;
        let pairs = || high.clone().flat_map(|first| (0xA1..=0xFE_u8).map(move |second| vec![first, second]));
        match self {
            Self::One => (0x80..=0xFF).map(|byte| vec![byte]).collect(),
            Self::Extended { shifts: false } => pairs().collect(),
            Self::Planes => {
                let of_plane = |plane| pairs().map(move |pair| [&[0x8E, plane], pair.as_slice()].concat());
                pairs().chain(PLANES.into_iter().flat_map(of_plane)).collect()
            }
            Self::Extended { shifts: true } => {
                let shifted = pairs().map(|pair| [&[0x8F], pair.as_slice()].concat());
                pairs().chain(high.clone().map(|byte| vec![0x8E, byte])).chain(shifted).collect()
            }
        }
    }
}

impl Charset {
    /// Reads the database's encoding; `None` if its text needs no conversion: UTF-8, or bytes of unknown encoding (`SQL_ASCII`).
    pub(super) async fn read(session: &mut Session) -> Result<Option<Self>, Error> {
        let encoding = session.query_one("SELECT pg_catalog.current_setting('server_encoding')").await?.text(0).to_owned();
        let Some(lengths) = Lengths::of(&encoding) else { return Ok(None) };
        let candidates = lengths.characters();
        let mut characters = HashMap::new();
        let mut parts: Vec<&[Vec<u8>]> = candidates.chunks(AT_ONCE).collect();
        while let Some(part) = parts.pop() {
            match convert(part, &encoding, session).await {
                Ok(converted) => characters.extend(part.iter().cloned().zip(converted)),
                // At least one of them is not defined: try each half.
                Err(Error::Refused(error)) if error.sqlstate.starts_with("22") => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([first, second].into_iter().filter(|half| !half.is_empty() && half.len() < part.len()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Self { lengths, characters }))
    }

    /// Converts text to UTF-8; `None` if it contains a character that is not defined.
    pub(super) fn decode<'t>(&self, text: &'t [u8]) -> Option<Cow<'t, str>> {
        if text.is_ascii() {
            return std::str::from_utf8(text).ok().map(Cow::Borrowed);
        }
        let (mut decoded, mut rest) = (String::with_capacity(2 * text.len()), text);
        while let Some(first) = rest.first() {
            let (character, after) = rest.split_at_checked(self.lengths.of_character(*first))?;
            if first.is_ascii() {
                decoded.push(char::from(*first));
            } else {
                decoded.push_str(self.characters.get(character)?);
            }
            rest = after;
        }
        Some(Cow::Owned(decoded))
    }

    /// Converts the names in a relation message to UTF-8; `None` if the message is malformed.
    pub(super) fn convert_relation(&self, message: &[u8]) -> Option<Vec<u8>> {
        // The tag and the relation's OID.
        let (head, mut rest) = message.split_at_checked(5)?;
        let mut converted = head.to_vec();
        self.name(&mut rest, &mut converted)?;
        self.name(&mut rest, &mut converted)?;
        // The replica identity and the number of columns.
        copy(3, &mut rest, &mut converted)?;
        while !rest.is_empty() {
            copy(1, &mut rest, &mut converted)?;
            self.name(&mut rest, &mut converted)?;
            // Type and modifier.
            copy(8, &mut rest, &mut converted)?;
        }
        Some(converted)
    }

    fn name(&self, rest: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (name, after) = rest.split_at(end + 1);
        // A name that cannot be converted is not a feed's table, because feeds are named in UTF-8.
        out.extend_from_slice(self.decode(name).unwrap_or_else(|| String::from_utf8_lossy(name)).as_bytes());
        *rest = after;
        Some(())
    }
}

fn copy(count: usize, rest: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (taken, after) = rest.split_at_checked(count)?;
    out.extend_from_slice(taken);
    *rest = after;
    Some(())
}

/// Lets the server convert these characters.
async fn convert(characters: &[Vec<u8>], encoding: &str, session: &mut Session) -> Result<Vec<Box<str>>, Error> {
    let hex = |bytes: &Vec<u8>| bytes.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"));
    let columns: Vec<_> = characters.iter().map(|bytes| format!("pg_catalog.convert_from('\\x{}', '{encoding}')", hex(bytes))).collect();
    let row = session.query_one(&format!("SELECT {}", columns.join(", "))).await?;
    Ok((0..characters.len()).map(|index| row.text(index).into()).collect())
}

#[cfg(test)]
mod tests {
    use super::{Charset, Lengths};

    fn japanese() -> Charset {
        let characters = [(vec![0xA4, 0xA2], "あ".into()), (vec![0x8F, 0xB0, 0xA1], "丂".into())].into();
        Charset { lengths: Lengths::Extended { shifts: true }, characters }
    }

    #[test]
    fn a_characters_first_byte_says_its_length() {
        assert_eq!(japanese().decode(b"a\xA4\xA2\x8F\xB0\xA1b").as_deref(), Some("aあ丂b"));
        for undefined in [&b"\xA4"[..], b"\xFC\xFC", b"\xA4\xA2\x8F"] {
            assert_eq!(japanese().decode(undefined), None);
        }
        assert_eq!(Lengths::One.characters().len(), 128);
        let lengths = [0x41, 0xC4, 0x8E, 0x8F].map(|first| Lengths::Planes.of_character(first));
        assert_eq!(lengths, [1, 2, 4, 3]);
        assert_eq!(Lengths::Planes.characters().len(), 3 * 94 * 94);
    }

    #[test]
    fn a_relations_names_are_converted_and_nothing_else() {
        let message = b"R\0\0\0\x07public\0\xA4\xA2\0d\0\x01\x01\xA4\xA2\0\0\0\0\x19\xFF\xFF\xFF\xFF";
        let expected = "R\0\0\0\x07public\0あ\0d\0\x01\x01あ\0\0\0\0\x19".as_bytes().to_vec();
        assert_eq!(japanese().convert_relation(message), Some([expected, vec![0xFF; 4]].concat()));
        assert_eq!(japanese().convert_relation(&message[..20]), None);
    }
}
