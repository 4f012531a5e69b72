//! Time and peak memory of the affinity loss, forward and backward, from Grams and by tiles, on one
//! image: `cargo bench -p kd-affinity`. `tests/bench/affinity_literal.py` is PyTorch beside it.
//!
//! The fastest of nine passes counts. Burn's CPU backend computes, in f32. Each case runs in a process of its own, because a peak of resident
//! memory never falls; what the process held before the first pass is taken off.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::process::Command;
use std::time::Instant;

use kd_affinity::affinity::{self, tiled};
use kd_affinity::options::Reduction;
use kd_affinity::vectors::direction;
use kd_plugin::burn::tensor::{Device, Tensor, TensorData};
use kd_plugin::testkit::Random;

const SIDES: [usize; 2] = [65, 129];
const CHANNELS: [usize; 2] = [128, 256];
/// Rows of a tile: 256 rows of 16 641 are 17 MB.
const ROWS: usize = 256;
const REPEATS: usize = 9;
/// Names the case that a child runs: form, side, channels.
const CASE: &str = "KD_AFFINITY_CASE";

fn main() {
    match std::env::var(CASE) {
        Ok(case) => one(&case),
        Err(_) => all(),
    }
}

fn all() {
    println!("| positions | C | form | ms | peak MiB |\n|---|--:|---|--:|--:|");
    let itself = std::env::current_exe().expect("the running program has a path");
    for side in SIDES {
        for channels in CHANNELS {
            for form in ["gram", "tiled"] {
                let case = format!("{form} {side} {channels}");
                let status = Command::new(&itself).env(CASE, case).status();
                assert!(
                    status.expect("this program runs").success(),
                    "{form} {side}"
                );
            }
        }
    }
}

fn one(case: &str) {
    let mut words = case.split(' ');
    let mut next = || words.next().expect("three words");
    let form = next().to_owned();
    let [side, channels] = [next(), next()].map(|word| word.parse().expect("a number"));
    let mut random = Random::new(1);
    let mut map = |device: &Device| {
        let shape = [1, channels, side, side];
        let values = random.normals(shape.iter().product());
        Tensor::<4>::from_data(TensorData::new(values, shape), device)
    };
    let student = map(&Device::flex().autodiff()).require_grad();
    let code = map(&Device::flex()).clamp_min(0.0);
    let pass = || match form.as_str() {
        "gram" => gram(&student, &code),
        _ => by_tiles(&student, &code),
    };
    let before = peak_mib();
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let clock = Instant::now();
        pass();
        times.push(clock.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let (fastest, peak) = (times[0], peak_mib() - before);
    println!("| {side}×{side} | {channels} | {form} | {fastest:.0} | {peak:.0} |");
}

/// The method's loss and its gradient at the student's map.
fn gram(student: &Tensor<4>, code: &Tensor<4>) {
    let loss = affinity::loss(student.clone(), code.clone(), Reduction::Mse);
    let gradients = loss.backward();
    assert!(student.grad(&gradients).is_some());
}

/// The same from rows of the matrices; the gradient goes on through the directions.
fn by_tiles(student: &Tensor<4>, code: &Tensor<4>) {
    let rows = |map: &Tensor<4>| -> Tensor<2> {
        let [_, c, h, w] = map.dims();
        direction(map.clone().reshape([1, c, h * w]), 2)
            .squeeze_dim::<2>(0)
            .transpose()
    };
    let (x, y) = (rows(student), rows(code));
    let positions = x.dims()[0] as f64;
    let (total, at_x) = tiled::squared_distance(&x.clone().inner(), &y, ROWS);
    let value = total / (positions * positions);
    let gradients = (x * at_x / (positions * positions)).sum().backward();
    assert!(student.grad(&gradients).is_some());
    assert!(value.into_scalar::<f32>() > 0.0);
}

/// Peak of resident memory of this process (`VmHWM`).
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .expect("in kB");
    kib.trim().parse::<f64>().expect("a number") / 1024.0
}
