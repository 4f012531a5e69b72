//! The raw level: a method on slices with a hand-written backward, without Burn.

use kd_abi::KdDType;

use crate::call::Call;
use crate::config::MethodConfig;
use crate::schedule::Schedule;
use crate::tap::{TapPattern, Taps};
use crate::{MethodError, TensorView, TensorViewMut};

/// A distillation method on borrowed memory.
///
/// The host calls `new`, `plan`, `init_state` (unless it resumes), then for each step `forward`
/// and `backward`. Values are f32 unless a view says otherwise.
pub trait RawMethod: Sized + Send + 'static {
    /// Options of the user; [`crate::NoConfig`] for none.
    type Config: MethodConfig;
    /// What `forward` keeps for `backward`. Owns its contents: no borrowed memory.
    type Saved: Send + 'static;

    /// `[a-z][a-z0-9_]*`, as the paper abbreviates it.
    const ID: &'static str;
    /// For people.
    const TITLE: &'static str;
    /// One sentence: what it computes, from which paper.
    const DOC: &'static str;
    /// What the host must show.
    const TAPS: &'static [TapPattern];
    /// Named targets, in the order in which `forward` gets them.
    const TARGETS: &'static [&'static str] = &[];
    /// Every loss that a plan may declare.
    const LOSSES: &'static [&'static str] = &[];
    /// Every map that a plan may declare.
    const MAPS: &'static [&'static str] = &[];
    /// Every statistic that may be reported.
    const METRICS: &'static [&'static str] = &[];

    /// What the method's programs are written in; none: it has none (`kd.graph/1`).
    const GRAPH_FORMAT: Option<&'static str> = None;
    /// Whether the method computes by itself; without, `init_state`, `forward` and `backward` refuse and
    /// hosts must execute its programs.
    const COMPUTES: bool = true;

    /// Takes the configuration.
    ///
    /// # Errors
    /// If its values make no sense together.
    fn new(config: Self::Config) -> Result<Self, MethodError>;

    /// Declares what the method needs for these taps; a pure function of configuration and taps.
    ///
    /// # Errors
    /// If the method cannot work on them.
    fn plan(&mut self, taps: &Taps) -> Result<RawPlan, MethodError>;

    /// Writes initial values; a function of configuration, taps and `call.info().seed`.
    ///
    /// # Errors
    /// If it cannot.
    fn init_state(
        &mut self,
        _call: &Call<'_>,
        params: &mut [TensorViewMut<'_>],
        buffers: &mut [TensorViewMut<'_>],
    ) -> Result<(), MethodError> {
        if params.is_empty() && buffers.is_empty() {
            return Ok(());
        }
        Err(MethodError::internal(
            "the plan declares state, but `init_state` is not implemented",
        ))
    }

    /// Computes losses and maps.
    ///
    /// # Errors
    /// If values or shapes make it impossible.
    fn forward(
        &mut self,
        call: &Call<'_>,
        args: &mut ForwardArgs<'_>,
    ) -> Result<Self::Saved, MethodError>;

    /// Writes the gradients of `Σ d_losses·losses + Σ d_maps·maps` into every wanted output.
    ///
    /// # Errors
    /// If it cannot.
    fn backward(
        &mut self,
        call: &Call<'_>,
        args: &mut BackwardArgs<'_>,
        saved: &mut Self::Saved,
    ) -> Result<(), MethodError>;

    /// The bytes of the method's program for these shapes, in [`Self::GRAPH_FORMAT`].
    ///
    /// # Errors
    /// If the method cannot be traced.
    fn trace(&mut self, _call: &Call<'_>, _args: &TraceArgs) -> Result<Vec<u8>, MethodError> {
        Err(MethodError::unsupported("this method has no program"))
    }
}

/// What a program is wanted for, in slot order.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceArgs {
    /// Which program.
    pub kind: TraceKind,
    /// Bound taps.
    pub taps: Vec<Extents>,
    /// Learned tensors.
    pub params: Vec<Extents>,
    /// Buffers.
    pub buffers: Vec<Extents>,
    /// In the order of `TARGETS`.
    pub targets: Vec<Extents>,
    /// For each loss, whether its gradient can be other than 0.
    pub loss_wanted: Vec<bool>,
    /// Type of integers that the program makes by itself; integer targets are bound in it.
    pub int_dtype: KdDType,
    /// Bytes of a truth value on the host's device; 0: its native form.
    pub bool_bytes: u32,
}

/// Which program is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceKind {
    /// Forward, then backward.
    #[default]
    Training,
    /// Forward alone.
    Forward,
    /// Initial values of parameters and buffers.
    Init,
}

/// Extents and type of a tensor whose values do not matter yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Extents {
    /// One number a dimension.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: KdDType,
}

/// What a method needs for the bound taps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawPlan {
    /// Learned tensors, in slot order.
    pub params: Vec<StateSpec>,
    /// Tensors that the method updates itself, in slot order.
    pub buffers: Vec<StateSpec>,
    /// Losses with the weight they have unless the user sets another, in slot order.
    pub losses: Vec<(String, f64)>,
    /// Generated maps, in slot order.
    pub maps: Vec<MapSpec>,
    /// Taps that are used less than their pattern asked: index and `KD_USE_*` bits.
    pub tap_uses: Vec<(usize, u32)>,
    /// Indices of the targets of the manifest that this configuration does not read: the host does
    /// not make them, and they cross without elements.
    pub unread_targets: Vec<usize>,
    /// Phases and stages; `None`: one stage, everything learns.
    pub schedule: Option<Schedule>,
}

/// A parameter or buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct StateSpec {
    /// Unique, dotted, as in a checkpoint.
    pub name: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// Decides weight decay; buffers ignore it.
    pub kind: ParamKind,
}

/// What a parameter is, for the optimizer's groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Decays.
    Weight,
    /// A shift; decays only if biases do.
    Bias,
    /// Scale of a normalisation layer; decays only if norms do.
    Norm,
}

impl ParamKind {
    /// `weight`, `bias`, `norm`: the attribute in the plan.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ParamKind::Weight => "weight",
            ParamKind::Bias => "bias",
            ParamKind::Norm => "norm",
        }
    }
}

/// A generated map. It has the shape of the student tap that it replaces.
#[derive(Clone, Debug, PartialEq)]
pub struct MapSpec {
    /// One of the method's `MAPS`.
    pub name: String,
    /// The student tap whose place it takes in the student's head.
    pub replaces: String,
}

/// Arguments of `forward`, in slot order.
#[derive(Debug)]
pub struct ForwardArgs<'a> {
    /// Bound taps.
    pub taps: Vec<TensorView<'a>>,
    /// Learned tensors.
    pub params: Vec<TensorView<'a>>,
    /// Read and written.
    pub buffers: Vec<TensorViewMut<'a>>,
    /// In the order of `TARGETS`.
    pub targets: Vec<TensorView<'a>>,
    /// Out, one element each.
    pub losses: Vec<TensorViewMut<'a>>,
    /// Out.
    pub maps: Vec<TensorViewMut<'a>>,
}

/// Arguments of `backward`, in slot order.
#[derive(Debug)]
pub struct BackwardArgs<'a> {
    /// The values `forward` saw.
    pub taps: Vec<TensorView<'a>>,
    /// The values `forward` saw.
    pub params: Vec<TensorView<'a>>,
    /// Upstream gradient of each loss, the host's weights folded in.
    pub d_losses: Vec<f32>,
    /// Upstream gradient of each map.
    pub d_maps: Vec<TensorView<'a>>,
    /// Out; may be unwanted.
    pub d_taps: Vec<TensorViewMut<'a>>,
    /// Out; may be unwanted.
    pub d_params: Vec<TensorViewMut<'a>>,
}
