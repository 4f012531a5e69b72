//! Calls through the wrapper: results, gradients, plans, errors, lifetimes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kdhost::plugin::{
    ArrayMut, CallInfo, Library, Method, Plan, PluginCallError, TapBinding, TensorArg,
};
use kdhost_tests::fixtures;

/// Central differences of an f32 loss with this step have an error of about 1e-7 / 1e-2.
const STEP: f32 = 1e-2;
const GRADIENT_TOLERANCE: f64 = 1e-4;

fn tap(name: &str, role: &str, channels: usize) -> TapBinding {
    TapBinding {
        name: name.to_owned(),
        role: role.to_owned(),
        channels,
        stride: 8,
        size: None,
        grad: role == "student",
    }
}

/// Values without a pattern, the same in every run.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

fn stress(config: &str) -> Result<Method, PluginCallError> {
    let library = Library::load(fixtures::stress_plugin()).unwrap();
    Method::create(&library, "stress", config, &CallInfo::default())
}

fn stress_plan(config: &str) -> Result<Plan, PluginCallError> {
    let taps = [tap("neck.p3", "student", 2), tap("neck.p3", "teacher", 2)];
    stress(config).unwrap().plan(&taps, &CallInfo::default())
}

/// Everything a step of the stress plugin works on.
pub(crate) struct Step {
    pub(crate) method: Method,
    pub(crate) taps: [Vec<f32>; 2],
    pub(crate) scale: Vec<f32>,
    pub(crate) steps: Vec<f32>,
    pub(crate) call: CallInfo,
}

const SHAPE: [usize; 4] = [1, 2, 3, 4];

impl Step {
    pub(crate) fn new(config: &str, call: CallInfo) -> Result<Step, PluginCallError> {
        let mut method = stress(config)?;
        let taps = [tap("neck.p3", "student", 2), tap("neck.p3", "teacher", 2)];
        method.plan(&taps, &call)?;
        let mut step = Step {
            method,
            taps: [values(24, 1), values(24, 2)],
            scale: vec![9.0],
            steps: vec![9.0; 2],
            call,
        };
        step.method.init_state(
            &step.call,
            &mut [ArrayMut::new(&[1], &mut step.scale)],
            &mut [ArrayMut::new(&[2], &mut step.steps)],
        )?;
        Ok(step)
    }

    /// Forward and backward with upstream 1; loss and gradients of tap and parameter.
    pub(crate) fn run(&mut self) -> Result<(f32, Vec<f32>, f32), PluginCallError> {
        let maps = self.method.planned().unwrap().maps.len();
        let taps = [
            TensorArg::f32(&SHAPE, &self.taps[0]),
            TensorArg::f32(&SHAPE, &self.taps[1]),
        ];
        let params = [TensorArg::f32(&[1], &self.scale)];
        let (mut loss, mut map) = ([0.0], vec![0.0; 24 * maps]);
        let mut map_outputs: Vec<ArrayMut<'_>> = map
            .chunks_mut(24)
            .map(|data| ArrayMut::new(&SHAPE, data))
            .collect();
        let mut saved = self.method.forward(
            &self.call,
            &taps,
            &params,
            &mut [ArrayMut::new(&[2], &mut self.steps)],
            &[],
            &mut loss,
            &mut map_outputs,
        )?;
        let upstream = vec![1.0; 24];
        let d_maps = vec![TensorArg::f32(&SHAPE, &upstream); maps];
        let (mut d_tap, mut d_scale) = (vec![7.0; 24], [7.0]);
        self.method.backward(
            &self.call,
            &taps,
            &params,
            &[1.0],
            &d_maps,
            &mut [Some(ArrayMut::new(&SHAPE, &mut d_tap)), None],
            &mut [Some(ArrayMut::new(&[1], &mut d_scale))],
            &mut saved,
        )?;
        drop(saved);
        let expected: Vec<f32> = self.taps[0].iter().map(|v| 2.0 * v).collect();
        assert!(maps == 0 || map == expected);
        Ok((loss[0], d_tap, d_scale[0]))
    }
}

pub(crate) fn check_call() -> CallInfo {
    CallInfo {
        check: true,
        ..CallInfo::default()
    }
}

/// Loss of the C plugin over two levels, and the gradient of the student's taps if wanted.
fn c_l2(method: &mut Method, taps: &[Vec<f32>; 4], upstream: f32) -> (f32, [Vec<f32>; 2]) {
    let shapes: [&[usize]; 2] = [&[2, 3, 4, 5], &[2, 3, 2, 3]];
    let args: Vec<TensorArg<'_>> = (0..4)
        .map(|i| TensorArg::f32(shapes[i % 2], &taps[i]))
        .collect();
    let mut loss = [0.0];
    let call = check_call();
    let mut saved = method
        .forward(&call, &args, &[], &mut [], &[], &mut loss, &mut [])
        .unwrap();
    let mut gradients = [vec![0.0; 120], vec![0.0; 36]];
    let [first, second] = &mut gradients;
    let mut d_taps = [
        Some(ArrayMut::new(shapes[0], first)),
        Some(ArrayMut::new(shapes[1], second)),
        None,
        None,
    ];
    method
        .backward(
            &call,
            &args,
            &[],
            &[upstream],
            &[],
            &mut d_taps,
            &mut [],
            &mut saved,
        )
        .unwrap();
    (loss[0], gradients)
}

#[test]
fn gradient_of_the_c_plugin_is_that_of_its_loss() {
    let library = Library::load(&fixtures::c_plugin("feature_l2", &[])).unwrap();
    let mut method = Method::create(&library, "", "{}", &CallInfo::default()).unwrap();
    let bindings = [
        tap("neck.p3", "student", 3),
        tap("neck.p4", "student", 3),
        tap("neck.p3", "teacher", 3),
        tap("neck.p4", "teacher", 3),
    ];
    let plan = method.plan(&bindings, &CallInfo::default()).unwrap();
    assert_eq!(plan.losses[0].name, "l2");
    assert_eq!(plan.tap_use, [3, 3, 1, 1]);
    let mut taps = [values(120, 1), values(36, 2), values(120, 3), values(36, 4)];

    let mean_square = |a: &[f32], b: &[f32]| {
        let square = |(x, y): (&f32, &f32)| (f64::from(*x) - f64::from(*y)).powi(2);
        a.iter().zip(b).map(square).sum::<f64>() / a.len() as f64
    };
    let expected = mean_square(&taps[0], &taps[2]) + mean_square(&taps[1], &taps[3]);
    let upstream = 0.7;
    let (loss, gradients) = c_l2(&mut method, &taps, upstream);
    // One rounding to f32.
    assert!((f64::from(loss) - expected).abs() <= 1e-7 * expected);

    let (mut difference, mut norm) = (0.0, 0.0);
    for level in 0..2 {
        for index in 0..taps[level].len() {
            let original = taps[level][index];
            let mut at = |value: f32| {
                taps[level][index] = value;
                f64::from(c_l2(&mut method, &taps, upstream).0)
            };
            let (above, below) = (at(original + STEP), at(original - STEP));
            taps[level][index] = original;
            let numeric = f64::from(upstream) * (above - below) / f64::from(2.0 * STEP);
            difference += (f64::from(gradients[level][index]) - numeric).powi(2);
            norm += numeric.powi(2);
        }
    }
    let relative = (difference / norm).sqrt();
    assert!(relative < GRADIENT_TOLERANCE, "relative error {relative}");
}

#[test]
fn a_c_plugin_says_why_it_refuses_a_plan() {
    let library = Library::load(&fixtures::c_plugin("feature_l2", &[])).unwrap();
    let mut method = Method::create(&library, "c_l2", "{}", &CallInfo::default()).unwrap();
    let bindings = [tap("neck.p3", "student", 3), tap("neck.p3", "teacher", 4)];
    let error = method.plan(&bindings, &CallInfo::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin `c-feature-l2`, method `c_l2`: plan returned KD_E_SHAPE: \
         student and teacher taps differ in channels"
    );
}

#[test]
fn two_plugins_in_one_process_give_two_methods() {
    let loss_of = |path: &std::path::Path| {
        let library = Library::load(path).unwrap();
        let mut method = Method::create(&library, "", "{}", &CallInfo::default()).unwrap();
        method
            .plan(&[tap("neck.p3", "student", 2)], &CallInfo::default())
            .unwrap();
        let (data, mut loss) = (values(24, 5), [0.0]);
        let taps = [TensorArg::f32(&SHAPE, &data)];
        let call = CallInfo::default();
        method
            .forward(&call, &taps, &[], &mut [], &[], &mut loss, &mut [])
            .unwrap();
        loss[0]
    };
    // The same symbols in both: each call must reach its own library.
    assert_eq!(
        loss_of(&fixtures::c_plugin("faulty", &["LOSS_VALUE=3.0f"])),
        3.0
    );
    assert_eq!(
        loss_of(&fixtures::c_plugin("faulty", &["LOSS_VALUE=4.0f"])),
        4.0
    );
    assert_eq!(
        loss_of(&fixtures::c_plugin("faulty", &["LOSS_VALUE=3.0f"])),
        3.0
    );
}

#[test]
fn unknown_methods_are_answered_with_the_known() {
    let library = Library::load(fixtures::stress_plugin()).unwrap();
    let error = Method::create(&library, "strss", "{}", &CallInfo::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no method `strss`; it has stress"),
        "{error}"
    );
}

#[test]
fn a_sound_step_gives_loss_gradients_state_and_map() {
    for config in ["{}", r#"{"map":true}"#] {
        for call in [CallInfo::default(), check_call()] {
            let mut step = Step::new(config, call).unwrap();
            assert_eq!((step.scale[0], step.steps[1]), (1.5, 0.0));
            let mean = step.taps[0].iter().sum::<f32>() / 24.0;
            for count in 1..=3 {
                let (loss, d_tap, d_scale) = step.run().unwrap();
                // f64 in the plugin against f32 here: a few roundings.
                assert!((loss - 1.5 * mean).abs() < 1e-6);
                assert!((d_scale - mean).abs() < 1e-6);
                let from_map = if config == "{}" { 0.0 } else { 2.0 };
                assert!(
                    d_tap
                        .iter()
                        .all(|g| (g - 1.5 / 24.0 - from_map).abs() < 1e-6)
                );
                assert_eq!(step.steps[0], count as f32);
            }
        }
    }
}

#[test]
fn saved_states_are_released_once_and_before_their_instance() {
    // The plugin aborts the process on a violation. Other tests use other instances of the same
    // plugin meanwhile, so that its counters are compared within one call alone.
    let mut step = Step::new("{}", CallInfo::default()).unwrap();
    let (tap, scale) = (step.taps.clone(), step.scale.clone());
    let taps = [
        TensorArg::f32(&SHAPE, &tap[0]),
        TensorArg::f32(&SHAPE, &tap[1]),
    ];
    let params = [TensorArg::f32(&[1], &scale)];
    let mut outstanding = Vec::new();
    for _ in 0..3 {
        let mut buffers = [ArrayMut::new(&[2], &mut step.steps)];
        let mut loss = [0.0];
        let call = CallInfo::default();
        let saved = step
            .method
            .forward(&call, &taps, &params, &mut buffers, &[], &mut loss, &mut [])
            .unwrap();
        outstanding.push(saved);
    }
    let metrics = step.method.take_metrics();
    let names: Vec<&str> = metrics.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["live_instances", "live_saved"]);
    assert!(metrics[1].1 >= 3.0);
    assert!(step.method.take_metrics().is_empty());
    drop(step);
    // On another thread, and after the method is gone.
    std::thread::scope(|scope| {
        scope.spawn(move || drop(outstanding));
    });
}

#[test]
fn one_saved_state_has_one_backward_of_its_own_instance() {
    let mut step = Step::new("{}", CallInfo::default()).unwrap();
    let mut other = Step::new("{}", CallInfo::default()).unwrap();
    let (tap, scale) = (step.taps.clone(), step.scale.clone());
    let taps = [
        TensorArg::f32(&SHAPE, &tap[0]),
        TensorArg::f32(&SHAPE, &tap[1]),
    ];
    let params = [TensorArg::f32(&[1], &scale)];
    let (call, mut loss) = (CallInfo::default(), [0.0]);
    let mut buffers = [ArrayMut::new(&[2], &mut step.steps)];
    let mut saved = step
        .method
        .forward(&call, &taps, &params, &mut buffers, &[], &mut loss, &mut [])
        .unwrap();
    let mut backward = |method: &mut Method| {
        let (d_taps, d_params) = (&mut [None, None], &mut [None]);
        method.backward(
            &call,
            &taps,
            &params,
            &[1.0],
            &[],
            d_taps,
            d_params,
            &mut saved,
        )
    };
    let error = backward(&mut other.method).unwrap_err();
    assert!(
        error.to_string().contains("belongs to another instance"),
        "{error}"
    );
    backward(&mut step.method).unwrap();
    let error = backward(&mut step.method).unwrap_err();
    assert!(
        error.to_string().contains("has had its backward"),
        "{error}"
    );
}

#[test]
fn a_plan_is_what_was_declared() {
    let plan = stress_plan(r#"{"map":true}"#).unwrap();
    assert_eq!(plan.params[0].name, "scale");
    assert_eq!(plan.params[0].shape, [1]);
    assert_eq!(plan.buffers[0].shape, [2]);
    assert_eq!(plan.losses[0].default_weight, 1.0);
    assert_eq!(plan.maps[0].shape, [-1, 2, -2, -3]);
    assert_eq!(plan.maps[0].replaces_tap, 0);
    // The teacher's tap is declared unused.
    assert_eq!(plan.tap_use, [3, 0]);
    assert_eq!(plan.schedule_json, None);
}

#[test]
fn a_map_may_have_the_size_that_was_told_or_none() {
    let sized = |size| {
        let mut tap = tap("neck.p3", "student", 2);
        tap.size = size;
        tap
    };
    let plan = |config, size| {
        let taps = [sized(size), tap("neck.p3", "teacher", 2)];
        stress(config).unwrap().plan(&taps, &CallInfo::default())
    };
    let as_told = r#"{"map":true}"#;
    let symbolic = r#"{"map":true,"symbolic_map":true}"#;
    let plans = [
        (as_told, None, [-1, 2, -2, -3]),
        (as_told, Some([3, 4]), [-1, 2, 3, 4]),
        (symbolic, Some([3, 4]), [-1, 2, -2, -3]),
    ];
    for (config, size, shape) in plans {
        assert_eq!(
            plan(config, size).unwrap().maps[0].shape,
            shape,
            "{config} {size:?}"
        );
    }
}

#[test]
fn plans_that_contradict_themselves_are_refused() {
    for (fault, expected) in [
        (
            "teacher_gradient",
            "use of tap `neck.p3` of the teacher: only student taps have a gradient",
        ),
        (
            "undeclared_loss",
            "loss `surprise`: the manifest does not list it",
        ),
        (
            "ignored_refusal",
            "loss `surprise`: the manifest does not list it",
        ),
        (
            "loss_twice",
            "loss `value`: it is declared twice (KD_E_INVALID_ARG)",
        ),
        ("param_twice", "param `scale`: it is declared twice"),
        (
            "symbolic_param",
            "every extent must be fixed and positive (KD_E_SHAPE)",
        ),
        (
            "wide_param",
            "param `scale`: an unknown dtype, must be f32 (KD_E_DTYPE)",
        ),
        ("map_on_teacher", "it replaces `neck.p3` of the teacher"),
        (
            "map_shape",
            "shape [-1, 2, -2], but `neck.p3` has [-1, 2, -2, -3] (KD_E_SHAPE)",
        ),
        (
            "two_schedules",
            "a schedule: it is declared twice (KD_E_STATE)",
        ),
    ] {
        let error = stress_plan(&format!(r#"{{"at":"plan","fault":"{fault}"}}"#)).unwrap_err();
        assert!(
            matches!(error, PluginCallError::BadPlan { .. }),
            "{fault}: {error}"
        );
        assert!(error.to_string().contains(expected), "{fault}: {error}");
    }
}

#[test]
fn arguments_that_do_not_fit_the_plan_stay_outside() {
    let call = CallInfo::default();
    let mut step = Step::new("{}", call.clone()).unwrap();
    let (small, scale) = (values(12, 1), [1.0]);
    let (good, other) = (
        TensorArg::f32(&SHAPE, &step.taps[0]),
        TensorArg::f32(&[1, 1, 3, 4], &small),
    );
    let params = [TensorArg::f32(&[1], &scale)];
    let cases: [(&[TensorArg<'_>], &[TensorArg<'_>], usize, &str); 4] = [
        (&[good], &params, 1, "1 taps given, 2 bound"),
        (
            &[good, other],
            &params,
            1,
            "tap 1 has shape [1, 1, 3, 4], bound with 2 channels",
        ),
        (&[good, good], &[], 1, "0 parameters given, 1 planned"),
        (&[good, good], &params, 2, "2 losses given, 1 planned"),
    ];
    for (taps, params, n_losses, expected) in cases {
        let mut losses = vec![0.0; n_losses];
        let mut buffers = [ArrayMut::new(&[2], &mut step.steps)];
        let error = step
            .method
            .forward(&call, taps, params, &mut buffers, &[], &mut losses, &mut [])
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let mut unplanned = stress("{}").unwrap();
    let error = unplanned.init_state(&call, &mut [], &mut []).unwrap_err();
    assert!(error.to_string().contains("no plan was made"), "{error}");
}

#[test]
fn where_the_run_stands_reaches_the_plugin() {
    let call = CallInfo {
        training: true,
        check: true,
        stage: 1,
        phase: 2,
        step: 3,
        phase_step: 4,
        phase_steps: 5,
        total_steps: 6,
        epoch: 7,
        seed: u64::MAX,
        ..CallInfo::default()
    };
    let mut step = Step::new(r#"{"at":"forward","fault":"error"}"#, call).unwrap();
    let PluginCallError::Status { detail, .. } = step.run().unwrap_err() else {
        panic!("forward fails with a status");
    };
    let expected = serde_json::json!({
        "flags": 7, "stage": 1, "phase": 2, "step": 3, "phase_step": 4, "phase_steps": 5,
        "total_steps": 6, "epoch": 7, "seed": u64::MAX, "device": [1, 0], "stream": 0,
        "struct_size": 104,
    });
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&detail).unwrap(),
        expected
    );
}

#[test]
fn the_cancel_flag_reaches_the_plugin_and_can_be_taken_back() {
    let mut step = Step::new("{}", CallInfo::default()).unwrap();
    let flag = Arc::clone(&step.call.cancel);
    flag.store(1, Ordering::Relaxed);
    assert!(step.run().unwrap_err().is_cancelled());
    flag.store(0, Ordering::Relaxed);
    step.run().unwrap();
}

#[test]
fn an_instance_may_move_between_threads() {
    let mut step = Step::new("{}", CallInfo::default()).unwrap();
    let here = step.run().unwrap();
    let there = std::thread::spawn(move || step.run().unwrap())
        .join()
        .unwrap();
    assert_eq!(here, there);
}

#[test]
fn a_loss_that_is_not_a_number_arrives_as_such() {
    let library = Library::load(&fixtures::c_plugin("faulty", &["LOSS_VALUE=NAN"])).unwrap();
    let mut method = Method::create(&library, "", "{}", &CallInfo::default()).unwrap();
    let call = CallInfo::default();
    method.plan(&[tap("neck.p3", "student", 2)], &call).unwrap();
    let (data, mut loss) = (values(24, 5), [0.0]);
    let taps = [TensorArg::f32(&SHAPE, &data)];
    method
        .forward(&call, &taps, &[], &mut [], &[], &mut loss, &mut [])
        .unwrap();
    assert!(loss[0].is_nan());
}
