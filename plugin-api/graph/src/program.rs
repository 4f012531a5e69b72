//! What a traced method is.

use burn_ir::{OperationIr, TensorIr};
use serde::{Deserialize, Serialize};

/// Where an input comes from. Indices are those of the plan; targets in the manifest's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Slot {
    /// A bound tap, `[N, C, H, W]`.
    Tap(u32),
    /// A learned parameter.
    Param(u32),
    /// A buffer, as before this forward.
    Buffer(u32),
    /// A target.
    Target(u32),
    /// The gradient at a loss, `[1]`; bound between the parts.
    DLoss(u32),
    /// The gradient at a map, as the map; bound between the parts.
    DMap(u32),
}

/// Where an output goes. Indices are those of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// A loss, `[1]`. Of the first part.
    Loss(u32),
    /// A generated map, `[N, C, H, W]`. Of the first part.
    Map(u32),
    /// A statistic by its name in the manifest, `[1]`. Of the first part.
    Metric(String),
    /// The new value of a buffer. Of the first part.
    Buffer(u32),
    /// The initial value of a parameter; of the programs that make initial state alone, whose buffers
    /// go to [`Place::Buffer`].
    Param(u32),
    /// The gradient at a tap; of the second part. One that is missing is zero.
    DTap(u32),
    /// The gradient at a parameter; of the second part. One that is missing is zero.
    DParam(u32),
}

/// A tensor that the host binds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Where it comes from. A slot appears at most once.
    pub slot: Slot,
    /// Id, shape and type.
    pub tensor: TensorIr,
}

/// A tensor that the host takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Where it goes. A place appears at most once; one tensor may go to several.
    pub place: Place,
    /// Id, shape and type.
    pub tensor: TensorIr,
}

/// A tensor whose values are in [`Program::data`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Constant {
    /// Id, shape and type.
    pub tensor: TensorIr,
    /// First byte in [`Program::data`], row-major from there; a multiple of 8.
    pub offset: u64,
}

/// A method's forward, and its backward if that was asked for.
///
/// Ids are unique in the program: inputs, constants and results of operations share one space, and
/// none is written twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// Tensors to bind: those of the first part before it, [`Slot::DLoss`] and [`Slot::DMap`]
    /// between the parts. What the program does not read need not be here.
    pub inputs: Vec<Input>,
    /// Tensors that stand for themselves.
    pub constants: Vec<Constant>,
    /// First part (forward), then second part (backward), each in the order of execution.
    pub operations: Vec<OperationIr>,
    /// Length of the first part.
    pub forward_len: u64,
    /// Results.
    pub outputs: Vec<Output>,
    /// Whether the trace looked at more of its call than shapes, types and flags (step, phase,
    /// seed), so that it holds for this call alone.
    pub depends_on_call: bool,
    /// Values of the constants.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}
