//! The prefix of positions in a log whose places are two numbers.

/// Digits of the first number, a dash, digits of the second.
const LENGTH: usize = 8 + 1 + 16;

/// Both numbers in hexadecimal digits of fixed width: as bytes, prefixes sort as pairs of numbers do.
#[must_use]
pub fn position_prefix(epoch: u32, place: u64) -> [u8; LENGTH] {
    let mut prefix = [b'-'; LENGTH];
    write_hex(&mut prefix[..8], epoch.into());
    write_hex(&mut prefix[9..], place);
    prefix
}

fn write_hex(out: &mut [u8], mut number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for digit in out.iter_mut().rev() {
        *digit = DIGITS[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::position_prefix;
    use proptest::prelude::any;
    use proptest::proptest;

    proptest! {
        #[test]
        fn it_is_what_the_standard_library_prints(epoch in any::<u32>(), place in any::<u64>()) {
            assert_eq!(position_prefix(epoch, place), format!("{epoch:08X}-{place:016X}").as_bytes());
        }
    }
}
