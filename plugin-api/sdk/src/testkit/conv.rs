//! The host's convolution (`kd.conv/1`) as plain loops: what every host must agree with.
#![expect(unsafe_code, reason = "implements the host's side of the boundary")]

use std::ffi::c_void;
use std::slice;

use kd_abi::{KD_CONV_RELU, KD_E_INVALID_ARG, KD_OK, KdConv, KdConvTable, KdMapSize, KdStatus};

use super::host::host;

pub(super) static TABLE: KdConvTable = KdConvTable {
    struct_size: size_of::<KdConvTable>() as u32,
    reserved: 0,
    forward: Some(forward),
    backward: Some(backward),
};

/// One product of the sum: indices into `x`, `weight` and `y`.
struct Term {
    x: usize,
    weight: usize,
    y: usize,
}

/// Extents in floats and every product.
struct Plain {
    terms: Vec<Term>,
    x: usize,
    weight: usize,
    y: usize,
    c_out: usize,
    relu: bool,
}

impl Plain {
    fn of(conv: &KdConv, sizes: &[KdMapSize]) -> Plain {
        let [c_in, c_out, k] = [conv.c_in, conv.c_out, conv.kernel].map(|v| v as usize);
        let mut terms = Vec::new();
        let mut image = 0;
        for size in sizes {
            let [n, h, w] = [size.n, size.h, size.w].map(|v| v as usize);
            for _ in 0..n {
                for (cell, tap) in (0..h * w).flat_map(|c| (0..k * k).map(move |t| (c, t))) {
                    // The row and column that this element of the kernel reads, if inside.
                    let row = (cell / w + tap / k).checked_sub(k / 2).filter(|r| *r < h);
                    let column = (cell % w + tap % k).checked_sub(k / 2).filter(|c| *c < w);
                    let (Some(row), Some(column)) = (row, column) else {
                        continue;
                    };
                    for (o, c) in (0..c_out).flat_map(|o| (0..c_in).map(move |c| (o, c))) {
                        terms.push(Term {
                            x: (image + row * w + column) * c_in + c,
                            weight: (o * c_in + c) * k * k + tap,
                            y: (image + cell) * c_out + o,
                        });
                    }
                }
                image += h * w;
            }
        }
        Plain {
            terms,
            x: image * c_in,
            weight: c_out * c_in * k * k,
            y: image * c_out,
            c_out,
            relu: conv.flags & KD_CONV_RELU != 0,
        }
    }
}

/// # Safety
/// `conv` must be null or valid, and so must its sizes.
unsafe fn read(conv: *const KdConv) -> Option<Plain> {
    // SAFETY: the caller's promise.
    let conv = unsafe { conv.as_ref()? };
    let sound = conv.struct_size as usize >= size_of::<KdConv>()
        && conv.kernel % 2 == 1
        && !conv.sizes.is_null();
    // SAFETY: the caller's promise.
    sound.then(|| unsafe {
        Plain::of(
            conv,
            slice::from_raw_parts(conv.sizes, conv.n_sizes as usize),
        )
    })
}

/// # Safety
/// `out` must be a place for as many floats as `sums` has.
unsafe fn write(sums: &[f64], out: *mut f32) {
    for (at, sum) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { out.add(at).write(*sum as f32) };
    }
}

unsafe extern "C" fn forward(
    host_ctx: *mut c_void,
    conv: *const KdConv,
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    y: *mut f32,
) -> KdStatus {
    // SAFETY: the plugin's promise.
    let Some(plain) = (unsafe { read(conv) }) else {
        return KD_E_INVALID_ARG;
    };
    host(host_ctx).convolutions[0] += 1;
    // SAFETY: the plugin's promise on all memory.
    unsafe {
        let x = slice::from_raw_parts(x, plain.x);
        let weight = slice::from_raw_parts(weight, plain.weight);
        let bias = slice::from_raw_parts(bias, plain.c_out);
        let mut sums: Vec<f64> = (0..plain.y)
            .map(|at| f64::from(bias[at % plain.c_out]))
            .collect();
        for term in &plain.terms {
            sums[term.y] += f64::from(x[term.x]) * f64::from(weight[term.weight]);
        }
        if plain.relu {
            // Not `max`, which would turn a NaN into a value.
            for sum in sums.iter_mut().filter(|sum| **sum < 0.0) {
                *sum = 0.0;
            }
        }
        write(&sums, y);
    }
    KD_OK
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
    // SAFETY: the plugin's promise.
    let Some(plain) = (unsafe { read(conv) }) else {
        return KD_E_INVALID_ARG;
    };
    host(host_ctx).convolutions[1] += 1;
    // SAFETY: the plugin's promise on all memory; outputs may be null.
    unsafe {
        let x = slice::from_raw_parts(x, plain.x);
        let weight = slice::from_raw_parts(weight, plain.weight);
        let mut dy: Vec<f64> = slice::from_raw_parts(dy, plain.y)
            .iter()
            .map(|&g| f64::from(g))
            .collect();
        if plain.relu {
            let y = slice::from_raw_parts(y, plain.y);
            for (g, _) in dy.iter_mut().zip(y).filter(|(_, y)| **y <= 0.0) {
                *g = 0.0;
            }
        }
        if !dx.is_null() {
            let mut sums = vec![0.0; plain.x];
            for term in &plain.terms {
                sums[term.x] += dy[term.y] * f64::from(weight[term.weight]);
            }
            write(&sums, dx);
        }
        if !dweight.is_null() {
            let mut sums = vec![0.0; plain.weight];
            for term in &plain.terms {
                sums[term.weight] += dy[term.y] * f64::from(x[term.x]);
            }
            write(&sums, dweight);
        }
        if !dbias.is_null() {
            let mut sums = vec![0.0; plain.c_out];
            for (at, g) in dy.iter().enumerate() {
                sums[at % plain.c_out] += g;
            }
            write(&sums, dbias);
        }
    }
    KD_OK
}
