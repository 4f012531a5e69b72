//! Runs a method in-process, through the same C tables that a host uses, behind a fake host.
//!
//! ```text
//! let mut bench = Bench::new::<Ssim>(config, taps)?;   // create, plan, init_state
//! bench.fill(7);                                        // random tensors of a seed
//! let out = bench.forward()?;                           // losses, maps, metrics
//! let grads = bench.backward(&out, &[1.0], &[])?;       // d_taps, d_params
//! gradcheck::check(&mut bench, &gradcheck::Options::default())?;
//! ```
//!
//! [`gradcheck`] compares every gradient with finite differences and tests the contract: zero in,
//! zero out; accumulation; determinism. [`golden`] reads reference numbers. `traced` compares a
//! method over Burn tensors with its program, to the bit; [`golden::replay`] does so for every case.

mod bench;
mod conv;
pub mod golden;
pub mod gradcheck;
mod host;
mod lend;
#[cfg(feature = "cpu")]
mod own_ops;
mod step;
#[cfg(feature = "cpu")]
pub mod traced;

pub use bench::{Bench, Run, TapShape};
pub use host::HostLog;
pub use step::{Forwarded, Gradients};

use std::fmt;

use kd_abi::KdStatus;

/// An entry of the method returned something else than OK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryError {
    /// Which entry.
    pub entry: &'static str,
    /// What it returned.
    pub status: KdStatus,
    /// What it told the host.
    pub message: String,
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` returned {}: {}",
            self.entry, self.status, self.message
        )
    }
}

impl std::error::Error for EntryError {}

/// A generator for test values: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Approximately normal: the sum of twelve uniforms, minus six.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// Below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// `len` normal values.
    pub fn normals(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.normal() as f32).collect()
    }
}

/// `‖got − expected‖ / ‖expected‖`, in f64; the numerator alone if the reference is zero.
#[must_use]
pub fn relative_error(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len(), "lengths differ");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let distance = norm(&mut got.iter().zip(expected).map(|(g, e)| f64::from(*g) - e));
    let reference = norm(&mut expected.iter().copied());
    if reference == 0.0 {
        distance
    } else {
        distance / reference
    }
}
