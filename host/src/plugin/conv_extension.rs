//! The host extension `kd.conv/1`: a plugin's convolutions on the host's kernels.
//!
//! Everything a plugin gives is checked before a kernel sees it; what cannot be checked, that its
//! memory is as long as the extents say, is the plugin's promise as with every tensor.
#![expect(unsafe_code, reason = "functions called by foreign code")]

mod request;

use std::ffi::c_void;

use kd_abi::{KD_E_INTERNAL, KD_E_STATE, KD_OK, KdConv, KdConvTable, KdStatus};

use self::request::{Floats, Request, apart};
use super::host_table::guarded;
use crate::kernels::conv::algorithm;
use crate::kernels::maps::{Shared, filled};

/// The functions. One table serves every plugin.
pub(super) static TABLE: KdConvTable = KdConvTable {
    struct_size: size_of::<KdConvTable>() as u32,
    reserved: 0,
    forward: Some(forward),
    backward: Some(backward),
};

unsafe extern "C" fn forward(
    host_ctx: *mut c_void,
    conv: *const KdConv,
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    y: *mut f32,
) -> KdStatus {
    // SAFETY: the plugin's promise on every pointer.
    answer(host_ctx, "kd.conv/1 forward", || unsafe {
        try_forward(conv, [x, weight, bias], y)
    })
}

unsafe extern "C" fn backward(
    host_ctx: *mut c_void,
    conv: *const KdConv,
    x: *const f32,
    weight: *const f32,
    y: *const f32,
    dy: *const f32,
    dx: *mut f32,
    dweight: *mut f32,
    dbias: *mut f32,
) -> KdStatus {
    // SAFETY: the plugin's promise on every pointer.
    answer(host_ctx, "kd.conv/1 backward", || unsafe {
        try_backward(conv, [x, weight, y, dy], [dx, dweight, dbias])
    })
}

/// Runs `action` if a call is active on this thread; its error goes to the log.
fn answer(
    host_ctx: *mut c_void,
    function: &str,
    action: impl FnOnce() -> Result<(), String>,
) -> KdStatus {
    guarded(host_ctx, KD_E_INTERNAL, |context| {
        // The lock is not held while computing.
        if !context.is_in_call(function) {
            return KD_E_STATE;
        }
        match action() {
            Ok(()) => KD_OK,
            Err(why) => context.refuse(function, &why),
        }
    })
}

/// # Safety
/// Pointers are null or valid for what `conv` says.
unsafe fn try_forward(
    conv: *const KdConv,
    [x, weight, bias]: [*const f32; 3],
    y: *mut f32,
) -> Result<(), String> {
    // SAFETY: the caller's promise.
    let request = unsafe { Request::read(conv)? };
    let x = Floats::input("x", x, request.inputs)?;
    let weight = Floats::input("weight", weight, request.weights)?;
    let bias = Floats::input("bias", bias, request.o)?;
    let y = Floats::new("y", y, request.outputs)?;
    apart(&[x, weight, bias], &[y])?;
    if request.is_empty() {
        return Ok(());
    }
    // SAFETY: the caller's promise; the output overlaps nothing.
    let (x, weight, bias, y) = unsafe { (x.read(), weight.read(), bias.read(), y.write()) };
    in_pool(|| algorithm::forward(&request.conv, request.channels(), x, weight, bias, y));
    Ok(())
}

/// # Safety
/// Pointers are null or valid for what `conv` says.
unsafe fn try_backward(
    conv: *const KdConv,
    [x, weight, y, dy]: [*const f32; 4],
    [dx, dweight, dbias]: [*mut f32; 3],
) -> Result<(), String> {
    // SAFETY: the caller's promise.
    let request = unsafe { Request::read(conv)? };
    let x = Floats::input("x", x, request.inputs)?;
    let weight = Floats::input("weight", weight, request.weights)?;
    let dy = Floats::input("dy", dy, request.outputs)?;
    let y = match request.conv.relu {
        true => Some(Floats::input("y", y, request.outputs)?),
        false => None,
    };
    let wanted = |name, first: *mut f32, len| match first.is_null() {
        true => Ok(None),
        false => Floats::new(name, first, len).map(Some),
    };
    let dx = wanted("dx", dx, request.inputs)?;
    let dweight = wanted("dweight", dweight, request.weights)?;
    let dbias = wanted("dbias", dbias, request.o)?;
    let outputs: Vec<Floats> = [dx, dweight, dbias].into_iter().flatten().collect();
    let inputs: Vec<Floats> = [x, weight, dy].into_iter().chain(y).collect();
    apart(&inputs, &outputs)?;
    // SAFETY: the caller's promise; outputs overlap nothing.
    unsafe {
        // The kernels write through slices, which must hold values.
        for output in [dweight, dbias].into_iter().flatten() {
            output.clear();
        }
        if request.is_empty() {
            return Ok(());
        }
        let gradient = Gradient {
            x: x.read(),
            weight: weight.read(),
            y: y.map(|y| y.read()),
            dy: dy.read(),
        };
        let (dx, dweight, dbias) = (
            dx.map(|dx| dx.write()),
            dweight.map(|dw| dw.write().slice(0, request.weights)),
            dbias.map(|db| db.write().slice(0, request.o)),
        );
        in_pool(|| gradient.run(&request, dx, dweight, dbias));
    }
    Ok(())
}

/// What the gradients are made from.
struct Gradient<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    /// The output, where ReLU was applied.
    y: Option<&'a [f32]>,
    dy: &'a [f32],
}

impl Gradient<'_> {
    fn run(
        &self,
        request: &Request,
        dx: Option<Shared>,
        dweight: Option<&mut [f32]>,
        dbias: Option<&mut [f32]>,
    ) {
        let (conv, channels) = (&request.conv, request.channels());
        let (dy, o) = (Shared::reading(self.dy), request.o);
        let mut sums = None;
        // The plugin's gradient is not ours to write: behind ReLU it gets memory of its own.
        let gated = self
            .y
            .filter(|_| dx.is_some() || dweight.is_some())
            .map(|y| {
                let write =
                    |to| sums = Some(algorithm::epilogue_gradient(dy, Some(y), o, Some(to)));
                // SAFETY: every term of the sums is written.
                unsafe { filled(self.dy.len(), write) }
            });
        if let Some(dbias) = dbias {
            let sums = sums.unwrap_or_else(|| algorithm::epilogue_gradient(dy, self.y, o, None));
            dbias.copy_from_slice(&sums);
        }
        let dy = gated.as_deref().unwrap_or(self.dy);
        if let Some(dweight) = dweight {
            algorithm::weight_gradient(conv, channels, self.x, dy, dweight);
        }
        if let Some(dx) = dx {
            algorithm::input_gradient(conv, channels, self.weight, dy, dx);
        }
    }
}

/// Enters the thread pool once, so that the parallel loops inside do not each wake it from outside.
fn in_pool(work: impl FnOnce() + Send) {
    rayon::scope(|_| work());
}

#[cfg(test)]
mod tests;
