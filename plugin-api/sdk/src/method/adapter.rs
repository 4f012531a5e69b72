//! A Burn method as a raw method: traced into a program, and where the feature `cpu` is on, computed by
//! itself as well.

use kd_abi::KdDType;

#[cfg(feature = "cpu")]
use super::direct::{Direct, Graph};
use super::{DistillMethod, trace};
use crate::call::Call;
use crate::raw::{BackwardArgs, ForwardArgs, RawMethod, RawPlan, TraceArgs};
use crate::tap::{TapPattern, Taps};
use crate::{MethodError, TensorViewMut};

/// [`DistillMethod`] `M` as a [`RawMethod`].
pub struct BurnLevel<M: DistillMethod> {
    config: M::Config,
    taps: Option<Taps>,
    #[cfg(feature = "cpu")]
    direct: Option<Direct<M>>,
}

#[cfg(not(feature = "cpu"))]
fn cannot_compute() -> MethodError {
    MethodError::unsupported(
        "this plugin carries no compute backend; it needs a host that executes its program \
         (kd.graph/1), or a build of it with `--features cpu`",
    )
}

fn unplanned() -> MethodError {
    MethodError::state("called before `plan`")
}

impl<M: DistillMethod> RawMethod for BurnLevel<M> {
    type Config = M::Config;
    #[cfg(feature = "cpu")]
    type Saved = Graph<M>;
    #[cfg(not(feature = "cpu"))]
    type Saved = ();

    const ID: &'static str = M::ID;
    const TITLE: &'static str = M::TITLE;
    const DOC: &'static str = M::DOC;
    const TAPS: &'static [TapPattern] = M::TAPS;
    const TARGETS: &'static [&'static str] = M::TARGETS;
    const LOSSES: &'static [&'static str] = M::LOSSES;
    const MAPS: &'static [&'static str] = M::MAPS;
    const METRICS: &'static [&'static str] = M::METRICS;
    const GRAPH_FORMAT: Option<&'static str> = Some(kd_graph::FORMAT);
    const COMPUTES: bool = cfg!(feature = "cpu");

    fn new(config: M::Config) -> Result<Self, MethodError> {
        Ok(BurnLevel {
            config,
            taps: None,
            #[cfg(feature = "cpu")]
            direct: None,
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
        self.taps = Some(taps.clone());
        #[cfg(feature = "cpu")]
        {
            let direct = self.direct.insert(Direct::plan(&self.config, taps)?);
            direct.raw_plan()
        }
        #[cfg(not(feature = "cpu"))]
        trace::plan::<M>(&self.config, taps)
    }

    #[cfg(feature = "cpu")]
    fn init_state(
        &mut self,
        call: &Call<'_>,
        params: &mut [TensorViewMut<'_>],
        buffers: &mut [TensorViewMut<'_>],
    ) -> Result<(), MethodError> {
        let direct = self.direct.as_ref().ok_or_else(unplanned)?;
        direct.init_state(&self.config, call.info().seed, params, buffers)
    }

    #[cfg(not(feature = "cpu"))]
    fn init_state(
        &mut self,
        _: &Call<'_>,
        params: &mut [TensorViewMut<'_>],
        buffers: &mut [TensorViewMut<'_>],
    ) -> Result<(), MethodError> {
        if params.is_empty() && buffers.is_empty() {
            return Ok(());
        }
        Err(cannot_compute())
    }

    #[cfg(feature = "cpu")]
    fn forward(
        &mut self,
        call: &Call<'_>,
        args: &mut ForwardArgs<'_>,
    ) -> Result<Graph<M>, MethodError> {
        let direct = self.direct.as_ref().ok_or_else(unplanned)?;
        direct.forward(&self.config, call, args)
    }

    #[cfg(not(feature = "cpu"))]
    fn forward(&mut self, _: &Call<'_>, _: &mut ForwardArgs<'_>) -> Result<(), MethodError> {
        Err(cannot_compute())
    }

    #[cfg(feature = "cpu")]
    fn backward(
        &mut self,
        call: &Call<'_>,
        args: &mut BackwardArgs<'_>,
        saved: &mut Graph<M>,
    ) -> Result<(), MethodError> {
        saved.backward(call, args)
    }

    #[cfg(not(feature = "cpu"))]
    fn backward(
        &mut self,
        _: &Call<'_>,
        _: &mut BackwardArgs<'_>,
        (): &mut (),
    ) -> Result<(), MethodError> {
        Err(cannot_compute())
    }

    fn trace(&mut self, call: &Call<'_>, args: &TraceArgs) -> Result<Vec<u8>, MethodError> {
        call.check_cancelled()?;
        let taps = self.taps.as_ref().ok_or_else(unplanned)?;
        trace::program::<M>(&self.config, taps, call, args)
    }
}
