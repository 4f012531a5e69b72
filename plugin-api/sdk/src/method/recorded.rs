//! Operations of our own in a recording.

use burn::backend::{Capture, DispatchDevice};
use burn::tensor::{Shape, Tensor};
use burn_backend::tensor::FloatTensor;
use burn_router::{RouterClient, RouterTensor};
use kd_graph::DType;
use kd_graph::burn_ir::{CustomOpIr, OperationIr, ScalarIr, TensorIr};

/// Whether the tensor has no values, being recorded.
pub(super) fn is_recorded<const D: usize>(tensor: &Tensor<D>) -> bool {
    let device = tensor.device().without_autodiff();
    matches!(device.as_dispatch(), DispatchDevice::Capture(_))
}

/// Records an operation of [`kd_graph::ops`] with one result for each of `shapes`, f32.
pub(super) fn customs(
    id: &'static str,
    inputs: Vec<FloatTensor<Capture>>,
    scalars: Vec<ScalarIr>,
    shapes: Vec<Shape>,
) -> Vec<FloatTensor<Capture>> {
    let client = inputs[0].client.clone();
    let outputs: Vec<FloatTensor<Capture>> = shapes
        .into_iter()
        .map(|shape| {
            let id = client.create_empty_handle();
            RouterTensor::new(id, shape, DType::F32, client.clone())
        })
        .collect();
    let inputs: Vec<TensorIr> = inputs.into_iter().map(RouterTensor::into_ir).collect();
    let declared: Vec<TensorIr> = outputs
        .iter()
        .map(|output| {
            use burn::backend::TensorMetadata;
            TensorIr::uninit(output.id(), output.shape(), output.dtype())
        })
        .collect();
    let operation = CustomOpIr::with_scalars(id, &inputs, &declared, scalars);
    client.register_op(OperationIr::Custom(operation));
    outputs
}

/// [`customs`] with a number of results that is known.
pub(super) fn custom<const N: usize>(
    id: &'static str,
    inputs: Vec<FloatTensor<Capture>>,
    scalars: Vec<ScalarIr>,
    shapes: [Shape; N],
) -> [FloatTensor<Capture>; N] {
    let outputs = customs(id, inputs, scalars, shapes.to_vec());
    let Ok(outputs) = <[_; N]>::try_from(outputs) else {
        unreachable!("one result for each shape");
    };
    outputs
}
