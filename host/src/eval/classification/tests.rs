//! Against torchvision's `accuracy`, ties and edges.

use std::path::Path;

use super::*;
use crate::state::StateDict;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|class| format!("c{class}")).collect()
}

#[test]
fn top_1_and_top_5_are_torchvisions() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/classification/top_k.safetensors");
    let golden = StateDict::load(&path).unwrap();
    for case in ["7", "4"] {
        let entry = |name: &str| &golden.entries[&format!("{case}/{name}")];
        let (logits, labels) = (entry("logits"), entry("labels"));
        let classes = logits.shape[1];
        let mut accuracy = Accuracy::new(classes);
        for (row, label) in logits.data.chunks_exact(classes).zip(&labels.data) {
            accuracy.add(row, *label as usize);
        }
        let metrics = accuracy.metrics(&names(classes), String::new());
        let expected = entry("top_1_5_mean_class");
        let ours = [metrics.top1, metrics.top5, metrics.mean_class];
        for (ours, expected) in ours.iter().zip(&expected.data) {
            // The reference has 24 bits.
            assert!(
                (ours - f64::from(*expected)).abs() < 1e-6,
                "{case}: {ours} {expected}"
            );
        }
        assert_eq!(metrics.images as usize, logits.shape[0]);
    }
}

#[test]
fn equal_logits_rank_by_class_and_what_is_no_number_is_never_right() {
    let mut accuracy = Accuracy::new(3);
    accuracy.add(&[1.0, 1.0, 0.0], 0);
    accuracy.add(&[1.0, 1.0, 0.0], 1);
    accuracy.add(&[f32::NAN; 3], 0);
    let metrics = accuracy.metrics(&names(3), "hash".into());
    assert_eq!(metrics.top1, 1.0 / 3.0);
    assert_eq!(metrics.per_class[0].acc, Some(0.5));
    assert_eq!(metrics.per_class[1].acc, Some(0.0));
    assert_eq!(metrics.per_class[2].acc, None);
    assert_eq!(metrics.mean_class, 0.25);
    assert_eq!(metrics.image_list_hash, "hash");
}

#[test]
fn nothing_seen_is_undefined_and_json_comes_back() {
    let metrics = Accuracy::new(2).metrics(&names(2), String::new());
    assert_eq!(
        [metrics.top1, metrics.top5, metrics.mean_class],
        [UNDEFINED; 3]
    );
    let all = super::super::Metrics::Classification(metrics);
    let json = serde_json::to_string(&all).unwrap();
    assert_eq!(
        serde_json::from_str::<super::super::Metrics>(&json).unwrap(),
        all
    );
    assert!(all.to_string().contains("top-1"));
}
