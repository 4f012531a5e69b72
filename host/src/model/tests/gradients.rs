//! Gradients against finite differences.

use burn::tensor::Device;

use super::*;
use crate::model::{Forward, build_detector, initial_state, weights};
use crate::rng::KeyedRng;

/// ReLUs and max-pools that flip within the step bend the objective: up to a percent at this step for
/// the stem, whose weights move thousands of them, and under 0.2 % elsewhere. A smaller step drowns in
/// f32 rounding. The comparison with torch is the sharp one; this one needs no second framework.
const TOLERANCE: f64 = 0.02;
/// Length of the step along the gradient.
const STEP: f64 = 3e-4;
/// A step that would move a segmenter's objective further is cut: some of its slopes are so steep that
/// [`STEP`] crosses many kinks.
const REACH: f64 = 0.05;

/// A fixed random combination of the outputs: sensitive to each of them.
fn objective(outputs: Vec<Tensor<4>>, device: &Device) -> Tensor<1> {
    let mut rng = KeyedRng::new("objective", &[0]);
    outputs
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
    let retinanet = [&common[..], &retinanet].concat();
    check("retinanet", 1.0, &retinanet);
    check("retinanet", 1.5, &retinanet);
    check("fcos", 1.0, &[&common[..], &fcos].concat());
}

fn check(detector: &str, pyramid_scale: f64, names: &[&str]) {
    let device = Device::flex();
    let config = ModelConfig {
        detector: detector.into(),
        pyramid_scale,
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
    check_slopes(
        detector.as_ref(),
        &state,
        (2, f64::INFINITY),
        names,
        |forward| objective(outputs(forward.head().unwrap()), &device),
    );
}

#[test]
fn a_segmenters_derivatives_match_finite_differences() {
    let head = [
        "classifier.0.convs.0.0.weight",
        "classifier.0.convs.3.0.weight",
        "classifier.0.convs.4.1.weight",
        "classifier.0.project.1.bias",
        "classifier.1.weight",
        "classifier.4.bias",
    ];
    let resnet = ["backbone.bn1.weight", "backbone.layer4.0.conv2.weight"];
    let mobilenet = [
        "backbone.0.0.weight",
        "backbone.3.conv.1.0.weight",
        "backbone.8.conv.1.0.weight",
        "backbone.15.conv.2.weight",
        "backbone.17.conv.1.1.bias",
    ];
    for (backbone, names) in [("tiny", &resnet[..]), ("mobilenet_v2", &mobilenet)] {
        let model = build_segmenter(&segmenter_config(backbone), 2);
        let state = initial_state(model.as_ref(), 3);
        let names = [names, &head].concat();
        check_slopes(model.as_ref(), &state, (6, REACH), &names, |forward| {
            let logits = forward.output.as_ref().unwrap().segmentation().unwrap();
            objective(vec![logits.clone()], &Device::flex())
        });
    }
}

#[test]
fn a_classifiers_derivatives_match_finite_differences() {
    let resnet = ["conv1.weight", "layer3.0.conv1.weight", "fc.weight"];
    let mobilenet = [
        "features.0.0.weight",
        "features.18.0.weight",
        "features.18.1.bias",
        "classifier.1.weight",
        "classifier.1.bias",
    ];
    for (backbone, names) in [("tiny", &resnet[..]), ("mobilenet_v2", &mobilenet)] {
        let model = build_classifier(&segmenter_config(backbone), 2);
        let mut state = initial_state(model.as_ref(), 3);
        for (name, array) in &mut state.entries {
            // MobileNetV2's linear layer starts so near to zero that its logits would drown in rounding.
            if name == "classifier.1.weight" {
                array.data.iter_mut().for_each(|v| *v *= 20.0);
            }
        }
        check_slopes(model.as_ref(), &state, (6, REACH), names, |forward| {
            let logits = forward.class_logits().unwrap().clone();
            let [images, classes] = logits.dims();
            let map = logits.reshape([images, classes, 1, 1]);
            objective(vec![map], &Device::flex())
        });
    }
}

/// Compares the derivative of `objective` with respect to each weight of `names` with its central
/// difference.
fn check_slopes(
    model: &dyn Model,
    state: &StateDict,
    (images, reach): (usize, f64),
    names: &[&str],
    objective: impl Fn(&Forward) -> Tensor<1>,
) {
    let device = Device::flex();
    let plain = weights::tensors(model, state, &device).unwrap();
    let mut rng = KeyedRng::new("image", &[0]);
    let shape = [images, 3, 64, 64];
    let pixels: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|_| rng.normal() as f32)
        .collect();
    let images = Tensor::<4>::from_data(TensorData::new(pixels, shape), &device);
    let request = request(true, &[], false);
    let value =
        |weights: &[Tensor<1>]| objective(&model.forward(weights, images.clone(), &request));

    let leaves = student_weights(model, plain.clone());
    let gradients = value(&leaves).backward();
    for &name in names {
        let index = model
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
        let step = STEP.min(reach / norm);
        let shifted = |sign: f64| {
            let mut weights = plain.clone();
            let step: Vec<f32> = gradient
                .iter()
                .map(|g| (sign * step * f64::from(*g) / norm) as f32)
                .collect();
            let count = step.len();
            let step = Tensor::<1>::from_data(TensorData::new(step, [count]), &device);
            weights[index] = weights[index].clone() + step;
            f64::from(values(value(&weights))[0])
        };
        let slope = (shifted(1.0) - shifted(-1.0)) / (2.0 * step);
        let error = (slope - norm).abs() / norm;
        assert!(
            error <= TOLERANCE,
            "{name}: finite differences {slope}, gradient {norm}"
        );
    }
}
