//! The keyed hash under which the index knows a key: SipHash-1-3 with 128 bits of output.
//!
//! The key of the hash is secret, drawn for each opened store or kept in its checkpoints, so nobody who cannot read the
//! store's files can choose keys that collide.
//! SipHash: Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// The hash of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyHash {
    /// Kept in the index entry.
    pub tag: u64,
    /// Chooses the place in the index.
    pub spot: u64,
}

/// Hashes keys with a secret of its own.
#[derive(Clone, Copy)]
pub struct KeyHasher {
    secret: SipHasher13,
}

impl KeyHasher {
    /// A hasher with the given secret.
    pub fn new(secret: [u64; 2]) -> Self {
        KeyHasher { secret: SipHasher13::new_with_keys(secret[0], secret[1]) }
    }

    /// The hash of `key`.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = self.secret;
        hasher.write(key);
        let h = hasher.finish128();
        KeyHash { tag: h.h1, spot: h.h2 }
    }
}
