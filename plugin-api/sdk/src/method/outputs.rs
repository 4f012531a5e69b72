//! What `forward` returns.

use burn::tensor::Tensor;

/// Losses, maps, statistics and new buffer values of one forward.
#[derive(Debug, Default)]
pub struct Outputs {
    pub(crate) losses: Vec<(String, Tensor<1>)>,
    pub(crate) maps: Vec<(String, Tensor<4>)>,
    pub(crate) metrics: Vec<(String, Tensor<1>)>,
    pub(crate) buffers: Vec<(String, Vec<usize>, Tensor<1>)>,
}

impl Outputs {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Outputs::default()
    }

    /// A loss that the plan declared: shape `[1]`, before its weight.
    #[must_use]
    pub fn loss(mut self, name: &str, value: Tensor<1>) -> Self {
        self.losses.push((name.to_owned(), value));
        self
    }

    /// A map that the plan declared: the shape of the tap that it replaces.
    #[must_use]
    pub fn map(mut self, name: &str, value: Tensor<4>) -> Self {
        self.maps.push((name.to_owned(), value));
        self
    }

    /// A statistic from the method's `METRICS`: shape `[1]`, no gradient.
    #[must_use]
    pub fn metric(mut self, name: &str, value: Tensor<1>) -> Self {
        self.metrics.push((name.to_owned(), value));
        self
    }

    /// The new value of a buffer, by its path in the module. No gradient.
    #[must_use]
    pub fn buffer<const D: usize>(mut self, path: &str, value: Tensor<D>) -> Self {
        let shape = value.dims().to_vec();
        self.buffers
            .push((path.to_owned(), shape, value.flatten(0, D - 1)));
        self
    }
}
