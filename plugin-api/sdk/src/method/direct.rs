//! A method that computes by itself, on the CPU: graph in forward, autodiff in backward. For hosts that
//! cannot execute its program, and as the oracle of those that do.

mod import;
mod values;

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::{Device, Gradients, Int, Tensor};

pub use import::live_views;

use super::host_conv::Entered;
use super::inputs::{Inputs, Targets};
use super::outputs::Ordered;
use super::state::{self, Layout};
use super::{DistillMethod, Plan};
use crate::call::Call;
use crate::raw::{BackwardArgs, ForwardArgs, MapSpec, RawPlan};
use crate::tap::Taps;
use crate::{MethodError, TensorView, TensorViewMut};
use import::Loan;

/// The CPU.
pub(super) fn device() -> Device {
    Device::flex().autodiff()
}

/// A planned method.
pub(super) struct Direct<M: DistillMethod> {
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

/// Burn's generator is one for the whole library: whoever seeds it and draws holds this lock.
pub(crate) fn generator() -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plans under a seeded generator.
fn seeded_plan<M: DistillMethod>(
    config: &M::Config,
    taps: &Taps,
    seed: u64,
) -> Result<(Plan<M::Module>, Layout), MethodError> {
    let _lock = generator();
    let device = device();
    device.seed(seed);
    let plan = M::plan(config, taps, &device)?;
    let layout = state::layout(&plan.module)?;
    Ok((plan, layout))
}

impl<M: DistillMethod> Direct<M> {
    pub(super) fn plan(config: &M::Config, taps: &Taps) -> Result<Self, MethodError> {
        let (plan, layout) = seeded_plan::<M>(config, taps, 0)?;
        Ok(Direct {
            taps: taps.clone(),
            plan,
            layout,
        })
    }

    pub(super) fn raw_plan(&self) -> Result<RawPlan, MethodError> {
        self.plan.to_raw(&self.layout, M::TARGETS)
    }

    pub(super) fn init_state(
        &self,
        config: &M::Config,
        seed: u64,
        params: &mut [TensorViewMut<'_>],
        buffers: &mut [TensorViewMut<'_>],
    ) -> Result<(), MethodError> {
        let (plan, _) = seeded_plan::<M>(config, &self.taps, seed)?;
        values::export(&plan.module, params, buffers)
    }

    pub(super) fn forward(
        &self,
        config: &M::Config,
        call: &Call<'_>,
        args: &mut ForwardArgs<'_>,
    ) -> Result<Graph<M>, MethodError> {
        call.check_cancelled()?;
        let _host_conv = Entered::new(call);
        let device = device();
        // First, so that it is dropped last if anything below fails.
        let loan = Loan::new();
        let mut tensors = Vec::with_capacity(self.taps.len());
        for (tap, view) in self.taps.iter().zip(&args.taps) {
            let place = || format!("{} tap `{}`", tap.role.name(), tap.name);
            tensors.push(if tap.wants_grad() {
                import::borrow::<4>(view, &device, &loan)
                    .map_err(|error| error.at(place()))?
                    .require_grad()
            } else {
                import::borrow::<4>(view, &device.clone().inner(), &loan)
                    .map_err(|error| error.at(place()))?
            });
        }
        let mut lent = values::Lent {
            params: args.params.iter(),
            buffers: args.buffers.iter(),
            device: &device,
            loan: &loan,
        };
        let module = state::load(self.plan.module.clone(), &mut lent)?;
        let plain = device.inner();
        let targets = LentTargets {
            views: &args.targets,
            loan: &loan,
        };
        let unread = self.plan.unread_targets(M::TARGETS)?;
        let wanted = self.plan.losses_of(&call.info());
        let inputs = Inputs {
            taps: &self.taps,
            tensors: &tensors,
            names: M::TARGETS,
            unread: &unread,
            targets: Targets::Lent(targets),
            wanted: &wanted,
            call: call.info(),
            depends_on_call: std::cell::Cell::new(false),
            device: &plain,
        };
        let outputs = M::forward(config, &module, &inputs)?;
        let maps: Vec<(&MapSpec, Vec<usize>)> = (self.plan.maps.iter().zip(&args.maps))
            .map(|(spec, place)| (spec, place.shape().to_vec()))
            .collect();
        let outputs = outputs.in_order(&self.plan.losses, &maps, M::METRICS, &self.layout)?;
        write_outputs(call, &outputs, args)?;
        Ok(Graph {
            parts: Some(Parts {
                module,
                taps: tensors,
                losses: outputs.losses,
                maps: outputs.maps,
            }),
            _loan: loan,
        })
    }
}

impl<M: DistillMethod> Graph<M> {
    pub(super) fn backward(
        &mut self,
        call: &Call<'_>,
        args: &mut BackwardArgs<'_>,
    ) -> Result<(), MethodError> {
        call.check_cancelled()?;
        let _host_conv = Entered::new(call);
        let parts = self
            .parts
            .take()
            .ok_or_else(|| MethodError::state("backward was already run on this forward"))?;
        let plain = device().inner();
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
            values::write_gradient(gradient, place)?;
        }
        values::gradients(&parts.module, gradients.as_mut(), &mut args.d_params)
    }
}

/// The host's targets as tensors.
#[derive(Debug)]
pub(super) struct LentTargets<'a> {
    views: &'a [TensorView<'a>],
    loan: &'a Loan,
}

impl LentTargets<'_> {
    pub(super) fn floats<const D: usize>(
        &self,
        slot: usize,
        device: &Device,
    ) -> Result<Tensor<D>, MethodError> {
        import::borrow(&self.views[slot], device, self.loan)
    }

    pub(super) fn integers<const D: usize>(
        &self,
        slot: usize,
        device: &Device,
    ) -> Result<Tensor<D, Int>, MethodError> {
        import::integers(&self.views[slot], device)
    }
}

/// Copies values out in slot order.
fn write_outputs(
    call: &Call<'_>,
    outputs: &Ordered,
    args: &mut ForwardArgs<'_>,
) -> Result<(), MethodError> {
    for (loss, place) in outputs.losses.iter().zip(&mut args.losses) {
        place.write(&import::values(loss.clone().inner())?)?;
    }
    for (map, place) in outputs.maps.iter().zip(&mut args.maps) {
        place.write(&import::values(map.clone().inner())?)?;
    }
    for (name, value) in &outputs.metrics {
        let values = import::values(value.clone().inner())?;
        call.metric(name, f64::from(values[0]));
    }
    for (slot, value) in &outputs.buffers {
        let place = args
            .buffers
            .get_mut(*slot)
            .expect("the layout is the plan's");
        place.write(&import::values(value.clone().inner())?)?;
    }
    Ok(())
}
