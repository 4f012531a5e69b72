//! Weight files: what matches, what does not, and older spellings.

use super::*;
use crate::model::{build_detector, initial_state, weights};

fn detector() -> Box<dyn Detector> {
    build_detector(&small_config(), 3).unwrap()
}

#[test]
fn a_file_of_the_same_architecture_is_complete() {
    let detector = detector();
    let file = initial_state(detector.as_ref(), 1);
    let mut state = initial_state(detector.as_ref(), 2);
    let report = weights::load_into(&mut state, detector.as_ref(), &file).unwrap();
    assert_eq!(report.matched, detector.specs().len());
    assert!(report.strict().is_ok());
    assert_eq!(state.hash(), file.hash());
}

#[test]
fn missing_unexpected_and_mismatched_are_told_and_left_alone() {
    let detector = detector();
    let mut file = initial_state(detector.as_ref(), 1);
    let before = initial_state(detector.as_ref(), 2);
    file.entries.remove("backbone.body.conv1.weight");
    let head = "head.classification_head.cls_logits.weight";
    file.entries.get_mut(head).unwrap().shape = vec![1];
    let extra = file.entries[head].clone();
    file.entries.insert("roi_heads.fc.weight".into(), extra);

    let mut state = before.clone();
    let report = weights::load_into(&mut state, detector.as_ref(), &file).unwrap();
    assert_eq!(report.missing, ["backbone.body.conv1.weight"]);
    assert_eq!(report.unexpected, ["roi_heads.fc.weight"]);
    assert_eq!(report.mismatched[0].name, head);
    assert_eq!(report.mismatched[0].got, [1]);
    assert_eq!(state.entries[head], before.entries[head]);
    let message = report.strict().unwrap_err().to_string();
    for part in ["backbone.body.conv1.weight", "roi_heads.fc.weight", head] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_bare_classifier_fills_the_backbone() {
    let detector = detector();
    let whole = initial_state(detector.as_ref(), 1);
    let mut file = StateDict::default();
    for (name, array) in &whole.entries {
        if let Some(bare) = name.strip_prefix("backbone.body.") {
            file.entries.insert(bare.to_owned(), array.clone());
        }
    }
    let backbone = file.entries.len();
    for name in ["fc.weight", "fc.bias"] {
        let shape = vec![1];
        let data = vec![0.0];
        file.entries.insert(name.into(), Array { shape, data });
    }
    let mut state = initial_state(detector.as_ref(), 2);
    let report = weights::load_into(&mut state, detector.as_ref(), &file).unwrap();
    assert_eq!(report.matched, backbone);
    assert_eq!(report.unexpected, ["fc.bias", "fc.weight"]);
    assert!(report.missing.iter().all(|name| !name.contains("body")));
    assert_eq!(
        state.entries["backbone.body.layer4.0.conv1.weight"],
        whole.entries["backbone.body.layer4.0.conv1.weight"]
    );
    // Five names of many are shown, the rest is counted.
    assert!(report.to_string().contains("more"), "{report}");
}

#[test]
fn older_spellings_of_torchvision_are_understood() {
    let detector = detector();
    let whole = initial_state(detector.as_ref(), 1);
    let mut file = whole.clone();
    for (current, older) in [
        (
            "backbone.fpn.inner_blocks.2.0.weight",
            "backbone.fpn.inner_blocks.2.weight",
        ),
        (
            "backbone.fpn.layer_blocks.0.0.bias",
            "backbone.fpn.layer_blocks.0.bias",
        ),
        (
            "head.classification_head.conv.1.0.weight",
            "head.classification_head.conv.2.weight",
        ),
        (
            "head.regression_head.conv.0.0.bias",
            "head.regression_head.conv.0.bias",
        ),
    ] {
        let array = file.entries.remove(current).unwrap();
        file.entries.insert(older.into(), array);
    }
    let mut state = StateDict::default();
    let report = weights::load_into(&mut state, detector.as_ref(), &file).unwrap();
    assert!(report.is_complete(), "{report}");
    assert_eq!(state.hash(), whole.hash());
}

/// What one detector's towers were called is what another's are called today.
#[test]
fn a_name_of_today_is_never_taken_for_an_older_one() {
    let config = ModelConfig {
        detector: "fcos".into(),
        ..small_config()
    };
    let detector = build_detector(&config, 3).unwrap();
    let file = initial_state(detector.as_ref(), 1);
    assert!(
        file.entries
            .contains_key("head.classification_head.conv.0.weight")
    );
    let mut state = initial_state(detector.as_ref(), 2);
    let report = weights::load_into(&mut state, detector.as_ref(), &file).unwrap();
    assert!(report.is_complete(), "{report}");
    assert_eq!(state.hash(), file.hash());
}

#[test]
fn a_file_of_something_else_is_refused() {
    let mut file = StateDict::default();
    let array = Array {
        shape: vec![2],
        data: vec![0.0; 2],
    };
    file.entries.insert("embedding.weight".into(), array);
    let error = weights::load_into(&mut StateDict::default(), detector().as_ref(), &file);
    let message = error.unwrap_err().to_string();
    assert!(message.contains("0 of"), "{message}");
    assert!(message.contains("embedding.weight"), "{message}");
}

#[test]
fn tensors_need_every_entry() {
    let detector = detector();
    let mut state = initial_state(detector.as_ref(), 1);
    let device = Device::flex();
    let tensors = weights::tensors(detector.as_ref(), &state, &device).unwrap();
    assert_eq!(tensors.len(), detector.specs().len());
    state.entries.remove("backbone.fpn.extra_blocks.p7.bias");
    let error = weights::tensors(detector.as_ref(), &state, &device).unwrap_err();
    assert!(error.to_string().contains("p7.bias"), "{error}");
}
