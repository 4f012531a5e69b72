//! The Burn level: a method as one function over tensors; the SDK differentiates it.

mod adapter;
mod connector;
mod conv;
#[cfg(feature = "cpu")]
mod conv_cpu;
mod conv_op;
mod dense_head;
#[cfg(feature = "cpu")]
mod direct;
mod divergence;
#[cfg(feature = "cpu")]
pub(crate) mod flex;
#[cfg(feature = "cpu")]
mod host_conv;
mod inputs;
mod levels;
mod noise;
mod outputs;
mod packed;
mod recorded;
mod resize;
mod standardize;
mod state;
mod trace;

pub use adapter::BurnLevel;
pub use connector::{Connector, Connectors};
pub use conv::{Conv2d, torch_default};
pub use dense_head::DenseHead;
#[cfg(all(feature = "cpu", feature = "testkit"))]
pub(crate) use direct::generator;
#[cfg(feature = "cpu")]
pub use direct::live_views;
pub use divergence::{Divergence, Surprise};
pub use inputs::{Inputs, Pair};
pub use levels::Levels;
pub use noise::Noise;
pub use outputs::Outputs;
pub use packed::{MapSize, Packed};
pub use resize::{ResizeGrid, resize_bilinear, resize_bilinear_on};

use burn::module::Module;
use burn::tensor::Device;

use crate::MethodError;
use crate::config::MethodConfig;
use crate::raw::{MapSpec, RawPlan};
use crate::schedule::Schedule;
use crate::tap::{TapInfo, TapPattern, Taps};

/// A distillation method over Burn tensors.
///
/// The author writes a configuration, a module with the learned parts, a plan and one forward
/// function; gradients come from Burn's autodiff.
///
/// `forward` does not compute: the SDK traces it, and its gradients, into a program that the host
/// executes on its own device, once for each set of shapes. So it may branch on configuration and
/// shapes, and not on values:
///
/// | not in `forward` | instead |
/// |---|---|
/// | `into_scalar`, `into_data`, `to_data`, printing a tensor, `if` on a value | a mask: `mask_where`, `mask_fill`, a product with 0 and 1; [`Outputs::metric`] for what is to be logged |
/// | `nonzero`, `argwhere`, `mask_select`: shapes that depend on values | all rows, with weight 0 for those that do not count |
/// | `one_hot` | `labels.expand(..).equal(arange.expand(..)).float()` |
/// | `nn::BatchNorm` (keeps state by itself) | `module::batch_norm_train`, or [`Packed::instance_norm`], [`Packed::group_norm`] |
/// | `Tensor::inner`, `without_autodiff`, `Module::valid` | `detach()` |
/// | `Tensor::random`, dropout, `Device::seed` | [`Inputs::noise`], which the host's seed decides |
/// | quantised tensors, CTC and other operations that hosts do not know | – |
///
/// A method that breaks this is refused when it is traced, before the first step; the message names
/// the operation and, where the library has symbols, the function that called it.
pub trait DistillMethod: Sized + Send + 'static {
    /// Options of the user; [`crate::NoConfig`] for none.
    type Config: MethodConfig;
    /// The learned parts; `()`-like modules for none. A parameter's name is its path in the module.
    ///
    /// A float parameter that does not require a gradient is a buffer: saved with the method, not
    /// seen by the optimizer, written through [`Outputs::buffer`].
    type Module: Module + 'static;

    /// `[a-z][a-z0-9_]*`, as the paper abbreviates it.
    const ID: &'static str;
    /// For people.
    const TITLE: &'static str;
    /// One sentence: what it computes, from which paper.
    const DOC: &'static str;
    /// What the host must show.
    const TAPS: &'static [TapPattern];
    /// Named targets: `gt_boxes_xyxy`, `assign.labels`, `teacher.task_loss`, … (the table in
    /// `plugin-api/README.md`).
    const TARGETS: &'static [&'static str] = &[];
    /// Every loss that a plan may declare.
    const LOSSES: &'static [&'static str];
    /// Every map that a plan may declare.
    const MAPS: &'static [&'static str] = &[];
    /// Every statistic that may be reported.
    const METRICS: &'static [&'static str] = &[];

    /// Declares what the method needs for these taps: a pure function of configuration and taps.
    /// Make the module's parameters on `device`; their initial values come from here too, and the
    /// random ones are drawn from a generator that the host seeds.
    ///
    /// # Errors
    /// If the method cannot work on these taps with this configuration.
    fn plan(
        config: &Self::Config,
        taps: &Taps,
        device: &Device,
    ) -> Result<Plan<Self::Module>, MethodError>;

    /// Computes the losses (`[1]` each) and maps that the plan declared.
    ///
    /// # Errors
    /// If shapes make it impossible.
    fn forward(
        config: &Self::Config,
        module: &Self::Module,
        inputs: &Inputs<'_>,
    ) -> Result<Outputs, MethodError>;
}

/// What a method needs for the bound taps.
#[derive(Clone, Debug)]
pub struct Plan<M> {
    pub(crate) module: M,
    pub(crate) losses: Vec<(String, f64)>,
    pub(crate) maps: Vec<MapSpec>,
    pub(crate) schedule: Option<Schedule>,
    /// By index; none: all that are bound.
    pub(crate) unused_taps: Vec<usize>,
    /// None: all of the manifest.
    pub(crate) read_targets: Option<Vec<String>>,
}

impl<M: Module> Plan<M> {
    /// A plan with the learned parts and nothing else yet.
    #[must_use]
    pub fn new(module: M) -> Self {
        Plan {
            module,
            losses: Vec::new(),
            maps: Vec::new(),
            schedule: None,
            unused_taps: Vec::new(),
            read_targets: None,
        }
    }

    /// Declares a loss and the weight it has unless the user sets another.
    #[must_use]
    pub fn loss(mut self, name: &str, default_weight: f64) -> Self {
        self.losses.push((name.to_owned(), default_weight));
        self
    }

    /// Declares a generated map that takes the place of the student tap `replaces`: the host runs
    /// the student's head and task losses on it.
    #[must_use]
    pub fn map(mut self, name: &str, replaces: &str) -> Self {
        self.maps.push(MapSpec {
            name: name.to_owned(),
            replaces: replaces.to_owned(),
        });
        self
    }

    /// Narrows the bound taps to those that `uses` holds for: the host computes no others for this
    /// method. `forward` gets what is not used as `[0, C, 0, 0]`.
    #[must_use]
    pub fn uses_taps(mut self, taps: &Taps, uses: impl Fn(&TapInfo) -> bool) -> Self {
        let unused = taps.iter().filter(|tap| !uses(tap));
        self.unused_taps = unused.map(|tap| tap.index).collect();
        self
    }

    /// Narrows [`DistillMethod::TARGETS`] to what this configuration reads: the host makes no others.
    #[must_use]
    pub fn reads_targets(mut self, names: &[&str]) -> Self {
        self.read_targets = Some(names.iter().map(|&name| name.to_owned()).collect());
        self
    }

    pub(crate) fn uses_tap(&self, index: usize) -> bool {
        !self.unused_taps.contains(&index)
    }

    /// Declared losses that count in the phase of this call.
    #[cfg(feature = "cpu")]
    pub(crate) fn losses_of(&self, call: &crate::CallInfo) -> Vec<String> {
        let stages = self.schedule.iter().flat_map(|schedule| &schedule.stages);
        let stage = stages.take(call.stage as usize + 1).last();
        let phase = stage.and_then(|stage| stage.phases.get(call.phase as usize));
        let counts = |name: &String| {
            phase.is_none_or(|phase| phase.losses.is_empty() || phase.losses.contains(name))
        };
        let names = self.losses.iter().map(|(name, _)| name.clone());
        names.filter(counts).collect()
    }

    /// Of the manifest's `names`, the indices of those that are not read.
    ///
    /// # Errors
    /// If the plan reads one that the manifest does not list.
    pub(crate) fn unread_targets(&self, names: &[&str]) -> Result<Vec<usize>, MethodError> {
        let Some(read) = &self.read_targets else {
            return Ok(Vec::new());
        };
        if let Some(name) = read.iter().find(|name| !names.contains(&name.as_str())) {
            return Err(MethodError::internal(format!(
                "the plan reads target `{name}`, which is not in TARGETS {names:?}"
            )));
        }
        let is_unread = |(_, name): &(usize, &&str)| !read.iter().any(|read| read == **name);
        let unread = names.iter().enumerate().filter(is_unread);
        Ok(unread.map(|(index, _)| index).collect())
    }

    /// As the raw level declares it; `targets` are the manifest's.
    pub(crate) fn to_raw(
        &self,
        layout: &state::Layout,
        targets: &[&str],
    ) -> Result<RawPlan, MethodError> {
        Ok(RawPlan {
            params: layout.params.clone(),
            buffers: layout.buffers.clone(),
            losses: self.losses.clone(),
            maps: self.maps.clone(),
            tap_uses: self.unused_taps.iter().map(|&index| (index, 0)).collect(),
            unread_targets: self.unread_targets(targets)?,
            schedule: self.schedule.clone(),
        })
    }

    /// Asks for phases and stages.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = Some(schedule);
        self
    }
}
