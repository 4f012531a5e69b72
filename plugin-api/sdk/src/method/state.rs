//! Parameters and buffers of a Burn module by path.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Int, Tensor};

use super::import;
use crate::raw::{ParamKind, StateSpec};
use crate::{MethodError, TensorView, TensorViewMut};

/// A module's state in visiting order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Learned.
    pub(crate) params: Vec<StateSpec>,
    /// Not learned.
    pub(crate) buffers: Vec<StateSpec>,
}

/// Lists the state and draws every initial value, so that the order of draws is the module's.
pub(crate) fn layout<M: Module>(module: &M) -> Result<Layout, MethodError> {
    let mut visitor = LayoutVisitor::default();
    module.visit(&mut visitor);
    match visitor.refused {
        Some(name) => Err(MethodError::unsupported(format!(
            "`{name}` is an integer or bool parameter; declare float parameters alone"
        ))),
        None => Ok(visitor.layout),
    }
}

#[derive(Default)]
struct LayoutVisitor {
    path: Vec<String>,
    layout: Layout,
    refused: Option<String>,
}

impl ModuleVisitor for LayoutVisitor {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let name = self.path.join(".");
        let spec = StateSpec {
            kind: kind(&name, D),
            name,
            shape: value.dims().to_vec(),
        };
        if value.is_require_grad() {
            self.layout.params.push(spec);
        } else {
            self.layout.buffers.push(spec);
        }
    }

    fn visit_int<const D: usize>(&mut self, _: &Param<Tensor<D, Int>>) {
        self.refused = Some(self.path.join("."));
    }

    fn visit_bool<const D: usize>(&mut self, _: &Param<Tensor<D, Bool>>) {
        self.refused = Some(self.path.join("."));
    }
}

fn kind(name: &str, rank: usize) -> ParamKind {
    let last = name.rsplit('.').next().unwrap_or(name);
    match last {
        "bias" => ParamKind::Bias,
        "beta" | "gamma" => ParamKind::Norm,
        _ if rank < 2 => ParamKind::Bias,
        _ => ParamKind::Weight,
    }
}

/// Writes the module's values into the host's memory.
pub(crate) fn export<M: Module>(
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
            let changed = || MethodError::internal("the module changed after the plan");
            if learned {
                self.params.next().ok_or_else(changed)?.write(&values)
            } else {
                self.buffers.next().ok_or_else(changed)?.write(&values)
            }
        });
    }
}

/// The module with the host's values: parameters as leaves, buffers as constants.
pub(crate) fn load<M: Module>(
    module: M,
    params: &[TensorView<'_>],
    buffers: &[TensorViewMut<'_>],
    device: &Device,
    loan: &import::Loan,
) -> Result<M, MethodError> {
    let mut mapper = LoadMapper {
        loan,
        params: params.iter(),
        buffers: buffers.iter(),
        device,
        result: Ok(()),
    };
    let module = module.map(&mut mapper);
    mapper.result.map(|()| module)
}

struct LoadMapper<'a, 'b> {
    params: std::slice::Iter<'a, TensorView<'b>>,
    buffers: std::slice::Iter<'a, TensorViewMut<'b>>,
    device: &'a Device,
    loan: &'a import::Loan,
    result: Result<(), MethodError>,
}

impl LoadMapper<'_, '_> {
    fn next<const D: usize>(&mut self, learned: bool) -> Result<Tensor<D>, MethodError> {
        let end = || MethodError::internal("the module changed after the plan");
        if learned {
            let view = self.params.next().ok_or_else(end)?;
            return Ok(import::borrow::<D>(view, self.device, self.loan)?.require_grad());
        }
        // A buffer is overwritten at the end of this forward, so the graph gets a copy.
        let view = self.buffers.next().ok_or_else(end)?;
        let shape = <[usize; D]>::try_from(view.shape())
            .map_err(|_| MethodError::shape(format!("buffer of shape {:?}", view.shape())))?;
        let data = burn::tensor::TensorData::new(view.to_vec(), shape);
        Ok(Tensor::from_data(data, self.device))
    }
}

impl ModuleMapper for LoadMapper<'_, '_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, old, mapper) = param.consume();
        let value = match self.next(old.is_require_grad()) {
            Ok(value) => value,
            Err(error) => {
                if self.result.is_ok() {
                    self.result = Err(error);
                }
                old
            }
        };
        Param::from_mapped_value(id, value, mapper)
    }
}

/// Writes the parameters' gradients; zero where the loss does not reach.
pub(crate) fn gradients<M: Module>(
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
            self.result = Err(MethodError::internal("the module changed after the plan"));
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
pub(crate) fn write_gradient<const D: usize>(
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
