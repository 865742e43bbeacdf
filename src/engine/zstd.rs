//! Packing with zstd, in builds with the feature `zstd`.
//!
//! Frames carry neither their length nor a checksum nor a dictionary's number: the record around them does.

use std::cell::RefCell;
use zstd_safe::{CCtx, CDict, CParameter, DCtx, DDict};

/// Compaction has time; above 9 little is gained.
const LEVEL: i32 = 9;

/// A dictionary, ready to pack and unpack with.
pub struct Zstd {
    contents: Vec<u8>,
    unpacking: DDict<'static>,
}

/// Packs one value after the other.
pub struct Packer {
    context: CCtx<'static>,
}

impl Zstd {
    /// Takes a dictionary's contents. `None`: zstd does not want them.
    pub fn new(contents: &[u8]) -> Option<Zstd> {
        Some(Zstd { contents: contents.to_vec(), unpacking: DDict::try_create(contents)? })
    }

    /// The contents of a dictionary of at most `len_max` bytes; `None` if the samples are too few or too much alike.
    pub fn contents(samples: &[&[u8]], len_max: usize) -> Option<Vec<u8>> {
        let lens: Vec<usize> = samples.iter().map(|sample| sample.len()).collect();
        let mut contents = vec![0; len_max];
        let len = zstd_safe::train_from_buffer(&mut contents[..], &samples.concat(), &lens).ok()?;
        contents.truncate(len);
        Some(contents)
    }
}

impl Packer {
    /// Packs with `dictionary`, or without one.
    pub fn new(dictionary: Option<&Zstd>) -> Option<Packer> {
        let mut context = CCtx::try_create()?;
        for parameter in [CParameter::CompressionLevel(LEVEL), CParameter::ContentSizeFlag(false), CParameter::DictIdFlag(false)] {
            context.set_parameter(parameter).ok()?;
        }
        if let Some(dictionary) = dictionary {
            CDict::try_create(&dictionary.contents, LEVEL)?; // it takes them
            context.load_dictionary(&dictionary.contents).ok()?;
        }
        Some(Packer { context })
    }

    /// Packs `raw` behind what is in `out`; false, and `out` as it was, if that takes `limit` bytes or more.
    pub fn pack(&mut self, raw: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let room = limit.saturating_sub(1).min(zstd_safe::compress_bound(raw.len()));
        if out.try_reserve(room).is_err() {
            return false;
        }
        out.resize(start + room, 0);
        let packed = self.context.compress2(&mut out[start..], raw);
        out.truncate(start + packed.unwrap_or(0));
        packed.is_ok()
    }
}

/// Unpacks one frame into `out`, which it has to fill.
pub fn unpack(packed: &[u8], dictionary: Option<&Zstd>, out: &mut [u8]) -> bool {
    thread_local! {
        static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
    }
    let len = CONTEXT.try_with(|context| {
        let mut context = context.try_borrow_mut().ok()?;
        if context.is_none() {
            *context = DCtx::try_create();
        }
        let context = context.as_mut()?;
        let unpacked = match dictionary {
            Some(dictionary) => context.decompress_using_ddict(out, packed, &dictionary.unpacking),
            None => context.decompress(out, packed),
        };
        unpacked.ok()
    });
    matches!(len, Ok(Some(len)) if len == out.len())
}
