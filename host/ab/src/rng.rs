//! Counter-based random numbers: every draw is a function of a key, never of what was drawn before.
//!
//! The construction of the trainer's own streams, SplitMix64 keyed by a purpose and by numbers, which is
//! integer arithmetic alone: the same on every platform and in every version, which no crate of
//! random numbers promises of its samplers, and a stream costs nothing to begin anywhere.

/// A stream of draws that depends on its key alone.
#[derive(Clone, Debug)]
pub struct KeyedRng {
    state: u64,
}

/// SplitMix64's increment.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finalizer (Steele, Lea, Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl KeyedRng {
    /// The stream of `purpose` (a word, so that two uses of one key differ) under `key`.
    #[must_use]
    pub fn new(purpose: &str, key: &[u64]) -> Self {
        let mut state = mix(GOLDEN);
        for byte in purpose.bytes() {
            state = mix(state ^ u64::from(byte)).wrapping_add(GOLDEN);
        }
        for &word in key {
            state = mix(state ^ word).wrapping_add(GOLDEN);
        }
        KeyedRng { state: mix(state) }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `0..bound`; `bound` must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // Multiply-shift: bias under 2^-32 for any bound that a data set has.
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }
}
