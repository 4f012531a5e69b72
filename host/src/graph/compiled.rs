//! A program made ready for a device, and run there.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::backend::DispatchDevice;
use burn::tensor::{Device, Int, Tensor};
use kd_graph::burn_ir::{HandleKind, OperationIr};
use kd_graph::{BoolStore, DType, Executable, Place, Program, Slot};

use super::backend::GraphBackend;
use super::check::op_name;
use super::quiet;

/// What the program is given for a slot, on its device.
#[derive(Debug)]
pub enum Input {
    /// A map or its gradient, `[N, C, H, W]`.
    Map(Tensor<4>),
    /// Floats, flat, and their extents.
    Floats(Tensor<1>, Vec<usize>),
    /// Integers in the device's type, flat, and their extents.
    Ints(Tensor<1, Int>, Vec<usize>),
}

/// What the program gives for a place, on its device.
#[derive(Debug)]
pub enum Value {
    /// A map or the gradient at a tap, `[N, C, H, W]`.
    Map(Tensor<4>),
    /// Everything else, flat.
    Floats(Tensor<1>),
}

/// Why a program could not be executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct Failure {
    /// The operation with the shapes it reads and writes.
    pub operation: String,
    /// What the backend says.
    pub message: String,
}

/// A program on a device. After a failure it must be dropped.
pub trait Compiled: Send {
    /// Runs the first part.
    ///
    /// # Errors
    /// If the device cannot execute an operation.
    fn forward(
        &mut self,
        bind: &mut dyn FnMut(Slot) -> Input,
    ) -> Result<Vec<(Place, Value)>, Failure>;

    /// Runs the second part, once after the first.
    ///
    /// # Errors
    /// As [`Self::forward`].
    fn backward(
        &mut self,
        bind: &mut dyn FnMut(Slot) -> Input,
    ) -> Result<Vec<(Place, Value)>, Failure>;

    /// Frees what a first part left for a second that will not come.
    fn abandon(&mut self);
}

/// Makes a checked program ready.
///
/// # Errors
/// If the device cannot hold its constants.
///
/// # Panics
/// If the device is not one that this host computes on.
pub fn compile(program: &Program, device: &Device) -> Result<Box<dyn Compiled>, Failure> {
    match device.as_dispatch() {
        DispatchDevice::Flex(device) => make::<burn::backend::Flex>(program, *device),
        #[cfg(feature = "cuda")]
        DispatchDevice::Cube(device) => make::<burn::backend::Cube>(program, device.clone()),
        other => panic!("no programs on {other:?}"),
    }
}

/// Types that a device prefers: of integers, and bytes of a truth value (0: native).
#[must_use]
pub fn preferred_types(device: &Device) -> (DType, u32) {
    let settings = device.settings();
    let bool_bytes = match DType::from(settings.bool_dtype) {
        DType::Bool(BoolStore::Native) => 0,
        DType::Bool(BoolStore::U8) => 1,
        _ => 4,
    };
    (settings.int_dtype.into(), bool_bytes)
}

fn make<B: GraphBackend>(program: &Program, device: B::Device) -> Result<Box<dyn Compiled>, Failure>
where
    burn::backend::DispatchTensor: burn::backend::DispatchKindConversion<B>,
{
    let upload = || Executable::<B>::new(program, device, Box::new(B::take));
    match quiet::run(|| catch_unwind(AssertUnwindSafe(upload))) {
        Ok(executable) => Ok(Box::new(executable)),
        Err(panic) => Err(Failure {
            operation: "upload of constants".to_owned(),
            message: quiet::message(panic),
        }),
    }
}

impl<B: GraphBackend> Compiled for Executable<B>
where
    burn::backend::DispatchTensor: burn::backend::DispatchKindConversion<B>,
{
    fn forward(
        &mut self,
        bind: &mut dyn FnMut(Slot) -> Input,
    ) -> Result<Vec<(Place, Value)>, Failure> {
        let inputs = self.forward_slots().map(|slot| handle::<B>(bind(slot)));
        let inputs = inputs.collect();
        let results = run(self, |executable| executable.forward(inputs))?;
        Ok(results.into_iter().map(value::<B>).collect())
    }

    fn backward(
        &mut self,
        bind: &mut dyn FnMut(Slot) -> Input,
    ) -> Result<Vec<(Place, Value)>, Failure> {
        let inputs = self.backward_slots().map(|slot| handle::<B>(bind(slot)));
        let inputs = inputs.collect();
        let results = run(self, |executable| executable.backward(inputs))?;
        Ok(results.into_iter().map(value::<B>).collect())
    }

    fn abandon(&mut self) {
        Executable::abandon(self);
    }
}

/// Runs a part; a panic of the backend becomes a failure that names the operation.
fn run<B: GraphBackend, T: Send>(
    executable: &mut Executable<B>,
    part: impl FnOnce(&mut Executable<B>) -> T + Send,
) -> Result<T, Failure> {
    let placed = || match B::ON_POOL {
        true => rayon::scope(|_| part(executable)),
        false => part(executable),
    };
    let result = quiet::run(|| catch_unwind(AssertUnwindSafe(placed)));
    result.map_err(|panic| Failure {
        operation: executable
            .operation()
            .map_or_else(|| "binding".to_owned(), describe),
        message: quiet::message(panic),
    })
}

/// Name and extents of an operation.
fn describe(operation: &OperationIr) -> String {
    let shapes = |tensors: &mut dyn Iterator<Item = &kd_graph::burn_ir::TensorIr>| {
        let shapes: Vec<String> = tensors
            .map(|tensor| format!("{:?}", tensor.shape))
            .collect();
        shapes.join(", ")
    };
    format!(
        "{} ({}) -> {}",
        op_name(operation),
        shapes(&mut operation.inputs()),
        shapes(&mut operation.outputs())
    )
}

fn handle<B: GraphBackend>(input: Input) -> HandleKind<B>
where
    burn::backend::DispatchTensor: burn::backend::DispatchKindConversion<B>,
{
    const HERE: &str = "inputs are on the program's device";
    match input {
        Input::Map(map) => HandleKind::Float(map.try_into_primitive::<B>().expect(HERE)),
        Input::Floats(values, shape) => {
            let values = values.try_into_primitive::<B>().expect(HERE);
            HandleKind::Float(B::float_reshape(values, shape.into()))
        }
        Input::Ints(values, shape) => {
            let values = values.try_into_primitive::<B>().expect(HERE);
            HandleKind::Int(B::int_reshape(values, shape.into()))
        }
    }
}

fn value<B: GraphBackend>((place, handle): (Place, HandleKind<B>)) -> (Place, Value)
where
    burn::backend::DispatchTensor: burn::backend::DispatchKindConversion<B>,
{
    let HandleKind::Float(tensor) = handle else {
        unreachable!("a checked program gives floats alone");
    };
    let value = match place {
        Place::Map(_) | Place::DTap(_) => Value::Map(Tensor::from_primitive::<B>(tensor)),
        _ => {
            use burn::backend::TensorMetadata;
            let len = tensor.shape().num_elements();
            Value::Floats(Tensor::from_primitive::<B>(B::float_reshape(
                tensor,
                [len].into(),
            )))
        }
    };
    (place, value)
}
