//! Asking a method what it needs, and judging the answer.

mod sink;

use kd_abi::{KD_DIM_H, KD_DIM_N, KD_DIM_W, KD_USE_GRAD, KD_USE_VALUE, KdDType, KdStr, KdTap};

use super::CallInfo;
use super::instance::Instance;
use crate::plugin::error::PluginCallError;

use sink::Sink;

/// A tensor of a model that the method is given: `[N, channels, H, W]`, f32.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapBinding {
    /// `neck.p3`, `backbone.c4`, …
    pub name: String,
    /// `student`, `teacher`, or a further teacher's name.
    pub role: String,
    /// Second extent.
    pub channels: usize,
    /// Input pixels per cell.
    pub stride: usize,
    /// `[H, W]`, where every training image of the run has one size; else not known beforehand.
    pub size: Option<[usize; 2]>,
    /// Whether the manifest's pattern asks for a gradient; student taps alone.
    pub grad: bool,
}

/// What a method needs and gives, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Learned parameters, f32, in slot order.
    pub params: Vec<TensorSpec>,
    /// Buffers, f32, in slot order.
    pub buffers: Vec<TensorSpec>,
    /// Losses in slot order.
    pub losses: Vec<LossSpec>,
    /// Maps in slot order.
    pub maps: Vec<MapSpec>,
    /// `KD_USE_*` bits for each tap; 0 where it is not used.
    pub tap_use: Vec<u32>,
    /// For each target of the manifest, whether it is read.
    pub target_use: Vec<bool>,
    /// Phases and stages as the method wrote them; a JSON object.
    pub schedule_json: Option<String>,
}

/// A parameter or a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Unique among parameters, or among buffers.
    pub name: String,
    /// Extents, all positive.
    pub shape: Vec<usize>,
    /// Further facts as a JSON object; empty for none.
    pub attrs_json: String,
}

/// A loss.
#[derive(Clone, Debug, PartialEq)]
pub struct LossSpec {
    /// One of the manifest's.
    pub name: String,
    /// Weight unless the user sets another; finite.
    pub default_weight: f64,
}

/// A generated feature map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// One of the manifest's.
    pub name: String,
    /// That of the tap it replaces; the batch's extent is symbolic, height and width may be.
    pub shape: Vec<i64>,
    /// Index of the student tap.
    pub replaces_tap: usize,
}

/// Calls `plan` and judges what it declares.
pub(super) fn ask(
    instance: &Instance,
    taps: &[TapBinding],
    call: &CallInfo,
) -> Result<Plan, PluginCallError> {
    const ENTRY: &str = "plan";
    for tap in taps {
        instance.fit(ENTRY, !tap.grad || tap.role == "student", || {
            format!(
                "tap `{}` of role `{}` is bound with a gradient",
                tap.name, tap.role
            )
        })?;
    }
    let shapes: Vec<[i64; 4]> = taps.iter().map(told_shape).collect();
    let kd_taps: Vec<KdTap> = taps
        .iter()
        .zip(&shapes)
        .map(|(tap, shape)| KdTap {
            name: KdStr::new(&tap.name),
            role: KdStr::new(&tap.role),
            dtype: KdDType::F32,
            ndim: 4,
            shape: shape.as_ptr(),
            stride: tap.stride as u32,
            use_bits: use_bits(tap),
        })
        .collect();
    let sink = Sink::new(taps, &instance.manifest);
    let table = sink.table();
    let plan = instance
        .table
        .plan
        .expect("checked when the library was loaded");
    let answer = instance.enter(ENTRY, call, false, |inst, kd_call| {
        // SAFETY: taps, shapes and sink live until the call returns.
        unsafe {
            plan(
                inst,
                kd_call,
                kd_taps.as_ptr(),
                kd_taps.len() as u32,
                &raw const table,
            )
        }
    });
    let (plan, refusal) = sink.into_answer();
    // The host's own refusal says more than the status that the plugin made of it, and counts
    // even if the plugin ignored it.
    if let (Some(refusal), false) = (
        refusal,
        matches!(answer, Err(PluginCallError::Panicked { .. })),
    ) {
        return Err(PluginCallError::BadPlan {
            plugin: instance.library.manifest().plugin.clone(),
            method: instance.manifest.id.clone(),
            subject: refusal.subject,
            problem: refusal.problem,
            status: refusal.status,
        });
    }
    answer?;
    Ok(plan)
}

/// Extents of a tap as a plan sees them.
fn told_shape(tap: &TapBinding) -> [i64; 4] {
    let [height, width] = match tap.size {
        Some(size) => size.map(|extent| extent as i64),
        None => [KD_DIM_H, KD_DIM_W],
    };
    [KD_DIM_N, tap.channels as i64, height, width]
}

/// The same without a size.
fn symbolic_shape(tap: &TapBinding) -> [i64; 4] {
    [KD_DIM_N, tap.channels as i64, KD_DIM_H, KD_DIM_W]
}

fn use_bits(tap: &TapBinding) -> u32 {
    if tap.grad {
        KD_USE_VALUE | KD_USE_GRAD
    } else {
        KD_USE_VALUE
    }
}
