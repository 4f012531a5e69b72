//! The host's convolution as an operation of the tape: recorded into a program, or asked of the host of
//! the running call (`kd.conv/1`).

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Capture, Dispatch, backend_extension};
use burn::tensor::{Shape, Tensor};
use kd_graph::ops::{CONV2D, CONV2D_BACKWARD, Packing};

use super::packed::MapSize;
use super::recorded::{self, is_recorded};

/// A convolution of stride 1 that keeps the size of its maps.
#[derive(Clone, Debug)]
pub(crate) struct Conv {
    pub(crate) sizes: Arc<[MapSize]>,
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) kernel: usize,
    pub(crate) relu: bool,
}

/// Whether these tensors are recorded, or the host of the running call can take them: f32 on the CPU
/// backend.
pub(super) fn applies(x: &Tensor<2>, weight: &Tensor<4>, bias: &Tensor<1>) -> bool {
    if is_recorded(x) {
        return true;
    }
    #[cfg(feature = "cpu")]
    {
        use super::flex::is_f32_on_cpu;
        use burn::tensor::DType;
        super::host_conv::HostConv::current().is_some()
            && is_f32_on_cpu(x)
            && [weight.dtype(), bias.dtype()] == [DType::F32; 2]
    }
    #[cfg(not(feature = "cpu"))]
    {
        let _ = (weight, bias);
        false
    }
}

/// `relu?(x ⋆ weight + bias)`, where it [`applies`]; differentiable in all three.
///
/// # Shapes
/// - `x`: `[cells, C_in]`; `weight`: `[C_out, C_in, k, k]`; `bias`: `[C_out]`
/// - result: `[cells, C_out]`
pub(super) fn conv2d(x: Tensor<2>, weight: Tensor<4>, bias: Tensor<1>, conv: Conv) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as HostConvOps>::host_conv2d(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        conv,
    ))
}

/// The operation as the tape sees it.
#[backend_extension(Flex: cfg(feature = "cpu"), Capture, Autodiff)]
pub(crate) trait HostConvOps: Backend {
    fn host_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: Conv,
    ) -> FloatTensor<Self>;
}

/// What the backward pass needs.
#[derive(Debug)]
pub(crate) struct Saved<B: Backend> {
    pub(super) x: FloatTensor<B>,
    pub(super) weight: FloatTensor<B>,
    /// The output, where ReLU was applied.
    pub(super) y: Option<FloatTensor<B>>,
    pub(super) conv: Conv,
}

impl<B: Backend> Clone for Saved<B> {
    fn clone(&self) -> Self {
        Saved {
            x: self.x.clone(),
            weight: self.weight.clone(),
            y: self.y.clone(),
            conv: self.conv.clone(),
        }
    }
}

/// Forward and gradients on plain tensors.
pub(crate) trait HostConvKernels: Backend {
    fn forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: &Conv,
    ) -> FloatTensor<Self>;

    /// Gradients at `x`, weight and bias, as far as they are wanted.
    fn backward(
        saved: Saved<Self>,
        gradient: FloatTensor<Self>,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3];
}

impl HostConvOps for Capture {
    fn host_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: Conv,
    ) -> FloatTensor<Self> {
        <Self as HostConvKernels>::forward(x, weight, bias, &conv)
    }
}

impl<B: Backend + HostConvOps + HostConvKernels, C: CheckpointStrategy> HostConvOps
    for Autodiff<B, C>
{
    fn host_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: Conv,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let y = B::forward(x.clone(), weight.clone(), bias.into_primitive(), &conv);
        let saved = Saved {
            x,
            weight,
            y: conv.relu.then(|| y.clone()),
            conv,
        };
        match ConvBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(saved, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

#[derive(Debug)]
struct ConvBackward;

impl<B: Backend + HostConvKernels> Backward<B, 3> for ConvBackward {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Saved<B>, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let gradients = B::backward(ops.state, gradient, wanted);
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl Conv {
    fn scalars<const N: usize>(&self, options: [i64; N]) -> Packing<N> {
        let sizes = self.sizes.iter().map(|size| [size.n, size.h, size.w]);
        Packing {
            options,
            sizes: sizes.collect(),
        }
    }

    fn cells(&self) -> usize {
        self.sizes.iter().map(MapSize::cells).sum()
    }
}

impl HostConvKernels for Capture {
    fn forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        conv: &Conv,
    ) -> FloatTensor<Self> {
        let scalars = conv.scalars([i64::from(conv.relu)]).to_scalars();
        let y = Shape::from([conv.cells(), conv.c_out]);
        let [y] = recorded::custom(CONV2D, vec![x, weight, bias], scalars, [y]);
        y
    }

    fn backward(
        saved: Saved<Self>,
        gradient: FloatTensor<Self>,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        let Saved { x, weight, y, conv } = saved;
        let bits = (0..3).map(|bit| i64::from(wanted[bit]) << bit).sum();
        let scalars = conv.scalars([i64::from(conv.relu), bits]).to_scalars();
        let all = [
            Shape::from([conv.cells(), conv.c_in]),
            Shape::from([conv.c_out, conv.c_in, conv.kernel, conv.kernel]),
            Shape::from([conv.c_out]),
        ];
        let outputs = all.into_iter().zip(wanted).filter(|(_, wanted)| *wanted);
        let outputs = outputs.map(|(shape, _)| shape).collect();
        let inputs = [Some(x), Some(weight), y, Some(gradient)];
        let inputs = inputs.into_iter().flatten().collect();
        let mut gradients =
            recorded::customs(CONV2D_BACKWARD, inputs, scalars, outputs).into_iter();
        wanted.map(|wanted| if wanted { gradients.next() } else { None })
    }
}
