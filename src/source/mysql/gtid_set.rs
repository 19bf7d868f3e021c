//! Sets of transactions of MySQL, by their identifiers.
//!
//! Source: MySQL documentation, "GTID Format and Storage"; MySQL 9.7 `sql/rpl_gtid_set.cc` (`Gtid_set::encode`).

#![expect(clippy::cast_possible_truncation, reason = "a tag has at most 32 characters")]

use super::binlog::MySqlId;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A set of transactions: `uuid:1-15:17,uuid:tag:1-3`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidSet(BTreeMap<Source, Intervals>);

/// Who wrote a transaction first, and the tag that it was given; empty without one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    uuid: [u8; 16],
    tag: String,
}

/// Numbers from 1 on: first and last of each interval, in order, with a gap before each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Intervals(Vec<(u64, u64)>);

impl GtidSet {
    /// Adds a transaction.
    pub fn add(&mut self, gtid: &MySqlId<'_>) {
        self.add_interval(Source { uuid: gtid.source, tag: gtid.tag.to_owned() }, gtid.number, gtid.number);
    }

    /// Takes a transaction out of the set.
    pub(super) fn remove(&mut self, gtid: &MySqlId<'_>) {
        let source = Source { uuid: gtid.source, tag: gtid.tag.to_owned() };
        if let Some(numbers) = self.0.get_mut(&source) {
            numbers.remove(gtid.number);
            if numbers.0.is_empty() {
                self.0.remove(&source);
            }
        }
    }

    /// The only transaction of the set; `None` where there are more or none.
    pub(super) fn only(&self) -> Option<MySqlId<'_>> {
        let mut sources = self.0.iter();
        let (Some((Source { uuid, tag }, numbers)), None) = (sources.next(), sources.next()) else { return None };
        let [(first, last)] = numbers.0[..] else { return None };
        (first == last).then_some(MySqlId { source: *uuid, tag, number: first })
    }

    /// The transactions of this set that `other` has not.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        for (source, numbers) in &other.0 {
            if let Some(mine) = rest.0.get_mut(source) {
                for (first, last) in &numbers.0 {
                    mine.remove_all(*first, *last);
                }
            }
        }
        rest.0.retain(|_, numbers| !numbers.0.is_empty());
        rest
    }

    fn add_interval(&mut self, source: Source, first: u64, last: u64) {
        self.0.entry(source).or_default().add(first, last);
    }

    /// Whether it contains this transaction.
    #[must_use]
    pub fn contains(&self, gtid: &MySqlId<'_>) -> bool {
        let source = Source { uuid: gtid.source, tag: gtid.tag.to_owned() };
        self.0.get(&source).is_some_and(|numbers| numbers.contains(gtid.number, gtid.number))
    }

    /// Whether `other` contains all of its transactions.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.iter().all(|(source, numbers)| {
            let theirs = other.0.get(source);
            numbers.0.iter().all(|(first, last)| theirs.is_some_and(|theirs| theirs.contains(*first, *last)))
        })
    }

    /// As a replica sends it: how many sources; then of each its UUID, its tag, and first and end of each interval.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let is_tagged = self.0.keys().any(|source| !source.tag.is_empty());
        let count = self.0.len() as u64;
        let mut out = Vec::new();
        // With tags the first and the last byte of the count say so.
        let head = if is_tagged { 1 << 56 | count << 8 | 1 } else { count };
        out.extend_from_slice(&head.to_le_bytes());
        for (source, numbers) in &self.0 {
            out.extend_from_slice(&source.uuid);
            if is_tagged {
                // A tag has at most 32 characters: the number takes one byte, whose lowest bit says that no other follows.
                out.push((source.tag.len() as u8) << 1);
                out.extend_from_slice(source.tag.as_bytes());
            }
            out.extend_from_slice(&(numbers.0.len() as u64).to_le_bytes());
            for (first, last) in &numbers.0 {
                out.extend_from_slice(&first.to_le_bytes());
                out.extend_from_slice(&(last + 1).to_le_bytes());
            }
        }
        out
    }
}

impl Intervals {
    fn add(&mut self, first: u64, last: u64) {
        let Self(intervals) = self;
        // Those that overlap the new one, or touch it.
        let from = intervals.partition_point(|(_, theirs)| *theirs < first.saturating_sub(1));
        let to = intervals.partition_point(|(theirs, _)| *theirs <= last.saturating_add(1));
        let touched = &intervals[from..to];
        let joined = touched.iter().fold((first, last), |(first, last), theirs| (first.min(theirs.0), last.max(theirs.1)));
        intervals.splice(from..to, [joined]);
    }

    fn remove(&mut self, number: u64) {
        self.remove_all(number, number);
    }

    fn remove_all(&mut self, first: u64, last: u64) {
        let cut = |(from, to): (u64, u64)| [(from, to.min(first.saturating_sub(1))), (from.max(last.saturating_add(1)), to)];
        self.0 = self
            .0
            .iter()
            .flat_map(|interval| if last < interval.0 || interval.1 < first { [*interval, (1, 0)] } else { cut(*interval) })
            .filter(|(from, to)| from <= to)
            .collect();
    }

    fn contains(&self, first: u64, last: u64) -> bool {
        self.0.iter().any(|(from, to)| *from <= first && last <= *to)
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (source, numbers)) in self.0.iter().enumerate() {
            if 0 < index {
                formatter.write_str(",")?;
            }
            write_uuid(&source.uuid, formatter)?;
            if !source.tag.is_empty() {
                write!(formatter, ":{}", source.tag)?;
            }
            for (first, last) in &numbers.0 {
                if first == last { write!(formatter, ":{first}")? } else { write!(formatter, ":{first}-{last}")? }
            }
        }
        Ok(())
    }
}

/// Writes a UUID as servers do.
pub(super) fn write_uuid(uuid: &[u8; 16], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (place, byte) in uuid.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            formatter.write_str("-")?;
        }
        write!(formatter, "{byte:02x}")?;
    }
    Ok(())
}

/// A text is no set of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a set of GTIDs of MySQL")]
pub struct NotASet;

impl FromStr for GtidSet {
    type Err = NotASet;

    /// Reads a set as the server prints it: it may have white space, and several tags after one UUID.
    fn from_str(text: &str) -> Result<Self, NotASet> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            let uuid = fields.next().and_then(uuid).ok_or(NotASet)?;
            let mut tag = "";
            for field in fields {
                if is_tag(field) {
                    tag = field;
                    continue;
                }
                let (first, last) = field.split_once('-').unwrap_or((field, field));
                let number = |text: &str| text.trim().parse::<u64>().ok().filter(|number| (1..u64::MAX / 2).contains(number));
                let (first, last) = number(first).zip(number(last)).filter(|(first, last)| first <= last).ok_or(NotASet)?;
                set.add_interval(Source { uuid, tag: tag.to_ascii_lowercase() }, first, last);
            }
        }
        Ok(set)
    }
}

/// A letter or an underscore, then at most 31 of them or of digits.
fn is_tag(text: &str) -> bool {
    let begins = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    begins && text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|digit| *digit != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32 && !digits.starts_with('+'))?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::GtidSet;
    use crate::source::mysql::binlog::MySqlId;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "f96061e1-ec8d-11f1-b606-02fc00000001";

    fn set(text: &str) -> GtidSet {
        text.replace("A:", &format!("{A}:")).replace("B:", &format!("{B}:")).parse().unwrap()
    }

    #[test]
    fn a_set_prints_what_it_was_read_from() {
        for text in ["", "A:1-5:7", "A:1,B:2-3", "A:1-2,A:tag:4:6-9"] {
            let shown = set(text).to_string().replace(A, "A").replace(B, "B");
            assert_eq!(shown, text);
        }
        assert_eq!(set(" A:1-3:tag:5 ,\nB:4 "), set("A:1-3,A:tag:5,B:4"));
        for bad in
            ["x", "A", "3e11fa47:1", &format!("{A}:0"), &format!("{A}:3-2"), &format!("{A}:1-x"), &format!("{A}:18446744073709551615")]
        {
            assert!(bad.parse::<GtidSet>().is_err() || bad == "A", "{bad}");
        }
    }

    #[test]
    fn intervals_join_where_they_touch() {
        let mut all = set("A:1-3:7-9");
        let add = |all: &mut GtidSet, number| {
            all.add(&MySqlId { source: u128::from_str_radix(&A.replace('-', ""), 16).unwrap().to_be_bytes(), tag: "", number });
        };
        for number in [5, 4, 10, 2, 20] {
            add(&mut all, number);
        }
        assert_eq!(all, set("A:1-5:7-10:20"));
        add(&mut all, 6);
        assert_eq!(all, set("A:1-10:20"));
        assert!(all.contains(&MySqlId {
            source: u128::from_str_radix(&A.replace('-', ""), 16).unwrap().to_be_bytes(),
            tag: "",
            number: 20
        }));
    }

    #[test]
    fn transactions_are_taken_out() {
        let without = |text: &str, other: &str| set(text).without(&set(other));
        assert_eq!(without("A:1-9:20,B:1", "A:4-5:9-30,B:1"), set("A:1-3:6-8"));
        assert_eq!(without("A:1-3", "A:1-3:7,B:2"), set(""));
        let mut all = set("A:1-3");
        all.remove(&set("A:2").only().unwrap());
        assert_eq!(all, set("A:1:3"));
        assert!(set("A:1-2").only().is_none() && set("A:1,B:1").only().is_none() && set("").only().is_none());
    }

    #[test]
    fn a_set_lies_within_another_only_with_every_transaction() {
        assert!(set("A:2-3").is_within(&set("A:1-5")) && set("").is_within(&set("")) && set("A:1,B:1").is_within(&set("A:1-2,B:1")));
        assert!(!set("A:1-5").is_within(&set("A:1-3:5")) && !set("A:1").is_within(&set("A:tag:1")) && !set("B:1").is_within(&set("A:1")));
    }

    #[test]
    fn only_a_set_with_tags_is_encoded_with_tags() {
        let plain = set("A:1-2").encode();
        assert_eq!(
            (plain.len(), &plain[..8], &plain[24..]),
            (48, &[1, 0, 0, 0, 0, 0, 0, 0][..], &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0][..])
        );
        let tagged = set("A:tag:1").encode();
        assert_eq!((&tagged[..8], &tagged[24..28]), (&[1, 1, 0, 0, 0, 0, 0, 1][..], &[6, b't', b'a', b'g'][..]));
    }
}
