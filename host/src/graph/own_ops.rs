//! The operations of [`kd_graph::ops`]: from a program's words to calls.

#[cfg(any(test, feature = "cuda"))]
mod composed;
mod kernels;
#[cfg(test)]
mod tests;

#[cfg(feature = "cuda")]
pub(super) use composed::Composed;
pub(super) use kernels::Kernels;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use kd_graph::burn_ir::CustomOpIr;
use kd_graph::ops::{CONV2D, CONV2D_BACKWARD, Packing, STANDARDIZE, STANDARDIZE_BACKWARD};
use kd_graph::standardize::{Norm, Scope};

/// A convolution of the packed maps of several levels: stride 1, "same" padding with zeros.
#[derive(Clone, Debug)]
pub(crate) struct PackedConv {
    /// `[n, h, w]` of each level.
    pub(crate) sizes: Vec<[usize; 3]>,
    /// Height and width; odd.
    pub(crate) kernel: usize,
    /// Whether ReLU follows.
    pub(crate) relu: bool,
}

/// One way to compute them.
pub(crate) trait OwnOps {
    /// Whose tensors these are.
    type Backend: Backend;

    /// `relu?(x ⋆ weight + bias)`; x `[cells, C_in]`, weight `[C_out, C_in, k, k]`, bias `[C_out]`.
    fn conv2d(
        conv: &PackedConv,
        x: FloatTensor<Self::Backend>,
        weight: FloatTensor<Self::Backend>,
        bias: FloatTensor<Self::Backend>,
    ) -> FloatTensor<Self::Backend>;

    /// Gradients at x, weight and bias, as far as they are wanted; `y` with ReLU alone.
    fn conv2d_backward(
        conv: &PackedConv,
        x: FloatTensor<Self::Backend>,
        weight: FloatTensor<Self::Backend>,
        y: Option<FloatTensor<Self::Backend>>,
        dy: FloatTensor<Self::Backend>,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self::Backend>>; 3];

    /// Mean 0 and variance 1; x `[cells, C]`.
    fn standardize(norm: &Norm, x: FloatTensor<Self::Backend>) -> FloatTensor<Self::Backend>;

    /// Its gradient at x.
    fn standardize_backward(
        norm: &Norm,
        x: FloatTensor<Self::Backend>,
        dy: FloatTensor<Self::Backend>,
    ) -> FloatTensor<Self::Backend>;
}

/// Runs an operation of a checked program.
///
/// # Panics
/// If the program was not checked.
pub(super) fn run<O: OwnOps>(
    custom: &CustomOpIr,
    inputs: Vec<FloatTensor<O::Backend>>,
) -> Vec<FloatTensor<O::Backend>> {
    let mut inputs = inputs.into_iter();
    let mut next = || inputs.next().expect("a checked program gives every input");
    match custom.id.as_str() {
        CONV2D => {
            let packing = packing::<1>(custom);
            let conv = conv(custom, packing.sizes, packing.options[0]);
            vec![O::conv2d(&conv, next(), next(), next())]
        }
        CONV2D_BACKWARD => {
            let packing = packing::<2>(custom);
            let [relu, wanted] = packing.options;
            let conv = conv(custom, packing.sizes, relu);
            let wanted = [0, 1, 2].map(|bit| wanted & (1 << bit) != 0);
            let (x, weight) = (next(), next());
            let y = conv.relu.then(&mut next);
            let gradients = O::conv2d_backward(&conv, x, weight, y, next(), wanted);
            gradients.into_iter().flatten().collect()
        }
        STANDARDIZE => vec![O::standardize(&norm(custom), next())],
        STANDARDIZE_BACKWARD => vec![O::standardize_backward(&norm(custom), next(), next())],
        other => unreachable!("a checked program has no `{other}`"),
    }
}

fn packing<const N: usize>(custom: &CustomOpIr) -> Packing<N> {
    Packing::from_scalars(&custom.scalars).expect("a checked program has its scalars")
}

fn conv(custom: &CustomOpIr, sizes: Vec<[usize; 3]>, relu: i64) -> PackedConv {
    PackedConv {
        sizes,
        kernel: custom.inputs[1].shape[2],
        relu: relu != 0,
    }
}

fn norm(custom: &CustomOpIr) -> Norm {
    let packing = packing::<2>(custom);
    let [scope, relu] = packing.options;
    Norm {
        sizes: packing.sizes,
        scope: Scope::from_scalar(scope).expect("a checked program has a known scope"),
        relu: relu != 0,
    }
}
