//! The plugin computes: taps, targets and parameters are lent to it as memory.

use std::rc::Rc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};

use crate::plugin::{ArrayMut, CallInfo, TensorArg};
use crate::state::Array;
use crate::values::Values;

use super::{DistillStep, ModelTaps, array_mut, array_muts, by_slot, in_head_order, zeros};
use crate::distill::DistillError;
use crate::distill::distiller::Distiller;
use crate::distill::tap_view::TapView;
use crate::distill::targets::{Sources, Target, TargetValues};

/// What crosses for one micro-batch; owns or holds all memory that is lent.
struct Lent {
    views: Vec<Option<TapView>>,
    /// Shapes of taps that the plan does not use: they cross without elements.
    absent: Vec<[usize; 4]>,
    targets: Vec<Rc<Target>>,
}

impl Lent {
    /// # Panics
    /// If a used tap is missing: a bug of the engine.
    fn new(distiller: &Distiller, taps: &ModelTaps<'_>, sources: &Sources<'_>) -> Self {
        Lent {
            views: distiller.used_taps(taps, TapView::new),
            absent: distiller
                .bindings
                .iter()
                .map(|b| [0, b.channels, 0, 0])
                .collect(),
            targets: distiller.targets(sources),
        }
    }

    fn taps(&self) -> Vec<TensorArg<'_>> {
        self.views
            .iter()
            .zip(&self.absent)
            .map(|(view, absent)| match view {
                Some(view) => TensorArg::f32(view.shape(), view.values()),
                None => TensorArg::f32(absent, &[]),
            })
            .collect()
    }

    fn targets(&self) -> Vec<TensorArg<'_>> {
        self.targets.iter().map(|t| target_arg(t)).collect()
    }

    /// Zeros for each of the method's maps.
    fn maps(&self, distiller: &Distiller) -> Vec<Array> {
        let map = |map: &crate::plugin::MapSpec| {
            let view = self.views[map.replaces_tap].as_ref();
            zeros(view.expect("a replaced tap is used").shape())
        };
        distiller.plan.maps.iter().map(map).collect()
    }
}

impl Distiller {
    /// As [`Distiller::step`].
    pub(super) fn step_by_plugin<E: From<DistillError>>(
        &mut self,
        call: &CallInfo,
        taps: &ModelTaps<'_>,
        sources: &Sources<'_>,
        scale: f32,
        judge: impl FnOnce(Vec<Tensor<4>>) -> Result<Vec<Tensor<4>>, E>,
    ) -> Result<DistillStep, E> {
        let started = Instant::now();
        let lent = Lent::new(self, taps, sources);
        let (tap_args, target_args) = (lent.taps(), lent.targets());
        let mut losses = vec![0.0f32; self.plan.losses.len()];
        let mut maps = lent.maps(self);

        let param_args: Vec<TensorArg<'_>> = self.params.iter().map(array_arg).collect();
        let clock = Instant::now();
        let mut saved = self
            .method
            .forward(
                call,
                &tap_args,
                &param_args,
                &mut array_muts(&mut self.buffers),
                &target_args,
                &mut losses,
                &mut array_muts(&mut maps),
            )
            .map_err(DistillError::from)?;
        let forward = clock.elapsed();
        let of_losses = self.plan.losses.iter().zip(&losses).enumerate();
        for (_, (spec, value)) in of_losses.filter(|(index, _)| self.demand.counts(*index)) {
            let loss = format!("loss `{}`", spec.name);
            self.check_finite("forward", &loss, std::slice::from_ref(value))?;
        }
        self.check_maps(&maps)?;

        let mut judging = Duration::ZERO;
        let mut d_maps: Vec<TapView> = Vec::new();
        if !maps.is_empty() {
            let maps = in_head_order(maps, &self.map_order);
            let maps = maps.into_iter().map(tensor).collect();
            let clock = Instant::now();
            let gradients = judge(maps)?;
            judging = clock.elapsed();
            let views: Vec<TapView> = gradients.iter().map(TapView::new).collect();
            d_maps = by_slot(views, &self.map_order);
        }
        let d_map_args: Vec<TensorArg<'_>> = d_maps
            .iter()
            .map(|view| TensorArg::f32(view.shape(), view.values()))
            .collect();

        let mut d_taps: Vec<Option<Array>> = self
            .bindings
            .iter()
            .zip(&lent.views)
            .zip(&self.plan.tap_use)
            .map(|((binding, view), used)| {
                let view = view.as_ref()?;
                let given = binding.grad && used & kd_abi::KD_USE_GRAD != 0;
                (given && self.demand.wants_taps()).then(|| zeros(view.shape()))
            })
            .collect();
        let mut d_params: Vec<Array> = self.params.iter().map(|p| zeros(&p.shape)).collect();
        let d_losses: Vec<f32> = self
            .loss_weights
            .iter()
            .map(|w| *w as f32 * scale)
            .collect();
        let clock = Instant::now();
        self.method
            .backward(
                call,
                &tap_args,
                &param_args,
                &d_losses,
                &d_map_args,
                &mut d_taps
                    .iter_mut()
                    .map(|a| a.as_mut().map(array_mut))
                    .collect::<Vec<Option<ArrayMut<'_>>>>(),
                &mut d_params
                    .iter_mut()
                    .enumerate()
                    .map(|(index, a)| self.demand.wants_param(index).then(|| array_mut(a)))
                    .collect::<Vec<_>>(),
                &mut saved,
            )
            .map_err(DistillError::from)?;
        let backward = clock.elapsed();
        drop(saved);

        let mut tap_gradients = Vec::new();
        for (binding, gradient) in self.bindings.iter().zip(d_taps) {
            let Some(gradient) = gradient else { continue };
            let what = format!("the gradient of tap `{}`", binding.name);
            self.check_finite("backward", &what, &gradient.data)?;
            tap_gradients.push((binding.name.clone(), tensor(gradient)));
        }
        let mut param_gradients = Vec::new();
        for (spec, gradient) in self.plan.params.iter().zip(d_params) {
            let what = format!("the gradient of parameter `{}`", spec.name);
            self.check_finite("backward", &what, &gradient.data)?;
            param_gradients.push(Values::Host(gradient.data));
        }
        let names = self.plan.losses.iter().map(|l| l.name.clone());
        let losses = names.zip(losses).collect();
        let metrics = self.method.take_metrics();
        let boundary = started
            .elapsed()
            .saturating_sub(forward + judging + backward);
        Ok(DistillStep {
            losses,
            tap_gradients,
            param_gradients,
            metrics,
            forward,
            judging,
            backward,
            boundary,
        })
    }

    /// As [`Distiller::maps`], for a method that has some.
    pub(super) fn maps_by_plugin(
        &mut self,
        call: &CallInfo,
        taps: &ModelTaps<'_>,
        sources: &Sources<'_>,
    ) -> Result<Vec<Tensor<4>>, DistillError> {
        let lent = Lent::new(self, taps, sources);
        let mut losses = vec![0.0f32; self.plan.losses.len()];
        let mut maps = lent.maps(self);
        let mut buffers = self.buffers.clone();
        let saved = self.method.forward(
            call,
            &lent.taps(),
            &self.params.iter().map(array_arg).collect::<Vec<_>>(),
            &mut array_muts(&mut buffers),
            &lent.targets(),
            &mut losses,
            &mut array_muts(&mut maps),
        )?;
        drop(saved);
        let _ = self.method.take_metrics();
        self.check_maps(&maps)?;
        let maps = in_head_order(maps, &self.map_order);
        Ok(maps.into_iter().map(tensor).collect())
    }

    fn check_finite(
        &self,
        entry: &'static str,
        what: &str,
        values: &[f32],
    ) -> Result<(), DistillError> {
        Ok(self.method.check_finite(entry, what, values)?)
    }

    fn check_maps(&self, maps: &[Array]) -> Result<(), DistillError> {
        for (spec, map) in self.plan.maps.iter().zip(maps) {
            self.check_finite("forward", &format!("map `{}`", spec.name), &map.data)?;
        }
        Ok(())
    }
}

fn target_arg(target: &Target) -> TensorArg<'_> {
    match &target.values {
        TargetValues::F32(values) => TensorArg::f32(&target.shape, values),
        TargetValues::I64(values) => TensorArg::i64(&target.shape, values),
    }
}

fn array_arg(array: &Array) -> TensorArg<'_> {
    TensorArg::f32(&array.shape, &array.data)
}

fn tensor(array: Array) -> Tensor<4> {
    Tensor::from_data(TensorData::new(array.data, array.shape), &Device::flex())
}
