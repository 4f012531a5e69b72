//! Hands a plan to the host.
#![expect(unsafe_code, reason = "calls the host's functions")]

use kd_abi::{KD_OK, KdDType, KdPlanSink, KdSpec, KdStatus, KdStr, KdTap};
use serde_json::json;

use crate::MethodError;
use crate::raw::{RawPlan, StateSpec};
use crate::tap::Taps;

/// Declares everything in `plan`, in slot order.
///
/// # Safety
/// `sink` must be the host's, valid for the call; `raw` the host's taps behind `taps`.
pub(crate) unsafe fn declare(
    sink: &KdPlanSink,
    taps: &Taps,
    raw: &[KdTap],
    plan: &RawPlan,
) -> Result<(), MethodError> {
    let missing = |what: &str| MethodError::invalid_argument(format!("plan sink without `{what}`"));
    for (slot, spec) in plan.params.iter().enumerate() {
        let declare = sink.param.ok_or_else(|| missing("param"))?;
        let attrs = json!({"kind": spec.kind.name()}).to_string();
        with_spec(spec, &attrs, |raw| {
            let mut given = 0;
            // SAFETY: the caller's promise; the host copies what it keeps.
            let status = unsafe { declare(sink.sink, raw, &raw mut given) };
            accepted(status, "param", &spec.name, slot, given)
        })?;
    }
    for (slot, spec) in plan.buffers.iter().enumerate() {
        let declare = sink.buffer.ok_or_else(|| missing("buffer"))?;
        with_spec(spec, "", |raw| {
            let mut given = 0;
            // SAFETY: as above.
            let status = unsafe { declare(sink.sink, raw, &raw mut given) };
            accepted(status, "buffer", &spec.name, slot, given)
        })?;
    }
    for (slot, (name, weight)) in plan.losses.iter().enumerate() {
        let declare = sink.loss.ok_or_else(|| missing("loss"))?;
        let mut given = 0;
        // SAFETY: as above.
        let status = unsafe { declare(sink.sink, KdStr::new(name), *weight, &raw mut given) };
        accepted(status, "loss", name, slot, given)?;
    }
    for (slot, map) in plan.maps.iter().enumerate() {
        let declare = sink.map.ok_or_else(|| missing("map"))?;
        let tap = taps.student(&map.replaces)?;
        let spec = KdSpec {
            name: KdStr::new(&map.name),
            dtype: KdDType::F32,
            ndim: raw[tap.index].ndim,
            shape: raw[tap.index].shape,
            attrs_json: KdStr::EMPTY,
        };
        let mut given = 0;
        // SAFETY: as above.
        let status = unsafe { declare(sink.sink, &spec, tap.index as u32, &raw mut given) };
        accepted(status, "map", &map.name, slot, given)?;
    }
    for &(tap, bits) in &plan.tap_uses {
        let declare = sink.tap_use.ok_or_else(|| missing("tap_use"))?;
        // SAFETY: as above.
        let status = unsafe { declare(sink.sink, tap as u32, bits) };
        accepted(status, "use of tap", &tap.to_string(), 0, 0)?;
    }
    for &target in &plan.unread_targets {
        let declare = sink.target_use.ok_or_else(|| missing("target_use"))?;
        // SAFETY: as above.
        let status = unsafe { declare(sink.sink, target as u32, 0) };
        accepted(status, "use of target", &target.to_string(), 0, 0)?;
    }
    if let Some(schedule) = &plan.schedule {
        let declare = sink.schedule.ok_or_else(|| missing("schedule"))?;
        let text = serde_json::to_string(schedule)?;
        // SAFETY: as above.
        let status = unsafe { declare(sink.sink, KdStr::new(&text)) };
        accepted(status, "schedule", &text, 0, 0)?;
    }
    Ok(())
}

fn with_spec(
    spec: &StateSpec,
    attrs: &str,
    body: impl FnOnce(&KdSpec) -> Result<(), MethodError>,
) -> Result<(), MethodError> {
    let shape: Vec<i64> = spec.shape.iter().map(|&extent| extent as i64).collect();
    body(&KdSpec {
        name: KdStr::new(&spec.name),
        dtype: KdDType::F32,
        ndim: shape.len() as i32,
        shape: shape.as_ptr(),
        attrs_json: KdStr::new(attrs),
    })
}

fn accepted(
    status: KdStatus,
    what: &str,
    name: &str,
    expected: usize,
    given: u32,
) -> Result<(), MethodError> {
    if status != KD_OK {
        return Err(MethodError::invalid_argument(format!(
            "the host refused {what} `{name}` with status {status}"
        )));
    }
    if given as usize != expected {
        return Err(MethodError::invalid_argument(format!(
            "the host gave {what} `{name}` slot {given}, expected {expected}"
        )));
    }
    Ok(())
}
