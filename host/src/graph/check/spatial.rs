//! What convolutions and poolings have in common: windows over the last `N` dimensions.

use burn_std::Shape;

use super::Limits;
use super::rule::{Fault, MAX_PARAMETER, Rule, elements, ensure};

/// Windows over the last `N` dimensions of `[batch, channels, ...]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows<const N: usize> {
    pub(super) kernel: [usize; N],
    pub(super) stride: [usize; N],
    pub(super) padding: [(usize, usize); N],
    pub(super) dilation: [usize; N],
}

impl<const N: usize> Windows<N> {
    /// Parameters that any kernel takes, whatever it is laid over.
    pub(super) fn check_parameters(&self) -> Rule {
        let sized = |what, values: &[usize; N], least: usize| {
            let range = least..=MAX_PARAMETER;
            ensure(values.iter().all(|v| range.contains(v)), what, || {
                format!("is {values:?}, not within {range:?}")
            })
        };
        sized("kernel_size", &self.kernel, 1)?;
        sized("stride", &self.stride, 1)?;
        sized("dilation", &self.dilation, 1)?;
        sized("padding", &self.padding.map(|(before, _)| before), 0)?;
        sized("padding", &self.padding.map(|(_, after)| after), 0)
    }

    /// What a window covers in one dimension. The parameters have been checked.
    pub(super) fn reach(&self, dim: usize) -> usize {
        self.dilation[dim] * (self.kernel[dim] - 1) + 1
    }

    /// How many windows lie in the padded `extents`, which must hold one.
    pub(super) fn count(&self, extents: [usize; N]) -> Result<[usize; N], Fault> {
        self.check_parameters()?;
        let mut padded = extents;
        let mut counts = extents;
        for dim in 0..N {
            let (before, after) = self.padding[dim];
            padded[dim] += before + after;
            let reach = self.reach(dim);
            ensure(reach <= padded[dim], "kernel_size", || {
                format!("reaches over {reach} in dimension {dim} of {padded:?}, the padded extents")
            })?;
            counts[dim] = (padded[dim] - reach) / self.stride[dim] + 1;
        }
        Ok(counts)
    }
}

/// A workspace that a kernel takes has these extents.
pub(super) fn bounded(what: &'static str, extents: &[usize], limits: &Limits) -> Rule {
    let fits = elements(extents).is_some_and(|n| n <= limits.elements);
    ensure(fits, what, || {
        let limit = limits.elements;
        format!("makes a workspace of {extents:?}, the limit is {limit} elements")
    })
}

/// The last `N` extents of `[batch, channels, ...]`.
pub(super) fn spatial<const N: usize>(
    what: &'static str,
    shape: &Shape,
) -> Result<[usize; N], Fault> {
    match shape.as_slice() {
        [_, _, rest @ ..] => rest.try_into().ok(),
        _ => None,
    }
    .ok_or_else(|| Fault::Rank {
        what,
        found: shape.to_vec(),
        expected: N + 2,
    })
}
