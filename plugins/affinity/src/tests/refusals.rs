//! What the plan takes, what it refuses, and in which words.

use super::*;

#[test]
fn the_last_feature_goes_before_the_neck() {
    let last = feat(([1, 3, 4, 4], 16), ([1, 4, 8, 8], 8));
    let bench = Bench::new::<Affinity>(&json!({}), &[neck(3..=6, [3, 4]), last].concat()).unwrap();
    let used: Vec<bool> = (0..10).map(|slot| bench.uses_tap(slot)).collect();
    assert_eq!(used, [vec![false; 8], vec![true; 2]].concat());
    let shape = |bench: &Bench, name: &str| {
        let params = bench.params().iter();
        { params }
            .find(|(known, ..)| known == name)
            .unwrap()
            .1
            .clone()
    };
    assert_eq!(shape(&bench, "encoder.shared.conv2.weight"), [2, 4, 3, 3]);
    assert_eq!(shape(&bench, "decoder.shared.conv2.weight"), [2, 4, 3, 3]);
    assert_eq!(
        shape(&bench, "feature_adapter.feat.last.conv.weight"),
        [2, 3, 3, 3]
    );

    let bench = Bench::new::<Affinity>(&json!({"levels": [4]}), &neck(3..=6, [3, 4])).unwrap();
    let used: Vec<bool> = (0..8).map(|slot| bench.uses_tap(slot)).collect();
    assert_eq!(used, [false, false, true, true, false, false, false, false]);
}

#[test]
fn models_with_neither_are_told_what_was_looked_for() {
    let taps = TapShape::pair("backbone.c5", [1, 3, 4, 4], [1, 4, 4, 4]);
    let error = Bench::new::<Affinity>(&json!({}), &taps).unwrap_err();
    assert_eq!(error.entry, "plan");
    for needle in ["`feat.last`", "`neck.p*`", "backbone.c5"] {
        assert!(error.message.contains(needle), "{error}");
    }
    let error = Bench::new::<Affinity>(&json!({}), &neck(4..=6, [3, 4])).unwrap_err();
    assert!(
        error.message.contains("no student tap `neck.p3`"),
        "{error}"
    );
    let student = feat(([1, 3, 4, 4], 16), ([1, 4, 8, 8], 8));
    let error = Bench::new::<Affinity>(&json!({}), &student[..1]).unwrap_err();
    assert!(
        error.message.contains("no teacher tap `feat.last`"),
        "{error}"
    );
}

#[test]
fn a_shared_auto_encoder_needs_equal_channels() {
    let mut taps = neck(3..=5, [3, 4]);
    taps[3].shape[1] = 6;
    let error = Bench::new::<Affinity>(&json!({}), &taps).unwrap_err();
    for needle in ["neck.p3", "4 channels", "neck.p4", "6", "per_level"] {
        assert!(error.message.contains(needle), "{error}");
    }
    let bench = Bench::new::<Affinity>(&json!({"autoencoder": "per_level"}), &taps).unwrap();
    assert!(
        bench
            .params()
            .iter()
            .any(|(name, ..)| name == "encoder.neck.p4.conv1.weight")
    );
}

#[test]
fn options_out_of_range_are_named() {
    let taps = neck(3..=5, [3, 4]);
    for (config, needle) in [
        (json!({"p": 3}), "`p` is 3"),
        (json!({"q": 0}), "`q` is 0"),
        (json!({"sparsity": -1.0}), "`sparsity`"),
        (json!({"autoencoder_lr": 0.0}), "`autoencoder_lr`"),
        (json!({"autoencoder_epochs": 0}), "`autoencoder_iters`"),
        (
            json!({"loss_weight_adapt": 0.0, "loss_weight_aff": 0.0}),
            "one must be positive",
        ),
        (json!({"levels": []}), "`levels` is empty"),
        (json!({"levels": [3, 3]}), "twice"),
        (
            json!({"autoencoder": "none", "code_stride": 64}),
            "`code_stride`",
        ),
    ] {
        let error = Bench::new::<Affinity>(&config, &taps).unwrap_err();
        assert_eq!(error.status, 3, "{config}: {error}");
        assert!(error.message.contains(needle), "{config}: {error}");
    }
}

#[test]
fn strides_decide_how_often_the_grid_is_halved() {
    for (from, to, expected) in [
        (16, 16, [1, 1, 1]),
        (16, 8, [1, 1, 1]),
        (8, 16, [2, 1, 1]),
        (8, 24, [2, 1, 1]),
        (8, 32, [2, 2, 1]),
        (4, 32, [2, 2, 2]),
        (4, 64, [2, 2, 2]),
    ] {
        assert_eq!(crate::places::strides(from, to), expected, "{from} to {to}");
    }
}
