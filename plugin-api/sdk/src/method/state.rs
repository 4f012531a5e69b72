//! Parameters and buffers of a Burn module by path.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Int, Tensor};

use crate::MethodError;
use crate::raw::{ParamKind, StateSpec};

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

/// Where the values of a module come from, in visiting order.
pub(crate) trait Source {
    /// The next learned parameter: a leaf.
    fn param<const D: usize>(&mut self) -> Result<Tensor<D>, MethodError>;
    /// The next buffer: a constant.
    fn buffer<const D: usize>(&mut self) -> Result<Tensor<D>, MethodError>;
}

/// The module with the values of `source`.
pub(crate) fn load<M: Module>(module: M, source: &mut impl Source) -> Result<M, MethodError> {
    let mut mapper = LoadMapper {
        source,
        result: Ok(()),
    };
    let module = module.map(&mut mapper);
    mapper.result.map(|()| module)
}

struct LoadMapper<'a, S> {
    source: &'a mut S,
    result: Result<(), MethodError>,
}

impl<S: Source> ModuleMapper for LoadMapper<'_, S> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, old, mapper) = param.consume();
        let next = if old.is_require_grad() {
            self.source.param()
        } else {
            self.source.buffer()
        };
        let value = match next {
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
