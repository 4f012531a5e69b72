//! The host's functions behind a plan sink: each judges one declaration.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use kd_abi::{
    KD_E_DTYPE, KD_E_INTERNAL, KD_E_INVALID_ARG, KD_E_SHAPE, KD_E_STATE, KD_OK, KD_USE_GRAD,
    KD_USE_VALUE, KdDType, KdPlanSink, KdSpec, KdStatus, KdStr,
};

use super::{
    LossSpec, MapSpec, Plan, TapBinding, TensorSpec, symbolic_shape, told_shape, use_bits,
};
use crate::plugin::host_table::text;
use crate::plugin::manifest::MethodManifest;

/// Highest rank of a declared tensor.
const MAX_RANK: i32 = 8;
/// Most elements of a declared tensor: 1 GiB of f32.
const MAX_ELEMENTS: usize = 1 << 28;
/// Longest name, in bytes.
const MAX_NAME: usize = 256;

/// What the sink functions work on. Locked, so that a plugin thread that breaks the rules meets a
/// lock instead of a data race.
pub(super) struct Sink<'a> {
    taps: &'a [TapBinding],
    manifest: &'a MethodManifest,
    state: Mutex<SinkState>,
}

#[derive(Default)]
struct SinkState {
    plan: Plan,
    refused: Option<Refusal>,
}

/// Why a declaration was refused.
pub(super) struct Refusal {
    pub(super) subject: String,
    pub(super) problem: String,
    pub(super) status: KdStatus,
}

impl<'a> Sink<'a> {
    /// Nothing declared: every tap used as its pattern asked, every target read.
    pub(super) fn new(taps: &'a [TapBinding], manifest: &'a MethodManifest) -> Self {
        let plan = Plan {
            tap_use: taps.iter().map(use_bits).collect(),
            target_use: vec![true; manifest.targets.len()],
            ..Plan::default()
        };
        Sink {
            taps,
            manifest,
            state: Mutex::new(SinkState {
                plan,
                refused: None,
            }),
        }
    }

    /// The table for the plugin. It points to this sink, which must outlive its use.
    pub(super) fn table(&self) -> KdPlanSink {
        KdPlanSink {
            struct_size: size_of::<KdPlanSink>() as u32,
            reserved: 0,
            sink: std::ptr::from_ref(self).cast_mut().cast(),
            param: Some(declare_param),
            buffer: Some(declare_buffer),
            loss: Some(declare_loss),
            map: Some(declare_map),
            tap_use: Some(declare_tap_use),
            schedule: Some(declare_schedule),
            target_use: Some(declare_target_use),
        }
    }

    /// What was declared, and the first refusal.
    pub(super) fn into_answer(self) -> (Plan, Option<Refusal>) {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        (state.plan, state.refused)
    }
}

impl Refusal {
    fn new(subject: impl Into<String>, problem: impl Into<String>, status: KdStatus) -> Self {
        Refusal {
            subject: subject.into(),
            problem: problem.into(),
            status,
        }
    }
}

unsafe extern "C" fn declare_param(
    sink: *mut c_void,
    spec: *const KdSpec,
    slot: *mut u32,
) -> KdStatus {
    declare(sink, slot, |_, plan| {
        // SAFETY: null or a spec that lives until this callback returns.
        let spec = unsafe { fixed_spec("param", spec, &plan.params) }?;
        plan.params.push(spec);
        Ok(plan.params.len() - 1)
    })
}

unsafe extern "C" fn declare_buffer(
    sink: *mut c_void,
    spec: *const KdSpec,
    slot: *mut u32,
) -> KdStatus {
    declare(sink, slot, |_, plan| {
        // SAFETY: null or a spec that lives until this callback returns.
        let spec = unsafe { fixed_spec("buffer", spec, &plan.buffers) }?;
        plan.buffers.push(spec);
        Ok(plan.buffers.len() - 1)
    })
}

unsafe extern "C" fn declare_loss(
    sink: *mut c_void,
    name: KdStr,
    default_weight: f64,
    slot: *mut u32,
) -> KdStatus {
    declare(sink, slot, |sink, plan| {
        let name = text(name);
        let subject = format!("loss `{name}`");
        let refuse = |problem: &str| Err(Refusal::new(&subject, problem, KD_E_INVALID_ARG));
        if !sink.manifest.losses.contains(&name) {
            return refuse("the manifest does not list it");
        }
        if plan.losses.iter().any(|loss| loss.name == name) {
            return refuse("it is declared twice");
        }
        if !default_weight.is_finite() {
            return refuse("its default weight is not finite");
        }
        plan.losses.push(LossSpec {
            name,
            default_weight,
        });
        Ok(plan.losses.len() - 1)
    })
}

unsafe extern "C" fn declare_map(
    sink: *mut c_void,
    spec: *const KdSpec,
    replaces_tap: u32,
    slot: *mut u32,
) -> KdStatus {
    declare(sink, slot, |sink, plan| {
        // SAFETY: null or a spec that lives until this callback returns.
        let (name, shape, _) = unsafe { read_spec("map", spec) }?;
        let subject = format!("map `{name}`");
        let refuse = |problem: String, status| Err(Refusal::new(&subject, problem, status));
        let index = replaces_tap as usize;
        let Some(tap) = sink.taps.get(index) else {
            let problem = format!("it replaces tap {index} of {}", sink.taps.len());
            return refuse(problem, KD_E_INVALID_ARG);
        };
        if tap.role != "student" {
            let problem = format!(
                "it replaces `{}` of the {}; only student taps can be",
                tap.name, tap.role
            );
            return refuse(problem, KD_E_INVALID_ARG);
        }
        if !sink.manifest.maps.contains(&name) {
            return refuse("the manifest does not list it".to_owned(), KD_E_INVALID_ARG);
        }
        let taken = |map: &MapSpec| map.name == name || map.replaces_tap == index;
        if plan.maps.iter().any(taken) {
            let problem = format!("its name or tap `{}` has a map already", tap.name);
            return refuse(problem, KD_E_INVALID_ARG);
        }
        let expected = told_shape(tap);
        if shape != expected && shape != symbolic_shape(tap) {
            let problem = format!("shape {shape:?}, but `{}` has {expected:?}", tap.name);
            return refuse(problem, KD_E_SHAPE);
        }
        plan.maps.push(MapSpec {
            name,
            shape,
            replaces_tap: index,
        });
        Ok(plan.maps.len() - 1)
    })
}

unsafe extern "C" fn declare_tap_use(sink: *mut c_void, tap: u32, bits: u32) -> KdStatus {
    with_sink(sink, |sink, plan| {
        let index = tap as usize;
        let Some(binding) = sink.taps.get(index) else {
            let problem = format!("there are {} taps", sink.taps.len());
            return Err(Refusal::new(
                format!("use of tap {index}"),
                problem,
                KD_E_INVALID_ARG,
            ));
        };
        let subject = format!("use of tap `{}` of the {}", binding.name, binding.role);
        let refuse = |problem: &str| Err(Refusal::new(&subject, problem, KD_E_INVALID_ARG));
        if bits & !(KD_USE_VALUE | KD_USE_GRAD) != 0 {
            return refuse("unknown bits");
        }
        if bits & KD_USE_GRAD != 0 && binding.role != "student" {
            return refuse("only student taps have a gradient");
        }
        if bits & KD_USE_GRAD != 0 && !binding.grad {
            return refuse("the manifest asks for no gradient of it");
        }
        plan.tap_use[index] = bits;
        Ok(())
    })
}

unsafe extern "C" fn declare_target_use(sink: *mut c_void, target: u32, bits: u32) -> KdStatus {
    with_sink(sink, |sink, plan| {
        let names = &sink.manifest.targets;
        let refuse = |subject: String, problem: String| {
            Err(Refusal::new(subject, problem, KD_E_INVALID_ARG))
        };
        let Some(name) = names.get(target as usize) else {
            let problem = format!("the manifest lists {} targets", names.len());
            return refuse(format!("use of target {target}"), problem);
        };
        if bits & !KD_USE_VALUE != 0 {
            let problem = "targets are read, no more: KD_USE_VALUE or 0".to_owned();
            return refuse(format!("use of target `{name}`"), problem);
        }
        plan.target_use[target as usize] = bits != 0;
        Ok(())
    })
}

unsafe extern "C" fn declare_schedule(sink: *mut c_void, schedule_json: KdStr) -> KdStatus {
    with_sink(sink, |_, plan| {
        let json = text(schedule_json);
        if plan.schedule_json.is_some() {
            return Err(Refusal::new(
                "a schedule",
                "it is declared twice",
                KD_E_STATE,
            ));
        }
        match serde_json::from_str::<serde_json::Value>(&json) {
            Ok(serde_json::Value::Object(_)) => {
                plan.schedule_json = Some(json);
                Ok(())
            }
            Ok(_) => Err(Refusal::new(
                "a schedule",
                "not a JSON object",
                KD_E_INVALID_ARG,
            )),
            Err(e) => Err(Refusal::new("a schedule", e.to_string(), KD_E_INVALID_ARG)),
        }
    })
}

fn declare(
    sink: *mut c_void,
    slot: *mut u32,
    action: impl FnOnce(&Sink<'_>, &mut Plan) -> Result<usize, Refusal>,
) -> KdStatus {
    with_sink(sink, |sink, plan| {
        let index = action(sink, plan)?;
        if !slot.is_null() {
            // SAFETY: not null, and the plugin promises a place for a u32.
            unsafe { slot.write(index as u32) };
        }
        Ok(())
    })
}

fn with_sink(
    sink: *mut c_void,
    action: impl FnOnce(&Sink<'_>, &mut Plan) -> Result<(), Refusal>,
) -> KdStatus {
    if sink.is_null() {
        return KD_E_INVALID_ARG;
    }
    // SAFETY: the pointer given to `plan`, which is still running.
    let sink = unsafe { &*sink.cast::<Sink<'_>>() };
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut state = sink.state.lock().unwrap_or_else(PoisonError::into_inner);
        match action(sink, &mut state.plan) {
            Ok(()) => KD_OK,
            Err(refusal) => {
                let status = refusal.status;
                // The first refusal is the cause; later ones may follow from it.
                state.refused.get_or_insert(refusal);
                status
            }
        }
    }));
    result.unwrap_or(KD_E_INTERNAL)
}

/// Reads the spec of a parameter or a buffer: fixed positive extents, f32, a new name.
///
/// # Safety
/// As [`read_spec`].
unsafe fn fixed_spec(
    kind: &str,
    spec: *const KdSpec,
    known: &[TensorSpec],
) -> Result<TensorSpec, Refusal> {
    // SAFETY: passed on to the caller.
    let (name, extents, attrs_json) = unsafe { read_spec(kind, spec) }?;
    let subject = format!("{kind} `{name}`");
    if known.iter().any(|other| other.name == name) {
        return Err(Refusal::new(
            subject,
            "it is declared twice",
            KD_E_INVALID_ARG,
        ));
    }
    let mut shape = Vec::with_capacity(extents.len());
    let mut elements = 1usize;
    for extent in &extents {
        let Some(fixed) = usize::try_from(*extent).ok().filter(|e| *e > 0) else {
            let problem = format!("shape {extents:?}: every extent must be fixed and positive");
            return Err(Refusal::new(subject, problem, KD_E_SHAPE));
        };
        elements = elements.saturating_mul(fixed);
        shape.push(fixed);
    }
    if elements > MAX_ELEMENTS {
        let problem = format!("shape {extents:?}: more than {MAX_ELEMENTS} elements");
        return Err(Refusal::new(subject, problem, KD_E_SHAPE));
    }
    Ok(TensorSpec {
        name,
        shape,
        attrs_json,
    })
}

/// Reads name, extents and attributes of any spec.
///
/// # Safety
/// `spec` must be null or valid, with `ndim` extents behind `shape`.
unsafe fn read_spec(
    kind: &str,
    spec: *const KdSpec,
) -> Result<(String, Vec<i64>, String), Refusal> {
    if spec.is_null() {
        return Err(Refusal::new(kind, "the spec is null", KD_E_INVALID_ARG));
    }
    // SAFETY: not null; valid by the caller's promise.
    let spec = unsafe { &*spec };
    let name = text(spec.name);
    let subject = format!("{kind} `{name}`");
    if name.is_empty() || name.len() > MAX_NAME || name.contains(char::REPLACEMENT_CHARACTER) {
        let problem = format!("a name has 1 to {MAX_NAME} bytes of UTF-8");
        return Err(Refusal::new(subject, problem, KD_E_INVALID_ARG));
    }
    if spec.dtype != KdDType::F32 {
        let got = spec.dtype.name().unwrap_or("an unknown dtype");
        return Err(Refusal::new(
            subject,
            format!("{got}, must be f32"),
            KD_E_DTYPE,
        ));
    }
    if !(0..=MAX_RANK).contains(&spec.ndim) || (spec.ndim > 0 && spec.shape.is_null()) {
        let problem = format!("rank {} or a null shape; at most {MAX_RANK}", spec.ndim);
        return Err(Refusal::new(subject, problem, KD_E_SHAPE));
    }
    let extents = if spec.ndim == 0 {
        Vec::new()
    } else {
        // SAFETY: not null, `ndim` extents by the caller's promise, and `ndim` is small.
        unsafe { std::slice::from_raw_parts(spec.shape, spec.ndim as usize) }.to_vec()
    };
    let attrs_json = text(spec.attrs_json);
    let is_object = |json: &str| {
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json).is_ok()
    };
    if !attrs_json.is_empty() && !is_object(&attrs_json) {
        let problem = "its attributes are not a JSON object";
        return Err(Refusal::new(subject, problem, KD_E_INVALID_ARG));
    }
    Ok((name, extents, attrs_json))
}
