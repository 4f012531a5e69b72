//! A module's values and gradients in the host's memory.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::import;
use crate::method::state::Source;
use crate::{MethodError, TensorView, TensorViewMut};

fn changed() -> MethodError {
    MethodError::internal("the module changed after the plan")
}

/// The host's values: parameters as views, buffers as copies, since they are overwritten at the end
/// of a forward.
pub(super) struct Lent<'a, 'b> {
    pub(super) params: std::slice::Iter<'a, TensorView<'b>>,
    pub(super) buffers: std::slice::Iter<'a, TensorViewMut<'b>>,
    pub(super) device: &'a Device,
    pub(super) loan: &'a import::Loan,
}

impl Source for Lent<'_, '_> {
    fn param<const D: usize>(&mut self) -> Result<Tensor<D>, MethodError> {
        let view = self.params.next().ok_or_else(changed)?;
        Ok(import::borrow::<D>(view, self.device, self.loan)?.require_grad())
    }

    fn buffer<const D: usize>(&mut self) -> Result<Tensor<D>, MethodError> {
        let view = self.buffers.next().ok_or_else(changed)?;
        let shape = <[usize; D]>::try_from(view.shape())
            .map_err(|_| MethodError::shape(format!("buffer of shape {:?}", view.shape())))?;
        Ok(Tensor::from_data(
            TensorData::new(view.to_vec(), shape),
            self.device,
        ))
    }
}

/// Writes the module's values into the host's memory.
pub(super) fn export<M: Module>(
    module: &M,
    params: &mut [TensorViewMut<'_>],
    buffers: &mut [TensorViewMut<'_>],
) -> Result<(), MethodError> {
    let mut visitor = ExportVisitor {
        params: params.iter_mut(),
        buffers: buffers.iter_mut(),
        result: Ok(()),
    };
    module.visit(&mut visitor);
    visitor.result
}

struct ExportVisitor<'a, 'p, 'b> {
    params: std::slice::IterMut<'a, TensorViewMut<'p>>,
    buffers: std::slice::IterMut<'a, TensorViewMut<'b>>,
    result: Result<(), MethodError>,
}

impl ModuleVisitor for ExportVisitor<'_, '_, '_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.result.is_err() {
            return;
        }
        let value = param.val();
        let learned = value.is_require_grad();
        self.result = import::values(value.inner()).and_then(|values| {
            if learned {
                self.params.next().ok_or_else(changed)?.write(&values)
            } else {
                self.buffers.next().ok_or_else(changed)?.write(&values)
            }
        });
    }
}

/// Writes the parameters' gradients; zero where the loss does not reach.
pub(super) fn gradients<M: Module>(
    module: &M,
    gradients: Option<&mut burn::tensor::Gradients>,
    d_params: &mut [TensorViewMut<'_>],
) -> Result<(), MethodError> {
    let mut visitor = GradientVisitor {
        gradients,
        d_params: d_params.iter_mut(),
        result: Ok(()),
    };
    module.visit(&mut visitor);
    visitor.result
}

struct GradientVisitor<'a, 'b> {
    gradients: Option<&'a mut burn::tensor::Gradients>,
    d_params: std::slice::IterMut<'a, TensorViewMut<'b>>,
    result: Result<(), MethodError>,
}

impl ModuleVisitor for GradientVisitor<'_, '_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        if self.result.is_err() || !value.is_require_grad() {
            return;
        }
        let Some(place) = self.d_params.next() else {
            self.result = Err(changed());
            return;
        };
        let gradient = self
            .gradients
            .as_mut()
            .and_then(|all| value.grad_remove(all));
        self.result = write_gradient(gradient, place);
    }
}

/// Writes a gradient, or zero if there is none.
pub(super) fn write_gradient<const D: usize>(
    gradient: Option<Tensor<D>>,
    place: &mut TensorViewMut<'_>,
) -> Result<(), MethodError> {
    match gradient {
        Some(gradient) if place.is_wanted() => {
            let data = gradient.into_data();
            let values = data
                .as_slice::<f32>()
                .map_err(|error| MethodError::dtype(format!("expected f32: {error:?}")))?;
            place.write(values)
        }
        _ => place.write_zero(),
    }
}
