//! `tests/golden/lgd`: PyTorch in f64, written from the description of the method.

use kd_plugin::testkit::golden::{self, Golden};
use kd_plugin::testkit::relative_error;
use kd_plugin::testkit::traced;

use super::*;

/// f32 against f64 through six normalisations: PyTorch in f32 is off by up to 1.4e-6 of the largest
/// value; three times that for another order of sums.
const VALUE_TOLERANCE: f64 = 5e-6;
/// Gradients divide by the deviations once more; PyTorch in f32: 1.1e-5 for parameters, and 2.3e-5 for
/// `student_proj_2d` and maps where their gradient is small.
const GRADIENT_TOLERANCE: f64 = 8e-5;
/// Gradients that are zero but for rounding (a bias before a normalisation, the key's bias before a
/// softmax) leave this much, beside gradients of parts of the same layer near 1.
const ZERO: f64 = 2e-5;

struct Case<'a> {
    golden: &'a Golden,
    name: &'a str,
    index: u64,
    full: bool,
    bench: Bench,
    strides: Vec<u64>,
}

impl<'a> Case<'a> {
    fn new(golden: &'a Golden, name: &'a str) -> Self {
        let parse = |key: &str| -> Value { serde_json::from_str(golden.metadata(key)).unwrap() };
        let facts = &parse("facts")[name];
        let options = &parse("cases")[name];
        let full = parse("full").as_array().unwrap().contains(&json!(name));
        let strides: Vec<u64> = facts["strides"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s.as_u64().unwrap())
            .collect();
        let taps: Vec<TapShape> = strides
            .iter()
            .enumerate()
            .map(|(level, stride)| {
                let tap = format!("neck.p{}", 3 + level);
                let shape = golden.shape(&format!("{name}/student/{tap}"));
                TapShape {
                    role: "student",
                    shape: shape.try_into().unwrap(),
                    name: tap,
                    stride: *stride as u32,
                }
            })
            .collect();
        let num_classes = facts["num_classes"].as_u64().unwrap() as u32;
        let mut bench = Bench::for_classes::<Lgd>(num_classes, options, &taps).unwrap();
        for (slot, tap) in taps.iter().enumerate() {
            let values = golden.f32s(&format!("{name}/student/{}", tap.name));
            bench.tap_mut(slot).copy_from_slice(&values);
        }
        let mut case = Case {
            golden,
            name,
            index: facts["index"].as_u64().unwrap(),
            full,
            bench,
            strides,
        };
        case.set_targets();
        case.set_params();
        case
    }

    fn key(&self, what: &str) -> String {
        format!("{}/{what}", self.name)
    }

    fn set_targets(&mut self) {
        let floats = |what: &str| self.golden.f32s(&self.key(&format!("target/{what}")));
        let ints = |what: &str| -> Vec<i64> { floats(what).iter().map(|&v| v as i64).collect() };
        let (boxes, labels, batch) = (floats("gt_boxes_xyxy"), ints("gt_labels"), ints("gt_batch"));
        let size = ints("input_size");
        let t = labels.len() as i64;
        let crops = self.key("target/gt_mask_crops");
        let crops = match self.golden.has(&crops) {
            true => self.golden.f32s(&crops),
            false => Vec::new(),
        };
        self.bench.push_target("gt_boxes_xyxy", &[t, 4], boxes);
        self.bench.push_target_ints(&[t], labels);
        self.bench.push_target_ints(&[t], batch);
        self.bench.push_target_ints(&[2], size);
        let n = crops.len() as i64 / 49;
        self.bench.push_target("gt_mask_crops", &[n, 7, 7], crops);
    }

    /// Parameters are drawn by a generator that the golden script shares.
    fn set_params(&mut self) {
        let params = self.bench.params().to_vec();
        for (i, (name, shape, _)) in params.iter().enumerate() {
            let inputs: i64 = match (name.as_str(), shape.as_slice()) {
                (_, [_, inputs, kh, kw]) => inputs * kh * kw,
                (_, [_, inputs]) => *inputs,
                // A bias comes after its weight.
                _ => {
                    let weight = &params[i - 1].1;
                    weight[1..].iter().product()
                }
            };
            let bound = 1.0 / (inputs as f64).sqrt();
            let mut random = Random::new(1000 * self.index + i as u64);
            for value in self.bench.param_mut(name) {
                *value = (bound * (2.0 * random.unit() - 1.0)) as f32;
            }
        }
    }

    fn upstream(&self, maps: &[Vec<f32>]) -> Vec<Vec<f32>> {
        maps.iter()
            .enumerate()
            .map(|(level, map)| {
                let mut random = Random::new(1000 * self.index + 900 + level as u64);
                map.iter()
                    .map(|_| (2.0 * random.unit() - 1.0) as f32)
                    .collect()
            })
            .collect()
    }

    fn expect(&self, what: &str, got: &[f32], tolerance: f64) {
        let key = self.key(what);
        let expected = self.golden.values(&key);
        let norm = expected.iter().map(|v| v * v).sum::<f64>().sqrt();
        let error = relative_error(got, expected);
        let absolute = error * if norm == 0.0 { 1.0 } else { norm };
        assert!(
            error <= tolerance || absolute <= ZERO,
            "{key}: relative {error:e}, absolute {absolute:e}"
        );
    }

    fn expect_params(&self, gradients: &[Vec<f32>], prefix: &str) {
        for (i, ((name, ..), gradient)) in self.bench.params().iter().zip(gradients).enumerate() {
            if !name.starts_with(prefix) {
                assert!(
                    gradient.iter().all(|g| *g == 0.0),
                    "{name} must get nothing"
                );
                continue;
            }
            let norm = gradient
                .iter()
                .map(|g| f64::from(*g).powi(2))
                .sum::<f64>()
                .sqrt();
            self.expect(
                &format!("d_param_norm/{name}"),
                &[norm as f32],
                GRADIENT_TOLERANCE,
            );
            if self.full {
                let mut random = Random::new(1000 * self.index + 500 + i as u64);
                let sample: Vec<f32> = (0..16)
                    .map(|_| gradient[(random.bits() >> 11) as usize % gradient.len()])
                    .collect();
                self.expect(
                    &format!("d_param_sample/{name}"),
                    &sample,
                    4.0 * GRADIENT_TOLERANCE,
                );
            }
        }
    }

    fn check(&mut self) {
        let taps: Vec<String> = (0..self.strides.len())
            .map(|level| format!("neck.p{}", 3 + level))
            .collect();
        let out = self.bench.forward().unwrap();
        self.expect("loss", &out.losses, VALUE_TOLERANCE);
        for (tap, map) in taps.iter().zip(&out.maps) {
            let level = tap.strip_prefix("neck.").unwrap();
            self.expect(&format!("map/{level}"), map, VALUE_TOLERANCE);
        }
        let upstream = self.upstream(&out.maps);
        let through_maps = self.bench.backward(&out, &[0.0], &upstream).unwrap();
        drop(out);
        for (tap, gradient) in taps.iter().zip(&through_maps.taps) {
            self.expect(
                &format!("d_student_maps/{tap}"),
                gradient,
                GRADIENT_TOLERANCE,
            );
        }
        self.expect_params(&through_maps.params, "teacher.");

        let out = self.bench.forward().unwrap();
        let zeros: Vec<Vec<f32>> = upstream.iter().map(|map| vec![0.0; map.len()]).collect();
        let of_loss = self.bench.backward(&out, &[1.0], &zeros).unwrap();
        drop(out);
        for (tap, gradient) in taps.iter().zip(&of_loss.taps) {
            self.expect(
                &format!("d_student_loss/{tap}"),
                gradient,
                GRADIENT_TOLERANCE,
            );
        }
        self.expect_params(&of_loss.params, "adapter.");

        for (d_loss, detach) in [(1.0, false), (0.0, false), (1.0, true)] {
            self.bench.set_detach_student(detach);
            traced::check(&mut self.bench, &[d_loss], &upstream)
                .unwrap_or_else(|difference| panic!("{}: {difference}", self.name));
        }
        self.bench.set_detach_student(false);
    }
}

#[test]
fn maps_loss_and_gradients_agree_with_pytorch() {
    let golden = Golden::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/lgd/lgd.safetensors"
    ));
    let cases = golden::cases(&golden);
    assert!(cases.len() >= 18, "{cases:?}");
    for name in cases {
        Case::new(&golden, &name).check();
    }
}
