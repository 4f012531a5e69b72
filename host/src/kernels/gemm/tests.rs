//! Products against f64, at every level, layout and extent.

use super::*;
use crate::kernels::testing::{check, error, normal};

/// One rounding a term: 5e-7 measured for 600 of them.
const TOLERANCE: f64 = 1e-6;

/// Written around the result, where a product must not write.
const GUARD: f32 = 12345.0;
/// Columns of guard after each row.
const MARGIN: usize = 3;

const MOST_ROWS: usize = 30;
const WIDTHS: [usize; 9] = [1, 5, 16, 17, 31, 32, 33, 64, 70];
const DEPTHS: [usize; 6] = [1, 3, 255, 256, 257, 600];

/// A product's operands as plain matrices, and its sums in f64.
struct Operands {
    n: usize,
    k: usize,
    /// `[MOST_ROWS, k]`.
    a: Vec<f32>,
    /// `[k, n]`.
    b: Vec<f32>,
    bias: Vec<f32>,
    /// `[MOST_ROWS, n]`: what `out` held before.
    before: Vec<f32>,
    /// `[MOST_ROWS, n]`: a · b.
    sums: Vec<f64>,
}

impl Operands {
    fn new(n: usize, k: usize) -> Self {
        let (a, b) = (normal("a", MOST_ROWS * k), normal("b", k * n));
        let mut sums = vec![0.0; MOST_ROWS * n];
        for (a, sums) in a.chunks_exact(k).zip(sums.chunks_exact_mut(n)) {
            for (&a, b) in a.iter().zip(b.chunks_exact(n)) {
                for (sum, &b) in sums.iter_mut().zip(b) {
                    *sum += f64::from(a) * f64::from(b);
                }
            }
        }
        Operands {
            n,
            k,
            a,
            b,
            bias: normal("bias", n),
            before: normal("before", MOST_ROWS * n),
            sums,
        }
    }

    fn panels(&self) -> Vec<f32> {
        let mut panels = vec![f32::NAN; packed_len(self.k, self.n)];
        pack_panels(&self.b, [self.k, self.n], self.n, &mut panels);
        panels
    }
}

#[derive(Clone, Copy, Debug)]
enum From {
    Zero,
    Out,
    Bias,
}

/// The product of the first `m` rows and `columns`, and what it has to be.
fn compute(
    level: Level,
    operands: &Operands,
    panels: &[f32],
    (m, columns): (usize, Range<usize>),
    (strips, from, relu): (bool, From, bool),
) -> (Vec<f32>, Vec<f64>) {
    let Operands { n, k, .. } = *operands;
    // Rows lie apart, with NaN between them.
    let stride = k + 2;
    let mut a = vec![f32::NAN; m * stride];
    for (row, a) in a.chunks_exact_mut(stride).enumerate() {
        a[..k].copy_from_slice(&operands.a[row * k..][..k]);
    }
    if strips {
        let by_column: Vec<f32> = (0..k * m).map(|i| operands.a[i % m * k + i / m]).collect();
        a = vec![f32::NAN; strips_len(level, m, k)];
        pack_strips(level, &by_column, [m, k], m, &mut a);
    }
    let width = columns.len();
    let pitch = width + MARGIN;
    let mut out = vec![GUARD; m * pitch];
    if let From::Out = from {
        for (row, out) in out.chunks_exact_mut(pitch).enumerate() {
            out[..width].copy_from_slice(&operands.before[row * n..][columns.clone()]);
        }
    }
    let bias = &operands.bias[columns.clone()];
    let product = Product {
        m,
        n,
        columns: columns.clone(),
        k,
        a: a.as_ptr(),
        rows: if strips {
            Rows::Strips
        } else {
            Rows::Strided(stride)
        },
        b: panels.as_ptr(),
        out: out.as_mut_ptr(),
        out_stride: pitch,
        start: match from {
            From::Zero => Start::Zero,
            From::Out => Start::Out,
            From::Bias => Start::Bias(bias.as_ptr()),
        },
        relu,
    };
    // SAFETY: the level is available, the operands have these extents.
    unsafe { super::product(level, &product) };

    let (mut got, mut want) = (Vec::new(), Vec::new());
    for (row, out) in out.chunks_exact(pitch).enumerate() {
        assert_eq!(out[width..], [GUARD; MARGIN], "wrote beyond the columns");
        got.extend_from_slice(&out[..width]);
        want.extend(columns.clone().map(|column| {
            let start = match from {
                From::Zero => 0.0,
                From::Out => f64::from(operands.before[row * n + column]),
                From::Bias => f64::from(operands.bias[column]),
            };
            let sum = start + operands.sums[row * n + column];
            if relu { sum.max(0.0) } else { sum }
        }));
    }
    (got, want)
}

/// The error of all products of the first rows, `ms` of them: of the few sums of a small product
/// any may lie near 0.
fn worst(
    ms: impl IntoIterator<Item = usize>,
    compute: impl Fn(usize) -> (Vec<f32>, Vec<f64>),
) -> f64 {
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for m in ms {
        let part = compute(m);
        got.extend(part.0);
        want.extend(part.1);
    }
    error(&got, &want)
}

#[test]
fn products_equal_double_precision() {
    let levels = Level::available();
    for (n, k) in WIDTHS.iter().flat_map(|&n| DEPTHS.map(|k| (n, k))) {
        let operands = Operands::new(n, k);
        let panels = operands.panels();
        for &level in &levels {
            for from in [From::Zero, From::Out, From::Bias] {
                for (strips, relu) in [(false, false), (false, true), (true, false), (true, true)] {
                    let how = (strips, from, relu);
                    let error = worst(1..=MOST_ROWS, |m| {
                        compute(level, &operands, &panels, (m, 0..n), how)
                    });
                    let what = format_args!("{level:?}, k {k}, n {n}, {how:?}");
                    check(what, error, TOLERANCE);
                }
            }
        }
    }
}

#[test]
fn a_range_of_columns_is_that_part_of_the_product() {
    for level in Level::available() {
        for k in [3, 257] {
            let operands = Operands::new(70, k);
            let panels = operands.panels();
            for columns in [0..32, 0..45, 32..33, 32..64, 32..70, 64..70] {
                let how = (false, From::Bias, false);
                let error = worst([1, 6, 14, 23], |m| {
                    compute(level, &operands, &panels, (m, columns.clone()), how)
                });
                check(format_args!("{level:?}, {columns:?}"), error, TOLERANCE);
            }
        }
    }
}

#[test]
fn not_a_number_passes_relu() {
    for level in Level::available() {
        let mut operands = Operands::new(37, 5);
        let panels = operands.panels();
        operands.a[2 * 5 + 1] = f32::NAN;
        let how = (false, From::Zero, true);
        let (y, _) = compute(level, &operands, &panels, (7, 0..37), how);
        for (i, y) in y.iter().enumerate() {
            assert_eq!(y.is_nan(), i / 37 == 2, "{level:?}: value {i}");
        }
    }
}

#[test]
fn an_empty_sum_is_its_start() {
    for level in Level::available() {
        let operands = Operands {
            n: 19,
            k: 0,
            a: Vec::new(),
            b: Vec::new(),
            bias: normal("bias", 19),
            before: normal("before", MOST_ROWS * 19),
            sums: vec![0.0; MOST_ROWS * 19],
        };
        for from in [From::Zero, From::Out, From::Bias] {
            let how = (false, from, true);
            let error = worst([17], |m| compute(level, &operands, &[], (m, 0..19), how));
            assert_eq!(error, 0.0, "{level:?}, {how:?}");
        }
    }
}

#[test]
fn a_packed_element_lies_where_it_is_said() {
    for (n, k) in [(1, 1), (33, 5), (70, 300)] {
        let operands = Operands::new(n, k);
        let panels = operands.panels();
        for (row, column) in [(0, 0), (k - 1, n - 1), (k / 2, n / 2)] {
            let at = packed_at(k, n, row, column) + column % PANEL;
            assert_eq!(panels[at], operands.b[row * n + column]);
        }
    }
}
