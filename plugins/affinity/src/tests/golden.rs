//! `tests/golden/affinity`: torch modules in f64, affinity matrices built whole.

use kd_plugin::testkit::golden::{self, Golden};

use super::*;

/// f32 against f64, through at most five normalisations over few cells, each of which divides by a
/// deviation.
const VALUE_TOLERANCE: f64 = 5e-6;
/// Gradients divide once more.
const GRADIENT_TOLERANCE: f64 = 5e-5;

#[test]
fn losses_gradients_and_statistics_agree_with_pytorch() {
    let golden = Golden::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/golden/affinity/affinity.safetensors"
    ));
    let joint: Vec<String> = serde_json::from_str(golden.metadata("joint")).unwrap();
    let cases = golden::cases(&golden);
    assert!(cases.len() >= 26 && joint.len() >= 18, "{cases:?}");
    for case in cases {
        let new = |config: &Value, taps: &[TapShape]| {
            let mut bench = Bench::new::<Affinity>(config, taps)?;
            let is_second = joint.contains(&case) && bench.schedule().is_some();
            bench.set_phase(if is_second { JOINT } else { 0 });
            Ok(bench)
        };
        let errors = golden::replay(&golden, &case, new).unwrap();
        assert!(errors.iter().any(|(name, _)| name.contains("/new_buffer/")));
        for (name, error) in errors {
            let allowed = match name.contains("/d_") {
                true => GRADIENT_TOLERANCE,
                false => VALUE_TOLERANCE,
            };
            assert!(error <= allowed, "{name}: {error:e}");
        }
    }
}
