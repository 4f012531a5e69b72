//! [`STANDARDIZE`](crate::ops::STANDARDIZE) on slices: two passes forward, two backward.

use std::ops::Range;

use crate::ops::{SCOPE_CHANNEL, SCOPE_IMAGE};

/// torch's default.
pub const EPSILON: f64 = 1e-5;

/// What shares a mean and a variance, in each map of each image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Channels and cells: GroupNorm with one group.
    Image,
    /// Cells: InstanceNorm.
    Channel,
}

impl Scope {
    /// As an operation carries it.
    #[must_use]
    pub fn to_scalar(self) -> i64 {
        match self {
            Scope::Image => SCOPE_IMAGE,
            Scope::Channel => SCOPE_CHANNEL,
        }
    }

    /// Back from an operation.
    #[must_use]
    pub fn from_scalar(scalar: i64) -> Option<Self> {
        match scalar {
            SCOPE_IMAGE => Some(Scope::Image),
            SCOPE_CHANNEL => Some(Scope::Channel),
            _ => None,
        }
    }

    /// Turns sums over cells by channel into the mean that each channel has to use.
    fn share(self, sums: &mut [f64], cells: usize) {
        match self {
            Scope::Channel => sums.iter_mut().for_each(|sum| *sum /= cells as f64),
            Scope::Image => {
                let count = (cells * sums.len()) as f64;
                let mean = sums.iter().sum::<f64>() / count;
                sums.fill(mean);
            }
        }
    }
}

/// What is normalised, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Norm {
    /// `[n, h, w]` of each level.
    pub sizes: Vec<[usize; 3]>,
    /// What shares mean and variance.
    pub scope: Scope,
    /// Whether ReLU follows; the gradient at 0 is 0.
    pub relu: bool,
}

impl Norm {
    /// Rows of each map of each image.
    fn maps(&self) -> impl Iterator<Item = Range<usize>> {
        let mut start = 0;
        let cells = self
            .sizes
            .iter()
            .flat_map(|&[n, h, w]| std::iter::repeat_n(h * w, n));
        cells.map(move |cells| {
            start += cells;
            start - cells..start
        })
    }

    /// `y` for `x`, `[cells, channels]` both.
    ///
    /// # Panics
    /// If `x` has not one row for each cell.
    #[must_use]
    pub fn forward(&self, x: &[f32], channels: usize) -> Vec<f32> {
        let mut y = vec![0.0f32; x.len()];
        for rows in self.maps() {
            let range = rows.start * channels..rows.end * channels;
            let stats = Stats::of(&x[range.clone()], channels, self.scope);
            let rows = x[range.clone()].chunks_exact(channels);
            for (x, y) in rows.zip(y[range].chunks_exact_mut(channels)) {
                for (((y, &x), &mean), &scale) in
                    y.iter_mut().zip(x).zip(&stats.mean).zip(&stats.scale)
                {
                    *y = (x - mean) * scale;
                }
                if self.relu {
                    // NaN passes: it must show in the loss.
                    y.iter_mut()
                        .for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y });
                }
            }
        }
        y
    }

    /// `dx = scale (g − mean g − y mean (g y))`, `g` the gradient `dy` where ReLU let `y` pass.
    ///
    /// # Panics
    /// As [`Self::forward`], and if `dy` has other extents.
    #[must_use]
    pub fn backward(&self, x: &[f32], dy: &[f32], channels: usize) -> Vec<f32> {
        let mut out = vec![0.0f32; x.len()];
        for rows in self.maps() {
            let range = rows.start * channels..rows.end * channels;
            let (x, g) = (&x[range.clone()], &dy[range.clone()]);
            let dx = &mut out[range];
            let stats = Stats::of(x, channels, self.scope);
            let (mut sums, mut products) = (vec![0.0f64; channels], vec![0.0f64; channels]);
            let row = |rows: usize| rows * channels..(rows + 1) * channels;
            for r in 0..rows.len() {
                let (x, g, dx) = (&x[row(r)], &g[row(r)], &mut dx[row(r)]);
                for c in 0..channels {
                    let y = (x[c] - stats.mean[c]) * stats.scale[c];
                    let g = if self.relu && y <= 0.0 { 0.0 } else { g[c] };
                    dx[c] = g;
                    sums[c] += f64::from(g);
                    products[c] += f64::from(g * y);
                }
            }
            self.scope.share(&mut sums, rows.len());
            self.scope.share(&mut products, rows.len());
            let sums: Vec<f32> = sums.iter().map(|&v| v as f32).collect();
            let products: Vec<f32> = products.iter().map(|&v| v as f32).collect();
            for r in 0..rows.len() {
                let (x, dx) = (&x[row(r)], &mut dx[row(r)]);
                for c in 0..channels {
                    let y = (x[c] - stats.mean[c]) * stats.scale[c];
                    dx[c] = stats.scale[c] * (dx[c] - sums[c] - y * products[c]);
                }
            }
        }
        out
    }
}
/// Mean and `1 / sqrt(variance + ε)` for each channel of one map.
struct Stats {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl Stats {
    /// In two passes: a variance from sums of squares loses what it is after.
    fn of(x: &[f32], channels: usize, scope: Scope) -> Self {
        let cells = x.len() / channels;
        let mut mean = vec![0.0f64; channels];
        for row in x.chunks_exact(channels) {
            for (sum, &x) in mean.iter_mut().zip(row) {
                *sum += f64::from(x);
            }
        }
        scope.share(&mut mean, cells);
        let mut variance = vec![0.0f64; channels];
        for row in x.chunks_exact(channels) {
            for ((sum, &x), mean) in variance.iter_mut().zip(row).zip(&mean) {
                let centered = f64::from(x) - mean;
                *sum += centered * centered;
            }
        }
        scope.share(&mut variance, cells);
        Stats {
            mean: mean.iter().map(|&v| v as f32).collect(),
            scale: variance
                .iter()
                .map(|v| (1.0 / (v + EPSILON).sqrt()) as f32)
                .collect(),
        }
    }
}
