//! A Burn method as a raw method: graph in forward, autodiff in backward.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Gradients, Tensor};
use kd_abi::KdDType;

use super::host_conv::Entered;
use super::import::Loan;
use super::inputs::Inputs;
use super::outputs::Outputs;
use super::state::Layout;
use super::{DistillMethod, Plan, import, state};
use crate::call::Call;
use crate::raw::{BackwardArgs, ForwardArgs, RawMethod, RawPlan};
use crate::tap::{TapPattern, Taps};
use crate::{MethodError, TensorViewMut};

/// [`DistillMethod`] `M` as a [`RawMethod`].
pub struct BurnLevel<M: DistillMethod> {
    config: M::Config,
    device: Device,
    planned: Option<Planned<M>>,
}

struct Planned<M: DistillMethod> {
    taps: Taps,
    plan: Plan<M::Module>,
    layout: Layout,
}

/// The graph between a forward and its backward.
pub struct Graph<M: DistillMethod> {
    parts: Option<Parts<M>>,
    // Last, so that it is dropped after the tensors.
    _loan: Loan,
}

struct Parts<M: DistillMethod> {
    module: M::Module,
    taps: Vec<Tensor<4>>,
    losses: Vec<Tensor<1>>,
    maps: Vec<Tensor<4>>,
}

impl<M: DistillMethod> BurnLevel<M> {
    /// Plans under a seeded generator. Burn's is one for the whole library, hence the lock.
    fn seeded_plan(
        &self,
        taps: &Taps,
        seed: u64,
    ) -> Result<(Plan<M::Module>, Layout), MethodError> {
        static GENERATOR: Mutex<()> = Mutex::new(());
        let _lock = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
        self.device.seed(seed);
        let plan = M::plan(&self.config, taps, &self.device)?;
        let layout = state::layout(&plan.module)?;
        Ok((plan, layout))
    }

    fn planned(&self) -> Result<&Planned<M>, MethodError> {
        self.planned
            .as_ref()
            .ok_or_else(|| MethodError::state("called before `plan`"))
    }
}

impl<M: DistillMethod> RawMethod for BurnLevel<M> {
    type Config = M::Config;
    type Saved = Graph<M>;

    const ID: &'static str = M::ID;
    const TITLE: &'static str = M::TITLE;
    const DOC: &'static str = M::DOC;
    const TAPS: &'static [TapPattern] = M::TAPS;
    const TARGETS: &'static [&'static str] = M::TARGETS;
    const LOSSES: &'static [&'static str] = M::LOSSES;
    const MAPS: &'static [&'static str] = M::MAPS;
    const METRICS: &'static [&'static str] = M::METRICS;

    fn new(config: M::Config) -> Result<Self, MethodError> {
        Ok(BurnLevel {
            config,
            device: Device::flex().autodiff(),
            planned: None,
        })
    }

    fn plan(&mut self, taps: &Taps) -> Result<RawPlan, MethodError> {
        for tap in taps.iter() {
            if tap.dtype != KdDType::F32 || tap.shape.len() != 4 {
                return Err(MethodError::unsupported(format!(
                    "{} tap `{}` is {} {:?}; methods over Burn tensors read f32 [N, C, H, W]",
                    tap.role.name(),
                    tap.name,
                    tap.dtype.name().unwrap_or("of an unknown type"),
                    tap.shape
                )));
            }
        }
        let (plan, layout) = self.seeded_plan(taps, 0)?;
        let raw = RawPlan {
            params: layout.params.clone(),
            buffers: layout.buffers.clone(),
            losses: plan.losses.clone(),
            maps: plan.maps.clone(),
            tap_uses: Vec::new(),
            schedule: plan.schedule.clone(),
        };
        self.planned = Some(Planned {
            taps: taps.clone(),
            plan,
            layout,
        });
        Ok(raw)
    }

    fn init_state(
        &mut self,
        call: &Call<'_>,
        params: &mut [TensorViewMut<'_>],
        buffers: &mut [TensorViewMut<'_>],
    ) -> Result<(), MethodError> {
        let taps = &self.planned()?.taps;
        let (plan, _) = self.seeded_plan(taps, call.info().seed)?;
        state::export(&plan.module, params, buffers)
    }

    fn forward(
        &mut self,
        call: &Call<'_>,
        args: &mut ForwardArgs<'_>,
    ) -> Result<Graph<M>, MethodError> {
        call.check_cancelled()?;
        let _host_conv = Entered::new(call);
        let Planned { taps, plan, layout } = self.planned()?;
        // First, so that it is dropped last if anything below fails.
        let loan = Loan::new();
        let mut tensors = Vec::with_capacity(taps.len());
        for (tap, view) in taps.iter().zip(&args.taps) {
            let place = || format!("{} tap `{}`", tap.role.name(), tap.name);
            tensors.push(if tap.wants_grad() {
                import::borrow::<4>(view, &self.device, &loan)
                    .map_err(|error| error.at(place()))?
                    .require_grad()
            } else {
                import::borrow::<4>(view, &self.device.clone().inner(), &loan)
                    .map_err(|error| error.at(place()))?
            });
        }
        let module = state::load(
            plan.module.clone(),
            &args.params,
            &args.buffers,
            &self.device,
            &loan,
        )?;
        let inputs = Inputs {
            taps,
            tensors: &tensors,
            names: M::TARGETS,
            targets: &args.targets,
            call: call.info(),
            device: &self.device,
            loan: &loan,
        };
        let outputs = M::forward(&self.config, &module, &inputs)?;
        let (losses, maps) = write_outputs::<M>(call, plan, layout, outputs, args)?;
        Ok(Graph {
            parts: Some(Parts {
                module,
                taps: tensors,
                losses,
                maps,
            }),
            _loan: loan,
        })
    }

    fn backward(
        &mut self,
        call: &Call<'_>,
        args: &mut BackwardArgs<'_>,
        saved: &mut Graph<M>,
    ) -> Result<(), MethodError> {
        call.check_cancelled()?;
        let _host_conv = Entered::new(call);
        let parts = saved
            .parts
            .take()
            .ok_or_else(|| MethodError::state("backward was already run on this forward"))?;
        let plain = self.device.clone().inner();
        let loan = Loan::new();
        let mut total: Option<Tensor<1>> = None;
        let mut add = |term: Tensor<1>| {
            total = Some(match total.take() {
                Some(sum) => sum + term,
                None => term,
            });
        };
        for (loss, &upstream) in parts.losses.into_iter().zip(&args.d_losses) {
            if loss.is_tracked() && upstream != 0.0 {
                add(loss.mul_scalar(upstream));
            }
        }
        for (map, upstream) in parts.maps.into_iter().zip(&args.d_maps) {
            if map.is_tracked() {
                add((map * import::borrow::<4>(upstream, &plain, &loan)?).sum());
            }
        }
        let mut gradients: Option<Gradients> = total.map(|total| total.backward());
        for (tensor, place) in parts.taps.iter().zip(&mut args.d_taps) {
            let gradient = gradients.as_mut().and_then(|all| tensor.grad_remove(all));
            state::write_gradient(gradient, place)?;
        }
        state::gradients(&parts.module, gradients.as_mut(), &mut args.d_params)
    }
}

type Tracked = (Vec<Tensor<1>>, Vec<Tensor<4>>);

/// Copies values out in slot order; returns the tensors for the backward.
fn write_outputs<M: DistillMethod>(
    call: &Call<'_>,
    plan: &Plan<M::Module>,
    layout: &Layout,
    outputs: Outputs,
    args: &mut ForwardArgs<'_>,
) -> Result<Tracked, MethodError> {
    let mut losses = Vec::with_capacity(plan.losses.len());
    let mut given = outputs.losses;
    for ((name, _), place) in plan.losses.iter().zip(&mut args.losses) {
        let loss = take(&mut given, name, "loss")?;
        place
            .write(&import::values(loss.clone().inner())?)
            .map_err(|error| error.at(format!("loss `{name}`")))?;
        losses.push(loss);
    }
    none_left(&given, "loss")?;
    let mut maps = Vec::with_capacity(plan.maps.len());
    let mut given = outputs.maps;
    for (spec, place) in plan.maps.iter().zip(&mut args.maps) {
        let map = take(&mut given, &spec.name, "map")?;
        if map.dims() != place.shape() {
            return Err(MethodError::shape(format!(
                "map `{}` has shape {:?}, the tap `{}` that it replaces {:?}",
                spec.name,
                map.dims(),
                spec.replaces,
                place.shape()
            )));
        }
        place.write(&import::values(map.clone().inner())?)?;
        maps.push(map);
    }
    none_left(&given, "map")?;
    for (name, value) in outputs.metrics {
        if !M::METRICS.contains(&name.as_str()) {
            return Err(MethodError::internal(format!("`{name}` is not in METRICS")));
        }
        let values = import::values(value.inner())?;
        let &[value] = values.as_slice() else {
            return Err(MethodError::internal(format!(
                "metric `{name}` is not one number"
            )));
        };
        call.metric(&name, f64::from(value));
    }
    for (path, shape, value) in outputs.buffers {
        let slot = layout
            .buffers
            .iter()
            .position(|spec| spec.name == path && spec.shape == shape);
        let place = slot
            .and_then(|slot| args.buffers.get_mut(slot))
            .ok_or_else(|| {
                MethodError::internal(format!(
                    "the module has no buffer `{path}` of shape {shape:?}"
                ))
            })?;
        place.write(&import::values(value.inner())?)?;
    }
    Ok((losses, maps))
}

fn take<T>(given: &mut Vec<(String, T)>, name: &str, what: &str) -> Result<T, MethodError> {
    let at = given
        .iter()
        .position(|(known, _)| known == name)
        .ok_or_else(|| {
            MethodError::internal(format!("`forward` did not return the {what} `{name}`"))
        })?;
    Ok(given.swap_remove(at).1)
}

fn none_left<T>(given: &[(String, T)], what: &str) -> Result<(), MethodError> {
    match given.first() {
        None => Ok(()),
        Some((name, _)) => Err(MethodError::internal(format!(
            "`forward` returned the {what} `{name}`, which the plan does not declare"
        ))),
    }
}
