//! The host's convolution (`kd.conv/1`) as plain loops: what every host must agree with.
#![expect(unsafe_code, reason = "implements the host's side of the boundary")]

use std::ffi::c_void;
use std::slice;

use kd_abi::{KD_CONV_RELU, KD_E_INVALID_ARG, KD_OK, KdConv, KdConvTable, KdStatus};

use super::host::host;

pub(super) static TABLE: KdConvTable = KdConvTable {
    struct_size: size_of::<KdConvTable>() as u32,
    reserved: 0,
    forward: Some(forward),
    backward: Some(backward),
};

/// A convolution of the packed maps of several levels.
#[derive(Clone, Debug)]
pub(super) struct Conv {
    /// `[n, h, w]` of each level.
    pub(super) sizes: Vec<[usize; 3]>,
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    pub(super) kernel: usize,
    pub(super) relu: bool,
}

/// One product of the sum: indices into `x`, `weight` and `y`.
struct Term {
    x: usize,
    weight: usize,
    y: usize,
}

/// Every product, and extents in floats.
struct Plain<'a> {
    conv: &'a Conv,
    terms: Vec<Term>,
    x: usize,
    weight: usize,
    y: usize,
}

impl Conv {
    fn plain(&self) -> Plain<'_> {
        let &Conv {
            c_in,
            c_out,
            kernel: k,
            ..
        } = self;
        let mut terms = Vec::new();
        let mut image = 0;
        for &[n, h, w] in &self.sizes {
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
            conv: self,
            terms,
            x: image * c_in,
            weight: c_out * c_in * k * k,
            y: image * c_out,
        }
    }

    /// `relu?(x ⋆ weight + bias)`, sums in f64.
    pub(super) fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        self.plain().forward(x, weight, bias)
    }

    /// Gradients at x, weight and bias of `sum(dy * y)`.
    pub(super) fn backward(
        &self,
        x: &[f32],
        weight: &[f32],
        y: Option<&[f32]>,
        dy: &[f32],
    ) -> [Vec<f32>; 3] {
        self.plain().backward(x, weight, y, dy)
    }
}

impl Plain<'_> {
    fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let c_out = self.conv.c_out;
        let mut sums: Vec<f64> = (0..self.y).map(|at| f64::from(bias[at % c_out])).collect();
        for term in &self.terms {
            sums[term.y] += f64::from(x[term.x]) * f64::from(weight[term.weight]);
        }
        if self.conv.relu {
            // Not `max`, which would turn a NaN into a value.
            for sum in sums.iter_mut().filter(|sum| **sum < 0.0) {
                *sum = 0.0;
            }
        }
        narrow(&sums)
    }

    fn backward(&self, x: &[f32], weight: &[f32], y: Option<&[f32]>, dy: &[f32]) -> [Vec<f32>; 3] {
        let mut dy: Vec<f64> = dy.iter().map(|&g| f64::from(g)).collect();
        if self.conv.relu {
            let y = y.expect("ReLU's gradient needs its output");
            for (g, _) in dy.iter_mut().zip(y).filter(|(_, y)| **y <= 0.0) {
                *g = 0.0;
            }
        }
        let mut dx = vec![0.0; self.x];
        let mut dweight = vec![0.0; self.weight];
        for term in &self.terms {
            dx[term.x] += dy[term.y] * f64::from(weight[term.weight]);
            dweight[term.weight] += dy[term.y] * f64::from(x[term.x]);
        }
        let mut dbias = vec![0.0; self.conv.c_out];
        for (at, g) in dy.iter().enumerate() {
            dbias[at % self.conv.c_out] += g;
        }
        [narrow(&dx), narrow(&dweight), narrow(&dbias)]
    }
}

fn narrow(sums: &[f64]) -> Vec<f32> {
    sums.iter().map(|&sum| sum as f32).collect()
}

/// # Safety
/// `conv` must be null or valid, and so must its sizes.
unsafe fn read(conv: *const KdConv) -> Option<Conv> {
    // SAFETY: the caller's promise.
    let conv = unsafe { conv.as_ref()? };
    let sound = conv.struct_size as usize >= size_of::<KdConv>()
        && conv.kernel % 2 == 1
        && !conv.sizes.is_null();
    sound.then(|| {
        // SAFETY: the caller's promise.
        let sizes = unsafe { slice::from_raw_parts(conv.sizes, conv.n_sizes as usize) };
        Conv {
            sizes: sizes
                .iter()
                .map(|size| [size.n, size.h, size.w].map(|v| v as usize))
                .collect(),
            c_in: conv.c_in as usize,
            c_out: conv.c_out as usize,
            kernel: conv.kernel as usize,
            relu: conv.flags & KD_CONV_RELU != 0,
        }
    })
}

/// # Safety
/// `out` must be null or a place for as many floats as `values` has.
unsafe fn write(values: &[f32], out: *mut f32) {
    if !out.is_null() {
        // SAFETY: the caller's promise.
        unsafe { out.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
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
    let Some(conv) = (unsafe { read(conv) }) else {
        return KD_E_INVALID_ARG;
    };
    host(host_ctx).convolutions[0] += 1;
    let plain = conv.plain();
    // SAFETY: the plugin's promise on all memory.
    unsafe {
        let x = slice::from_raw_parts(x, plain.x);
        let weight = slice::from_raw_parts(weight, plain.weight);
        let bias = slice::from_raw_parts(bias, conv.c_out);
        write(&plain.forward(x, weight, bias), y);
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
    let Some(conv) = (unsafe { read(conv) }) else {
        return KD_E_INVALID_ARG;
    };
    host(host_ctx).convolutions[1] += 1;
    let plain = conv.plain();
    // SAFETY: the plugin's promise on all memory; outputs may be null.
    unsafe {
        let x = slice::from_raw_parts(x, plain.x);
        let weight = slice::from_raw_parts(weight, plain.weight);
        let y = conv.relu.then(|| slice::from_raw_parts(y, plain.y));
        let dy = slice::from_raw_parts(dy, plain.y);
        let gradients = plain.backward(x, weight, y, dy);
        for (gradient, out) in gradients.iter().zip([dx, dweight, dbias]) {
            write(gradient, out);
        }
    }
    KD_OK
}
