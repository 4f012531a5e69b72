//! The functions that the host calls, generic over the method.
//!
//! Each checks its pointers, enters the guard, turns the C arguments into checked views and calls
//! the method. Nothing else in the crate is `extern "C"`.
#![expect(unsafe_code, reason = "implements the C side of the boundary")]

mod args;

use std::ffi::c_void;

use kd_abi::{
    KD_E_INVALID_ARG, KD_EXT_GRAPH, KD_GRAPH_ONLY, KD_OK, KdBackward, KdCall, KdForward,
    KdGraphTable, KdInst, KdMethod, KdPlanSink, KdProgramSink, KdSaved, KdStatus, KdStr, KdTap,
    KdTensor, KdTrace,
};

use self::args::{array, expect_len, tap_info, text, trace_args, views, views_mut};
use crate::call::Call;
use crate::guard::{guard, guard_silent};
use crate::plan_sink;
use crate::raw::{BackwardArgs, ForwardArgs, RawMethod, RawPlan, TraceKind};
use crate::tap::{TapInfo, Taps};
use crate::{MethodError, TensorView, config};

struct Instance<R> {
    method: R,
    planned: Option<Planned>,
    poisoned: bool,
}

struct Planned {
    taps: Taps,
    plan: RawPlan,
}

impl<R> Instance<R> {
    fn planned(&self) -> Result<&Planned, MethodError> {
        self.planned
            .as_ref()
            .ok_or_else(|| MethodError::state("called before `plan`"))
    }
}

/// The table of a method.
#[must_use]
pub const fn table<R: RawMethod>() -> KdMethod {
    KdMethod {
        struct_size: size_of::<KdMethod>() as u32,
        flags: 0,
        id: KdStr::new(R::ID),
        create: Some(create::<R>),
        destroy: Some(destroy::<R>),
        plan: Some(plan::<R>),
        init_state: Some(init_state::<R>),
        forward: Some(forward::<R>),
        backward: Some(backward::<R>),
        release_saved: Some(release_saved::<R>),
        get_extension: Some(get_extension::<R>),
    }
}

unsafe extern "C" fn create<R: RawMethod>(
    call: *const KdCall,
    config_json: KdStr,
    out: *mut *mut KdInst,
) -> KdStatus {
    let body = |_: &Call<'_>| {
        if out.is_null() {
            return Err(MethodError::invalid_argument("null place for the instance"));
        }
        // SAFETY: borrowed for the call by contract.
        let text = unsafe { text(config_json, "configuration")? };
        let method = R::new(config::read::<R::Config>(text)?)?;
        let instance = Box::new(Instance {
            method,
            planned: None,
            poisoned: false,
        });
        // SAFETY: not null, writable by contract.
        unsafe { out.write(Box::into_raw(instance).cast()) };
        Ok(())
    };
    // SAFETY: the host's promise on `call`.
    unsafe { guard(R::ID, "create", call, body) }.status
}

unsafe extern "C" fn destroy<R: RawMethod>(inst: *mut KdInst) {
    if !inst.is_null() {
        guard_silent(|| {
            // SAFETY: made by `create`, destroyed once.
            drop(unsafe { Box::from_raw(inst.cast::<Instance<R>>()) });
        });
    }
}

unsafe extern "C" fn plan<R: RawMethod>(
    inst: *mut KdInst,
    call: *const KdCall,
    taps: *const KdTap,
    n_taps: u32,
    sink: *const KdPlanSink,
) -> KdStatus {
    // SAFETY: the host's promise on all arguments.
    unsafe {
        entered::<R>("plan", inst, call, |instance, call| {
            let raw = array(taps, n_taps, "taps")?;
            let taps = raw
                .iter()
                .enumerate()
                .map(|(index, tap)| tap_info(index, tap))
                .collect::<Result<Vec<_>, _>>()?;
            let taps = Taps::new(taps).with_num_classes(call.num_classes());
            let plan = instance.method.plan(&taps)?;
            check_names::<R>(&plan)?;
            let sink = sink
                .as_ref()
                .ok_or_else(|| MethodError::invalid_argument("null plan sink"))?;
            plan_sink::declare(sink, &taps, raw, &plan)?;
            instance.planned = Some(Planned { taps, plan });
            Ok(())
        })
    }
}

unsafe extern "C" fn init_state<R: RawMethod>(
    inst: *mut KdInst,
    call: *const KdCall,
    params: *mut KdTensor,
    n_params: u32,
    buffers: *mut KdTensor,
    n_buffers: u32,
) -> KdStatus {
    // SAFETY: the host's promise on all arguments.
    unsafe {
        entered::<R>("init_state", inst, call, |instance, call| {
            let plan = &instance.planned()?.plan;
            expect_len("params", n_params, plan.params.len())?;
            expect_len("buffers", n_buffers, plan.buffers.len())?;
            let mut params = views_mut(params, n_params, "param")?;
            let mut buffers = views_mut(buffers, n_buffers, "buffer")?;
            instance.method.init_state(call, &mut params, &mut buffers)
        })
    }
}

unsafe extern "C" fn forward<R: RawMethod>(
    inst: *mut KdInst,
    call: *const KdCall,
    args: *const KdForward,
    saved: *mut *mut KdSaved,
) -> KdStatus {
    if !saved.is_null() {
        // SAFETY: writable by contract. Null unless all goes well.
        unsafe { saved.write(std::ptr::null_mut()) };
    }
    // SAFETY: the host's promise on all arguments.
    unsafe {
        entered::<R>("forward", inst, call, |instance, call| {
            let args = args
                .as_ref()
                .ok_or_else(|| MethodError::invalid_argument("null arguments"))?;
            let Planned { taps, plan } = instance.planned()?;
            expect_len("taps", args.n_taps, taps.len())?;
            expect_len("params", args.n_params, plan.params.len())?;
            expect_len("buffers", args.n_buffers, plan.buffers.len())?;
            expect_len("targets", args.n_targets, R::TARGETS.len())?;
            expect_len("losses", args.n_losses, plan.losses.len())?;
            expect_len("maps", args.n_maps, plan.maps.len())?;
            let mut views = ForwardArgs {
                taps: views(args.taps, args.n_taps, "tap")?,
                params: views(args.params, args.n_params, "param")?,
                buffers: views_mut(args.buffers, args.n_buffers, "buffer")?,
                targets: views(args.targets, args.n_targets, "target")?,
                losses: views_mut(args.losses, args.n_losses, "loss")?,
                maps: views_mut(args.maps, args.n_maps, "map")?,
            };
            check_shapes(taps, plan, &views.taps)?;
            check_state(plan, &views.params)?;
            if saved.is_null() {
                return Err(MethodError::invalid_argument(
                    "null place for the saved state",
                ));
            }
            let kept = instance.method.forward(call, &mut views)?;
            saved.write(Box::into_raw(Box::new(kept)).cast());
            Ok(())
        })
    }
}

unsafe extern "C" fn backward<R: RawMethod>(
    inst: *mut KdInst,
    call: *const KdCall,
    args: *const KdBackward,
    saved: *mut KdSaved,
) -> KdStatus {
    // SAFETY: the host's promise on all arguments.
    unsafe {
        entered::<R>("backward", inst, call, |instance, call| {
            let args = args
                .as_ref()
                .ok_or_else(|| MethodError::invalid_argument("null arguments"))?;
            let Planned { taps, plan } = instance.planned()?;
            expect_len("taps", args.n_taps, taps.len())?;
            expect_len("params", args.n_params, plan.params.len())?;
            expect_len("losses", args.n_losses, plan.losses.len())?;
            expect_len("maps", args.n_maps, plan.maps.len())?;
            let saved = saved
                .cast::<R::Saved>()
                .as_mut()
                .ok_or_else(|| MethodError::state("null saved state; run forward first"))?;
            let d_losses = views(args.d_losses, args.n_losses, "d_loss")?;
            let mut views = BackwardArgs {
                taps: views(args.taps, args.n_taps, "tap")?,
                params: views(args.params, args.n_params, "param")?,
                d_losses: d_losses
                    .iter()
                    .map(TensorView::scalar)
                    .collect::<Result<_, _>>()?,
                d_maps: views(args.d_maps, args.n_maps, "d_map")?,
                d_taps: views_mut(args.d_taps, args.n_taps, "d_tap")?,
                d_params: views_mut(args.d_params, args.n_params, "d_param")?,
            };
            check_shapes(taps, plan, &views.taps)?;
            check_state(plan, &views.params)?;
            instance.method.backward(call, &mut views, saved)
        })
    }
}

/// The instance is not touched: this may run on another thread.
unsafe extern "C" fn release_saved<R: RawMethod>(_inst: *mut KdInst, saved: *mut KdSaved) {
    if !saved.is_null() {
        guard_silent(|| {
            // SAFETY: made by `forward`, released once.
            drop(unsafe { Box::from_raw(saved.cast::<R::Saved>()) });
        });
    }
}

unsafe extern "C" fn get_extension<R: RawMethod>(_inst: *mut KdInst, id: KdStr) -> *const c_void {
    let mut table = std::ptr::null();
    guard_silent(|| {
        // SAFETY: borrowed for the call by contract.
        let is_graph = unsafe { id.as_bytes() } == KD_EXT_GRAPH.as_bytes();
        if is_graph && R::GRAPH_FORMAT.is_some() {
            table = (&raw const *Programs::<R>::TABLE).cast();
        }
    });
    table
}

/// Place for a method's table of `kd.graph/1`.
struct Programs<R>(std::marker::PhantomData<R>);

impl<R: RawMethod> Programs<R> {
    const TABLE: &'static KdGraphTable = &KdGraphTable {
        struct_size: size_of::<KdGraphTable>() as u32,
        flags: if R::COMPUTES { 0 } else { KD_GRAPH_ONLY },
        format: match R::GRAPH_FORMAT {
            Some(format) => KdStr::new(format),
            None => KdStr::new(""),
        },
        trace: Some(trace::<R>),
    };
}

unsafe extern "C" fn trace<R: RawMethod>(
    inst: *mut KdInst,
    call: *const KdCall,
    trace: *const KdTrace,
    sink: *const KdProgramSink,
) -> KdStatus {
    // SAFETY: the host's promise on all arguments.
    unsafe {
        entered::<R>("trace", inst, call, |instance, call| {
            let trace = trace
                .as_ref()
                .ok_or_else(|| MethodError::invalid_argument("null arguments"))?;
            let args = trace_args(trace)?;
            let Planned { taps, plan } = instance.planned()?;
            expect_len("params", trace.n_params, plan.params.len())?;
            expect_len("buffers", trace.n_buffers, plan.buffers.len())?;
            if args.kind != TraceKind::Init {
                expect_len("taps", trace.n_taps, taps.len())?;
                expect_len("targets", trace.n_targets, R::TARGETS.len())?;
                expect_len("losses", trace.n_losses, plan.losses.len())?;
            }
            let take = sink
                .as_ref()
                .and_then(|sink| Some((sink.sink, sink.program?)));
            let (place, take) =
                take.ok_or_else(|| MethodError::invalid_argument("null program sink"))?;
            let bytes = instance.method.trace(call, &args)?;
            match take(place, bytes.as_ptr(), bytes.len() as u64) {
                KD_OK => Ok(()),
                status => Err(MethodError::state(format!(
                    "the host took no program: status {status}"
                ))),
            }
        })
    }
}

/// Guards an entry of an existing instance; a panic poisons it.
///
/// # Safety
/// `inst` must come from `create::<R>` and be entered by nobody else; `call` as for [`guard`].
unsafe fn entered<R: RawMethod>(
    entry: &str,
    inst: *mut KdInst,
    call: *const KdCall,
    body: impl FnOnce(&mut Instance<R>, &Call<'_>) -> Result<(), MethodError>,
) -> KdStatus {
    // SAFETY: the caller's promise.
    let instance = unsafe { inst.cast::<Instance<R>>().as_mut() };
    let Some(instance) = instance else {
        let refuse = |_: &Call<'_>| Err(MethodError::invalid_argument("null instance"));
        // SAFETY: the caller's promise.
        return unsafe { guard(R::ID, entry, call, refuse) }.status;
    };
    let poisoned = instance.poisoned;
    // SAFETY: the caller's promise.
    let outcome = unsafe {
        guard(R::ID, entry, call, |call| {
            if poisoned {
                return Err(MethodError::state(
                    "the method panicked in an earlier call; only destroy it now",
                ));
            }
            call.check_device()?;
            body(instance, call)
        })
    };
    if outcome.panicked {
        // SAFETY: as above; the borrow of the closure has ended.
        if let Some(instance) = unsafe { inst.cast::<Instance<R>>().as_mut() } {
            instance.poisoned = true;
        }
    }
    outcome.status
}

fn check_names<R: RawMethod>(plan: &RawPlan) -> Result<(), MethodError> {
    let losses = plan
        .losses
        .iter()
        .map(|(name, _)| (name, R::LOSSES, "LOSSES"));
    let maps = plan.maps.iter().map(|map| (&map.name, R::MAPS, "MAPS"));
    for (name, declared, list) in losses.chain(maps) {
        if !declared.contains(&name.as_str()) {
            return Err(MethodError::internal(format!(
                "the plan declares `{name}`, which is not in {list} {declared:?}"
            )));
        }
    }
    Ok(())
}

/// A tap that the plan does not use comes without elements, whatever size was planned.
fn check_shapes(taps: &Taps, plan: &RawPlan, views: &[TensorView<'_>]) -> Result<(), MethodError> {
    let is_used = |tap: &TapInfo| !plan.tap_uses.contains(&(tap.index, 0));
    for (tap, view) in (taps.iter().zip(views)).filter(|(tap, _)| is_used(tap)) {
        let fits = tap.shape.len() == view.shape().len()
            && (tap.shape.iter().zip(view.shape()))
                .all(|(&planned, &got)| planned < 0 || planned as usize == got);
        if !fits {
            return Err(MethodError::shape(format!(
                "{} tap `{}` has shape {:?}, planned was {:?}",
                tap.role.name(),
                tap.name,
                view.shape(),
                tap.shape
            )));
        }
    }
    Ok(())
}

fn check_state(plan: &RawPlan, views: &[TensorView<'_>]) -> Result<(), MethodError> {
    for (spec, view) in plan.params.iter().zip(views) {
        if spec.shape != view.shape() {
            return Err(MethodError::shape(format!(
                "parameter `{}` has shape {:?}, planned was {:?}",
                spec.name,
                view.shape(),
                spec.shape
            )));
        }
    }
    Ok(())
}

// A plugin needs no set-up: logging follows each call.
pub(crate) unsafe extern "C" fn init(host: *const kd_abi::KdHost, _ctx: *mut c_void) -> KdStatus {
    if host.is_null() {
        KD_E_INVALID_ARG
    } else {
        KD_OK
    }
}

pub(crate) unsafe extern "C" fn deinit() {}
