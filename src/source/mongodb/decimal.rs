//! Decimal128 as text (BSON specification, "Decimal128": binary integer decimal encoding of IEEE 754-2008).

use std::io::Write as _;

/// The exponent of a value whose field of the exponent is 0.
const EXPONENT_MIN: i32 = -6176;
/// One more than the largest coefficient: it has 34 digits.
const COEFFICIENTS: u128 = 10_u128.pow(34);
/// The longest text: a sign, 34 digits, a point, six zeros before them or an exponent of six signs.
const LENGTH_MAX: usize = 48;

/// The text of a value: exact, with the exponent that the value has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decimal {
    bytes: [u8; LENGTH_MAX],
    length: usize,
}

impl Decimal {
    pub(super) fn new(bits: u128) -> Self {
        let mut bytes = [0; LENGTH_MAX];
        let length = LENGTH_MAX - write(bits, &mut bytes);
        Self { bytes, length }
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

/// Writes the text of a value; returns how many bytes are left.
fn write(bits: u128, mut out: &mut [u8]) -> usize {
    let field = |shift: u32, width: u32| (bits >> shift) & ((1 << width) - 1);
    let mut put = |text: &[u8]| out.write_all(text).expect("the text of a decimal is short");
    // What is not a number has no sign that counts.
    if field(122, 5) == 0b11111 {
        put(b"NaN");
        return out.len();
    }
    if bits >> 127 == 1 {
        put(b"-");
    }
    if field(122, 5) == 0b11110 {
        put(b"Infinity");
        return out.len();
    }
    // A coefficient that is too large counts as 0.
    let (exponent, coefficient) = if field(125, 2) == 0b11 { (field(111, 14), 0) } else { (field(113, 14), field(0, 113)) };
    let coefficient = if COEFFICIENTS <= coefficient { 0 } else { coefficient };
    let exponent = i32::try_from(exponent).unwrap_or_default() + EXPONENT_MIN;
    let mut digits = [0; 40];
    let length = {
        let mut rest = &mut digits[..];
        std::io::Write::write_fmt(&mut rest, format_args!("{coefficient}")).expect("at most 34 digits");
        40 - rest.len()
    };
    let digits = &digits[..length];
    let count = i32::try_from(length).unwrap_or_default();
    let scientific = exponent + count - 1;
    if 0 < exponent || scientific < -6 {
        put(&digits[..1]);
        if 1 < length {
            put(b".");
            put(&digits[1..]);
        }
        put(format!("E{scientific:+}").as_bytes());
    } else if exponent == 0 {
        put(digits);
    } else {
        // The point stands before so many digits from the end.
        let behind = exponent.unsigned_abs() as usize;
        if behind < length {
            put(&digits[..length - behind]);
            put(b".");
            put(&digits[length - behind..]);
        } else {
            put(b"0.");
            (length..behind).for_each(|_| put(b"0"));
            put(digits);
        }
    }
    out.len()
}

#[cfg(test)]
mod tests {
    use super::Decimal;

    /// From the specification's `decimal128-1.json`: value in hexadecimal digits of its bytes, text.
    #[test]
    fn a_value_has_the_text_of_the_specification() {
        for (high, low, text) in [
            (0x7C00_0000_0000_0000_u64, 0_u64, "NaN"),
            (0xFC00_0000_0000_0000, 0, "NaN"),
            (0x7800_0000_0000_0000, 0, "Infinity"),
            (0xF800_0000_0000_0000, 0, "-Infinity"),
            (0x3040_0000_0000_0000, 0, "0"),
            (0xB040_0000_0000_0000, 0, "-0"),
            (0x3040_0000_0000_0000, 1, "1"),
            (0xB040_0000_0000_0000, 1, "-1"),
            (0x303E_0000_0000_0000, 1, "0.1"),
            (0x3034_0000_0000_0000, 1_234_567, "1.234567"),
            (0x3040_0000_0000_0000, 12_345_678_901_234_567, "12345678901234567"),
            (0x3032_0000_0000_0000, 1, "1E-7"),
            (0x3034_0000_0000_0000, 1, "0.000001"),
            (0x304C_0000_0000_0000, 1, "1E+6"),
            (0x3046_0000_0000_0000, 12_345, "1.2345E+7"),
            (0x0000_0000_0000_0000, 1, "1E-6176"),
            (0x5FFE_0000_0000_0000, 1, "1E+6111"),
            (0x6C10_0000_0000_0000, 1, "0"),
        ] {
            let bits = u128::from(high) << 64 | u128::from(low);
            assert_eq!(Decimal::new(bits).as_str(), text, "{high:016x}{low:016x}");
        }
        let most = 10_u128.pow(34) - 1;
        assert_eq!(Decimal::new(0x3040_u128 << 112 | most).as_str(), "9".repeat(34));
        let small = Decimal::new(0xB040_u128 << 112 | most).as_str().len();
        assert_eq!(small, 35);
    }
}
