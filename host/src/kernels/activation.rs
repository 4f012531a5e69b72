//! What follows a normalisation: nothing, ReLU, or ReLU up to 6.

/// An activation, fused into the pass before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    None,
    /// `max(x, 0)`; the gradient at 0 is 0, as torch's.
    Relu,
    /// `min(max(x, 0), 6)` (arXiv 1801.04381); the gradient at 0 and at 6 is 0, as torch's.
    Relu6,
}

impl Activation {
    /// ReLU or nothing.
    #[must_use]
    pub fn relu_if(relu: bool) -> Self {
        if relu {
            Activation::Relu
        } else {
            Activation::None
        }
    }

    /// The largest result; without an upper end, infinity.
    #[must_use]
    pub fn bound(self) -> f32 {
        match self {
            Activation::None | Activation::Relu => f32::INFINITY,
            Activation::Relu6 => 6.0,
        }
    }
}
