//! One call of a bound method: forward, a look at its maps, backward.

mod lent;
mod traced;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use burn::tensor::Tensor;

use crate::plugin::{ArrayMut, CallInfo, TapBinding};
use crate::state::Array;
use crate::values::Values;

use super::DistillError;
use super::distiller::Distiller;
use super::execution::Executor;
use super::targets::{self, Sources, Target};

/// What a method answered for one micro-batch.
#[derive(Debug)]
pub struct DistillStep {
    /// Loss names and values before weighting, in the plan's order.
    pub losses: Vec<(String, f32)>,
    /// Gradient of the weighted sum at student taps, plain device.
    pub tap_gradients: Vec<(String, Tensor<4>)>,
    /// Gradient of the weighted sum at the method's parameters, in the plan's order.
    pub param_gradients: Vec<Values>,
    /// Statistics the method reported.
    pub metrics: Vec<(String, f64)>,
    /// Time inside `forward`.
    pub forward: Duration,
    /// Time in which the host judged the maps.
    pub judging: Duration,
    /// Time inside `backward`.
    pub backward: Duration,
    /// Time of everything else on this side: views, output buffers, checks.
    pub boundary: Duration,
}

/// Taps by name.
pub type TapValues = BTreeMap<String, Tensor<4>>;
/// Taps by the name of their model: `student`, or a configured teacher.
pub type ModelTaps<'a> = BTreeMap<&'a str, &'a TapValues>;

impl Distiller {
    /// Runs the method on one micro-batch, whose targets are made from `sources`.
    ///
    /// The gradients are those of `scale * sum(weight * loss)`, and of whatever `judge` computed from
    /// the maps: it is given them `[N, C, H, W]` in the order in which the head reads them, on the
    /// plain device, and answers with the gradient at each. It is not asked without maps.
    ///
    /// # Errors
    /// If an entry fails, a loss, map or gradient is not finite, or as `judge`.
    ///
    /// # Panics
    /// If a tap that the method uses is missing: a bug of the engine.
    pub fn step<E: From<DistillError>>(
        &mut self,
        call: &CallInfo,
        taps: &ModelTaps<'_>,
        sources: &Sources<'_>,
        scale: f32,
        judge: impl FnOnce(Vec<Tensor<4>>) -> Result<Vec<Tensor<4>>, E>,
    ) -> Result<DistillStep, E> {
        match self.executor {
            Executor::Program => self.step_by_program(call, taps, sources, scale, judge),
            Executor::Plugin => self.step_by_plugin(call, taps, sources, scale, judge),
        }
    }

    /// The method's maps `[N, C, H, W]` for a batch, in the order in which the head reads them; its
    /// buffers stay as they are. Empty for a method without maps.
    ///
    /// # Errors
    /// If `forward` fails or a map is not finite.
    ///
    /// # Panics
    /// As [`Self::step`].
    pub fn maps(
        &mut self,
        call: &CallInfo,
        taps: &ModelTaps<'_>,
        sources: &Sources<'_>,
    ) -> Result<Vec<Tensor<4>>, DistillError> {
        if self.plan.maps.is_empty() {
            return Ok(Vec::new());
        }
        match self.executor {
            Executor::Program => self.maps_by_program(call, taps, sources),
            Executor::Plugin => self.maps_by_plugin(call, taps, sources),
        }
    }

    /// `of` each tap that the plan uses, in the order of the bindings; none for the others.
    ///
    /// # Panics
    /// If a used tap is missing: a bug of the engine.
    fn used_taps<T>(&self, taps: &ModelTaps<'_>, of: impl Fn(&Tensor<4>) -> T) -> Vec<Option<T>> {
        let tap = |(binding, used): (&TapBinding, &u32)| {
            (*used != 0).then(|| {
                let model = taps.get(self.player(&binding.role));
                let tap = model.and_then(|taps| taps.get(&binding.name));
                of(tap.expect("the engine requests every used tap"))
            })
        };
        let bindings = self.bindings.iter().zip(&self.plan.tap_use);
        bindings.map(tap).collect()
    }

    /// The targets of the manifest; without elements where the plan does not read one.
    fn targets(&self, sources: &Sources<'_>) -> Vec<Rc<Target>> {
        let target = |(name, read): (&String, &bool)| match read {
            // Methods share what is made of one model, in whatever roles it plays for each.
            true => match targets::role_of(name) {
                Some(role) => sources.target(&name.replacen(role, self.player(role), 1)),
                None => sources.target(name),
            },
            false => Rc::new(Target::unread()),
        };
        let all = self.manifest.targets.iter().zip(&self.plan.target_use);
        all.map(target).collect()
    }
}

/// Takes the item of each slot in `order`.
fn in_head_order<T>(items: Vec<T>, order: &[usize]) -> Vec<T> {
    assert_eq!(items.len(), order.len(), "the head reads every map");
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    let take = |&slot: &usize| items[slot].take().expect("a slot appears once");
    order.iter().map(take).collect()
}

/// Puts the `i`-th item at slot `order[i]`.
fn by_slot<T>(items: Vec<T>, order: &[usize]) -> Vec<T> {
    assert_eq!(items.len(), order.len(), "one gradient a map");
    let mut slots: Vec<(usize, T)> = order.iter().copied().zip(items).collect();
    slots.sort_by_key(|(slot, _)| *slot);
    slots.into_iter().map(|(_, item)| item).collect()
}

pub(super) fn zeros(shape: &[usize]) -> Array {
    Array {
        shape: shape.to_vec(),
        data: vec![0.0; shape.iter().product()],
    }
}

fn array_mut(array: &mut Array) -> ArrayMut<'_> {
    ArrayMut::new(&array.shape, &mut array.data)
}

pub(super) fn array_muts(arrays: &mut [Array]) -> Vec<ArrayMut<'_>> {
    arrays.iter_mut().map(array_mut).collect()
}
