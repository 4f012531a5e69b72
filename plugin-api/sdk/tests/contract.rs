//! What every method gets from the SDK: caught panics, refused calls out of order, messages with a
//! place. A method that misbehaves on demand is run behind the fake host.

use kd_plugin::raw::{
    BackwardArgs, ForwardArgs, MapSpec, ParamKind, RawMethod, RawPlan, StateSpec,
};
use kd_plugin::testkit::{Bench, EntryError, Run, TapShape, gradcheck};
use kd_plugin::{Call, MethodError, TapInfo, TapPattern, Taps, TensorViewMut};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Config {
    /// Entry that panics.
    panic_in: String,
    /// Entry that fails.
    fail_in: String,
    /// Panic with a payload that is not text.
    odd_payload: bool,
    /// Plan a loss that is not in `LOSSES`.
    unknown_loss: bool,
    /// Plan a buffer of the tap's height and width.
    buffer_by_size: bool,
}

/// `loss = mean(gain * x²)` over the student tap, with a hand-written backward.
struct Stress {
    config: Config,
    tap: usize,
}

struct Saved {
    panic: bool,
}

impl Drop for Saved {
    fn drop(&mut self) {
        assert!(!self.panic, "dropped saved state");
    }
}

impl Stress {
    fn entry(&self, name: &str) -> Result<(), MethodError> {
        if self.config.panic_in == name {
            if self.config.odd_payload {
                std::panic::panic_any(42);
            }
            panic!("asked to panic in {name}");
        }
        if self.config.fail_in == name {
            return Err(MethodError::numeric(format!("asked to fail in {name}")));
        }
        Ok(())
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        assert!(self.config.panic_in != "destroy", "dropped instance");
    }
}

impl RawMethod for Stress {
    type Config = Config;
    type Saved = Saved;
    const ID: &'static str = "stress";
    const TITLE: &'static str = "stress";
    const DOC: &'static str = "misbehaves on demand";
    const TAPS: &'static [TapPattern] = &[
        TapPattern::student("neck.*"),
        TapPattern::teacher("neck.*").optional(),
    ];
    const LOSSES: &'static [&'static str] = &["loss"];
    const MAPS: &'static [&'static str] = &["copy"];

    fn new(config: Config) -> Result<Self, MethodError> {
        let method = Stress { config, tap: 0 };
        if method.config.panic_in != "destroy" {
            method.entry("create")?;
        }
        Ok(method)
    }

    fn plan(&mut self, taps: &Taps) -> Result<RawPlan, MethodError> {
        self.entry("plan")?;
        let tap: &TapInfo = taps.student("neck.p3")?;
        self.tap = tap.index;
        let loss = if self.config.unknown_loss {
            "other"
        } else {
            "loss"
        };
        let mut buffers = Vec::new();
        if self.config.buffer_by_size {
            let size = tap.size();
            buffers.push(StateSpec {
                name: "field".to_owned(),
                shape: size.ok_or_else(|| MethodError::shape("no size"))?.to_vec(),
                kind: ParamKind::Weight,
            });
        }
        Ok(RawPlan {
            buffers,
            params: vec![StateSpec {
                name: "gain".to_owned(),
                shape: vec![1],
                kind: ParamKind::Weight,
            }],
            losses: vec![(loss.to_owned(), 0.5)],
            maps: vec![MapSpec {
                name: "copy".to_owned(),
                replaces: "neck.p3".to_owned(),
            }],
            ..RawPlan::default()
        })
    }

    fn init_state(
        &mut self,
        _: &Call<'_>,
        params: &mut [TensorViewMut<'_>],
        _: &mut [TensorViewMut<'_>],
    ) -> Result<(), MethodError> {
        self.entry("init_state")?;
        params[0].write_scalar(2.0)
    }

    fn forward(
        &mut self,
        call: &Call<'_>,
        args: &mut ForwardArgs<'_>,
    ) -> Result<Saved, MethodError> {
        self.entry("forward")?;
        call.check_cancelled()?;
        let x = args.taps[self.tap].f32s()?;
        let gain = args.params[0].scalar()?;
        let sum: f32 = x.iter().map(|x| x * x).sum();
        args.losses[0].write_scalar(gain * sum / x.len() as f32)?;
        args.maps[0].write(&x)?;
        Ok(Saved {
            panic: self.config.panic_in == "release_saved",
        })
    }

    fn backward(
        &mut self,
        _: &Call<'_>,
        args: &mut BackwardArgs<'_>,
        _: &mut Saved,
    ) -> Result<(), MethodError> {
        self.entry("backward")?;
        let x = args.taps[self.tap].f32s()?;
        let gain = args.params[0].scalar()?;
        let upstream = args.d_losses[0] / x.len() as f32;
        let d_map = args.d_maps[0].f32s()?;
        let d_x: Vec<f32> = x
            .iter()
            .zip(&*d_map)
            .map(|(x, d)| 2.0 * upstream * gain * x + d)
            .collect();
        let d_gain = upstream * x.iter().map(|x| x * x).sum::<f32>();
        for (slot, place) in args.d_taps.iter_mut().enumerate() {
            if slot == self.tap {
                place.write(&d_x)?
            } else {
                place.write_zero()?
            }
        }
        args.d_params[0].write_scalar(d_gain)
    }
}

fn bench(config: Value) -> Result<Bench, EntryError> {
    let taps = TapShape::pair("neck.p3", [2, 3, 2, 4], [2, 3, 2, 4]);
    let mut bench = Bench::new_raw::<Stress>(&config, &taps)?;
    bench.fill(5);
    Ok(bench)
}

#[test]
fn a_hand_written_backward_passes_every_check() {
    let mut bench = bench(json!({})).unwrap();
    let report = gradcheck::check(&mut bench, &gradcheck::Options::default()).unwrap();
    assert!(report.comparisons.len() >= 8, "{report:?}");
    assert_eq!(bench.losses(), [("loss".to_owned(), 0.5)]);
    assert_eq!(bench.maps()[0].2, 0);
    let attributes: Value = serde_json::from_str(&bench.params()[0].2).unwrap();
    assert_eq!(attributes, json!({"kind": "weight"}));
}

#[test]
fn a_wrong_gradient_is_found() {
    struct Wrong(Stress);
    impl RawMethod for Wrong {
        type Config = Config;
        type Saved = Saved;
        const ID: &'static str = "wrong";
        const TITLE: &'static str = "wrong";
        const DOC: &'static str = "forgets a factor of its parameter's gradient";
        const TAPS: &'static [TapPattern] = Stress::TAPS;
        const LOSSES: &'static [&'static str] = Stress::LOSSES;
        const MAPS: &'static [&'static str] = Stress::MAPS;
        fn new(config: Config) -> Result<Self, MethodError> {
            Stress::new(config).map(Wrong)
        }
        fn plan(&mut self, taps: &Taps) -> Result<RawPlan, MethodError> {
            self.0.plan(taps)
        }
        fn init_state(
            &mut self,
            call: &Call<'_>,
            params: &mut [TensorViewMut<'_>],
            buffers: &mut [TensorViewMut<'_>],
        ) -> Result<(), MethodError> {
            self.0.init_state(call, params, buffers)
        }
        fn forward(
            &mut self,
            call: &Call<'_>,
            args: &mut ForwardArgs<'_>,
        ) -> Result<Saved, MethodError> {
            self.0.forward(call, args)
        }
        fn backward(
            &mut self,
            call: &Call<'_>,
            args: &mut BackwardArgs<'_>,
            saved: &mut Saved,
        ) -> Result<(), MethodError> {
            args.d_losses[0] *= 1.02;
            self.0.backward(call, args, saved)
        }
    }
    let taps = TapShape::pair("neck.p3", [2, 3, 2, 4], [2, 3, 2, 4]);
    let mut bench = Bench::new_raw::<Wrong>(&json!({}), &taps).unwrap();
    bench.fill(5);
    let error = gradcheck::check(&mut bench, &gradcheck::Options::default()).unwrap_err();
    assert!(error.contains("backward says"), "{error}");
}

#[test]
fn sizes_of_taps_are_told_where_the_run_fixes_them() {
    let taps = TapShape::pair("neck.p3", [2, 3, 2, 4], [2, 3, 2, 4]);
    let config = json!({"buffer_by_size": true});
    let run = Run {
        fixed_sizes: true,
        ..Run::default()
    };
    let bench = Bench::new_raw_in::<Stress>(run, &config, &taps).unwrap();
    assert_eq!(bench.buffers(), [("field".to_owned(), vec![2, 4])]);
    // The map takes the tap's extents as they were told.
    assert_eq!(bench.maps()[0].1, [kd_abi::KD_DIM_N, 3, 2, 4]);
    let error = Bench::new_raw::<Stress>(&config, &taps).unwrap_err();
    assert!(error.message.contains("no size"), "{error}");
}

#[test]
fn a_panic_in_any_entry_is_reported_with_its_place() {
    for entry in ["create", "plan", "init_state", "forward", "backward"] {
        let config = json!({"panic_in": entry});
        let ran = bench(config).and_then(|mut bench| {
            let out = bench.forward()?;
            let d_map = vec![vec![0.0; out.maps[0].len()]];
            bench.backward(&out, &[1.0], &d_map)
        });
        let error = ran.unwrap_err();
        assert_eq!(
            (error.entry, error.status),
            (entry, kd_abi::KD_E_PANIC),
            "{error}"
        );
        assert!(
            error
                .message
                .contains(&format!("asked to panic in {entry}")),
            "{error}"
        );
        assert!(error.message.contains("contract.rs:"), "{error}");
    }
}

#[test]
fn an_instance_that_panicked_can_only_be_destroyed() {
    let mut bench = bench(json!({"panic_in": "forward", "odd_payload": true})).unwrap();
    let error = bench.forward().unwrap_err();
    assert_eq!(error.status, kd_abi::KD_E_PANIC);
    assert!(error.message.contains("not text"), "{error}");
    let error = bench.forward().unwrap_err();
    assert_eq!(error.status, kd_abi::KD_E_STATE, "{error}");
    assert_eq!(bench.init_state().unwrap_err().status, kd_abi::KD_E_STATE);
    let detail: Value = serde_json::from_str(&bench.log().errors[0].2).unwrap();
    assert_eq!(
        (&detail["method"], &detail["entry"]),
        (&json!("stress"), &json!("forward"))
    );
}

#[test]
fn a_panic_in_a_destructor_stays_inside() {
    let mut one = bench(json!({"panic_in": "release_saved"})).unwrap();
    drop(one.forward().unwrap());
    one.forward().unwrap();
    drop(bench(json!({"panic_in": "destroy"})).unwrap());
}

#[test]
fn an_error_keeps_its_status_and_does_not_poison() {
    let mut bench = bench(json!({"fail_in": "backward"})).unwrap();
    let out = bench.forward().unwrap();
    let d_map = vec![vec![0.0; out.maps[0].len()]];
    let error = bench.backward(&out, &[1.0], &d_map).unwrap_err();
    assert_eq!(error.status, kd_abi::KD_E_NUMERIC);
    assert_eq!(error.message, "asked to fail in backward");
    bench.forward().unwrap();
}

#[test]
fn cancelling_is_seen() {
    let mut bench = bench(json!({})).unwrap();
    bench.set_cancel(true);
    assert_eq!(bench.forward().unwrap_err().status, kd_abi::KD_E_CANCELLED);
    bench.set_cancel(false);
    bench.forward().unwrap();
}

#[test]
fn a_plan_that_contradicts_the_manifest_is_refused() {
    let error = bench(json!({"unknown_loss": true})).unwrap_err();
    assert_eq!((error.entry, error.status), ("plan", kd_abi::KD_E_INTERNAL));
    assert!(error.message.contains("`other`"), "{error}");
}

#[test]
#[expect(
    unsafe_code,
    reason = "calls the table with what a broken host would give"
)]
fn null_arguments_are_refused_without_a_crash() {
    use std::ptr::{null, null_mut};
    let table = kd_plugin::entry::table::<Stress>();
    // SAFETY: every entry checks for null before anything else.
    unsafe {
        let create = table.create.unwrap();
        assert_eq!(
            create(null(), kd_abi::KdStr::EMPTY, null_mut()),
            kd_abi::KD_E_INVALID_ARG
        );
        let forward = table.forward.unwrap();
        let status = forward(null_mut(), null(), null(), null_mut());
        assert_eq!(status, kd_abi::KD_E_INVALID_ARG);
        table.release_saved.unwrap()(null_mut(), null_mut());
        table.destroy.unwrap()(null_mut());
        assert!(table.get_extension.unwrap()(null_mut(), kd_abi::KdStr::new("no/1")).is_null());
    }
}
