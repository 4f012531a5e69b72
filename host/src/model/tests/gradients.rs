//! Gradients against finite differences.

use burn::tensor::Device;

use super::*;
use crate::detection::HeadOutput;
use crate::model::{build_detector, initial_state, weights};
use crate::rng::KeyedRng;

/// ReLUs and max-pools that flip within the step bend the objective: up to a percent at this step for
/// the stem, whose weights move thousands of them, and under 0.2 % elsewhere. A smaller step drowns in
/// f32 rounding. The comparison with torch is the sharp one; this one needs no second framework.
const TOLERANCE: f64 = 0.02;
/// Length of the step along the gradient.
const STEP: f64 = 3e-4;

/// A fixed random combination of the outputs: sensitive to each of them.
fn objective(head: &HeadOutput, device: &Device) -> Tensor<1> {
    let mut rng = KeyedRng::new("objective", &[0]);
    outputs(head)
        .into_iter()
        .map(|output| {
            let dims = output.dims();
            let count = dims.iter().product::<usize>();
            let factors: Vec<f32> = (0..count).map(|_| rng.normal() as f32).collect();
            let factors = Tensor::<4>::from_data(TensorData::new(factors, dims), device);
            (output * factors).sum()
        })
        .reduce(|a, b| a + b)
        .unwrap()
}

#[test]
fn directional_derivatives_match_finite_differences() {
    let common = [
        "backbone.body.bn1.weight",
        "backbone.body.layer1.0.conv2.weight",
        "backbone.body.layer2.0.downsample.0.weight",
        "backbone.body.layer3.0.bn2.bias",
        "backbone.body.layer4.0.conv1.weight",
        "backbone.fpn.inner_blocks.0.0.weight",
        "backbone.fpn.layer_blocks.2.0.bias",
        "backbone.fpn.extra_blocks.p6.weight",
        "head.regression_head.bbox_reg.weight",
    ];
    let retinanet = ["head.classification_head.conv.0.0.weight"];
    let fcos = [
        "head.classification_head.conv.0.weight",
        "head.classification_head.conv.1.weight",
        "head.regression_head.conv.1.bias",
        "head.regression_head.bbox_ctrness.weight",
    ];
    check("retinanet", &[&common[..], &retinanet].concat());
    check("fcos", &[&common[..], &fcos].concat());
}

fn check(detector: &str, names: &[&str]) {
    let device = Device::flex();
    let config = ModelConfig {
        detector: detector.into(),
        head_convs: 1,
        ..small_config()
    };
    let detector = build_detector(&config, 2).unwrap();
    let mut state = initial_state(detector.as_ref(), 3);
    for (name, array) in &mut state.entries {
        // The head starts so near to zero that its outputs would drown in rounding.
        if name.starts_with("head") && array.shape.len() == 4 {
            array.data.iter_mut().for_each(|v| *v *= 20.0);
        }
    }
    let plain = weights::tensors(detector.as_ref(), &state, &device).unwrap();
    let mut rng = KeyedRng::new("image", &[0]);
    let pixels: Vec<f32> = (0..2 * 3 * 64 * 64).map(|_| rng.normal() as f32).collect();
    let images = Tensor::<4>::from_data(TensorData::new(pixels, [2, 3, 64, 64]), &device);
    let request = request(true, &[], false);
    let value = |weights: &[Tensor<1>]| {
        let forward = detector.forward(weights, images.clone(), &request);
        objective(forward.head().unwrap(), &device)
    };

    let leaves = student_weights(detector.as_ref(), plain.clone());
    let gradients = value(&leaves).backward();
    for &name in names {
        let index = detector
            .specs()
            .iter()
            .position(|spec| spec.name == name)
            .unwrap();
        let gradient = values(leaves[index].grad(&gradients).unwrap());
        // Along the gradient itself, where the derivative is its norm and stands out of rounding.
        let norm = gradient
            .iter()
            .map(|g| f64::from(*g).powi(2))
            .sum::<f64>()
            .sqrt();
        let shifted = |sign: f64| {
            let mut weights = plain.clone();
            let step: Vec<f32> = gradient
                .iter()
                .map(|g| (sign * STEP * f64::from(*g) / norm) as f32)
                .collect();
            let count = step.len();
            let step = Tensor::<1>::from_data(TensorData::new(step, [count]), &device);
            weights[index] = weights[index].clone() + step;
            f64::from(values(value(&weights))[0])
        };
        let slope = (shifted(1.0) - shifted(-1.0)) / (2.0 * STEP);
        let error = (slope - norm).abs() / norm;
        assert!(
            error <= TOLERANCE,
            "{name}: finite differences {slope}, gradient {norm}"
        );
    }
}
