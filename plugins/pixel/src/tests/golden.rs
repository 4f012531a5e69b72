//! `tests/golden/pixel`: torch modules in f64, padding and anchors one by one.

use kd_plugin::Schedule;
use kd_plugin::testkit::golden::{self, Golden};
use kd_plugin::testkit::relative_error;

use super::*;

/// f32 against f64: sums of a few hundred terms, and maps divided by the deviation of as many cells. A
/// softmax of logits of size 6 rounds them by 4e-7.
const TOLERANCE: f64 = 2e-6;
/// `isrd_gain` is one less a ratio, in these cases of random images one near 1; `kd_giou` a mean of values
/// of both signs.
const METRIC_TOLERANCE: f64 = 2e-5;

struct Reference {
    golden: Golden,
    classes: Value,
    stages: Value,
}

fn read() -> Reference {
    let golden = Golden::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/pixel/pixel.safetensors"
    ));
    let json = |key| serde_json::from_str(golden.metadata(key)).unwrap();
    Reference {
        classes: json("num_classes"),
        stages: json("stages"),
        golden,
    }
}

impl Reference {
    fn bench(&self, case: &str, config: &Value, taps: &[TapShape]) -> Result<Bench, EntryError> {
        let run = Run {
            num_classes: Some(self.classes[case].as_u64().unwrap() as u32),
            fixed_sizes: true,
        };
        let mut bench = Bench::new_in::<Pixel>(run, config, taps)?;
        bench.set_stage(self.stages[case].as_u64().unwrap() as u32);
        Ok(bench)
    }
}

#[test]
fn losses_metrics_and_gradients_agree_with_pytorch() {
    let reference = read();
    let cases = golden::cases(&reference.golden);
    assert!(cases.len() >= 21, "{cases:?}");
    for case in cases {
        let new = |config: &Value, taps: &[TapShape]| reference.bench(&case, config, taps);
        let errors = golden::replay(&reference.golden, &case, new).unwrap();
        assert!(errors.iter().any(|(name, _)| name.contains("/d_student/")));
        for (name, error) in errors {
            let allowed = match name.contains("/metric/") {
                true => METRIC_TOLERANCE,
                false => TOLERANCE,
            };
            assert!(error <= allowed, "{name}: {error:e}");
        }
    }
}

/// What the stage minimises: the plan's weights over the losses that its phase counts, and the share of
/// the student's own loss.
#[test]
fn totals_of_stages_agree_with_pytorch() {
    let reference = read();
    let golden = &reference.golden;
    let configs: Value = serde_json::from_str(golden.metadata("cases")).unwrap();
    for case in golden::cases(golden) {
        let taps = taps_of(golden, &case);
        let bench = reference.bench(&case, &configs[&case], &taps).unwrap();
        let schedule: Schedule = serde_json::from_str(bench.schedule().unwrap()).unwrap();
        let stage = &schedule.stages[reference.stages[&case].as_u64().unwrap() as usize];
        let [phase] = stage.phases.as_slice() else {
            panic!("{case}: {:?}", stage.phases);
        };
        let mut total = phase.task_weight * golden.values(&format!("{case}/ce"))[0];
        for (name, weight) in bench.losses() {
            let expected = golden.values(&format!("{case}/weight/{name}"))[0];
            assert!(
                (weight - expected).abs() < 1e-12 * expected,
                "{case} {name}: {weight}"
            );
            let counts = golden.values(&format!("{case}/d_loss/{name}"))[0] != 0.0;
            assert_eq!(phase.losses.contains(name), counts, "{case} {name}");
            if counts {
                total += weight * golden.values(&format!("{case}/loss/{name}"))[0];
            }
        }
        let expected = golden.values(&format!("{case}/total"));
        let error = relative_error(&[total as f32], expected);
        assert!(error < 1e-7, "{case}: {total} {expected:?}");
    }
}

fn taps_of(golden: &Golden, case: &str) -> Vec<TapShape> {
    let of = |role: &'static str| {
        let prefix = format!("{case}/{role}/");
        golden.names().filter_map(move |key| {
            let name = key.strip_prefix(&prefix)?;
            Some(tap(role, name, golden.shape(key).try_into().unwrap()))
        })
    };
    of("student").chain(of("teacher")).collect()
}
