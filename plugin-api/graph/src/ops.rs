//! Operations of this format that burn-ir does not have: `OperationIr::Custom` by id.
//!
//! They work on the maps of several levels packed as `[cells, C]`: level by level, image by image,
//! row by row. Their scalars are [`Packing`]: whole numbers. All tensors are f32.
//!
//! | id | inputs | outputs | scalars |
//! |---|---|---|---|
//! | [`CONV2D`] | x `[cells, C_in]`, weight `[C_out, C_in, k, k]`, bias `[C_out]` | y `[cells, C_out]` | relu; sizes |
//! | [`CONV2D_BACKWARD`] | x, weight, y (with relu alone), dy | those wanted of dx, dweight, dbias | relu, wanted; sizes |
//! | [`STANDARDIZE`] | x `[cells, C]` | y `[cells, C]` | scope, relu; sizes |
//! | [`STANDARDIZE_BACKWARD`] | x, dy | dx | scope, relu; sizes |
//!
//! `relu` is 0 or 1; `wanted` has bit 0 for dx, 1 for dweight, 2 for dbias; `scope` is
//! [`SCOPE_IMAGE`] or [`SCOPE_CHANNEL`]; sizes are n, h, w of each level.

use burn_ir::ScalarIr;

/// Convolution of stride 1 that keeps the size ("same" padding with zeros), then ReLU if asked for.
pub const CONV2D: &str = "kd.conv2d";
/// Gradients of `sum(dy * y)` of [`CONV2D`].
pub const CONV2D_BACKWARD: &str = "kd.conv2d_backward";
/// Mean 0 and variance 1 (biased, ε = 1e-5) over what the scope says, then ReLU if asked for.
pub const STANDARDIZE: &str = "kd.standardize";
/// Gradient of `sum(dy * y)` of [`STANDARDIZE`].
pub const STANDARDIZE_BACKWARD: &str = "kd.standardize_backward";

/// Mean and variance over channels and cells of each map of each image.
pub const SCOPE_IMAGE: i64 = 0;
/// Mean and variance over the cells of each channel of each map of each image.
pub const SCOPE_CHANNEL: i64 = 1;

/// Scalars of an operation: `N` options, then the extents of each level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing<const N: usize> {
    /// As the operation lists them.
    pub options: [i64; N],
    /// `[n, h, w]` of each level.
    pub sizes: Vec<[usize; 3]>,
}

impl<const N: usize> Packing<N> {
    /// As an operation carries them.
    #[must_use]
    pub fn to_scalars(&self) -> Vec<ScalarIr> {
        let extents = self.sizes.iter().flatten().map(|&extent| extent as i64);
        (self.options.iter().copied().chain(extents))
            .map(ScalarIr::Int)
            .collect()
    }

    /// Back from an operation; `None` if these are not `N` options and whole levels without
    /// negative extents.
    #[must_use]
    pub fn from_scalars(scalars: &[ScalarIr]) -> Option<Self> {
        let values: Vec<i64> = scalars
            .iter()
            .map(|scalar| match scalar {
                ScalarIr::Int(value) => Some(*value),
                _ => None,
            })
            .collect::<Option<_>>()?;
        let (options, extents) = values.split_first_chunk::<N>()?;
        let (levels, []) = extents.as_chunks::<3>() else {
            return None;
        };
        let extent = |&value: &i64| usize::try_from(value).ok();
        let sizes = levels
            .iter()
            .map(|[n, h, w]| Some([extent(n)?, extent(h)?, extent(w)?]))
            .collect::<Option<_>>()?;
        Some(Packing {
            options: *options,
            sizes,
        })
    }
}
