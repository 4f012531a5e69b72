//! The Burn level: a method as one function over tensors; the SDK differentiates it.

mod adapter;
mod connector;
mod conv;
mod conv_op;
mod flex;
mod host_conv;
mod import;
mod inputs;
mod levels;
mod noise;
mod outputs;
mod packed;
mod standardize;
mod state;

pub use adapter::BurnLevel;
pub use connector::{Connector, Connectors};
pub use conv::{Conv2d, torch_default};
pub use import::live_views;
pub use inputs::{Inputs, Pair};
pub use levels::Levels;
pub use noise::Noise;
pub use outputs::Outputs;
pub use packed::{MapSize, Packed};

use burn::module::Module;
use burn::tensor::Device;

use crate::MethodError;
use crate::config::MethodConfig;
use crate::raw::MapSpec;
use crate::schedule::Schedule;
use crate::tap::{TapPattern, Taps};

/// A distillation method over Burn tensors.
///
/// The author writes a configuration, a module with the learned parts, a plan and one forward
/// function; gradients come from Burn's autodiff. Keep `forward` free of reading values
/// (`into_scalar`, `into_data`, comparisons on the CPU) and of data-dependent shapes: such a method
/// can later be traced and run by the host on any device without a change.
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
    /// Named targets: `gt_boxes_xyxy`, `gt_labels`, `gt_batch`.
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

    /// Asks for phases and stages.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = Some(schedule);
        self
    }
}
