//! The names of a store's numbered files: what they are, and a number of 16 hexadecimal digits (docs/FORMAT.md, "The directory").
//!
//! Called by whoever makes or looks for such files. Knows no file.

/// The name of file `number` of a kind.
pub fn numbered(kind: &str, number: u64) -> String {
    format!("{kind}-{number:016x}.kvb")
}

/// The number in a name of this kind, if it is one as it is given.
pub fn number_in(kind: &str, name: &str) -> Option<u64> {
    let digits = name.strip_prefix(kind)?.strip_prefix('-')?.strip_suffix(".kvb")?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (numbered(kind, number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_is_given() {
        assert_eq!(number_in("removed", &numbered("removed", 0x1f)), Some(0x1f));
        let others = ["removed-1f.kvb", "removed-000000000000001F.kvb", "removed-+00000000000001f.kvb", "removed-.kvb", "removed.kvb"];
        for name in others.into_iter().chain(["chunk-000000000000001f.kvb", "removed-000000000000001f", "removed000000000000001f.kvb"]) {
            assert_eq!(number_in("removed", name), None, "{name}");
        }
    }
}
