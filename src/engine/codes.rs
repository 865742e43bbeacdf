//! Prefix codes for bytes, of 1 to 11 bits: Huffman's, made canonical, so that their lengths say everything.
//!
//! Every byte has a code, also one that was never seen when the code was chosen.

/// The codes of the 256 bytes.
#[derive(Clone)]
pub struct Codes {
    lens: [u8; 256],
    codes: [u16; 256],
}

/// Finds the byte whose code the next bits begin with.
pub struct Decoder(Vec<[u8; 2]>);

impl Codes {
    /// Longest code, in bits.
    pub const LEN_MAX: u32 = 11;

    /// Bytes in a dictionary: half a byte per length.
    pub const ENCODED_LEN: usize = 128;

    /// Short codes for bytes with high counts.
    pub fn fitting(counts: &[u32; 256]) -> Codes {
        let mut weights: Vec<u64> = counts.iter().map(|count| 16 * u64::from(*count) + 1).collect();
        loop {
            let lens = huffman(&weights);
            if lens.iter().all(|len| u32::from(*len) <= Codes::LEN_MAX) {
                return Codes::canonical(lens);
            }
            // Flatter weights make shorter trees; all alike, every code has 8 bits.
            weights.iter_mut().for_each(|weight| *weight = weight.div_ceil(2));
        }
    }

    /// By length, then by byte.
    fn canonical(lens: [u8; 256]) -> Codes {
        let mut codes = [0; 256];
        let mut next = 0;
        for len in 1..=Codes::LEN_MAX as u8 {
            next <<= 1;
            for byte in (0..256).filter(|byte| lens[*byte] == len) {
                codes[byte] = next;
                next += 1;
            }
        }
        Codes { lens, codes }
    }

    /// The lengths, two in a byte, the low half first.
    pub fn encode(&self) -> Vec<u8> {
        self.lens.chunks_exact(2).map(|pair| pair[0] | pair[1] << 4).collect()
    }

    /// Reads the lengths; `None` if no code has them.
    pub fn decode(bytes: &[u8]) -> Option<Codes> {
        let mut lens = [0; 256];
        for (pair, byte) in lens.chunks_exact_mut(2).zip(bytes) {
            (pair[0], pair[1]) = (byte & 15, byte >> 4);
        }
        if lens.iter().any(|len| !(1..=Codes::LEN_MAX).contains(&u32::from(*len))) {
            return None;
        }
        let used: u32 = lens.iter().map(|len| 1 << (Codes::LEN_MAX - u32::from(*len))).sum();
        (used == 1 << Codes::LEN_MAX).then(|| Codes::canonical(lens))
    }

    /// A byte's code and its length.
    #[inline]
    pub fn code(&self, byte: u8) -> (u16, u32) {
        (self.codes[usize::from(byte)], u32::from(self.lens[usize::from(byte)]))
    }

    /// A table to decode with.
    pub fn decoder(&self) -> Decoder {
        let mut table = vec![[0; 2]; 1 << Codes::LEN_MAX];
        for byte in 0..=u8::MAX {
            let (code, len) = self.code(byte);
            let first = usize::from(code) << (Codes::LEN_MAX - len);
            table[first..first + (1 << (Codes::LEN_MAX - len))].fill([byte, len as u8]);
        }
        Decoder(table)
    }
}

impl Decoder {
    /// The byte whose code stands at the top of `window`, and the code's length.
    #[inline]
    pub fn look(&self, window: u64) -> (u8, u32) {
        let [byte, len] = self.0[(window >> (u64::BITS - Codes::LEN_MAX)) as usize];
        (byte, u32::from(len))
    }
}

/// Lengths of Huffman's codes for these weights, which are all above 0.
fn huffman(weights: &[u64]) -> [u8; 256] {
    let mut heap: std::collections::BinaryHeap<_> = weights.iter().enumerate().map(|(i, w)| std::cmp::Reverse((*w, i))).collect();
    let mut parents = vec![0; weights.len()];
    while let (Some(one), Some(other)) = (heap.pop(), heap.pop()) {
        let (std::cmp::Reverse((light, i)), std::cmp::Reverse((heavy, j))) = (one, other);
        let node = parents.len();
        parents.push(0);
        (parents[i], parents[j]) = (node, node);
        if !heap.is_empty() {
            heap.push(std::cmp::Reverse((light + heavy, node)));
        }
    }
    let mut depths = vec![0u8; parents.len()];
    for node in (0..parents.len() - 1).rev() {
        depths[node] = depths[parents[node]].saturating_add(1);
    }
    let mut lens = [0; 256];
    lens.copy_from_slice(&depths[..256]);
    lens
}
