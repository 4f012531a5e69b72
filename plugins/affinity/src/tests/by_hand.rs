//! Numbers that can be had without the method, and what must not change them.

use kd_plugin::testkit::Random;

use super::*;

/// `T = (1 + c/2) sin(.31i + .73j + .9c) + .2c`, `Q = (1 - .3c) cos(.53i - .21j + .45c) - .1c` and
/// `S = .7T + .3Q` on `[1, 2, 8, 9]`: student and teacher.
fn analytic() -> [Tensor<4>; 2] {
    let mut maps = [Vec::new(), Vec::new()];
    for (c, i, j) in (0..2).flat_map(|c| (0..8).flat_map(move |i| (0..9).map(move |j| (c, i, j)))) {
        let (c, i, j) = (f64::from(c), f64::from(i), f64::from(j));
        let t = (1.0 + 0.5 * c) * (0.31 * i + 0.73 * j + 0.9 * c).sin() + 0.2 * c;
        let q = (1.0 - 0.3 * c) * (0.53 * i - 0.21 * j + 0.45 * c).cos() - 0.1 * c;
        maps[0].push((0.7 * t + 0.3 * q) as f32);
        maps[1].push(t as f32);
    }
    maps.map(|values| map(values, [1, 2, 8, 9]))
}

fn map(values: Vec<f32>, shape: [usize; 4]) -> Tensor<4> {
    let data = burn::tensor::TensorData::new(values, shape);
    Tensor::from_data(data, &Device::flex())
}

fn value(loss: Tensor<1>) -> f64 {
    f64::from(loss.into_scalar::<f32>())
}

/// f64 values of a pure Python implementation.
#[test]
fn independent_values_are_met() {
    let [student, teacher] = analytic();
    for (reduction, expected) in [
        (Reduction::Row, 2.078323317),
        (Reduction::Rms, 0.260371260),
        (Reduction::Mse, 0.067793193),
    ] {
        let got = value(affinity::loss(student.clone(), teacher.clone(), reduction));
        assert!(
            (got - expected).abs() < 1e-5 * expected,
            "{reduction:?}: {got} {expected}"
        );
    }
    for (norm_scope, expected) in [
        (NormScope::Location, 0.120298679),
        (NormScope::Sample, 0.021184772),
    ] {
        let config = Config {
            norm_scope,
            ..Config::default()
        };
        let got = value(adaptation::loss(&config, student.clone(), teacher.clone()));
        assert!(
            (got - expected).abs() < 1e-5 * expected,
            "{norm_scope:?}: {got} {expected}"
        );
    }
}

#[test]
fn equal_maps_give_exactly_zero() {
    let values = Random::new(3).normals(2 * 5 * 6 * 7);
    let x = map(values, [2, 5, 6, 7]);
    for reduction in [Reduction::Mse, Reduction::Rms, Reduction::Row] {
        assert_eq!(value(affinity::loss(x.clone(), x.clone(), reduction)), 0.0);
    }
    for (p, q, norm_scope) in [
        (1, 2, NormScope::Location),
        (2, 2, NormScope::Location),
        (2, 1, NormScope::Sample),
    ] {
        let config = Config {
            p,
            q,
            norm_scope,
            ..Config::default()
        };
        assert_eq!(value(adaptation::loss(&config, x.clone(), x.clone())), 0.0);
    }
}

/// Identity in the centre of every kernel: the student that equals its teacher has nothing to learn.
#[test]
fn an_equal_student_behind_identity_adapters_gives_zero() {
    let shape = [2, 4, 6, 7];
    let taps = feat((shape, 8), (shape, 8));
    let mut bench = joint(
        &json!({"autoencoder": "none", "loss_weight_adapt": 0.0}),
        &taps,
    );
    bench.fill(5);
    let teacher = bench.tap_mut(1).to_vec();
    bench.tap_mut(0).copy_from_slice(&teacher);
    let weight = bench.param_mut("affinity_adapter.feat.last.conv.weight");
    weight.fill(0.0);
    for channel in 0..4 {
        weight[(channel * 4 + channel) * 9 + 4] = 1.0;
    }
    bench
        .param_mut("affinity_adapter.feat.last.conv.bias")
        .fill(0.0);
    assert_eq!(losses(&mut bench), [("loss_aff".to_owned(), 0.0)]);
}

#[test]
fn positions_may_be_permuted_and_lengths_changed() {
    let mut random = Random::new(8);
    let (channels, positions) = (5, 42);
    let student = random.normals(channels * positions);
    let code: Vec<f32> = random
        .normals(channels * positions)
        .iter()
        .map(|v| v.max(0.0))
        .collect();
    let moved = |values: &[f32], scale: f32| -> Vec<f32> {
        let from = |at: usize| (at * 11 + 5) % positions;
        let cells = (0..channels).flat_map(|c| (0..positions).map(move |at| (c, from(at))));
        cells
            .map(|(c, at)| values[c * positions + at] * scale)
            .collect()
    };
    let shape = [1, channels, 6, 7];
    for reduction in [Reduction::Mse, Reduction::Rms, Reduction::Row] {
        let of = |student: Vec<f32>, code: Vec<f32>| {
            value(affinity::loss(
                map(student, shape),
                map(code, shape),
                reduction,
            ))
        };
        let before = of(student.clone(), code.clone());
        let after = of(moved(&student, 3.0), moved(&code, 0.5));
        assert!(
            (before - after).abs() < 2e-6 * before,
            "{reduction:?}: {before} {after}"
        );
    }
}

/// Images are compared one by one: the loss of a batch is the mean of the losses of its images.
#[test]
fn images_do_not_mix() {
    let shape = [1, 4, 5, 5];
    let mut random = Random::new(21);
    let maps: Vec<[Tensor<4>; 2]> = (0..3)
        .map(|_| [(); 2].map(|()| map(random.normals(100), shape)))
        .collect();
    for reduction in [Reduction::Mse, Reduction::Rms, Reduction::Row] {
        let single = maps
            .iter()
            .map(|[s, t]| value(affinity::loss(s.clone(), t.clone(), reduction)));
        let mean = single.sum::<f64>() / 3.0;
        let stacked = |side: usize| Tensor::cat(maps.iter().map(|m| m[side].clone()).collect(), 0);
        let batch = value(affinity::loss(stacked(0), stacked(1), reduction));
        assert!(
            (mean - batch).abs() < 1e-6 * mean,
            "{reduction:?}: {mean} {batch}"
        );
    }
}

/// `loss_ae` of zero weights everywhere: the code is the ReLU of `beta`, the decoder gives its bias.
#[test]
fn the_code_counts_as_the_options_say() {
    let taps = feat(([2, 3, 5, 4], 16), ([2, 4, 9, 7], 8));
    let mut results = Vec::new();
    for reduction in ["sum", "mean"] {
        let config = json!({"sparsity": 0.25, "sparsity_reduction": reduction});
        let mut bench = Bench::new::<Affinity>(&config, &taps).unwrap();
        let names: Vec<String> = bench
            .params()
            .iter()
            .map(|(name, ..)| name.clone())
            .collect();
        for name in names {
            bench.param_mut(&name).fill(0.0);
        }
        bench
            .param_mut("encoder.shared.norm3.beta")
            .copy_from_slice(&[3.0, -1.0]);
        bench.param_mut("decoder.shared.conv3.bias").fill(2.0);
        bench.tap_mut(1).fill(0.5);
        results.push(loss(&mut bench, "loss_ae"));
    }
    // 5 x 4 cells of a code of 2 channels, of which one is 3 and one 0.
    assert_eq!(results, [2.25 + 0.25 * 60.0, 2.25 + 0.25 * 1.5]);
}

/// A vector of zeros, on either side, has no direction: it counts, and its gradient is finite.
#[test]
fn zeros_are_finite() {
    for config in [
        json!({}),
        json!({"affinity": "row", "p": 2}),
        json!({"affinity": "rms", "q": 1}),
        json!({"p": 2, "norm_scope": "sample"}),
    ] {
        let shape = [1, 4, 3, 4];
        let mut bench = joint(&config, &feat((shape, 8), (shape, 8)));
        for weight in [0.0, -1.0] {
            // The code is zero, then of BatchNorm alone; the adapters see zeros.
            bench.param_mut("encoder.shared.norm3.beta").fill(weight);
            bench
                .param_mut("affinity_adapter.feat.last.conv.bias")
                .fill(0.0);
            let out = bench.forward().unwrap();
            assert!(
                out.losses.iter().all(|l| l.is_finite()),
                "{config}: {:?}",
                out.losses
            );
            let gradients = bench.backward(&out, &[0.0, 1.0, 1.0], &[]).unwrap();
            drop(out);
            let all = gradients.taps.iter().chain(&gradients.params).flatten();
            assert!({ all }.all(|g| g.is_finite()), "{config}");
        }
    }
}

/// Values far beyond what a network makes.
#[test]
fn large_values_are_finite() {
    let shape = [1, 4, 3, 4];
    let mut bench = joint(&json!({}), &feat((shape, 8), (shape, 8)));
    bench.fill(2);
    for slot in 0..2 {
        bench.tap_mut(slot).iter_mut().for_each(|v| *v *= 1e6);
    }
    let out = bench.forward().unwrap();
    assert!(out.losses.iter().all(|l| l.is_finite()), "{:?}", out.losses);
}
