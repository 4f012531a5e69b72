//! The host's convolution as an operation of the tape.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::{DType, Tensor};
use burn_flex::FlexTensor;

use super::flex::{contiguous, is_f32_on_cpu, tensor, values};
use super::host_conv::{Conv, HostConv, Operands};

/// Whether the host of the running call can take these tensors: f32 on the CPU backend.
pub(super) fn applies(x: &Tensor<2>, weight: &Tensor<4>, bias: &Tensor<1>) -> bool {
    HostConv::current().is_some()
        && is_f32_on_cpu(x)
        && [weight.dtype(), bias.dtype()] == [DType::F32; 2]
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
#[backend_extension(Flex, Autodiff)]
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
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    /// The output, where ReLU was applied.
    y: Option<FloatTensor<B>>,
    conv: Conv,
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

impl HostConvOps for Flex {
    fn host_conv2d(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, conv: Conv) -> FlexTensor {
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

impl HostConvKernels for Flex {
    fn forward(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, conv: &Conv) -> FlexTensor {
        let host = HostConv::current().expect("the op was chosen because it is offered");
        let operands = [x, weight, bias].map(contiguous);
        let [x, weight, bias] = operands.each_ref().map(values);
        let y = host.forward(conv, x, weight, bias);
        tensor(y, &[x.len() / conv.c_in, conv.c_out])
    }

    fn backward(
        saved: Saved<Self>,
        gradient: FlexTensor,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let Some(host) = HostConv::current() else {
            panic!(
                "a convolution that the host computed is differentiated outside a call, or in one \
                 whose host does not offer `kd.conv/1`"
            );
        };
        let Saved { x, weight, y, conv } = saved;
        let y = y.map(contiguous);
        let [x, weight, gradient] = [x, weight, gradient].map(contiguous);
        let operands = Operands {
            x: values(&x),
            weight: values(&weight),
            y: y.as_ref().map(values),
            dy: values(&gradient),
        };
        let [dx, dweight, dbias] = host.backward(&conv, &operands, wanted);
        [
            dx.map(|dx| tensor(dx, &x.shape())),
            dweight.map(|dweight| tensor(dweight, &weight.shape())),
            dbias.map(|dbias| tensor(dbias, &[conv.c_out])),
        ]
    }
}
