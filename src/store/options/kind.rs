//! Kinds of values: how they are read, written and limited. Called by the table of options and nobody else.

/// What the values of an option are. All are kept as one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, with a suffix k, m or g if wanted (units of 1024); `or_zero`: 0 is allowed below `min`.
    Bytes {
        /// Least, in bytes.
        min: u64,
        /// Most, in bytes.
        max: u64,
        /// Whether 0 is a value too.
        or_zero: bool,
    },
    /// 0 to `max`, in percent.
    Percent {
        /// Most.
        max: u64,
    },
    /// A number of things.
    Count {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// `true` or `false`.
    Bool,
    /// One of these words; kept as its number.
    Choice(&'static [&'static str]),
}

const BYTE_UNITS: [(&str, u64); 4] = [("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10), ("", 1)];

impl Kind {
    /// The value that `text` says; `None` if it says none, or one that is out of bounds.
    pub fn parse(&self, text: &str) -> Option<u64> {
        match self {
            Kind::Bytes { min, max, or_zero } => {
                let bytes = in_bytes(text)?;
                ((*min..=*max).contains(&bytes) || (*or_zero && bytes == 0)).then_some(bytes)
            }
            Kind::Percent { max } => number(text.strip_suffix('%').unwrap_or(text)).filter(|percent| percent <= max),
            Kind::Count { min, max } => number(text).filter(|count| (*min..=*max).contains(count)),
            Kind::Bool => match text {
                "true" | "1" | "yes" | "on" => Some(1),
                "false" | "0" | "no" | "off" => Some(0),
                _ => None,
            },
            Kind::Choice(words) => words.iter().position(|word| *word == text).map(|at| at as u64),
        }
    }

    /// A value, as it could be written.
    pub fn format(&self, value: u64) -> String {
        match self {
            Kind::Bytes { .. } => in_units(value),
            Kind::Percent { .. } | Kind::Count { .. } => value.to_string(),
            Kind::Bool => (value != 0).to_string(),
            Kind::Choice(words) => words.get(value as usize).map_or_else(|| value.to_string(), |word| (*word).to_owned()),
        }
    }

    /// All values it takes, in words.
    pub fn values(&self) -> String {
        let range = |min: u64, max: u64| format!("{} to {}", self.format(min), self.format(max));
        match self {
            Kind::Bytes { min, max, or_zero } => format!("{}{} bytes", if *or_zero { "0, or " } else { "" }, range(*min, *max)),
            Kind::Percent { max } => format!("{} percent", range(0, *max)),
            Kind::Count { min, max } => range(*min, *max),
            Kind::Bool => "true or false".to_owned(),
            Kind::Choice(words) => words.join(" or "),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn in_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, suffix) = text.split_at(digits);
    let (_, unit) = BYTE_UNITS.iter().find(|(name, _)| suffix.eq_ignore_ascii_case(name))?;
    number(amount)?.checked_mul(*unit)
}

fn in_units(value: u64) -> String {
    if value == 0 {
        return "0".to_owned();
    }
    let fitting = BYTE_UNITS.iter().find(|(_, unit)| value.is_multiple_of(*unit));
    fitting.map_or_else(|| value.to_string(), |(name, unit)| format!("{}{name}", value / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_written_back() {
        let bytes = Kind::Bytes { min: 4 << 10, max: 2 << 30, or_zero: true };
        for (text, value) in [("0", 0), ("4k", 4 << 10), ("8M", 8 << 20), ("2g", 2 << 30), ("5000", 5000)] {
            assert_eq!(bytes.parse(text), Some(value), "{text}");
            assert_eq!(bytes.parse(&bytes.format(value)), Some(value), "{text}");
        }
        for text in ["", "k", "4kb", "-1", "+4096", "1.5m", "4095", "3g", " 4k", "18446744073709551616"] {
            assert_eq!(bytes.parse(text), None, "{text:?}");
        }
        let count = Kind::Count { min: 1, max: 16 };
        assert_eq!((count.parse("16"), count.parse("17"), count.parse("0"), count.parse("")), (Some(16), None, None, None));
        assert_eq!((Kind::Percent { max: 95 }.parse("95%"), Kind::Percent { max: 95 }.parse("%")), (Some(95), None));
        assert_eq!((Kind::Bool.parse("on"), Kind::Bool.parse("TRUE"), Kind::Bool.format(1)), (Some(1), None, "true".to_owned()));
        assert_eq!(Kind::Choice(&["a", "b"]).parse("b"), Some(1));
    }

    #[test]
    fn limits_are_told_in_words() {
        assert_eq!(Kind::Bytes { min: 64 << 10, max: 1 << 40, or_zero: true }.values(), "0, or 64k to 1024g bytes");
        assert_eq!(Kind::Percent { max: 95 }.values(), "0 to 95 percent");
        assert_eq!(Kind::Count { min: 1, max: 16 }.values(), "1 to 16");
        assert_eq!((Kind::Bool.values(), Kind::Choice(&["a", "b"]).values()), ("true or false".to_owned(), "a or b".to_owned()));
    }
}
