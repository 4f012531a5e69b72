//! Why a program is refused.

use kd_graph::{DType, Place, Slot};

/// A program that the host must not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// A list is longer than allowed.
    #[error("the program has {found} {what}, the limit is {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many at most.
        limit: usize,
    },
    /// The second part starts where it cannot.
    #[error(
        "the first part has {forward} of {total} operations; \
         it has all of them unless the program is for training"
    )]
    Parts {
        /// Claimed length of the first part.
        forward: u64,
        /// Length of both.
        total: usize,
    },
    /// A slot that the host does not bind in such a program.
    #[error("the input {slot:?} is not bound by the host")]
    UnknownSlot {
        /// Which one.
        slot: Slot,
    },
    /// A place that the host does not take in such a program.
    #[error("the output {place:?} is not taken by the host")]
    UnknownPlace {
        /// Which one.
        place: Place,
    },
    /// A slot or a place stands twice.
    #[error("{what} stands twice")]
    Twice {
        /// Which one, with its kind.
        what: String,
    },
    /// A planned output is not made.
    #[error("the output {place:?} is missing")]
    Missing {
        /// Which one.
        place: Place,
    },
    /// A tensor differs from what the host binds or takes.
    #[error("{what} is {found_dtype} {found:?}, the host has {dtype} {shape:?}")]
    Interface {
        /// Which one, with its kind.
        what: String,
        /// As the program has it.
        found: Vec<usize>,
        /// As the program has it.
        found_dtype: &'static str,
        /// As the host has it.
        shape: Vec<usize>,
        /// As the host has it.
        dtype: &'static str,
    },
    /// An id is written a second time.
    #[error("{what} writes tensor {id} a second time")]
    Rewritten {
        /// What writes.
        what: String,
        /// The id.
        id: u64,
    },
    /// An id is read before it is written.
    #[error("{what} reads tensor {id}, which nothing wrote before")]
    Unwritten {
        /// What reads.
        what: String,
        /// The id.
        id: u64,
    },
    /// An id is read as something else than it was written.
    #[error(
        "{what} reads tensor {id} as {found_dtype} {found:?}, it was written as {dtype} {shape:?}"
    )]
    Disagrees {
        /// What reads.
        what: String,
        /// The id.
        id: u64,
        /// As it is read.
        found: Vec<usize>,
        /// As it is read.
        found_dtype: &'static str,
        /// As it was written.
        shape: Vec<usize>,
        /// As it was written.
        dtype: &'static str,
    },
    /// A tensor that no program may have.
    #[error("{what} writes a tensor of type {dtype} {shape:?}: {why}")]
    Tensor {
        /// What writes.
        what: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its type.
        dtype: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The values of a constant are not where it says, or are none of its type.
    #[error("constant {index} ({dtype} {shape:?}): {why}")]
    Constant {
        /// Which one.
        index: usize,
        /// Its shape.
        shape: Vec<usize>,
        /// Its type.
        dtype: &'static str,
        /// What is wrong.
        why: String,
    },
    /// An operation is wrong.
    #[error("operation {index} ({name}): {fault}")]
    Operation {
        /// Its index in the program.
        index: usize,
        /// As [`super::op_name`] has it.
        name: String,
        /// What is wrong.
        fault: Fault,
    },
    /// Too many bytes live at once.
    #[error("{found} bytes live at once at operation {index}, the limit is {limit}")]
    Memory {
        /// Where the limit is passed.
        index: usize,
        /// Bytes that live there.
        found: u64,
        /// How many at most.
        limit: u64,
    },
}

/// What is wrong with an operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has no rule.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// A tensor's shape does not follow from the others and the parameters.
    #[error("`{what}` is {found:?}, it must be {expected:?}")]
    Shape {
        /// The operation's field.
        what: &'static str,
        /// As it is.
        found: Vec<usize>,
        /// As it must be.
        expected: Vec<usize>,
    },
    /// A tensor has the wrong number of dimensions.
    #[error("`{what}` is {found:?}, it must have {expected} dimensions")]
    Rank {
        /// The operation's field.
        what: &'static str,
        /// As it is.
        found: Vec<usize>,
        /// How many.
        expected: usize,
    },
    /// A tensor has the wrong type.
    #[error("`{what}` is {found}, it must be {expected}")]
    Type {
        /// The operation's field.
        what: &'static str,
        /// As it is.
        found: &'static str,
        /// As it must be.
        expected: &'static str,
    },
    /// A parameter does not fit.
    #[error("`{what}` {why}")]
    Parameter {
        /// The operation's field.
        what: &'static str,
        /// What is wrong, with the shapes it depends on.
        why: String,
    },
    /// A tensor without elements where kernels need some.
    #[error("a tensor of {0:?} has no elements, which this operation needs")]
    Empty(Vec<usize>),
}

impl Fault {
    pub(super) fn kind(what: &'static str, found: DType, expected: &'static str) -> Self {
        Fault::Type {
            what,
            found: found.name(),
            expected,
        }
    }
}
