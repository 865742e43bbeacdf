//! Copying what is short, as most keys and many values are: calling somebody for it takes longer.
//!
//! The arena uses it for the parts of a record. Raw pointers: whoever calls has checked that there is room.

/// Copies `part` to `to`.
///
/// # Safety
/// `to` is valid for writing `part.len()` bytes, none of which are `part`'s.
#[inline(always)]
pub(super) unsafe fn copy_part(part: &[u8], to: *mut u8) {
    let (from, len) = (part.as_ptr(), part.len());
    // SAFETY: by the caller's promise.
    unsafe {
        match len {
            0 => {}
            // A record's head: these are the pieces in which it has just been written, so it need not settle first.
            12 => {
                to.cast::<u64>().write_unaligned(from.cast::<u64>().read_unaligned());
                to.add(8).cast::<u32>().write_unaligned(from.add(8).cast::<u32>().read_unaligned());
            }
            8..=16 => copy_ends::<u64>(from, to, len),
            17..=32 => copy_ends::<u128>(from, to, len),
            33..=64 => copy_ends::<[u128; 2]>(from, to, len),
            65..=128 => copy_ends::<[u128; 4]>(from, to, len),
            _ => std::ptr::copy_nonoverlapping(from, to, len),
        }
    }
}

/// Copies `len` bytes as a `T` from the front and one from the back, which overlap.
///
/// # Safety
/// As for `copy_part`; `len` is one to two times the size of `T`.
#[inline(always)]
unsafe fn copy_ends<T: Copy>(from: *const u8, to: *mut u8, len: usize) {
    let behind = len - size_of::<T>();
    // SAFETY: by the caller's promise.
    unsafe {
        let last = from.add(behind).cast::<T>().read_unaligned();
        to.cast::<T>().write_unaligned(from.cast::<T>().read_unaligned());
        to.add(behind).cast::<T>().write_unaligned(last);
    }
}
