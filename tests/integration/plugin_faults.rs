//! Faults of a plugin while it is called: each is reported, none takes the host along.

use crate::plugin_calls::{Step, check_call};
use kdhost::plugin::{CallInfo, PluginCallError};

#[test]
fn panics_poison_and_are_reported_with_their_text() {
    for entry in ["create", "plan", "init_state", "forward", "backward"] {
        for (fault, text) in [
            ("panic", format!("asked to panic in {entry}")),
            ("odd_panic", "a panic without text".to_owned()),
        ] {
            let config = format!(r#"{{"at":"{entry}","fault":"{fault}"}}"#);
            let error = Step::new(&config, CallInfo::default())
                .and_then(|mut step| {
                    let error = step.run().unwrap_err();
                    // Whatever is called next is refused without entering the plugin.
                    let again = step.run().unwrap_err();
                    assert!(matches!(again, PluginCallError::Poisoned { .. }), "{again}");
                    Err::<(), _>(error)
                })
                .unwrap_err();
            let PluginCallError::Panicked {
                entry: at, message, ..
            } = &error
            else {
                panic!("{error}");
            };
            assert_eq!((*at, message), (entry, &text));
            assert!(error.to_string().contains("panicked"), "{error}");
        }
    }
}

#[test]
fn panics_where_nothing_can_be_returned_stay_inside() {
    for entry in ["release_saved", "destroy"] {
        let config = format!(r#"{{"at":"{entry}","fault":"panic"}}"#);
        let mut step = Step::new(&config, CallInfo::default()).unwrap();
        step.run().unwrap();
        step.run().unwrap();
    }
}

#[test]
fn errors_carry_status_words_and_detail() {
    for entry in ["create", "plan", "init_state", "forward", "backward"] {
        let run = |fault: &str| {
            let config = format!(r#"{{"at":"{entry}","fault":"{fault}"}}"#);
            let failed = Step::new(&config, CallInfo::default()).and_then(|mut step| step.run());
            failed.unwrap_err()
        };
        let error = run("error");
        let expected = format!(
            "plugin `kd-fixture-stress`, method `stress`: {entry} returned KD_E_NUMERIC: \
             asked to fail in {entry} {{\"device\":[1,0],"
        );
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(!error.is_cancelled());
        let error = run("silent_error");
        assert!(
            error.to_string().contains("the plugin gave no message"),
            "{error}"
        );
        assert!(run("cancelled").is_cancelled());
    }
}

#[test]
fn an_error_does_not_poison() {
    let mut step = Step::new(r#"{"at":"backward","fault":"error"}"#, CallInfo::default()).unwrap();
    for _ in 0..2 {
        let error = step.run().unwrap_err();
        assert!(matches!(error, PluginCallError::Status { .. }), "{error}");
    }
    assert_eq!(step.steps[0], 2.0);
}

#[test]
fn values_that_are_not_finite_are_found() {
    let mut step = Step::new(r#"{"at":"forward","fault":"not_finite"}"#, check_call()).unwrap();
    let (loss, ..) = step.run().unwrap();
    let error = step
        .method
        .check_finite("forward", "loss `value`", &[loss])
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("1 non-finite of 1 values in loss `value` (first: NaN)"),
        "{error}"
    );
    let mut step = Step::new(r#"{"at":"backward","fault":"not_finite"}"#, check_call()).unwrap();
    let (_, d_tap, _) = step.run().unwrap();
    let error = step
        .method
        .check_finite("backward", "tap gradient", &d_tap)
        .unwrap_err();
    assert!(error.to_string().contains("24 non-finite of 24"), "{error}");
    assert!(
        step.method
            .check_finite("forward", "loss", &[1.0, -0.0])
            .is_ok()
    );
}

#[test]
fn unwritten_outputs_are_zero_in_training_and_errors_in_checks() {
    for (entry, output) in [
        ("init_state", "2 of 2 elements of buffer `steps`"),
        ("forward", "1 of 1 elements of loss `value`"),
        (
            "backward",
            "1 of 1 elements of gradient of parameter `scale`",
        ),
    ] {
        let config = format!(r#"{{"at":"{entry}","fault":"unwritten"}}"#);
        let run = |call| Step::new(&config, call).and_then(|mut step| step.run());
        let error = run(check_call()).unwrap_err();
        assert!(
            matches!(error, PluginCallError::Unwritten { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(output), "{error}");
        let (loss, _, d_scale) = run(CallInfo::default()).unwrap();
        assert!(entry != "forward" || loss == 0.0);
        assert!(entry != "backward" || d_scale == 0.0);
    }
}
