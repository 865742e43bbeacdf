//! How a value is packed inside a record.
//!
//! The batch layer packs fresh values (`compress`), an engine may pack what it moves, and whoever takes a `StoredValue`
//! unpacks it. Must never hand on a byte that does not come out right.

use super::dense::{Dense, RAW_LEN_MAX};
#[cfg(feature = "zstd")]
use super::zstd::Zstd;
use crate::base::limits::VALUE_LEN_MAX;
use crate::base::planted::{Bug, planted};
use crate::base::{code::Code, error::Error, error::Result};

/// A packing. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    None = 0,
    /// One LZ4 block.
    Lz4 = 1,
    /// Phrases of a dictionary under codes of the same dictionary; see `dense`.
    Dense = 2,
    /// One zstd frame, mostly with a dictionary. Only builds with the feature `zstd` pack and unpack it.
    Zstd = 3,
}

impl Codec {
    /// The codec with this number, if this version knows it.
    #[inline]
    pub fn from_number(number: u8) -> Option<Codec> {
        match number {
            0 => Some(Codec::None),
            1 => Some(Codec::Lz4),
            2 => Some(Codec::Dense),
            3 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// Whether a record of it says which dictionary it needs.
    #[inline]
    pub fn names_dictionary(self) -> bool {
        matches!(self, Codec::Dense | Codec::Zstd)
    }

    /// Fails if this build can neither pack nor unpack it.
    pub fn check_built(self) -> Result<()> {
        if self == Codec::Zstd && !cfg!(feature = "zstd") {
            let text = "a value is packed with zstd, and this library was built without it: use one built with the feature `zstd`";
            return Err(Error::new(Code::NOT_SUPPORTED, text));
        }
        Ok(())
    }

    /// More than this no `packed_len` bytes unpack to: who says so lies, and gets no memory for it.
    fn raw_len_max(self, packed_len: usize) -> usize {
        /// A byte of LZ4 lengthens a match by 255 at the most.
        const LZ4_PER_BYTE: usize = 255;
        /// A block of zstd has 4 bytes at least and unpacks to 128 KiB at the most.
        const ZSTD_PER_BYTE: usize = 32 << 10;
        match self {
            Codec::None => packed_len,
            Codec::Lz4 => packed_len.saturating_mul(LZ4_PER_BYTE).min(VALUE_LEN_MAX),
            Codec::Dense => RAW_LEN_MAX,
            Codec::Zstd => packed_len.saturating_mul(ZSTD_PER_BYTE).min(VALUE_LEN_MAX),
        }
    }
}

/// What values are packed with and unpacked by: small ones have too little in them to be packed alone.
pub struct Dictionary {
    /// How records name it; never 0.
    pub number: u8,
    /// Whose it is.
    pub codec: Codec,
    ready: Ready,
}

enum Ready {
    Dense(Box<Dense>),
    #[cfg(feature = "zstd")]
    Zstd(Zstd),
    /// Of a codec that this build lacks.
    #[cfg(not(feature = "zstd"))]
    Foreign,
}

impl Dictionary {
    /// Makes ready what stands in a dictionary's file. `None`: no dictionary of this codec looks like that.
    pub fn new(number: u8, codec: Codec, contents: &[u8]) -> Option<Dictionary> {
        let ready = match codec {
            Codec::Dense => Ready::Dense(Box::new(Dense::new(contents)?)),
            #[cfg(feature = "zstd")]
            Codec::Zstd => Ready::Zstd(Zstd::new(contents)?),
            #[cfg(not(feature = "zstd"))]
            Codec::Zstd => Ready::Foreign,
            Codec::None | Codec::Lz4 => return None,
        };
        Some(Dictionary { number, codec, ready })
    }

    /// For packing with it.
    pub fn dense(&self) -> Option<&Dense> {
        if let Ready::Dense(dense) = &self.ready { Some(dense) } else { None }
    }

    /// For packing with it.
    #[cfg(feature = "zstd")]
    pub fn zstd(&self) -> Option<&Zstd> {
        if let Ready::Zstd(zstd) = &self.ready { Some(zstd) } else { None }
    }
}

/// Most bytes that `compress` may need for `raw_len` bytes.
pub fn compressed_len_max(raw_len: usize) -> usize {
    lz4_flex::block::get_maximum_output_size(raw_len)
}

/// Packs `raw` into `out` with LZ4; the packed length, or `None` when that would not be smaller.
pub fn compress(raw: &[u8], out: &mut [u8]) -> Option<usize> {
    let len = lz4_flex::block::compress_into(raw, out).ok()?;
    (len < raw.len()).then_some(len)
}

/// A value as it is stored.
#[derive(Clone, Copy)]
pub struct StoredValue<'a> {
    /// How `bytes` are packed.
    pub codec: Codec,
    /// The dictionary that it takes to unpack them.
    pub dictionary: Option<&'a Dictionary>,
    /// The stored bytes.
    pub bytes: &'a [u8],
    /// Length when unpacked, in bytes.
    pub raw_len: usize,
}

impl StoredValue<'_> {
    /// Fails if the value cannot be unpacked, or cannot be as long as it says. Before memory is taken for it.
    pub fn check(&self) -> Result<()> {
        self.codec.check_built()?;
        let possible = self.raw_len <= self.codec.raw_len_max(self.bytes.len()) || planted(Bug::PackedLengthBelieved);
        if possible { Ok(()) } else { Err(spoilt()) }
    }

    /// Unpacks into `out`, which has exactly the raw length.
    pub fn unpack(&self, out: &mut [u8]) -> Result<()> {
        self.check()?;
        let good = match (self.codec, self.dictionary.map(|dictionary| &dictionary.ready)) {
            _ if out.len() != self.raw_len => false,
            (Codec::None, _) if self.bytes.len() == out.len() => {
                out.copy_from_slice(self.bytes);
                true
            }
            (Codec::Lz4, _) => lz4_flex::block::decompress_into(self.bytes, out).is_ok_and(|len| len == out.len()),
            (Codec::Dense, Some(Ready::Dense(dense))) => dense.unpack(self.bytes, out),
            #[cfg(feature = "zstd")]
            (Codec::Zstd, None) => super::zstd::unpack(self.bytes, None, out),
            #[cfg(feature = "zstd")]
            (Codec::Zstd, Some(Ready::Zstd(zstd))) => super::zstd::unpack(self.bytes, Some(zstd), out),
            _ => false,
        };
        if good { Ok(()) } else { Err(spoilt()) }
    }
}

fn spoilt() -> Error {
    Error::new(Code::CORRUPTED, "a stored value does not unpack to its length; restore it from a backup")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::dense::Scratch;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn unpack(codec: Codec, bytes: &[u8], out: &mut [u8]) -> Result<()> {
        StoredValue { codec, dictionary: None, bytes, raw_len: out.len() }.unpack(out)
    }

    #[test]
    fn packs_and_unpacks() {
        let raw = b"abcabcabcabcabcabcabcabcabcabcabcabcabcabc";
        let mut packed = vec![0; compressed_len_max(raw.len())];
        let len = compress(raw, &mut packed).unwrap_or(0);
        assert!(len > 0 && len < raw.len());
        let mut out = vec![0; raw.len()];
        assert_eq!(unpack(Codec::Lz4, &packed[..len], &mut out), Ok(()));
        assert_eq!(&out, raw);
        assert!(unpack(Codec::Lz4, &packed[..len - 1], &mut out).is_err());
        assert!(unpack(Codec::Lz4, &packed[..len], &mut vec![0; raw.len() + 1]).is_err());
        assert!(unpack(Codec::None, b"ab", &mut [0]).is_err());
        assert_eq!(compress(b"x", &mut [0; 64]), None);
    }

    #[test]
    fn who_lies_about_a_length_gets_no_memory() {
        for (codec, packed_len, raw_len) in
            [(Codec::None, 5, 6), (Codec::Lz4, 10, 2551), (Codec::Dense, 1 << 20, RAW_LEN_MAX + 1), (Codec::Zstd, 3, 4 * (32 << 10))]
        {
            let value = StoredValue { codec, dictionary: None, bytes: &vec![0; packed_len], raw_len };
            assert!(value.check().is_err(), "{codec:?}");
        }
    }

    #[cfg(not(feature = "zstd"))]
    #[test]
    fn a_codec_that_was_not_built_in_is_named() {
        let value = StoredValue { codec: Codec::Zstd, dictionary: None, bytes: &[0; 9], raw_len: 20 };
        for error in [value.check().unwrap_err(), value.unpack(&mut [0; 20]).unwrap_err()] {
            assert!(error.code == Code::NOT_SUPPORTED && error.message.contains("feature `zstd`"), "{error}");
        }
    }

    /// A value of words that the dictionary knows, with others in between.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            6 => proptest::sample::select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
            3 => vec(any::<u8>(), 0..12),
            1 => (any::<u8>(), 0usize..700).prop_map(|(byte, len)| vec![byte; len]),
        ];
        prop_oneof![
            8 => vec(word, 0..40).prop_map(|words| words.concat()),
            1 => vec(any::<u8>(), 0..2000),
            1 => (any::<u8>(), 0..=RAW_LEN_MAX).prop_map(|(byte, len)| vec![byte; len]),
        ]
    }

    const WORDS: [&str; 6] = ["{\"name\":\"", "\",\"city\":\"Berlin\",", "\"age\":", "true", "\"active\":", "}"];

    fn dictionary() -> Dictionary {
        let samples: Vec<Vec<u8>> = (0..200u32).map(|i| format!("{}{i}{}{}{i}}}", WORDS[0], WORDS[1], WORDS[2]).into_bytes()).collect();
        let samples: Vec<&[u8]> = samples.iter().map(|sample| &sample[..]).collect();
        let phrases = crate::engine::train::phrases(&samples, 1000);
        Dictionary::new(1, Codec::Dense, &Dense::contents(&phrases, &samples)).unwrap()
    }

    proptest! {
        #[test]
        fn dense_comes_back_and_damage_is_an_error_or_another_value(raw in value(), at in any::<usize>(), bit in 0u32..8) {
            let dictionary = dictionary();
            let mut packed = b"before".to_vec();
            prop_assert!(dictionary.dense().unwrap().pack(&raw, usize::MAX, &mut Scratch::default(), &mut packed));
            prop_assert!(packed.starts_with(b"before"));
            let mut bytes = packed.split_off(6);
            let mut out = vec![0; raw.len()];
            let stored = |bytes: &[u8], out: &mut [u8]| {
                StoredValue { codec: Codec::Dense, dictionary: Some(&dictionary), bytes, raw_len: out.len() }.unpack(out)
            };
            prop_assert_eq!(stored(&bytes, &mut out), Ok(()));
            prop_assert_eq!(&out, &raw);
            prop_assert!(stored(&bytes, &mut vec![0; raw.len() + 1]).is_err());
            prop_assert!(stored(&[&bytes[..], &[0]].concat(), &mut out).is_err());
            if !bytes.is_empty() {
                prop_assert!(stored(&bytes[..bytes.len() - 1], &mut out).is_err());
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
                let _ = stored(&bytes, &mut out); // the record's checksum tells; here it is enough not to panic
            }
        }

        #[test]
        fn no_bytes_make_the_unpackers_panic(bytes in vec(any::<u8>(), 0..300), raw_len in 0usize..70_000) {
            let dictionary = dictionary();
            for codec in [Codec::None, Codec::Lz4, Codec::Dense, Codec::Zstd] {
                for dictionary in [None, Some(&dictionary)] {
                    let _ = StoredValue { codec, dictionary, bytes: &bytes, raw_len }.unpack(&mut vec![0; raw_len]);
                }
            }
        }

        #[test]
        fn no_contents_make_a_dictionary_panic(contents in vec(any::<u8>(), 0..700), raw in value()) {
            let even = Dense::contents(&contents, &[]);
            for contents in [&contents, &even] {
                if let Some(dictionary) = Dictionary::new(1, Codec::Dense, contents) {
                    let mut packed = Vec::new();
                    dictionary.dense().unwrap().pack(&raw, usize::MAX, &mut Scratch::default(), &mut packed);
                    let mut out = vec![0; raw.len()];
                    let value = StoredValue { codec: Codec::Dense, dictionary: Some(&dictionary), bytes: &packed, raw_len: raw.len() };
                    prop_assert_eq!(value.unpack(&mut out), Ok(()));
                    prop_assert_eq!(&out, &raw);
                }
            }
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_given_up() {
        let mut rng = crate::base::random::Random::new(1);
        let raw: Vec<u8> = (0..1000).map(|_| rng.next_u64() as u8).collect();
        let mut out = Vec::new();
        assert!(!dictionary().dense().unwrap().pack(&raw, raw.len(), &mut Scratch::default(), &mut out));
        assert!(out.is_empty());
    }
}
