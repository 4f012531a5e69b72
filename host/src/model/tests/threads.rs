//! A whole training step's forward and backward on any number of threads.

use burn::tensor::Device;

use super::*;
use crate::classification::cross_entropy as classes_cross_entropy;
use crate::data::{Batch, ImageTargets};
use crate::model::{Forward, build_detector, initial_state, weights};
use crate::rng::KeyedRng;
use crate::segmentation::cross_entropy;

/// Two images whose pyramid, packed, has enough tiles for Winograd's algorithm in the head.
const IMAGES: [usize; 4] = [2, 3, 96, 96];

#[test]
fn the_number_of_threads_changes_no_bit() {
    for name in DETECTORS {
        check(name);
    }
}

fn check(detector: &str) {
    let config = ModelConfig {
        detector: detector.into(),
        // The fewest that Winograd's algorithm takes.
        fpn_channels: 16,
        ..small_config()
    };
    let detector = build_detector(&config, 3).unwrap();
    let state = initial_state(detector.as_ref(), 7);
    let mut rng = KeyedRng::new("threads", &[0]);
    let pixels: Vec<f32> = (0..IMAGES.iter().product())
        .map(|_| rng.normal() as f32)
        .collect();
    let [_, _, height, width] = IMAGES;
    let targets = [
        ImageTargets {
            boxes_xyxy: vec![[4.0, 6.0, 40.0, 38.0], [50.0, 10.0, 66.0, 29.0]],
            labels: vec![0, 2],
            ..ImageTargets::default()
        },
        ImageTargets {
            boxes_xyxy: vec![[20.0, 30.0, 84.0, 90.0]],
            labels: vec![1],
            ..ImageTargets::default()
        },
    ];
    let assignment = detector.assign([height, width], &targets);
    assert!(assignment.matched.iter().flatten().any(|&m| m >= 0));

    let detector = detector.as_ref();
    compare(detector, &state, &pixels, |forward| {
        detector.losses(forward.head().unwrap(), &assignment)
    });
}

#[test]
fn the_number_of_threads_changes_no_bit_of_a_segmenter() {
    let [n, _, height, width] = IMAGES;
    let mut rng = KeyedRng::new("threads", &[1]);
    let pixels: Vec<f32> = (0..IMAGES.iter().product())
        .map(|_| rng.normal() as f32)
        .collect();
    let batch = Batch {
        shape: IMAGES,
        label_maps: (0..n * height * width)
            .map(|_| rng.below(3) as u8)
            .collect(),
        ..Batch::default()
    };
    for backbone in ["tiny", "mobilenet_v2"] {
        let model = build_segmenter(&segmenter_config(backbone), 3);
        let state = initial_state(model.as_ref(), 7);
        compare(model.as_ref(), &state, &pixels, |forward| {
            let logits = forward.output.as_ref().unwrap().segmentation().unwrap();
            vec![("loss_ce", cross_entropy(logits, &batch))]
        });
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_of_a_vision_transformer() {
    let [n, _, height, width] = IMAGES;
    let mut rng = KeyedRng::new("threads", &[2]);
    let pixels: Vec<f32> = (0..IMAGES.iter().product())
        .map(|_| rng.normal() as f32)
        .collect();
    // 577 tokens: with few heads Burn cuts a product among threads, with many the heads.
    for (dim, heads) in [(24, 1), (48, 6)] {
        let mut config = vit_config();
        config.vit = VitConfig {
            patch_size: 4,
            dim,
            heads,
            image_size: vec![height, width],
            ..config.vit
        };
        let model = build_classifier(&config, 3);
        let state = initial_state(model.as_ref(), 7);
        compare(model.as_ref(), &state, &pixels, |forward| {
            let logits = forward.class_logits().unwrap();
            let labels: Vec<usize> = (0..n).collect();
            vec![("loss_ce", classes_cross_entropy(logits, &labels))]
        });
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_of_a_classifier() {
    let pixels = crate::kernels::testing::normal("threads", IMAGES.iter().product());
    for backbone in ["tiny", "mobilenet_v2"] {
        let model = build_classifier(&segmenter_config(backbone), 3);
        let state = initial_state(model.as_ref(), 7);
        compare(model.as_ref(), &state, &pixels, |forward| {
            let logits = forward.class_logits().unwrap();
            let loss = crate::classification::cross_entropy(logits, &[2, 0]);
            vec![("loss_ce", loss)]
        });
    }
}

/// A step on `IMAGES` of `pixels`, on 1, 2 and 4 threads.
fn compare(
    model: &dyn Model,
    state: &StateDict,
    pixels: &[f32],
    losses: impl Fn(&Forward) -> Vec<(&'static str, Tensor<1>)> + Sync,
) {
    // Names and bits of all losses, all gradients and all statistics.
    let run = || -> Vec<(String, Vec<u32>)> {
        let device = Device::flex();
        let plain = weights::tensors(model, state, &device).unwrap();
        let leaves = student_weights(model, plain);
        let images = Tensor::<4>::from_data(TensorData::new(pixels.to_vec(), IMAGES), &device);
        let forward = model.forward(&leaves, images, &request(true, &[], false));
        let losses = losses(&forward);
        let total = losses.iter().map(|(_, loss)| loss.clone());
        let total = total.reduce(|a, b| a + b).unwrap();
        let gradients = total.backward();
        let mut all = Vec::new();
        for (name, loss) in losses {
            all.push((name.to_owned(), values(loss.inner())));
        }
        for (spec, leaf) in model.specs().iter().zip(&leaves) {
            if let Some(gradient) = leaf.grad(&gradients) {
                all.push((spec.name.clone(), values(gradient)));
            }
        }
        for stats in forward.batch_stats {
            all.push((format!("mean {}", stats.mean_index), values(stats.mean)));
            all.push((format!("var {}", stats.var_index), values(stats.var)));
        }
        all.into_iter()
            .map(|(name, values)| (name, values.into_iter().map(f32::to_bits).collect()))
            .collect()
    };
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(run)
    };
    let one = on(1);
    let trainable = model.specs().iter().filter(|spec| spec.trainable);
    let buffers = model.specs().iter().filter(|spec| spec.kind.is_buffer());
    let losses = one.iter().filter(|(name, _)| name.starts_with("loss_"));
    let losses = losses.count();
    assert_eq!(one.len(), losses + trainable.count() + buffers.count());
    for threads in [2, 4] {
        let many = on(threads);
        assert_eq!(one.len(), many.len());
        for ((name, one), (_, many)) in one.iter().zip(many) {
            assert!(*one == many, "{name}: {threads} threads, other bits");
        }
    }
}
