//! Rules of poolings, of resizing and of unfolding into columns.

use kd_graph::burn_ir::{InterpolateModeIr, ModuleOperationIr, TensorIr};

use super::Limits;
use super::rule::{Fault, Kind, Rule, ensure, extents, is, kind, like, shape};
use super::spatial::{Windows, spatial};

/// A pooling's windows and whether the last one may be cut off by the border.
struct Pool<const N: usize> {
    windows: Windows<N>,
    ceil: bool,
}

impl<const N: usize> Pool<N> {
    fn new([kernel, stride, padding, dilation]: [[usize; N]; 4], ceil: bool) -> Self {
        let windows = Windows {
            kernel,
            stride,
            padding: padding.map(|p| (p, p)),
            dilation,
        };
        Pool { windows, ceil }
    }

    /// Shape of the result.
    fn out(&self, x: &TensorIr) -> Result<Vec<usize>, Fault> {
        kind("x", x, Kind::Float)?;
        let inner = spatial::<N>("x", &x.shape)?;
        let mut counts = self.windows.count(inner)?;
        for dim in 0..N {
            let (padding, kernel) = (self.windows.padding[dim].0, self.windows.kernel[dim]);
            // As in torch: so every window of an undilated pooling has an element.
            ensure(2 * padding <= kernel, "padding", || {
                format!("is {padding}, of a kernel of {kernel}")
            })?;
            if self.ceil {
                let (extent, stride) = (inner[dim], self.windows.stride[dim]);
                let free = extent + 2 * padding - self.windows.reach(dim);
                let cut = usize::from(!free.is_multiple_of(stride));
                // It must start within the input or the padding before it.
                let starts = counts[dim] * stride < extent + padding;
                counts[dim] += cut * usize::from(starts);
                // burn drops a whole window that starts in the padding behind the input too.
                let last = (counts[dim] - 1) * stride;
                counts[dim] -= usize::from(last >= extent + padding);
                ensure(counts[dim] >= 1, "stride", || "leaves no window".to_owned())?;
            }
        }
        Ok([&x.shape[..2], counts.as_slice()].concat())
    }

    fn forward(&self, x: &TensorIr, out: &TensorIr) -> Rule {
        is("out", out, &self.out(x)?, x.dtype)
    }

    /// With the index of each maximum in its map.
    fn indexed(&self, [x, out, indices]: [&TensorIr; 3]) -> Rule {
        self.forward(x, out)?;
        kind("indices", indices, Kind::Int)?;
        shape("indices", indices, &out.shape)
    }

    fn backward(&self, [x, grad, out]: [&TensorIr; 3]) -> Rule {
        self.forward(x, grad)?;
        like("out", out, x)
    }
}

/// The rule of a pooling; `None` if it is none.
pub(super) fn rule(op: &ModuleOperationIr, limits: &Limits) -> Option<Rule> {
    use ModuleOperationIr as M;
    // One dimension is written without brackets.
    macro_rules! pool1d {
        ($op:expr, $dilation:expr) => {
            Pool::new(
                [[$op.kernel_size], [$op.stride], [$op.padding], [$dilation]],
                $op.ceil_mode,
            )
        };
    }
    macro_rules! pool2d {
        ($op:expr, $dilation:expr) => {
            Pool::new(
                [$op.kernel_size, $op.stride, $op.padding, $dilation],
                $op.ceil_mode,
            )
        };
    }
    Some(match op {
        M::AvgPool1d(op) => pool1d!(op, 1).forward(&op.x, &op.out),
        M::AvgPool2d(op) => pool2d!(op, [1; 2]).forward(&op.x, &op.out),
        M::AvgPool1dBackward(op) => pool1d!(op, 1).backward([&op.x, &op.grad, &op.out]),
        M::AvgPool2dBackward(op) => pool2d!(op, [1; 2]).backward([&op.x, &op.grad, &op.out]),
        M::MaxPool1d(op) => pool1d!(op, op.dilation).forward(&op.x, &op.out),
        M::MaxPool2d(op) => pool2d!(op, op.dilation).forward(&op.x, &op.out),
        M::MaxPool1dWithIndices(op) => {
            pool1d!(op, op.dilation).indexed([&op.x, &op.out, &op.out_indices])
        }
        M::MaxPool2dWithIndices(op) => {
            pool2d!(op, op.dilation).indexed([&op.x, &op.out, &op.out_indices])
        }
        M::MaxPool1dWithIndicesBackward(op) => (pool1d!(op, op.dilation))
            .indexed([&op.x, &op.grad, &op.indices])
            .and_then(|()| like("out", &op.out, &op.x)),
        M::MaxPool2dWithIndicesBackward(op) => (pool2d!(op, op.dilation))
            .indexed([&op.x, &op.grad, &op.indices])
            .and_then(|()| like("out", &op.out, &op.x)),
        M::AdaptiveAvgPool1d(op) => resized(&op.x, [op.output_size], &op.out),
        M::AdaptiveAvgPool2d(op) => resized(&op.x, op.output_size, &op.out),
        M::AdaptiveAvgPool3d(op) => resized(&op.x, op.output_size, &op.out),
        M::AdaptiveAvgPool1dBackward(op) => resized_backward::<1>(&op.x, &op.grad, &op.out),
        M::AdaptiveAvgPool2dBackward(op) => resized_backward::<2>(&op.x, &op.grad, &op.out),
        M::AdaptiveAvgPool3dBackward(op) => resized_backward::<3>(&op.x, &op.grad, &op.out),
        M::Interpolate(op) => {
            known(&op.options.mode, true).and_then(|()| resized(&op.x, op.output_size, &op.out))
        }
        M::InterpolateBackward(op) => known(&op.options.mode, false)
            .and_then(|()| resized(&op.x, op.output_size, &op.grad))
            .and_then(|()| like("out", &op.out, &op.x)),
        M::Unfold4d(op) => {
            let o = &op.options;
            let windows = Windows {
                kernel: op.kernel_size,
                stride: o.stride,
                padding: o.padding.map(|p| (p, p)),
                dilation: o.dilation,
            };
            unfolded(&op.x, &windows, &op.out, limits)
        }
        _ => return None,
    })
}

/// `x` with other extents; `out` is the larger or smaller one.
fn resized<const N: usize>(x: &TensorIr, size: [usize; N], out: &TensorIr) -> Rule {
    kind("x", x, Kind::Float)?;
    spatial::<N>("x", &x.shape)?;
    is(
        "out",
        out,
        &[&x.shape[..2], size.as_slice()].concat(),
        x.dtype,
    )
}

fn resized_backward<const N: usize>(x: &TensorIr, grad: &TensorIr, out: &TensorIr) -> Rule {
    resized(x, spatial::<N>("grad", &grad.shape)?, grad)?;
    like("out", out, x)
}

/// The modes that the CPU has.
fn known(mode: &InterpolateModeIr, forward: bool) -> Rule {
    use InterpolateModeIr as I;
    let known = match mode {
        I::Nearest | I::Bilinear | I::Bicubic => true,
        I::Lanczos3 => forward,
        I::NearestExact => false,
    };
    ensure(known, "mode", || format!("is {mode:?}"))
}

/// `[N, C, H, W]` to the columns `[N, C * kernel, windows]`.
fn unfolded(x: &TensorIr, windows: &Windows<2>, out: &TensorIr, limits: &Limits) -> Rule {
    kind("x", x, Kind::Float)?;
    let [n, c, h, w] = extents("x", x)?;
    let [rows, columns] = windows.count([h, w])?;
    let [kernel_h, kernel_w] = windows.kernel;
    // The product is bounded as the parameters are.
    let taps = c.checked_mul(kernel_h * kernel_w);
    let taps = taps.ok_or_else(|| Fault::Parameter {
        what: "kernel_size",
        why: format!("is {:?}, of {}", windows.kernel, x.shape),
    })?;
    // It is computed as a convolution whose weight picks each element of a window.
    super::spatial::bounded("kernel_size", &[taps, taps], limits)?;
    let padded = [h, w].into_iter().zip(windows.padding);
    let padded: Vec<usize> = padded
        .map(|(e, (before, after))| e + before + after)
        .collect();
    super::spatial::bounded("padding", &[n, c, padded[0], padded[1]], limits)?;
    is(
        "out",
        out,
        &[n, taps, rows.saturating_mul(columns)],
        x.dtype,
    )
}
