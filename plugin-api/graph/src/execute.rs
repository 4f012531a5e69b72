//! Executes programs on a backend.

use burn_backend::TensorData;
use burn_ir::{BackendIr, HandleKind, OperationIr, TensorIr};
use burn_router::TensorInterpreter;
use burn_std::Bytes;

use crate::lifetimes::Schedule;
use crate::{Constant, Input, Output, Place, Program, Slot};

/// Takes an operation away from the backend: reads its inputs from the interpreter with their
/// statuses, registers its outputs, and answers true; or touches nothing and answers false.
pub type Hook<B> = Box<dyn FnMut(&OperationIr, &mut TensorInterpreter<B>) -> bool + Send>;

/// A program ready to run any number of times on one device.
///
/// Trusts the program: check it first. The backend panics where shapes or values do not allow an
/// operation; [`Self::operation`] then says which it was, and the executable must be dropped.
pub struct Executable<B: BackendIr> {
    inputs: [Vec<Input>; 2],
    schedule: Schedule,
    constants: Vec<(TensorIr, HandleKind<B>)>,
    device: B::Device,
    interpreter: TensorInterpreter<B>,
    hook: Hook<B>,
    /// Part and index of the operation that runs.
    at: Option<(usize, usize)>,
}

impl<B: BackendIr> Executable<B> {
    /// Uploads the constants. `hook` sees every operation before the backend does, and must take those
    /// of [`crate::ops`].
    #[must_use]
    pub fn new(program: &Program, device: B::Device, hook: Hook<B>) -> Self {
        let schedule = Schedule::new(program);
        let upload = |constant: &Constant| {
            let data = values(constant, &program.data);
            let dtype = data.dtype();
            let handle = if dtype.is_float() {
                HandleKind::Float(B::float_from_data(data, &device))
            } else if dtype.is_bool() {
                HandleKind::Bool(B::bool_from_data(data, &device))
            } else {
                HandleKind::Int(B::int_from_data(data, &device))
            };
            (constant.tensor.clone(), handle)
        };
        let constants = program.constants.iter().map(upload).collect();
        let between = |input: &Input| matches!(input.slot, Slot::DLoss(_) | Slot::DMap(_));
        let (late, early) = program.inputs.iter().cloned().partition(between);
        Executable {
            inputs: [early, late],
            schedule,
            constants,
            interpreter: TensorInterpreter::new(device.clone()),
            device,
            hook,
            at: None,
        }
    }

    /// What the first part reads, in the order of its inputs.
    pub fn forward_slots(&self) -> impl Iterator<Item = Slot> {
        self.inputs[0].iter().map(|input| input.slot)
    }

    /// What is bound between the parts, in the order of the second part's inputs.
    pub fn backward_slots(&self) -> impl Iterator<Item = Slot> {
        self.inputs[1].iter().map(|input| input.slot)
    }

    /// Runs the first part on its inputs. Nothing is copied: an operation writes into a bound tensor
    /// only if nobody else holds it.
    pub fn forward(&mut self, inputs: Vec<HandleKind<B>>) -> Vec<(Place, HandleKind<B>)> {
        for (tensor, handle) in &self.constants {
            self.interpreter
                .register_tensor_to_device(tensor.id, handle.clone());
        }
        self.part(0, inputs)
    }

    /// Runs the second part after the first, once.
    pub fn backward(&mut self, inputs: Vec<HandleKind<B>>) -> Vec<(Place, HandleKind<B>)> {
        self.part(1, inputs)
    }

    /// Frees what a first part left for a second that will not run.
    pub fn abandon(&mut self) {
        self.interpreter = TensorInterpreter::new(self.device.clone());
    }

    /// The operation that runs or, after a panic, ran.
    #[must_use]
    pub fn operation(&self) -> Option<&OperationIr> {
        let (part, index) = self.at?;
        self.schedule.parts[part].get(index)
    }

    fn part(&mut self, part: usize, inputs: Vec<HandleKind<B>>) -> Vec<(Place, HandleKind<B>)> {
        assert_eq!(inputs.len(), self.inputs[part].len(), "one tensor a slot");
        for (input, handle) in self.inputs[part].iter().zip(inputs) {
            self.interpreter
                .register_tensor_to_device(input.tensor.id, handle);
        }
        for (index, operation) in self.schedule.parts[part].iter().enumerate() {
            self.at = Some((part, index));
            if !(self.hook)(operation, &mut self.interpreter) {
                self.interpreter.register_op(operation.clone());
            }
        }
        self.at = None;
        let take = |output: &Output| {
            let handle = self.interpreter.get_tensor(&output.tensor);
            (output.place.clone(), handle)
        };
        self.schedule.outputs[part].iter().map(take).collect()
    }
}

/// # Panics
/// If the constant lies outside the data: the program was not checked.
fn values(constant: &Constant, data: &[u8]) -> TensorData {
    let TensorIr { shape, dtype, .. } = &constant.tensor;
    let first = constant.offset as usize;
    let len = shape.num_elements() * dtype.size();
    let bytes = Bytes::from_bytes_vec(data[first..first + len].to_vec());
    TensorData::from_bytes(bytes, shape.clone(), *dtype)
}
