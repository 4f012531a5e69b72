//! Traces a method: its forward and backward become a program.
//!
//! Burn's capture device records operations and executes none. It knows no autodiff by itself, so the
//! leaves are made as primitives of the autodiff decorator around it, and gradients taken from there;
//! in between stands the author's code over ordinary tensors.

mod module;
mod record;
mod refusal;
mod tidy;

use burn::backend::Autodiff;
use burn::backend::Capture;
use burn::tensor::{Device, Int, Tensor};
use burn_backend::tensor::FloatTensor;
use kd_abi::KdDType;
use kd_graph::{Place, Slot};

use super::inputs::{Inputs, Targets};
use super::state::{self, Layout};
use super::{DistillMethod, Plan};
use crate::MethodError;
use crate::call::Call;
#[cfg(not(feature = "cpu"))]
use crate::raw::RawPlan;
use crate::raw::{Extents, MapSpec, TraceArgs, TraceKind};
use crate::tap::Taps;
use record::{Defaults, Recorder};

/// A tensor of a trace that may have a gradient.
type Leaf = FloatTensor<Autodiff<Capture>>;

/// What the method declares for these taps, without computing anything.
#[cfg(not(feature = "cpu"))]
pub(super) fn plan<M: DistillMethod>(
    config: &M::Config,
    taps: &Taps,
) -> Result<RawPlan, MethodError> {
    record::discard(|device| {
        let (plan, layout) = planned::<M>(config, taps, device)?;
        plan.to_raw(&layout, M::TARGETS)
    })
}

/// The bytes of the method's program.
pub(super) fn program<M: DistillMethod>(
    config: &M::Config,
    taps: &Taps,
    call: &Call<'_>,
    args: &TraceArgs,
) -> Result<Vec<u8>, MethodError> {
    let defaults = Defaults::new(args.int_dtype, args.bool_bytes)?;
    let program = record::record(defaults, |recorder, device| match args.kind {
        TraceKind::Init => initial_state::<M>(config, taps, recorder, device),
        TraceKind::Training | TraceKind::Forward => {
            step::<M>(config, taps, call, args, recorder, device)
        }
    })?;
    Ok(kd_graph::encode(&program))
}

fn planned<M: DistillMethod>(
    config: &M::Config,
    taps: &Taps,
    device: &Device,
) -> Result<(Plan<M::Module>, Layout), MethodError> {
    let plan = M::plan(config, taps, device)?;
    let layout = state::layout(&plan.module)?;
    Ok((plan, layout))
}

/// Records the initial values, drawn in the order of the module.
fn initial_state<M: DistillMethod>(
    config: &M::Config,
    taps: &Taps,
    recorder: &mut Recorder,
    device: &Device,
) -> Result<(), MethodError> {
    let (plan, _) = planned::<M>(config, taps, device)?;
    recorder.keep_draws();
    for (place, value) in module::values(&plan.module)? {
        recorder.output(place, value);
    }
    Ok(())
}

/// Records forward, and backward if that is wanted.
fn step<M: DistillMethod>(
    config: &M::Config,
    taps: &Taps,
    call: &Call<'_>,
    args: &TraceArgs,
    recorder: &mut Recorder,
    device: &Device,
) -> Result<(), MethodError> {
    let (plan, layout) = planned::<M>(config, taps, device)?;
    let mut tensors = Vec::with_capacity(taps.len());
    // Places of gradients, and the leaves they belong to.
    let mut leaves: Vec<(Place, Leaf)> = Vec::new();
    for (index, (tap, extents)) in taps.iter().zip(&args.taps).enumerate() {
        let slot = Slot::Tap(index as u32);
        let shape = rank(extents, || format!("tap `{}`", tap.name))?;
        let tensor: Tensor<4> = if tap.wants_grad() && plan.uses_tap(index) {
            let (tensor, leaf) = recorder.leaf(slot, shape);
            leaves.push((Place::DTap(index as u32), leaf));
            tensor
        } else {
            recorder.constant(slot, shape)
        };
        tensors.push(tensor);
    }
    let mut source = module::Traced::new(recorder, &args.params, &args.buffers);
    let module = state::load(plan.module.clone(), &mut source)?;
    leaves.append(&mut source.into_leaves());

    let plain = device.clone().without_autodiff();
    let unread = plan.unread_targets(M::TARGETS)?;
    let traced = TracedTargets::new(recorder, &args.targets);
    let losses = plan.losses.iter().zip(&args.loss_wanted);
    let wanted: Vec<String> = losses
        .filter(|(_, wanted)| **wanted)
        .map(|((name, _), _)| name.clone())
        .collect();
    let inputs = Inputs {
        taps,
        tensors: &tensors,
        names: M::TARGETS,
        unread: &unread,
        targets: Targets::Traced(traced),
        wanted: &wanted,
        call: call.info(),
        depends_on_call: std::cell::Cell::new(false),
        device: &plain,
    };
    let outputs = M::forward(config, &module, &inputs)?;
    let depends_on_call = inputs.depends_on_call.get();
    let replaced = |spec: &MapSpec| -> Result<_, MethodError> {
        let tap = taps.get(&crate::tap::Role::Student, &spec.replaces)?;
        Ok(args.taps[tap.index].shape.clone())
    };
    let maps: Vec<(&MapSpec, Vec<usize>)> = (plan.maps.iter())
        .map(|spec| Ok((spec, replaced(spec)?)))
        .collect::<Result<_, MethodError>>()?;
    let outputs = outputs.in_order(&plan.losses, &maps, M::METRICS, &layout)?;

    recorder.set_depends_on_call(depends_on_call);
    for (index, loss) in outputs.losses.iter().enumerate() {
        recorder.output(Place::Loss(index as u32), record::primitive(loss)?);
    }
    for (index, map) in outputs.maps.iter().enumerate() {
        recorder.output(Place::Map(index as u32), record::primitive(map)?);
    }
    for (name, value) in &outputs.metrics {
        recorder.output(Place::Metric(name.clone()), record::primitive(value)?);
    }
    for (slot, value) in &outputs.buffers {
        let value = record::reshaped(value, &layout.buffers[*slot].shape)?;
        recorder.output(Place::Buffer(*slot as u32), value);
    }
    recorder.end_of_forward();
    if args.kind == TraceKind::Forward {
        return Ok(());
    }

    let mut total: Option<Tensor<1>> = None;
    let mut add = |term: Tensor<1>| {
        total = Some(match total.take() {
            Some(sum) => sum + term,
            None => term,
        });
    };
    for (index, loss) in outputs.losses.into_iter().enumerate() {
        if args.loss_wanted[index] && loss.is_tracked() {
            let upstream = recorder.constant(Slot::DLoss(index as u32), [1]);
            add(loss * upstream);
        }
    }
    for (index, map) in outputs.maps.into_iter().enumerate() {
        if map.is_tracked() {
            let upstream: Tensor<4> = recorder.constant(Slot::DMap(index as u32), map.dims());
            add((map * upstream).sum());
        }
    }
    if let Some(total) = total {
        recorder.gradients(total, leaves)?;
    }
    Ok(())
}

/// Targets as inputs of a program.
#[derive(Debug)]
pub(super) struct TracedTargets<'a> {
    recorder: &'a Recorder,
    extents: &'a [Extents],
}

impl<'a> TracedTargets<'a> {
    fn new(recorder: &'a Recorder, extents: &'a [Extents]) -> Self {
        TracedTargets { recorder, extents }
    }

    pub(super) fn floats<const D: usize>(&self, slot: usize) -> Result<Tensor<D>, MethodError> {
        let extents = &self.extents[slot];
        if extents.dtype != KdDType::F32 {
            return Err(MethodError::dtype(format!(
                "is {}, not f32",
                extents.dtype.name().unwrap_or("of an unknown type")
            )));
        }
        let shape = rank(extents, || "target".to_owned())?;
        Ok(self.recorder.constant(Slot::Target(slot as u32), shape))
    }

    pub(super) fn integers<const D: usize>(
        &self,
        slot: usize,
    ) -> Result<Tensor<D, Int>, MethodError> {
        let shape = rank(&self.extents[slot], || "target".to_owned())?;
        Ok(self.recorder.integers(Slot::Target(slot as u32), shape))
    }
}

fn rank<const D: usize>(
    extents: &Extents,
    what: impl Fn() -> String,
) -> Result<[usize; D], MethodError> {
    <[usize; D]>::try_from(extents.shape.as_slice()).map_err(|_| {
        MethodError::shape(format!(
            "{} has shape {:?}, not {D} extents",
            what(),
            extents.shape
        ))
    })
}
