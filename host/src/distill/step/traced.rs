//! This host computes, from the program that the plugin gave.

use std::rc::Rc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Int, Tensor, TensorData};
use kd_graph::{Place, Slot};

use crate::graph::compiled::{Input, Value};
use crate::kernels::is_on_host;
use crate::plugin::{CallInfo, Method, Plan, ProgramKind, TapBinding, TensorSpec};
use crate::state::Array;
use crate::values::{Values, flat_tensor_on, into_vec};

use super::{DistillStep, ModelTaps, by_slot, in_head_order};
use crate::distill::DistillError;
use crate::distill::distiller::Distiller;
use crate::distill::execution::Executor;
use crate::distill::programs::{self, Key, Programs, Taken};
use crate::distill::tap_view::TapView;
use crate::distill::targets::{Sources, Target, TargetValues};

/// What a program reads of one micro-batch, on its device.
struct Bound {
    /// None where the plan does not use the tap.
    taps: Vec<Option<Tensor<4>>>,
    targets: Vec<Rc<Target>>,
    device: Device,
}

impl Bound {
    /// # Panics
    /// If a used tap is missing: a bug of the engine.
    fn new(distiller: &Distiller, taps: &ModelTaps<'_>, sources: &Sources<'_>) -> Self {
        let device = distiller.programs.device().clone();
        // Taps lie there already, but for a look at a run from another device.
        let bring = |tap: &Tensor<4>| tap.clone().without_autodiff().to_device(&device);
        Bound {
            taps: distiller.used_taps(taps, bring),
            targets: distiller.targets(sources),
            device,
        }
    }

    fn key(&self, distiller: &Distiller, kind: ProgramKind, call: &CallInfo) -> Key {
        let tap = |(tap, binding): (&Option<Tensor<4>>, &TapBinding)| match tap {
            Some(tap) => tap.dims().to_vec(),
            None => vec![0, binding.channels, 0, 0],
        };
        let target = |target: &Rc<Target>| {
            let is_int = matches!(target.values, TargetValues::I64(_));
            (target.shape.clone(), is_int)
        };
        let wanted = |weight: &f64| kind == ProgramKind::Training && *weight != 0.0;
        Key {
            kind,
            detach_student: call.detach_student,
            phase: call.phase,
            taps: self.taps.iter().zip(&distiller.bindings).map(tap).collect(),
            targets: self.targets.iter().map(target).collect(),
            loss_wanted: distiller.loss_weights.iter().map(wanted).collect(),
        }
    }

    /// What a first part reads.
    fn first(
        &self,
        slot: Slot,
        bindings: &[TapBinding],
        (params, buffers): (&LentParams<'_>, &[Array]),
    ) -> Input {
        match slot {
            Slot::Tap(index) => self.tap(index as usize, bindings[index as usize].channels),
            Slot::Param(index) => params.input(index as usize),
            Slot::Buffer(index) => {
                let buffer = &buffers[index as usize];
                floats(buffer.data.clone(), &buffer.shape, &self.device)
            }
            Slot::Target(index) => self.target(index as usize),
            Slot::DLoss(_) | Slot::DMap(_) => unreachable!("bound between the parts"),
        }
    }

    fn tap(&self, index: usize, channels: usize) -> Input {
        Input::Map(match &self.taps[index] {
            Some(tap) => tap.clone(),
            None => Tensor::zeros([0, channels, 0, 0], &self.device),
        })
    }

    fn target(&self, index: usize) -> Input {
        let Target { shape, values } = self.targets[index].as_ref();
        match values {
            TargetValues::F32(values) => floats(values.clone(), shape, &self.device),
            TargetValues::I64(values) => {
                let data = TensorData::new(values.clone(), [values.len()]);
                let values = Tensor::<1, Int>::from_data(data, &self.device);
                Input::Ints(values, shape.clone())
            }
        }
    }
}

/// Parameters as tensors, without a copy; those of the CPU go back on drop.
struct LentParams<'a> {
    arrays: &'a mut [Array],
    tensors: Vec<Tensor<1>>,
    are_moved: bool,
}

impl<'a> LentParams<'a> {
    fn new(arrays: &'a mut [Array], on_device: &[Tensor<1>], device: &Device) -> Self {
        let are_moved = on_device.is_empty();
        let tensors = match are_moved {
            true => (arrays.iter_mut())
                .map(|array| flat_tensor_on(std::mem::take(&mut array.data), device))
                .collect(),
            false => on_device.to_vec(),
        };
        LentParams {
            arrays,
            tensors,
            are_moved,
        }
    }

    fn input(&self, index: usize) -> Input {
        let shape = self.arrays[index].shape.clone();
        Input::Floats(self.tensors[index].clone(), shape)
    }
}

impl Drop for LentParams<'_> {
    fn drop(&mut self) {
        if self.are_moved {
            for (array, tensor) in self.arrays.iter_mut().zip(self.tensors.drain(..)) {
                array.data = into_vec(tensor);
            }
        }
    }
}

impl Distiller {
    /// As [`Distiller::step`].
    pub(super) fn step_by_program<E: From<DistillError>>(
        &mut self,
        call: &CallInfo,
        taps: &ModelTaps<'_>,
        sources: &Sources<'_>,
        scale: f32,
        judge: impl FnOnce(Vec<Tensor<4>>) -> Result<Vec<Tensor<4>>, E>,
    ) -> Result<DistillStep, E> {
        let started = Instant::now();
        let bound = Bound::new(self, taps, sources);
        let key = bound.key(self, ProgramKind::Training, call);
        let clock = Instant::now();
        let Some(mut taken) = self.ready(call, &key)? else {
            return self.step_by_plugin(call, taps, sources, scale, judge);
        };
        let params = LentParams::new(&mut self.params, &self.params_on_device, &bound.device);
        let state = (&params, self.buffers.as_slice());
        let results = taken
            .program
            .forward(&mut |slot| bound.first(slot, &self.bindings, state));
        let failed = |failure| programs::failed(&self.method, "forward", failure);
        let forwarded = Forwarded::new(results.map_err(failed)?, self.plan.losses.len());
        let forward = clock.elapsed();
        let losses = self.plan.losses.iter().zip(&forwarded.losses).enumerate();
        for (_, (spec, value)) in losses.filter(|(index, _)| self.demand.counts(*index)) {
            let loss = format!("loss `{}`", spec.name);
            self.method
                .check_finite("forward", &loss, std::slice::from_ref(value))
                .map_err(DistillError::from)?;
        }
        check_maps(&self.method, &self.plan, &forwarded.maps)?;

        let mut judging = Duration::ZERO;
        let mut d_maps: Vec<Tensor<4>> = Vec::new();
        if !forwarded.maps.is_empty() {
            let clock = Instant::now();
            d_maps = by_slot(
                judge(in_head_order(forwarded.maps, &self.map_order))?,
                &self.map_order,
            );
            judging = clock.elapsed();
        }
        let weights = &self.loss_weights;
        let clock = Instant::now();
        let results = taken.program.backward(&mut |slot| match slot {
            Slot::DLoss(index) => {
                let upstream = weights[index as usize] as f32 * scale;
                floats(vec![upstream], &[1], &bound.device)
            }
            Slot::DMap(index) => {
                let gradient = d_maps[index as usize].clone();
                Input::Map(gradient.to_device(&bound.device))
            }
            other => unreachable!("{other:?} is bound before the first part"),
        });
        let failed = |failure| programs::failed(&self.method, "backward", failure);
        let results = results.map_err(failed)?;
        let backward = clock.elapsed();
        drop(params);
        self.programs.put(key, taken);

        let mut tap_gradients = Vec::new();
        let mut given: Vec<Option<Values>> = vec![None; self.plan.params.len()];
        for (place, value) in results {
            match (place, value) {
                (Place::DTap(index), Value::Map(gradient)) => {
                    let binding = &self.bindings[index as usize];
                    if binding.grad && self.demand.wants_taps() {
                        let what = format!("the gradient of tap `{}`", binding.name);
                        check_finite(&self.method, "backward", &what, &gradient)?;
                        tap_gradients.push((binding.name.clone(), gradient));
                    }
                }
                (Place::DParam(index), Value::Floats(_))
                    if !self.demand.wants_param(index as usize) => {}
                (Place::DParam(index), Value::Floats(gradient)) => {
                    let name = &self.plan.params[index as usize].name;
                    let what = format!("the gradient of parameter `{name}`");
                    check_finite(&self.method, "backward", &what, &gradient)?;
                    given[index as usize] = Some(Values::of(gradient));
                }
                (place, _) => unreachable!("a checked program gives no {place:?} here"),
            }
        }
        let or_zero = |(gradient, spec): (Option<Values>, &TensorSpec)| {
            let len: usize = spec.shape.iter().product();
            gradient.unwrap_or_else(|| Values::of(Tensor::zeros([len], &bound.device)))
        };
        let param_gradients = given.into_iter().zip(&self.plan.params).map(or_zero);
        let param_gradients = param_gradients.collect();
        for (slot, value) in forwarded.buffers {
            self.buffers[slot].data = into_vec(value);
        }
        let names = self.plan.losses.iter().map(|l| l.name.clone());
        Ok(DistillStep {
            losses: names.zip(forwarded.losses).collect(),
            tap_gradients,
            param_gradients,
            metrics: forwarded.metrics,
            forward,
            judging,
            backward,
            boundary: started
                .elapsed()
                .saturating_sub(forward + judging + backward),
        })
    }

    /// As [`Distiller::maps`], for a method that has some.
    pub(super) fn maps_by_program(
        &mut self,
        call: &CallInfo,
        taps: &ModelTaps<'_>,
        sources: &Sources<'_>,
    ) -> Result<Vec<Tensor<4>>, DistillError> {
        let bound = Bound::new(self, taps, sources);
        let key = bound.key(self, ProgramKind::Forward, call);
        let Some(mut taken) = self.ready(call, &key)? else {
            return self.maps_by_plugin(call, taps, sources);
        };
        let params = LentParams::new(&mut self.params, &self.params_on_device, &bound.device);
        let state = (&params, self.buffers.as_slice());
        let results = taken
            .program
            .forward(&mut |slot| bound.first(slot, &self.bindings, state));
        let failed = |failure| programs::failed(&self.method, "forward", failure);
        let forwarded = Forwarded::new(results.map_err(failed)?, self.plan.losses.len());
        drop(params);
        taken.program.abandon();
        self.programs.put(key, taken);
        check_maps(&self.method, &self.plan, &forwarded.maps)?;
        Ok(in_head_order(forwarded.maps, &self.map_order))
    }

    /// Initial values of parameters and buffers, drawn as the plugin would draw them.
    pub(in crate::distill) fn init_by_program(
        &mut self,
        call: &CallInfo,
    ) -> Result<(), DistillError> {
        if self.params.is_empty() && self.buffers.is_empty() {
            return Ok(());
        }
        // On the CPU whatever the run's device: its draws do not depend on the machine.
        let device = Device::flex();
        let key = Key {
            kind: ProgramKind::Init,
            detach_student: false,
            phase: 0,
            taps: Vec::new(),
            targets: Vec::new(),
            loss_wanted: Vec::new(),
        };
        let mut programs = Programs::new(device.clone());
        let mut taken = programs.take(&mut self.method, &self.plan, call, &key)?;
        device.seed(call.seed);
        let results = taken
            .program
            .forward(&mut |slot| unreachable!("{slot:?} of initial values"));
        let failed = |failure| programs::failed(&self.method, "init_state", failure);
        for (place, value) in results.map_err(failed)? {
            let Value::Floats(value) = value else {
                unreachable!("initial values are flat");
            };
            let array = match place {
                Place::Param(index) => &mut self.params[index as usize],
                Place::Buffer(index) => &mut self.buffers[index as usize],
                other => unreachable!("a checked program gives no {other:?} here"),
            };
            array.data = into_vec(value);
        }
        Ok(())
    }

    /// The program for `key`; none if the method turned out to be untraceable and the plugin computes
    /// from now on.
    fn ready(&mut self, call: &CallInfo, key: &Key) -> Result<Option<Taken>, DistillError> {
        let taken = self.programs.take(&mut self.method, &self.plan, call, key);
        match taken {
            Ok(taken) => Ok(Some(taken)),
            Err(error) if self.may_fall_back => {
                tracing::warn!(
                    target: "kdhost::distill",
                    "{error}; the plugin computes by itself on the CPU from here on"
                );
                self.executor = Executor::Plugin;
                self.take_params_back();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What a first part gave, in slot order.
struct Forwarded {
    losses: Vec<f32>,
    maps: Vec<Tensor<4>>,
    metrics: Vec<(String, f64)>,
    buffers: Vec<(usize, Tensor<1>)>,
}

impl Forwarded {
    fn new(results: Vec<(Place, Value)>, losses: usize) -> Self {
        let mut forwarded = Forwarded {
            losses: vec![0.0; losses],
            maps: Vec::new(),
            metrics: Vec::new(),
            buffers: Vec::new(),
        };
        let mut maps: Vec<(u32, Tensor<4>)> = Vec::new();
        for (place, value) in results {
            match (place, value) {
                (Place::Loss(index), Value::Floats(loss)) => {
                    forwarded.losses[index as usize] = into_vec(loss)[0];
                }
                (Place::Map(index), Value::Map(map)) => maps.push((index, map)),
                (Place::Metric(name), Value::Floats(value)) => {
                    forwarded
                        .metrics
                        .push((name, f64::from(into_vec(value)[0])));
                }
                (Place::Buffer(index), Value::Floats(value)) => {
                    forwarded.buffers.push((index as usize, value));
                }
                (place, _) => unreachable!("a checked program gives no {place:?} here"),
            }
        }
        maps.sort_by_key(|(index, _)| *index);
        forwarded.maps = maps.into_iter().map(|(_, map)| map).collect();
        forwarded
    }
}

fn floats(values: Vec<f32>, shape: &[usize], device: &Device) -> Input {
    Input::Floats(flat_tensor_on(values, device), shape.to_vec())
}

fn check_maps(method: &Method, plan: &Plan, maps: &[Tensor<4>]) -> Result<(), DistillError> {
    for (spec, map) in plan.maps.iter().zip(maps) {
        check_finite(method, "forward", &format!("map `{}`", spec.name), map)?;
    }
    Ok(())
}

/// Refuses NaN and infinity; off the CPU one number is read unless something is wrong.
fn check_finite<const D: usize>(
    method: &Method,
    entry: &'static str,
    what: &str,
    tensor: &Tensor<D>,
) -> Result<(), DistillError> {
    if !is_on_host(tensor) {
        let probe = tensor.clone().mul_scalar(0.0).sum().into_scalar::<f32>();
        if probe == 0.0 {
            return Ok(());
        }
    }
    Ok(method.check_finite(entry, what, TapView::new(tensor).values())?)
}
