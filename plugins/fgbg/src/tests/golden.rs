//! `tests/golden/fgbg`: PyTorch in f64, location by location.

use kd_plugin::testkit::golden::{self, Golden};

use super::*;

/// f32 against f64: sums of a few hundred terms; a cosine near 1 leaves fewer digits of its distance.
const TOLERANCE: f64 = 5e-6;

#[test]
fn losses_metrics_and_gradients_agree_with_pytorch() {
    let golden = Golden::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/fgbg/fgbg.safetensors"
    ));
    let classes: Value = serde_json::from_str(golden.metadata("num_classes")).unwrap();
    let cases = golden::cases(&golden);
    assert!(cases.len() >= 45, "{cases:?}");
    for case in cases {
        let classes = classes[&case].as_u64().unwrap() as u32;
        let new =
            |config: &Value, taps: &[TapShape]| Bench::for_classes::<FgBg>(classes, config, taps);
        for (name, error) in golden::replay(&golden, &case, new).unwrap() {
            assert!(error <= TOLERANCE, "{name}: {error:e}");
        }
    }
}
