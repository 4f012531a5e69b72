//! The host's convolution on the CPU backend.

use burn::backend::{Flex, TensorMetadata};
use burn_flex::FlexTensor;

use super::conv_op::{Conv, HostConvKernels, HostConvOps, Saved};
use super::flex::{contiguous, tensor, values};
use super::host_conv::{HostConv, Operands};

impl HostConvOps for Flex {
    fn host_conv2d(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, conv: Conv) -> FlexTensor {
        <Self as HostConvKernels>::forward(x, weight, bias, &conv)
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
