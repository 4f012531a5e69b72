//! One recording: inputs, outputs and the operations between.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::{Autodiff, AutodiffBackend, Capture, Dispatch, DispatchDevice};
use burn::tensor::{BoolDType, Device, FloatDType, Int, IntDType, Tensor};
use burn_backend::TensorMetadata;
use burn_backend::ops::FloatTensorOps;
use burn_capture::{CaptureChannel, CaptureClient, CaptureDevice};
use burn_router::{RouterClient, RouterTensor, get_client};
use kd_abi::KdDType;
use kd_graph::burn_ir::{CustomOpIr, InitOperationIr, OperationIr, TensorIr, TensorStatus};
use kd_graph::{DType, Input, Output, Place, Program, Slot};

use super::{Leaf, refusal, tidy};
use crate::MethodError;

/// A tensor of a recording, without its tape.
pub(super) type Recorded = RouterTensor<CaptureClient>;
type Differentiable = Autodiff<Capture>;

/// Marks the end of the first part among the operations; never leaves this module.
const END_OF_FORWARD: &str = "end_of_forward";

/// Types of what a program makes by itself: the host's device prefers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Defaults {
    int: IntDType,
    bool: BoolDType,
}

impl Defaults {
    /// Where none matter.
    #[cfg(not(feature = "cpu"))]
    const ANY: Defaults = Defaults {
        int: IntDType::I32,
        bool: BoolDType::Native,
    };

    /// From the host's wishes.
    pub(super) fn new(int: KdDType, bool_bytes: u32) -> Result<Self, MethodError> {
        let int = match int {
            KdDType::I32 => IntDType::I32,
            KdDType::I64 => IntDType::I64,
            other => {
                return Err(MethodError::unsupported(format!(
                    "integers of type {other:?}; i32 and i64 are known"
                )));
            }
        };
        let bool = match bool_bytes {
            0 => BoolDType::Native,
            1 => BoolDType::U8,
            4 => BoolDType::U32,
            other => {
                return Err(MethodError::unsupported(format!(
                    "truth values of {other} bytes"
                )));
            }
        };
        Ok(Defaults { int, bool })
    }
}

/// Devices that no recording uses now. They are numbered with 16 bits, never freed, and take their
/// defaults once.
static IDLE: Mutex<Vec<(Defaults, CaptureDevice)>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<(Defaults, CaptureDevice)>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The recording that runs.
pub(super) struct Recorder {
    client: CaptureClient,
    int: DType,
    inputs: RefCell<Vec<Input>>,
    // Handles live until the scope is closed.
    outputs: Vec<(Place, Recorded)>,
    depends_on_call: bool,
    keeps_draws: bool,
}

/// Runs `body` on a recording device and throws the recording away.
#[cfg(not(feature = "cpu"))]
pub(super) fn discard<T>(
    body: impl FnOnce(&Device) -> Result<T, MethodError>,
) -> Result<T, MethodError> {
    let mut result = None;
    record(Defaults::ANY, |_, device| {
        result = Some(body(device)?);
        Ok(())
    })?;
    Ok(result.expect("the body ran"))
}

/// Records `body`: the program has the outputs it named and what they need.
pub(super) fn record(
    defaults: Defaults,
    body: impl FnOnce(&mut Recorder, &Device) -> Result<(), MethodError>,
) -> Result<Program, MethodError> {
    let (capture, is_fresh) = take_device(defaults);
    let mut result = Ok(());
    let mut recorded = None;
    let captured = capture.capture_scope(|scope| {
        if is_fresh {
            // Asks the scope's client what it can do, hence in here.
            burn_backend::set_default_dtypes::<Dispatch>(
                &DispatchDevice::Capture(capture),
                FloatDType::F32,
                defaults.int,
                defaults.bool,
            )
            .expect("a fresh device takes every type but quantised ones");
        }
        let mut recorder = Recorder {
            client: get_client::<CaptureChannel>(&capture),
            int: defaults.int.into(),
            inputs: RefCell::default(),
            outputs: Vec::new(),
            depends_on_call: false,
            keeps_draws: false,
        };
        let device = Device::new(DispatchDevice::autodiff(DispatchDevice::Capture(capture)));
        result = refusal::watched(|| body(&mut recorder, &device));
        let inputs: Vec<_> = recorder
            .inputs
            .borrow()
            .iter()
            .map(|i| i.tensor.id)
            .collect();
        // Outputs are kept apart, so that an input may be one and several places share a tensor.
        let done = scope.complete(inputs, []);
        recorded = Some(recorder);
        done
    });
    idle().push((defaults, capture));
    result?;
    let captured =
        captured.map_err(|error| MethodError::internal(format!("the recording: {error}")))?;
    let recorder = recorded.expect("the scope ran");
    let mut operations = captured.graph.operations;
    let is_end = |operation: &OperationIr| matches!(operation, OperationIr::Custom(custom) if custom.id == END_OF_FORWARD);
    let forward_len = match operations.iter().position(is_end) {
        Some(end) => {
            operations.remove(end);
            end
        }
        None => operations.len(),
    };
    let output = |(place, tensor): &(Place, Recorded)| Output {
        place: place.clone(),
        tensor: ir(tensor),
    };
    let mut program = Program {
        inputs: recorder.inputs.take(),
        constants: Vec::new(),
        operations,
        forward_len: forward_len as u64,
        outputs: recorder.outputs.iter().map(output).collect(),
        depends_on_call: recorder.depends_on_call,
        data: Vec::new(),
    };
    tidy::tidy(&mut program, &captured.values, recorder.keeps_draws);
    Ok(program)
}

fn take_device(defaults: Defaults) -> (CaptureDevice, bool) {
    let mut idle = idle();
    match idle.iter().position(|(known, _)| *known == defaults) {
        Some(at) => (idle.swap_remove(at).1, false),
        None => (CaptureDevice::default(), true),
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    fn input(&self, slot: Slot, shape: &[usize], dtype: DType) -> Recorded {
        if let Some(known) = self.known(slot) {
            return known;
        }
        let tensor = TensorIr {
            id: self.client.create_empty_handle(),
            shape: shape.to_vec().into(),
            status: TensorStatus::ReadOnly,
            dtype,
        };
        let recorded = self.handle(&tensor);
        // An input that nothing reads would be unknown to the scope.
        self.client.register_op(OperationIr::Init(InitOperationIr {
            out: tensor.clone(),
        }));
        self.inputs.borrow_mut().push(Input { slot, tensor });
        recorded
    }

    /// A slot asked for again is the same tensor.
    fn known(&self, slot: Slot) -> Option<Recorded> {
        let inputs = self.inputs.borrow();
        let input = inputs.iter().find(|input| input.slot == slot)?;
        Some(self.handle(&input.tensor))
    }

    fn handle(&self, tensor: &TensorIr) -> Recorded {
        let (shape, client) = (tensor.shape.clone(), self.client.clone());
        RouterTensor::new(tensor.id, shape, tensor.dtype, client)
    }

    /// An input that wants a gradient.
    pub(super) fn leaf<const D: usize>(&self, slot: Slot, shape: [usize; D]) -> (Tensor<D>, Leaf) {
        let tensor = self.buffer(slot, shape).require_grad();
        let leaf = tensor
            .clone()
            .try_into_primitive::<Differentiable>()
            .expect("it was made of such a primitive");
        (tensor, leaf)
    }

    /// An input that wants none, on the device with autodiff.
    pub(super) fn buffer<const D: usize>(&self, slot: Slot, shape: [usize; D]) -> Tensor<D> {
        let recorded = self.input(slot, &shape, DType::F32);
        Tensor::from_primitive::<Differentiable>(Differentiable::from_inner(recorded))
    }

    /// An input that wants none, on the device without autodiff.
    pub(super) fn constant<const D: usize>(&self, slot: Slot, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_primitive::<Capture>(self.input(slot, &shape, DType::F32))
    }

    /// Integers in the host's type.
    pub(super) fn integers<const D: usize>(&self, slot: Slot, shape: [usize; D]) -> Tensor<D, Int> {
        Tensor::from_primitive::<Capture>(self.input(slot, &shape, self.int))
    }

    /// Names a result.
    pub(super) fn output(&mut self, place: Place, value: Recorded) {
        self.outputs.push((place, value));
    }

    /// Everything from here on belongs to the second part.
    pub(super) fn end_of_forward(&self) {
        let end = CustomOpIr::new(END_OF_FORWARD, &[], &[]);
        self.client.register_op(OperationIr::Custom(end));
    }

    /// Records the gradients of `total` at `leaves`, as far as it depends on them.
    pub(super) fn gradients(
        &mut self,
        total: Tensor<1>,
        leaves: Vec<(Place, Leaf)>,
    ) -> Result<(), MethodError> {
        let total = total
            .try_into_primitive::<Differentiable>()
            .map_err(|_| MethodError::internal("a loss left the device it was given"))?;
        let gradients = Differentiable::backward(total);
        for (place, leaf) in leaves {
            if let Some(gradient) = Differentiable::grad(&leaf, &gradients) {
                self.output(place, gradient);
            }
        }
        Ok(())
    }

    /// The program holds for this call alone.
    pub(super) fn set_depends_on_call(&mut self, depends: bool) {
        self.depends_on_call = depends;
    }

    /// Random draws stay even where nobody reads them: each moves the generator on.
    pub(super) fn keep_draws(&mut self) {
        self.keeps_draws = true;
    }
}

/// The tensor without its tape.
pub(super) fn primitive<const D: usize>(tensor: &Tensor<D>) -> Result<Recorded, MethodError> {
    if let Ok(differentiable) = tensor.clone().try_into_primitive::<Differentiable>() {
        return Ok(differentiable.primitive().clone());
    }
    tensor.clone().try_into_primitive::<Capture>().map_err(|_| {
        MethodError::internal("an output is on a device of its own; use `inputs.device()`")
    })
}

/// A flat value in the shape of its buffer.
pub(super) fn reshaped(value: &Tensor<1>, shape: &[usize]) -> Result<Recorded, MethodError> {
    Ok(Capture::float_reshape(
        primitive(value)?,
        shape.to_vec().into(),
    ))
}

fn ir(tensor: &Recorded) -> TensorIr {
    TensorIr {
        id: tensor.id(),
        shape: tensor.shape(),
        status: TensorStatus::ReadOnly,
        dtype: tensor.dtype(),
    }
}
