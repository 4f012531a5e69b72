//! The affinity loss from products of `C × C`, in f32, against the matrices themselves in f64.

use kd_plugin::testkit::{Random, relative_error};

use super::*;
use crate::affinity::tiled;

const CHANNELS: usize = 32;
const SIZE: [usize; 2] = [16, 20];

/// Directions `[m, C]` in f64, of values that are f32.
fn directions(values: &[f32]) -> Vec<Vec<f64>> {
    let rows = values.chunks_exact(CHANNELS).map(|row| {
        let row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        let length = (row.iter().map(|v| v * v).sum::<f64>() + 1e-12).sqrt();
        row.iter().map(|v| v / length).collect()
    });
    rows.collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `‖D‖²_F / m²` and its gradient at the student's values.
fn in_f64(student: &[f32], code: &[f32]) -> (f64, Vec<f64>) {
    let (x, y) = (directions(student), directions(code));
    let m = x.len();
    let mut total = 0.0;
    let mut gradient = Vec::new();
    for i in 0..m {
        let d: Vec<f64> = (0..m)
            .map(|j| dot(&x[i], &x[j]) - dot(&y[i], &y[j]))
            .collect();
        total += dot(&d, &d);
        let at_x: Vec<f64> = (0..CHANNELS)
            .map(|c| 4.0 * (0..m).map(|j| d[j] * x[j][c]).sum::<f64>())
            .collect();
        let row = &student[i * CHANNELS..(i + 1) * CHANNELS];
        let length = row
            .iter()
            .map(|&v| f64::from(v).powi(2))
            .sum::<f64>()
            .sqrt();
        let along = dot(&at_x, &x[i]);
        gradient.extend(
            at_x.iter()
                .zip(&x[i])
                .map(|(g, x)| (g - along * x) / length),
        );
    }
    let per = (m * m) as f64;
    (total / per, gradient.iter().map(|g| g / per).collect())
}

/// A code of `[m, C]`, not negative, and a student that differs by `noise`; `rotated`: all channels of
/// the student mixed by rotations, which no affinity sees.
fn maps(noise: f64, rotated: bool) -> (Vec<f32>, Vec<f32>) {
    let mut random = Random::new(7);
    let positions = SIZE[0] * SIZE[1];
    let code: Vec<f32> = (0..positions * CHANNELS)
        .map(|_| (random.normal() + 0.2).max(0.0) as f32)
        .collect();
    let mut student: Vec<f64> = code
        .iter()
        .map(|&v| f64::from(v) + noise * random.normal())
        .collect();
    if rotated {
        for _ in 0..200 {
            let (a, b) = (random.below(CHANNELS), random.below(CHANNELS));
            let (sin, cos) = (random.unit() * 6.0).sin_cos();
            if a == b {
                continue;
            }
            for row in student.chunks_exact_mut(CHANNELS) {
                (row[a], row[b]) = (cos * row[a] - sin * row[b], sin * row[a] + cos * row[b]);
            }
        }
    }
    (student.iter().map(|&v| v as f32).collect(), code)
}

fn rows(values: &[f32], device: &Device) -> Tensor<2> {
    let shape = [values.len() / CHANNELS, CHANNELS];
    Tensor::from_data(
        burn::tensor::TensorData::new(values.to_vec(), shape),
        device,
    )
}

/// `[m, C]` as `[1, C, H, W]`.
fn as_map(rows: Tensor<2>) -> Tensor<4> {
    rows.transpose().reshape([1, CHANNELS, SIZE[0], SIZE[1]])
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// Loss and gradient at the student's values by the method.
fn by_method(student: &[f32], code: &[f32], reduction: Reduction) -> (f64, Vec<f32>) {
    let student = rows(student, &Device::flex().autodiff()).require_grad();
    let code = as_map(rows(code, &Device::flex()));
    let loss = affinity::loss(as_map(student.clone()), code, reduction);
    let value = f64::from(floats(loss.clone().inner())[0]);
    let gradient = student.grad(&loss.backward()).unwrap();
    (value, floats(gradient))
}

/// What is left of a small difference: `M` is rounded to 6e-8 of directions of length 1, whatever is left
/// of it; where the student's channels are mixed, nothing falls with the loss and 1e-9 of it remains.
#[test]
fn small_losses_and_their_gradients_keep_their_digits() {
    for (noise, near, rotated) in [
        (0.6, 1e-2, false),
        (6e-2, 1e-4, false),
        (6e-3, 1e-6, false),
        (0.6, 1e-2, true),
        (6e-2, 1e-4, true),
        (6e-3, 1e-6, true),
    ] {
        let (student, code) = maps(noise, rotated);
        let (expected, d_expected) = in_f64(&student, &code);
        assert!(
            (0.2..5.0).contains(&(expected / near)),
            "{noise}: {expected:e}"
        );
        let (got, gradient) = by_method(&student, &code, Reduction::Mse);
        let allowed = 1e-6 + if rotated { 3e-9 } else { 1e-12 } / expected;
        let error = (got - expected).abs() / expected;
        assert!(
            error < allowed,
            "{expected:e}, rotated {rotated}: {error:e} {allowed:e}"
        );
        let error = relative_error(&gradient, &d_expected);
        let allowed = 1e-5 + if rotated { 1e-6 } else { 3e-7 } / expected.sqrt();
        assert!(
            error < allowed,
            "gradient at {expected:e}, rotated {rotated}: {error:e} {allowed:e}"
        );
    }
}

#[test]
fn tiles_of_any_height_give_the_same() {
    let (student, code) = maps(0.6, true);
    let (expected, d_expected) = in_f64(&student, &code);
    let device = Device::flex();
    let unit = |values: &[f32]| {
        let flat = directions(values).concat();
        let flat: Vec<f32> = flat.iter().map(|&v| v as f32).collect();
        rows(&flat, &device)
    };
    let (x, y) = (unit(&student), unit(&code));
    let m = x.dims()[0] as f64;
    for height in [1, 50, 320, 1000] {
        let (total, at_x) = tiled::squared_distance(&x, &y, height);
        let got = f64::from(floats(total)[0]) / (m * m);
        assert!(
            (got - expected).abs() < 1e-5 * expected,
            "{height}: {got} {expected}"
        );
        // Through the normalisation, to the student's values.
        let (at_x, x) = (floats(at_x), floats(x.clone()));
        let rows = at_x.chunks_exact(CHANNELS).zip(x.chunks_exact(CHANNELS));
        let through = rows
            .zip(student.chunks_exact(CHANNELS))
            .flat_map(|((g, x), row)| {
                let along: f32 = g.iter().zip(x).map(|(g, x)| g * x).sum();
                let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
                let per = (m * m) as f32;
                let each = g
                    .iter()
                    .zip(x)
                    .map(move |(g, x)| (g - along * x) / length / per);
                each.collect::<Vec<f32>>()
            });
        let error = relative_error(&through.collect::<Vec<f32>>(), &d_expected);
        assert!(error < 1e-5, "{height}: {error:e}");
    }
}

#[test]
fn rows_and_root_are_those_of_the_matrix() {
    let (student, code) = maps(0.6, true);
    let (x, y) = (directions(&student), directions(&code));
    let m = x.len();
    let lengths = (0..m).map(|i| {
        let row = (0..m).map(|j| (dot(&x[i], &x[j]) - dot(&y[i], &y[j])).powi(2));
        row.sum::<f64>().sqrt()
    });
    let lengths: Vec<f64> = lengths.collect();
    let expected = [
        (Reduction::Row, lengths.iter().sum::<f64>() / m as f64),
        (Reduction::Rms, dot(&lengths, &lengths).sqrt() / m as f64),
    ];
    for (reduction, expected) in expected {
        let (got, _) = by_method(&student, &code, reduction);
        assert!(
            (got - expected).abs() < 1e-6 * expected,
            "{reduction:?}: {got} {expected}"
        );
    }
}
