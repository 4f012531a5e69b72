//! Counter-based random numbers: every draw is a function of a key, never of what was drawn before.
//!
//! SplitMix64 keyed by a purpose and by numbers: integer arithmetic alone, the same on every platform and in
//! every version, which no crate of random numbers promises of its samplers.
//!
//! A stream is keyed by numbers such as `(seed, epoch, image id)`. Threads, ranks and resume
//! therefore cannot change a draw.

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

    /// Uniform in `[low, high)`.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in `0..bound`; `bound` must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // Multiply-shift: bias under 2^-32 for any bound that a data set has.
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Standard normal (Box–Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Shuffles in place (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_its_key_alone() {
        let draw = |purpose: &str, key: &[u64]| KeyedRng::new(purpose, key).next_u64();
        assert_eq!(draw("flip", &[1, 2, 3]), draw("flip", &[1, 2, 3]));
        assert_ne!(draw("flip", &[1, 2, 3]), draw("flip", &[1, 3, 2]));
        assert_ne!(draw("flip", &[1, 2, 3]), draw("crop", &[1, 2, 3]));
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        let mut rng = KeyedRng::new("moments", &[7]);
        let n = 20_000;
        let draws: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mean = draws.iter().sum::<f64>() / f64::from(n);
        let var = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
        // Five standard errors: 5/sqrt(n) and 5*sqrt(2/n).
        assert!(
            mean.abs() < 0.036 && (var - 1.0).abs() < 0.05,
            "{mean} {var}"
        );
    }

    #[test]
    fn shuffle_is_a_permutation() {
        let mut items: Vec<usize> = (0..100).collect();
        KeyedRng::new("shuffle", &[0]).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
