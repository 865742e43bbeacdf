//! How large a commit group may become: which batches in line share a write and a sync with the first of them.
//!
//! Called by the lane when it takes a group. Knows nothing but sizes.

use crate::base::limits::{GROUP_LARGE_BYTES, GROUP_SMALL_BYTES};
use crate::native::Options;

/// What a store's options say about groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Grouping {
    /// As large as suits the first batch.
    #[default]
    Adaptive,
    /// Up to this many bytes, whatever comes first.
    Fixed(usize),
    /// Each batch goes by itself.
    Alone,
}

impl Grouping {
    /// Of a store that is run with `options`; one in memory has none.
    pub fn of(options: Option<&Options>) -> Grouping {
        match options {
            Some(options) if !options.write_merge => Grouping::Alone,
            Some(options) if options.write_merge_bytes > 0 => {
                Grouping::Fixed(usize::try_from(options.write_merge_bytes).unwrap_or(usize::MAX))
            }
            _ => Grouping::Adaptive,
        }
    }

    /// Whether batches are merged at all.
    pub fn merges(self) -> bool {
        self != Grouping::Alone
    }

    /// Bytes of records that a group may have when its first batch has `first` of them. The first batch always goes.
    pub fn limit_bytes(self, first: usize) -> usize {
        match self {
            // LevelDB's rule: a small leader may not be slowed down much by what joins it.
            Grouping::Adaptive if first <= GROUP_SMALL_BYTES => first + GROUP_SMALL_BYTES,
            Grouping::Adaptive => GROUP_LARGE_BYTES,
            Grouping::Fixed(bytes) => bytes,
            Grouping::Alone => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_first_batch_is_not_slowed_down_and_a_large_one_takes_a_mebibyte() {
        const K: usize = 1 << 10;
        for (first, limit) in [
            (0, 128 * K),
            (1, 128 * K + 1),
            (128 * K, 256 * K),
            (128 * K + 1, 1024 * K),
            (1024 * K - 1, 1024 * K),
            (1024 * K, 1024 * K),
            (1024 * K + 1, 1024 * K),
        ] {
            assert_eq!(Grouping::Adaptive.limit_bytes(first), limit, "{first}");
        }
    }

    #[test]
    fn options_decide() {
        let of = |write_merge, write_merge_bytes| Grouping::of(Some(&Options { write_merge, write_merge_bytes, ..Options::default() }));
        assert_eq!(Grouping::of(None), Grouping::Adaptive);
        assert_eq!(Grouping::of(Some(&Options::default())), Grouping::Adaptive);
        assert_eq!(of(true, 4096), Grouping::Fixed(4096));
        assert_eq!(of(false, 4096), Grouping::Alone);
        assert_eq!((Grouping::Fixed(4096).limit_bytes(1 << 20), Grouping::Alone.limit_bytes(8)), (4096, 0));
        assert!(Grouping::Fixed(1).merges() && !Grouping::Alone.merges());
    }
}
