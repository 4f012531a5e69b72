//! Extents of a convolution and which input cell lies under which output cell.

use crate::kernels::maps::Segment;

/// A convolution without its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// `[height, width]`.
    pub kernel: [usize; 2],
    /// Per axis.
    pub stride: [usize; 2],
    /// Zeros on both sides, per axis.
    pub padding: [usize; 2],
    /// Per axis.
    pub dilation: [usize; 2],
}

impl Window {
    /// A square kernel without dilation.
    #[must_use]
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Window {
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [1; 2],
        }
    }

    /// Cells of the kernel.
    #[must_use]
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Extents of the output of `input`.
    ///
    /// # Panics
    /// If the kernel is larger than the padded input.
    #[must_use]
    pub fn output(&self, input: Segment) -> Segment {
        let out = |extent: usize, axis: usize| {
            let reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            let room = (extent + 2 * self.padding[axis]).checked_sub(reach);
            room.unwrap_or_else(|| {
                panic!("a kernel that reaches over {reach} cells does not fit into {extent}")
            }) / self.stride[axis]
                + 1
        };
        Segment::new(input.n, out(input.h, 0), out(input.w, 1))
    }

    /// Extents of the outputs of maps of several sizes.
    ///
    /// # Panics
    /// As [`Window::output`].
    pub(crate) fn outputs(&self, segments: &[Segment]) -> Vec<Segment> {
        segments.iter().map(|s| self.output(*s)).collect()
    }

    /// The grid of the input cells of one phase `(y, x) mod stride`, for maps of several sizes.
    pub(crate) fn phase_grids(&self, segments: &[Segment], phase: [usize; 2]) -> Vec<Segment> {
        let along = |extent: usize, axis: usize| {
            extent
                .saturating_sub(phase[axis])
                .div_ceil(self.stride[axis])
        };
        segments
            .iter()
            .map(|s| Segment::new(s.n, along(s.h, 0), along(s.w, 1)))
            .collect()
    }

    /// Whether each output cell reads the input cell at its own place alone.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    /// Reads: output cell `g` reads input `g * stride + offset` under each tap.
    pub(crate) fn reading(&self) -> Gather {
        let offset = |axis: usize, k: usize| {
            (k * self.dilation[axis]) as isize - self.padding[axis] as isize
        };
        let taps = (0..self.taps())
            .map(|tap| {
                let (ky, kx) = (tap / self.kernel[1], tap % self.kernel[1]);
                Tap {
                    tap,
                    y: offset(0, ky),
                    x: offset(1, kx),
                }
            })
            .collect();
        Gather {
            step: self.stride,
            taps,
            // Neighbouring taps of a row read neighbouring cells.
            run: if self.dilation[1] == 1 {
                self.kernel[1]
            } else {
                1
            },
        }
    }

    /// The transposed reading: input cells of one phase `(y, x) mod stride` read the output cells
    /// that they were read by. Input cell `g * stride + phase` reads output `g + offset`.
    pub(crate) fn reverse(&self, phase: [usize; 2]) -> Gather {
        let along = |axis: usize| -> Vec<(usize, isize)> {
            (0..self.kernel[axis])
                .filter_map(|k| {
                    let at = (phase[axis] + self.padding[axis]) as isize
                        - (k * self.dilation[axis]) as isize;
                    let stride = self.stride[axis] as isize;
                    (at.rem_euclid(stride) == 0).then(|| (k, at.div_euclid(stride)))
                })
                .collect()
        };
        let (rows, columns) = (along(0), along(1));
        let taps = rows
            .iter()
            .flat_map(|&(ky, y)| {
                columns.iter().map(move |&(kx, x)| Tap {
                    tap: ky * self.kernel[1] + kx,
                    y,
                    x,
                })
            })
            .collect();
        Gather {
            step: [1, 1],
            taps,
            run: 1,
        }
    }
}

/// One kernel cell of a [`Gather`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tap {
    /// Row-major index in the kernel.
    pub(crate) tap: usize,
    pub(crate) y: isize,
    pub(crate) x: isize,
}

/// Which cells of a source a cell `(y, x)` of a grid reads: `(y, x) * step + tap`.
#[derive(Clone, Debug)]
pub(crate) struct Gather {
    pub(crate) step: [usize; 2],
    pub(crate) taps: Vec<Tap>,
    /// As many taps in a row, starting at multiples of it, read cells side by side.
    pub(crate) run: usize,
}
