//! The worked examples of the method, and the sizes of its table.

use kd_plugin::testkit::Random;
use kd_plugin::{ResizeGrid, resize_bilinear_on};

use super::*;
use crate::features::mean_square;
use crate::isrd::scale;

fn map(values: &[f32], shape: [usize; 4]) -> Tensor<4> {
    let data = kd_plugin::burn::tensor::TensorData::new(values.to_vec(), shape);
    Tensor::from_data(data, &Device::flex())
}

fn floats(tensor: Tensor<4>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// One image and three classes: T² KL .357805; with the label 0, cross-entropy .142932 and in total
/// .336318.
#[test]
fn predictions_of_three_classes() {
    let config = json!({"mode": "vanilla", "isrd": "off"});
    let mut taps = images(1, [1, 1], [2, 2]);
    taps.extend(TapShape::pair("logits", [1, 3, 1, 1], [1, 3, 1, 1]));
    let mut bench = bench(&config, &taps).unwrap();
    bench.tap_mut(2).copy_from_slice(&[2.0, 0.0, -2.0]);
    bench.tap_mut(3).copy_from_slice(&[3.0, -1.0, -2.0]);
    let kl = loss(&mut bench, "loss_kd");
    assert!((kl - 0.357_805_5).abs() < 1e-6, "{kl}");
    let weight = bench.losses()[0].1;
    let schedule: kd_plugin::Schedule = serde_json::from_str(bench.schedule().unwrap()).unwrap();
    let task = schedule.stages[0].phases[0].task_weight;
    let total = task * 0.142_932 + weight * kl;
    assert!((total - 0.336_318).abs() < 2e-6, "{total}");
}

/// `[[0, 1], [2, 3]]` at 4 × 4 against zeros: 2.944444 with coinciding corners.
#[test]
fn two_by_two_at_four_by_four() {
    let small = map(&[0.0, 1.0, 2.0, 3.0], [1, 1, 2, 2]);
    let large = resize_bilinear_on(small.clone(), [4, 4], ResizeGrid::Corners);
    let ones = Tensor::ones([1, 1, 4, 4], &Device::flex());
    let loss: f32 = mean_square(large, ones).into_scalar();
    assert!((loss - 2.944_444).abs() < 1e-6, "{loss}");
    assert_eq!(
        floats(resize_bilinear_on(small, [2, 2], ResizeGrid::Corners)),
        [0.0, 1.0, 2.0, 3.0]
    );
}

/// A cell `j` peaks at cell `K j`, and the last ones repeat the edge.
#[test]
fn cells_of_strided_maps_keep_their_pixels() {
    let row = map(&[0.0, 1.0, 0.0], [1, 1, 1, 3]);
    let large = floats(resize_bilinear_on(row, [1, 7], ResizeGrid::Cells(2.0)));
    assert_eq!(large, [0.0, 0.5, 1.0, 0.5, 0.0, 0.0, 0.0]);
}

/// Teacher's side, small side, cells of the grid, pixels of a cell and channels, of CNN (stride 2) and
/// ViT (patch 16): what the official code builds for 224.
#[test]
fn sizes_of_the_table() {
    for (k, small, cnn, vit) in [
        (1.5, 149, (75, 3, 1728), (9, 25, 360_000)),
        (2.0, 112, (56, 4, 3072), (7, 32, 589_824)),
        (2.5, 89, (45, 5, 4800), (5, 45, 1_166_400)),
        (3.0, 74, (37, 7, 9408), (4, 56, 1_806_336)),
        (3.5, 64, (32, 7, 9408), (4, 56, 1_806_336)),
        (4.0, 56, (28, 8, 12_288), (3, 75, 3_240_000)),
    ] {
        assert_eq!((224.0 / k) as usize, small);
        for (channels, grid, (cells, s, params)) in
            [(64, (small - 1) / 2 + 1, cnn), (192, small / 16, vit)]
        {
            assert_eq!((grid, scale([grid; 2], [224; 2])), (cells, s), "{k}");
            let config = json!({"mode": "vanilla", "k": k});
            let mut taps = images(channels, [grid; 2], [224; 2]);
            taps.extend(TapShape::pair("logits", [2, 3, 1, 1], [2, 3, 1, 1]));
            let bench = bench(&config, &taps).unwrap();
            let expected = [
                (
                    "decoder.conv.weight".to_owned(),
                    vec![3 * (s * s) as i64, channels as i64, 1, 1],
                ),
                ("decoder.prelu.weight".to_owned(), vec![3]),
            ];
            let shapes: Vec<_> = (bench.params().iter())
                .map(|(name, shape, _)| (name.clone(), shape.clone()))
                .collect();
            assert_eq!(shapes, expected);
            assert_eq!(3 * s * s * channels, params, "{k}");
        }
    }
}

/// Grids whose cells paint more than the image, 225 (K = 2.5) and 259 (K = 3) for 224: the top left
/// counts, of the whole size, pixel by pixel.
#[test]
fn what_is_painted_beyond_the_image_is_cut() {
    for (grid, s) in [(45, 5), (37, 7)] {
        let config = json!({"mode": "vanilla", "kd": "off"});
        let mut taps = images(1, [grid; 2], [224; 2]);
        for tap in &mut taps {
            tap.shape[0] = 1;
        }
        taps.extend(TapShape::pair("logits", [1, 3, 1, 1], [1, 3, 1, 1]));
        let mut bench = bench(&config, &taps).unwrap();
        let mut random = Random::new(grid as u64);
        let stem = random.normals(grid * grid);
        let weight = random.normals(3 * s * s);
        let image = random.normals(3 * 224 * 224);
        bench.tap_mut(0).copy_from_slice(&stem);
        bench.tap_mut(1).copy_from_slice(&image);
        bench
            .param_mut("decoder.conv.weight")
            .copy_from_slice(&weight);
        let slopes = [0.25, -0.5, 0.75f32];
        bench
            .param_mut("decoder.prelu.weight")
            .copy_from_slice(&slopes);
        let mut sum = 0.0;
        let mut of_stem = vec![0.0; grid * grid];
        for c in 0..3 {
            for y in 0..224 {
                for x in 0..224 {
                    let (cell, inside) = ((y / s) * grid + x / s, (y % s) * s + x % s);
                    let w = f64::from(weight[c * s * s + inside]);
                    let raw = w * f64::from(stem[cell]);
                    let slope = if raw > 0.0 { 1.0 } else { f64::from(slopes[c]) };
                    let gap = slope * raw - f64::from(image[(c * 224 + y) * 224 + x]);
                    sum += gap.abs();
                    of_stem[cell] += gap.signum() * slope * w / (3.0 * 224.0 * 224.0);
                }
            }
        }
        let out = bench.forward().unwrap();
        let expected = sum / (3.0 * 224.0 * 224.0);
        assert!((f64::from(out.losses[0]) - expected).abs() < 1e-5 * expected);
        let gradients = bench.backward(&out, &[1.0], &[]).unwrap();
        let error = kd_plugin::testkit::relative_error(&gradients.taps[0], &of_stem);
        assert!(error < 1e-5, "{grid}: {error:e}");
        // Cells that paint nothing of the image learn nothing: of 37 the last five.
        let unseen = grid - 224usize.div_ceil(s);
        assert_eq!(unseen, if grid == 37 { 5 } else { 0 });
        let last = &gradients.taps[0][(grid - unseen) * grid..];
        assert!(last.iter().all(|g| *g == 0.0));
    }
}

/// The loss reaches the decoder and the stem, and no other tap.
#[test]
fn the_image_is_learned_by_the_stem_alone() {
    let mut bench = bench(&json!({}), &classifier([4, 4])).unwrap();
    bench.fill(5);
    bench.set_stage(1);
    assert_eq!(names(&bench), ["loss_isrd", "loss_kd", "loss_fkd"]);
    let out = bench.forward().unwrap();
    let gradients = bench.backward(&out, &[1.0, 0.0, 0.0], &[]).unwrap();
    let moves = |values: &[f32]| values.iter().any(|g| *g != 0.0);
    let taps: Vec<bool> = gradients.taps.iter().map(|g| moves(g)).collect();
    assert_eq!(taps, [true, false, false, false, false, false]);
    assert!(gradients.params.iter().all(|g| moves(g)));
}

/// A student that predicts and computes what the teacher does costs nothing.
#[test]
fn equal_networks_have_no_loss() {
    for fcos in [false, true] {
        let taps = detector(fcos, [4, 4]);
        let mut bench = bench(&json!({}), &taps).unwrap();
        bench.fill(9);
        // Student and teacher lie beside each other; distances are above 0.
        for slot in (2..taps.len()).step_by(2) {
            let values: Vec<f32> = (bench.tap_mut(slot).iter())
                .map(|v| v.abs() + 0.1)
                .collect();
            bench.tap_mut(slot).copy_from_slice(&values);
            bench.tap_mut(slot + 1).copy_from_slice(&values);
        }
        set_targets(&mut bench, if fcos { 1 } else { 2 });
        let out = bench.forward().unwrap();
        assert!(
            out.losses.iter().all(|l| l.abs() < 1e-6),
            "{fcos}: {:?}",
            out.losses
        );
    }
}

/// Which weight a ratio has: the two that are published, and a power between and beyond.
#[test]
fn the_weight_of_the_image_follows_the_ratio() {
    for (k, expected) in [(2.0, 10.0), (4.0, 50.0), (3.0, 25.637_2), (1.5, 5.127_4)] {
        let config = Config {
            k,
            ..Config::default()
        };
        let weight = config.isrd_weight();
        assert!((weight - expected).abs() < 1e-3, "{k}: {weight}");
    }
}
