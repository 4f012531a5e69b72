//! Identities and published values that hold whatever the weights are.

use kd_plugin::MapSize;
use kd_plugin::burn::tensor::{Int, TensorData};

use super::*;

/// Sums in another order.
const ROUNDING: f64 = 2e-5;

fn close(a: &[f32], b: &[f32]) {
    let b: Vec<f64> = b.iter().map(|&v| f64::from(v)).collect();
    let error = kd_plugin::testkit::relative_error(a, &b);
    assert!(error < ROUNDING, "{error:e}");
}

/// Numbers of parameters of the official module at 256 channels and 80 classes.
#[test]
fn parts_have_the_published_numbers_of_parameters() {
    let count = |config: Value, prefix: &str| -> i64 {
        let bench = Bench::for_classes::<Lgd>(80, &config, &taps(1, 256, [64, 64], 1)).unwrap();
        let named = bench.params().iter().filter(|p| p.0.starts_with(prefix));
        named.map(|p| p.1.iter().product::<i64>()).sum()
    };
    for (prefix, expected) in [
        ("teacher.label_encoder.stn1.", 2_615_376),
        ("teacher.label_encoder.stn2.", 1_853_376),
        ("teacher.label_encoder.conv", 424_640),
        ("teacher.label_encoder.", 4_893_392),
        ("teacher.canoni_proj_1d.", 65_792),
        ("teacher.student_proj_2d.", 590_080),
        ("teacher.attention.", 263_168),
        ("teacher.local_inst_proj_1d.", 65_792),
        ("teacher.local_inst_proj_2d.", 590_080),
        ("teacher.global_ctx_proj_1d.", 65_792),
        ("teacher.refinement.", 3 * 590_080),
        ("teacher.", 8_304_336),
        ("adapter.", 1_770_240),
        ("", 10_074_576),
    ] {
        assert_eq!(count(json!({}), prefix), expected, "{prefix}");
    }
    let with_crops = count(json!({"load_labelmap": true}), "teacher.label_encoder.");
    assert_eq!(with_crops, 7_632_345);
    let without_context = count(json!({"add_context_box": false}), "");
    assert_eq!(without_context, 10_074_576 - 65_792);
}

fn objects(input: [i64; 2], objects: &[Gt], num_classes: usize, config: &Config) -> Objects {
    let device = Device::flex();
    let ints = |values: Vec<i64>| Tensor::<1, Int>::from_data(values.as_slice(), &device);
    let boxes: Vec<f32> = objects.iter().flat_map(|o| o.2).collect();
    let truth = GroundTruth {
        boxes_xyxy: Tensor::from_data(TensorData::new(boxes, [objects.len(), 4]), &device),
        labels: ints(objects.iter().map(|o| o.1).collect()),
        batch: ints(objects.iter().map(|o| o.0).collect()),
        input_size: ints(input.to_vec()),
        mask_crops: Tensor::zeros([0, 7, 7], &device),
    };
    Objects::new(config, truth, 1, num_classes).unwrap()
}

fn floats(tensor: Tensor<2>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

#[test]
fn descriptors_have_the_published_values() {
    let object = [(0, 3, [96.0, 64.0, 480.0, 320.0])];
    let objects = objects([640, 960], &object, 80, &Config::default());
    let got = floats(objects.descriptors.clone());
    assert_eq!(got.len(), 2 * 84);
    let mut expected = vec![-1.0f32; 2 * 84];
    expected[..4].copy_from_slice(&[-0.8, -0.8, 0.0, 0.0]);
    expected[4 + 3] = 1.0;
    expected[84..88].copy_from_slice(&[-1.0, -1.0, 0.997_916_7, 0.996_875]);
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() < 1e-6, "{i}: {got} {expected}");
    }
}

#[test]
fn masks_have_the_published_cells() {
    let size = MapSize { n: 1, h: 8, w: 8 };
    let masks = |bbox: [f32; 4]| {
        let objects = objects([64, 64], &[(0, 0, bbox)], 3, &Config::default());
        floats(objects.masks(size))
    };
    let cells = |masks: &[f32]| -> Vec<usize> { (0..64).filter(|&i| masks[i] == 1.0).collect() };
    let covered = masks([8.0, 8.0, 23.0, 23.0]);
    assert_eq!(cells(&covered[..64]), [9, 10, 17, 18]);
    assert_eq!(covered[64..], [1.0; 64], "the context covers everything");
    assert!(cells(&masks([9.0, 9.0, 15.0, 15.0])[..64]).is_empty());
    // Outside the image: clamped to a point or a line.
    assert!(cells(&masks([70.0, 70.0, 90.0, 90.0])[..64]).is_empty());
    assert!(cells(&masks([70.0, 8.0, 90.0, 30.0])[..64]).is_empty());
}

#[test]
fn an_image_without_objects_has_a_dummy_that_is_rendered_only_without_a_context() {
    for (add_context_box, rendered) in [(true, 0.0), (false, 1.0)] {
        let config = Config {
            add_context_box,
            ..Config::default()
        };
        let objects = objects([64, 64], &[], 3, &config);
        assert_eq!(objects.rows(), 1);
        assert_eq!(floats(objects.rendered.clone()), [rendered]);
        let mask = floats(objects.masks(MapSize { n: 1, h: 8, w: 8 }));
        assert_eq!(mask.iter().sum::<f32>(), 1.0);
        assert_eq!(mask[0], 1.0);
    }
}

#[test]
fn the_order_of_objects_does_not_matter() {
    let mut bench = small(&json!({}));
    let before = bench.forward().unwrap();
    let (loss, maps) = (before.losses.clone(), before.maps.clone());
    drop(before);
    set_targets(
        &mut bench,
        [64, 64],
        &[
            (0, 2, [20.0, 20.0, 60.0, 50.0]),
            (0, 1, [8.0, 8.0, 30.0, 40.0]),
            (1, 0, [2.0, 30.0, 33.0, 60.0]),
        ],
    );
    let after = bench.forward().unwrap();
    close(&after.losses, &loss);
    for (a, b) in after.maps.iter().zip(&maps) {
        close(a, b);
    }
}

#[test]
fn images_of_a_batch_do_not_see_each_other() {
    for config in [json!({}), json!({"add_context_box": false})] {
        let mut both = small(&config);
        let together = both.forward().unwrap().maps.clone();
        let mut config = config.clone();
        config["nr_transformer_heads"] = json!(2);
        let mut alone = Bench::for_classes::<Lgd>(3, &config, &taps(1, 4, [64, 64], 2)).unwrap();
        for slot in 0..2 {
            let values = both.tap_mut(slot).to_vec();
            let half = values.len() / 2;
            alone.tap_mut(slot).copy_from_slice(&values[..half]);
        }
        set_targets(
            &mut alone,
            [64, 64],
            &[
                (0, 1, [8.0, 8.0, 30.0, 40.0]),
                (0, 2, [20.0, 20.0, 60.0, 50.0]),
            ],
        );
        let alone = alone.forward().unwrap();
        for (alone, together) in alone.maps.iter().zip(&together) {
            close(alone, &together[..alone.len()]);
        }
    }
}

/// Of maps normalised per channel, the mean squared difference is `2 (1 − ρ)`.
#[test]
fn the_loss_is_the_correlation_of_channels() {
    let device = Device::flex();
    let mut random = Random::new(3);
    let mut maps = || {
        let levels = [[2, 3, 6, 7], [2, 3, 3, 4]].map(|shape: [usize; 4]| {
            let len = shape.iter().product();
            Tensor::<4>::from_data(TensorData::new(random.normals(len), shape), &device)
        });
        Packed::pack(levels)
    };
    let (a, b) = (maps(), maps());
    let difference = a.instance_norm().cells() - b.instance_norm().cells();
    let loss: f32 = difference.square().mean().into_scalar();
    let (mut sum, mut cells) = (0.0f64, 0.0f64);
    for level in 0..2 {
        let values =
            |maps: &Packed| -> Vec<f32> { maps.level(level).into_data().try_into_vec().unwrap() };
        let MapSize { n, h, w } = a.sizes()[level];
        let (a, b) = (values(&a), values(&b));
        for channel in 0..n * 3 {
            let range = channel * h * w..(channel + 1) * h * w;
            let rho = correlation(&a[range.clone()], &b[range]);
            sum += 2.0 * (1.0 - rho) * (h * w) as f64;
            cells += (h * w) as f64;
        }
    }
    // The epsilon in the normalisation: 1e-5 beside variances near 1.
    assert!(
        (f64::from(loss) - sum / cells).abs() < 5e-5,
        "{loss} {}",
        sum / cells
    );
}

fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let mean = |v: &[f32]| v.iter().map(|&x| f64::from(x)).sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let product = |x: &[f32], mx: f64, y: &[f32], my: f64| -> f64 {
        let terms = x.iter().zip(y);
        terms
            .map(|(x, y)| (f64::from(*x) - mx) * (f64::from(*y) - my))
            .sum()
    };
    product(a, ma, b, mb) / (product(a, ma, a, ma) * product(b, mb, b, mb)).sqrt()
}

#[test]
fn the_metric_is_what_the_loss_says() {
    let mut bench = small(&json!({}));
    let loss = bench.forward().unwrap().losses[0];
    let metrics = &bench.log().metrics;
    assert_eq!(metrics.len(), 1);
    assert_eq!(metrics[0].0, "correlation");
    assert!((metrics[0].1 - f64::from(1.0 - loss / 2.0)).abs() < 1e-6);
}

#[test]
fn maps_of_one_cell_and_other_numbers_of_levels_are_finite() {
    let config = json!({"nr_transformer_heads": 2});
    for (input, levels) in [([64, 64], 5), ([128, 96], 1)] {
        let mut bench = Bench::for_classes::<Lgd>(3, &config, &taps(1, 4, input, levels)).unwrap();
        bench.fill(3);
        set_targets(&mut bench, input, &[(0, 1, [8.0, 8.0, 30.0, 40.0])]);
        let out = bench.forward().unwrap();
        let ones: Vec<Vec<f32>> = out.maps.iter().map(|map| vec![1.0; map.len()]).collect();
        let gradients = bench.backward(&out, &[1.0], &ones).unwrap();
        let all = out
            .maps
            .iter()
            .chain(&gradients.taps)
            .chain(&gradients.params);
        assert!(all.flatten().all(|v| v.is_finite()));
    }
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    let refused = |classes: Option<u32>, config: Value, taps: &[TapShape]| {
        let result = match classes {
            Some(classes) => Bench::for_classes::<Lgd>(classes, &config, taps),
            None => Bench::new::<Lgd>(&config, taps),
        };
        result.unwrap_err().message
    };
    let taps = taps(1, 12, [64, 64], 2);
    let message = refused(Some(3), json!({}), &taps);
    assert!(
        message.contains("8, which does not divide the 12"),
        "{message}"
    );
    let mut uneven = taps.clone();
    uneven[1].shape[1] = 8;
    let message = refused(Some(3), json!({"nr_transformer_heads": 4}), &uneven);
    assert!(message.contains("neck.p4"), "{message}");
    let message = refused(None, json!({"nr_transformer_heads": 4}), &taps);
    assert!(message.contains("kd.task/1"), "{message}");

    let mut bench = small(&json!({"load_labelmap": true}));
    let error = bench.forward().unwrap_err();
    assert!(error.message.contains("load_labelmap"), "{error}");
}
