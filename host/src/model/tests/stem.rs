//! The tap of the first convolution: exact in every mode, its gradient that convolution's alone, and
//! nothing else changes for it.

use burn::tensor::Device;

use super::*;
use crate::kernels::testing::{dot, normal};
use crate::model::{initial_state, weights};

const TAP: &str = "stem.conv";
/// `<gradient, weight>` and `<tap, upstream>` are one sum in two orders.
const TOLERANCE: f64 = 1e-5;

/// Every kind of model, with its first convolution.
fn models(norm: NormKind) -> Vec<(Box<dyn Model>, &'static str)> {
    let config = ModelConfig {
        norm,
        ..small_config()
    };
    let on = |backbone: &str, task| {
        let config = ModelConfig {
            norm,
            ..segmenter_config(backbone)
        };
        crate::model::build(&config, task, 3).unwrap()
    };
    let mut models: Vec<(Box<dyn Model>, &str)> = Vec::new();
    for name in DETECTORS {
        let config = ModelConfig {
            detector: name.into(),
            ..config.clone()
        };
        let model = crate::model::build(&config, Task::Detection, 3).unwrap();
        models.push((model, "backbone.body.conv1.weight"));
    }
    for (task, [resnet, mobilenet]) in [
        (
            Task::Segmentation,
            ["backbone.conv1.weight", "backbone.0.0.weight"],
        ),
        (
            Task::Classification,
            ["conv1.weight", "features.0.0.weight"],
        ),
    ] {
        models.push((on("tiny", task), resnet));
        models.push((on("mobilenet_v2", task), mobilenet));
    }
    models
}

/// Batch statistics, frozen ones in training, running ones in evaluation.
const MODES: [(NormKind, bool); 3] = [
    (NormKind::Batch, true),
    (NormKind::FrozenBatch, true),
    (NormKind::Batch, false),
];

fn images() -> Tensor<4> {
    let shape = [2, 3, 37, 53];
    let pixels = normal("stem images", shape.iter().product());
    Tensor::from_data(TensorData::new(pixels, shape), &Device::flex())
}

/// Weights whose normalisation is no identity.
fn leaves(model: &dyn Model) -> Vec<Tensor<1>> {
    let mut state = initial_state(model, 3);
    for (name, array) in &mut state.entries {
        let spread = normal(name, array.data.len());
        let is_norm = model.specs().iter().any(|spec| {
            let plain = matches!(spec.kind, ParamKind::Weight | ParamKind::Bias);
            spec.name == *name && !plain
        });
        if is_norm {
            for (value, noise) in array.data.iter_mut().zip(spread) {
                *value += 0.2 * noise.clamp(-2.0, 2.0);
            }
        }
    }
    student_weights(
        model,
        weights::tensors(model, &state, &Device::flex()).unwrap(),
    )
}

#[test]
fn its_gradient_reaches_the_first_convolution_alone() {
    for (norm, training) in MODES {
        for (model, first) in models(norm) {
            let model = model.as_ref();
            let weights = leaves(model);
            let forward = model.forward(&weights, images(), &request(training, &[TAP], false));
            let tap = forward.taps[TAP].clone();
            let upstream = normal("stem upstream", tap.dims().iter().product());
            let factors = TensorData::new(upstream.clone(), tap.dims());
            let factors = Tensor::<4>::from_data(factors, &Device::flex()).autodiff();
            let gradients = (tap.clone() * factors).sum().backward();
            for (spec, weight) in model.specs().iter().zip(&weights) {
                let gradient = weight.grad(&gradients).map(values);
                if spec.name != first {
                    let nothing = gradient.is_none_or(|g| g.iter().all(|g| *g == 0.0));
                    assert!(nothing, "{norm:?}, {training}: {}", spec.name);
                    continue;
                }
                // The convolution is linear in its weight, and has no bias.
                let gradient = gradient.expect("the first convolution learns");
                let weight = values(weight.clone().inner());
                let (along, sum) = (
                    dot(&gradient, &weight),
                    dot(&values(tap.clone().inner()), &upstream),
                );
                let scale = dot(&upstream, &upstream).sqrt();
                assert!(
                    (along - sum).abs() <= TOLERANCE * scale,
                    "{along} is not {sum}"
                );
                assert!(sum.abs() > 1e-2 * scale, "{sum} shows nothing");
            }
        }
    }
}

#[test]
fn it_is_the_same_map_whatever_normalises_it() {
    let maps = MODES.map(|(norm, training)| {
        let all = models(norm).into_iter().map(|(model, _)| {
            let request = request(training, &[TAP], true);
            let forward = model.forward(&leaves(model.as_ref()), images(), &request);
            assert!(forward.batch_stats.is_empty(), "nothing after it has run");
            assert!(forward.output.is_none());
            values(forward.taps[TAP].clone())
        });
        all.collect::<Vec<_>>()
    });
    assert_eq!(maps[0], maps[1]);
    assert_eq!(maps[0], maps[2]);
}

#[test]
fn asking_for_it_changes_no_bit_of_the_rest() {
    for (norm, training) in MODES {
        for (model, _) in models(norm) {
            let model = model.as_ref();
            let others: Vec<&str> = all_taps(model).into_iter().filter(|t| *t != TAP).collect();
            let run = |taps: &[&str]| {
                let weights = leaves(model);
                let forward = model.forward(&weights, images(), &request(training, taps, false));
                let total = others.iter().map(|tap| forward.taps[*tap].clone().sum());
                let gradients = total.reduce(|a, b| a + b).unwrap().backward();
                let taps = others.iter().map(|tap| values(forward.taps[*tap].clone()));
                let gradients = weights.iter().map(|w| w.grad(&gradients).map(values));
                (taps.collect::<Vec<_>>(), gradients.collect::<Vec<_>>())
            };
            assert!(
                run(&others) == run(&all_taps(model)),
                "{norm:?}, {training}"
            );
        }
    }
}
