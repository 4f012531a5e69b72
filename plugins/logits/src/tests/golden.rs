//! `tests/golden/logits`: PyTorch in f64, location by location.

use kd_plugin::testkit::golden::{self, Golden};

use super::*;

/// f32 against f64: sums of a few hundred terms, each precise to some roundings.
const TOLERANCE: f64 = 3e-6;

#[test]
fn losses_metrics_and_gradients_agree_with_pytorch() {
    let golden = Golden::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/logits/logits.safetensors"
    ));
    let classes: Value = serde_json::from_str(golden.metadata("num_classes")).unwrap();
    let cases = golden::cases(&golden);
    assert!(cases.len() >= 26, "{cases:?}");
    for case in cases {
        let classes = classes[&case].as_u64().unwrap() as u32;
        let new =
            |config: &Value, taps: &[TapShape]| Bench::for_classes::<Logits>(classes, config, taps);
        for (name, error) in golden::replay(&golden, &case, new).unwrap() {
            assert!(error <= TOLERANCE, "{name}: {error:e}");
        }
    }
}
