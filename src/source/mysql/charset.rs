//! Decodes text by its collation.
//!
//! The log carries text in the encoding of its column, and names the column's collation by number. Numbers and encodings come from the
//! server; a single-byte encoding is a table that the server's own conversion fills. Encodings with characters of two bytes or more that are
//! not Unicode are those of `encoding_rs`, where they have the same characters as the server's. In `big5`, `gb2312`, `sjis`, `ujis` and
//! `eucjpms` some differ: those are not decoded.

use encoding_rs::Encoding;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// An encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charset {
    /// Its name on the server.
    name: Arc<str>,
    /// How many bytes a character has at most.
    bytes_max: u8,
    decoding: Decoding,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Decoding {
    Utf8,
    /// `ucs2` and `utf16`.
    Utf16,
    Utf16Little,
    Utf32,
    Single(Box<Table>),
    Several(&'static Encoding),
}

/// A single-byte encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    /// The character of each byte, where it is defined.
    characters: [Option<char>; 256],
    /// Whether ASCII is a part of it, as it is of all but `swe7`.
    has_ascii: bool,
}

impl Table {
    fn new(characters: &[Option<char>; 256]) -> Self {
        let has_ascii = (0..128_u8).all(|byte| characters[usize::from(byte)] == Some(char::from(byte)));
        Self { characters: *characters, has_ascii }
    }

    fn character(&self, byte: u8) -> Option<char> {
        self.characters[usize::from(byte)]
    }

    /// `None` where a character is not defined.
    fn decode<'s>(&self, text: &'s [u8], space: &'s mut String) -> Option<&'s str> {
        // Most text is ASCII, and stays where it is.
        if self.has_ascii && text.is_ascii() {
            return std::str::from_utf8(text).ok();
        }
        // A character that has one byte here has at most three in UTF-8.
        space.reserve(3 * text.len());
        for byte in text {
            space.push(self.character(*byte)?);
        }
        Some(space)
    }
}

/// The encodings of a server, by the numbers of its collations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charsets {
    known: HashMap<u32, Arc<Charset>>,
    /// Names of those that cannot be decoded here.
    others: HashMap<u32, Arc<str>>,
}

impl Charsets {
    /// These collations: with their encodings, or with the names of encodings that cannot be decoded.
    #[must_use]
    pub fn new(known: impl IntoIterator<Item = (u32, Arc<Charset>)>, others: impl IntoIterator<Item = (u32, Arc<str>)>) -> Self {
        Self { known: known.into_iter().collect(), others: others.into_iter().collect() }
    }

    /// The encoding of a collation; `None` where it cannot be decoded.
    #[must_use]
    pub fn get(&self, collation: u32) -> Option<&Arc<Charset>> {
        self.known.get(&collation)
    }

    /// The encoding of this name, and the number of one of its collations; `None` where it cannot be decoded.
    pub(super) fn of_name(&self, name: &str) -> Option<(u32, &Arc<Charset>)> {
        self.known.iter().find(|(_, charset)| charset.name() == name).map(|(collation, charset)| (*collation, charset))
    }

    /// The name of a collation's encoding that only the server can decode.
    pub(super) fn undecodable(&self, collation: u32) -> Option<&Arc<str>> {
        self.others.get(&collation)
    }
}

impl Charset {
    /// An encoding that needs no table. `None` for a single-byte encoding, and for one that cannot be decoded.
    #[must_use]
    pub fn known(name: &str, bytes_max: u8) -> Option<Self> {
        let decoding = match name {
            "utf8" | "utf8mb3" | "utf8mb4" => Decoding::Utf8,
            "ucs2" | "utf16" => Decoding::Utf16,
            "utf16le" => Decoding::Utf16Little,
            "utf32" => Decoding::Utf32,
            "gbk" => Decoding::Several(encoding_rs::GBK),
            "gb18030" => Decoding::Several(encoding_rs::GB18030),
            "euckr" => Decoding::Several(encoding_rs::EUC_KR),
            "cp932" => Decoding::Several(encoding_rs::SHIFT_JIS),
            _ => return None,
        };
        Some(Self { name: name.into(), bytes_max, decoding })
    }

    /// A single-byte encoding, by the character of each byte in UTF-32 (most significant byte first), as the server converts them. A byte for
    /// which the server has no character becomes a question mark. `None` where there are not 256 of them.
    #[must_use]
    pub fn single(name: &str, utf32: &[u8]) -> Option<Self> {
        let (characters, []) = utf32.as_chunks::<4>() else { return None };
        let characters: &[[u8; 4]; 256] = characters.try_into().ok()?;
        let mut table = [None; 256];
        for (byte, (place, character)) in (0_u8..=255).zip(table.iter_mut().zip(characters)) {
            *place = char::from_u32(u32::from_be_bytes(*character)).filter(|character| *character != '?' || byte == b'?');
        }
        Some(Self { name: name.into(), bytes_max: 1, decoding: Decoding::Single(Box::new(Table::new(&table))) })
    }

    /// Its name on the server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many characters a value has at most that has this many bytes at most.
    #[must_use]
    pub fn characters(&self, bytes: u16) -> u32 {
        u32::from(bytes) / u32::from(self.bytes_max.max(1))
    }

    /// How many bytes a value has at most that has this many characters at most.
    pub(super) fn bytes(&self, characters: u16) -> u16 {
        characters.saturating_mul(self.bytes_max.into())
    }

    /// Decodes a text, into `space` if it is not UTF-8 already. `None` where it has a character that is not defined.
    #[must_use]
    pub fn decode<'s>(&self, text: &'s [u8], space: &'s mut String) -> Option<&'s str> {
        space.clear();
        match &self.decoding {
            Decoding::Utf8 => return std::str::from_utf8(text).ok(),
            Decoding::Utf16 => wide(text, u16::from_be_bytes, space)?,
            Decoding::Utf16Little => wide(text, u16::from_le_bytes, space)?,
            Decoding::Utf32 => {
                let (characters, []) = text.as_chunks::<4>() else { return None };
                for character in characters {
                    space.push(char::from_u32(u32::from_be_bytes(*character))?);
                }
            }
            Decoding::Single(table) => return table.decode(text, space),
            Decoding::Several(encoding) => match encoding.decode_without_bom_handling_and_without_replacement(text)? {
                Cow::Borrowed(text) => return Some(text),
                Cow::Owned(text) => *space = text,
            },
        }
        Some(space)
    }
}

impl Charset {
    /// Decodes a statement. A character that is not defined becomes U+FFFD. `None` where it cannot be told from the syntax: the server finds
    /// quotes and backslashes by their ASCII bytes, also in an encoding that has other characters in their places (`swe7`).
    pub(super) fn decode_statement<'s>(&self, text: &'s [u8]) -> Option<Cow<'s, str>> {
        Some(match &self.decoding {
            Decoding::Single(table) if !table.has_ascii => {
                let character = |byte: &u8| if *byte == b'`' { Some('`') } else { table.character(*byte) };
                let is_certain = !text.contains(&b'\\');
                is_certain.then(|| text.iter().map(|byte| character(byte).unwrap_or(char::REPLACEMENT_CHARACTER)).collect())?
            }
            _ if text.is_ascii() => String::from_utf8_lossy(text),
            Decoding::Single(table) => text.iter().map(|byte| table.character(*byte).unwrap_or(char::REPLACEMENT_CHARACTER)).collect(),
            Decoding::Several(encoding) => encoding.decode_without_bom_handling(text).0,
            // No client writes in the others.
            Decoding::Utf8 | Decoding::Utf16 | Decoding::Utf16Little | Decoding::Utf32 => String::from_utf8_lossy(text),
        })
    }
}

/// Decodes characters of two bytes, or of two pairs of two.
fn wide(text: &[u8], number: fn([u8; 2]) -> u16, space: &mut String) -> Option<()> {
    let (units, []) = text.as_chunks::<2>() else { return None };
    for character in char::decode_utf16(units.iter().map(|unit| number(*unit))) {
        space.push(character.ok()?);
    }
    Some(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Charset, Charsets};
    use std::sync::Arc;

    /// `latin1`, as the server has it: Windows-1252.
    pub(crate) fn latin1() -> Charset {
        let bytes: Vec<u8> = (0..=255).collect();
        let text = encoding_rs::WINDOWS_1252.decode_without_bom_handling(&bytes).0;
        let utf32: Vec<u8> = text.chars().flat_map(|character| u32::from(character).to_be_bytes()).collect();
        Charset::single("latin1", &utf32).unwrap()
    }

    /// The collations of the recorded logs.
    pub(crate) fn charsets() -> Charsets {
        let utf8 = Arc::new(Charset::known("utf8mb4", 4).unwrap());
        let utf16 = Arc::new(Charset::known("utf16", 4).unwrap());
        let latin1 = Arc::new(latin1());
        Charsets::new([(45, Arc::clone(&utf8)), (46, Arc::clone(&utf8)), (255, utf8), (54, utf16), (8, latin1)], [])
    }

    fn decoded(charset: &Charset, text: &[u8]) -> Option<String> {
        charset.decode(text, &mut String::new()).map(str::to_owned)
    }

    #[test]
    fn text_is_decoded_by_its_encoding() {
        let known = |name| Charset::known(name, 4).unwrap();
        assert_eq!(decoded(&latin1(), b"na\xEFve \x80").unwrap(), "naïve €");
        assert_eq!(decoded(&known("utf16"), &[0, 0x55, 0xD8, 0x3D, 0xDE, 0]).unwrap(), "U😀");
        assert_eq!(decoded(&known("utf16le"), &[0x11, 0x22]).unwrap(), "∑");
        assert_eq!(decoded(&known("utf32"), &[0, 1, 0xF6, 0]).unwrap(), "😀");
        assert_eq!(decoded(&known("cp932"), b"\x93\xFA\x96{").unwrap(), "日本");
        assert_eq!(decoded(&known("gb18030"), &[0x94, 0x39, 0xDA, 0x33]).unwrap(), "💩");
    }

    #[test]
    fn a_character_that_is_not_defined_is_not_guessed() {
        let known = |name| Charset::known(name, 4).unwrap();
        assert_eq!((decoded(&known("utf8mb4"), &[0xE9]), decoded(&known("utf16"), &[0xD8, 0x3D])), (None, None));
        assert_eq!((decoded(&known("utf16"), &[0]), decoded(&known("gbk"), &[0xFF])), (None, None));
        let mut holes: Vec<u8> = [0, 0, 0, b'?'].repeat(256);
        holes[..4].copy_from_slice(&[0, 0, 0, b'a']);
        let holes = Charset::single("holes", &holes).unwrap();
        assert_eq!((decoded(&holes, b"\0?").unwrap(), decoded(&holes, b"x")), ("a?".to_owned(), None));
        assert!(Charset::single("short", &[0; 8]).is_none() && Charset::known("dec8", 1).is_none());
        assert!(Charset::known("sjis", 2).is_none());
    }

    #[test]
    fn a_statement_keeps_its_syntax_in_every_encoding() {
        let statement = |charset: &Charset, text: &[u8]| charset.decode_statement(text).map(|text| text.to_string());
        let gbk = Charset::known("gbk", 2).unwrap();
        assert_eq!(statement(&gbk, b"DROP TABLE `\xD5\\` /* \xFF */").unwrap(), "DROP TABLE `誠` /* \u{FFFD} */");
        assert_eq!(statement(&latin1(), b"DROP TABLE `caf\xE9`, `\x81`").unwrap(), "DROP TABLE `café`, `\u{81}`");
        // Instead of some symbols it has letters.
        let letter = |byte: u8| match byte {
            b'`' => 'é',
            b'\\' => 'Ö',
            b']' => 'Å',
            _ => char::from(byte),
        };
        let utf32: Vec<u8> = (0..=255).flat_map(|byte| u32::from(letter(byte)).to_be_bytes()).collect();
        let swe7 = Charset::single("swe7", &utf32).unwrap();
        assert_eq!(statement(&swe7, b"DROP TABLE `v]r`").unwrap(), "DROP TABLE `vÅr`");
        assert_eq!(statement(&swe7, b"DROP TABLE `b\\n`"), None);
    }
}
