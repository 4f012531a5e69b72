//! Everything a Burn method can declare and return, through the C tables.

use kd_plugin::burn::module::{Module, Param};
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self, nn};
use kd_plugin::schedule::{Phase, Until};
use kd_plugin::testkit::{Bench, EntryError, TapShape, gradcheck};
use kd_plugin::{DistillMethod, Inputs, MethodError, Outputs, Plan, Schedule, TapPattern, Taps};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Config {
    /// Leave out an output.
    forget: String,
    /// Panic on a worker thread.
    panic_in_pool: bool,
    /// Return a loss that does not depend on any leaf.
    constant: bool,
}

/// Generates a map from the student tap, reads targets and noise, keeps a moving average.
struct Full;

#[derive(Module, Debug)]
struct Parts {
    mix: nn::Linear,
    average: Param<Tensor<1>>,
    unused: Param<Tensor<2>>,
}

impl DistillMethod for Full {
    type Config = Config;
    type Module = Parts;
    const ID: &'static str = "full";
    const TITLE: &'static str = "full";
    const DOC: &'static str = "uses everything";
    const TAPS: &'static [TapPattern] =
        &[TapPattern::student("neck.*"), TapPattern::teacher("neck.*")];
    const TARGETS: &'static [&'static str] = &["gt_boxes_xyxy", "gt_labels"];
    const LOSSES: &'static [&'static str] = &["loss_map", "loss_box"];
    const MAPS: &'static [&'static str] = &["p3"];
    const METRICS: &'static [&'static str] = &["mean"];

    fn plan(_: &Config, taps: &Taps, device: &Device) -> Result<Plan<Parts>, MethodError> {
        let channels = taps.student("neck.p3")?.channels()?;
        let average = Param::from_tensor(Tensor::zeros([channels], device)).set_require_grad(false);
        let parts = Parts {
            mix: nn::LinearConfig::new(channels, channels).init(device),
            average,
            unused: Param::from_tensor(Tensor::ones([2, 2], device)),
        };
        let phases = vec![
            Phase {
                until: Some(Until::Iters(10)),
                distill_gradient: false,
                ..Phase::new("warm-up")
            },
            Phase::new("main"),
        ];
        Ok(Plan::new(parts)
            .loss("loss_map", 2.0)
            .loss("loss_box", 1.0)
            .map("p3", "neck.p3")
            .schedule(Schedule::single(phases)))
    }

    fn forward(
        config: &Config,
        parts: &Parts,
        inputs: &Inputs<'_>,
    ) -> Result<Outputs, MethodError> {
        kd_plugin::tracing::info!(step = inputs.call().step, "forward of {}", Self::ID);
        assert!(inputs.call().training);
        if config.panic_in_pool {
            std::thread::spawn(|| panic!("on a worker"))
                .join()
                .expect("the worker's panic");
        }
        let student = inputs.student("neck.p3")?;
        let teacher = inputs.teacher("neck.p3")?;
        let mask = inputs.noise("mask").uniform(student.dims());
        let mixed = parts.mix.forward(student.swap_dims(1, 3)).swap_dims(1, 3) * mask;
        let boxes = inputs.target::<2>("gt_boxes_xyxy")?;
        let labels = inputs.target_int::<1>("gt_labels")?.float();
        let channel_mean: Tensor<1> = teacher.mean_dims(&[0, 2, 3]).reshape([-1]);
        let average = parts.average.val() * 0.9 + channel_mean * 0.1;
        let mut loss = (mixed.clone() - 1.0).square().mean();
        if config.constant {
            loss = loss.detach();
        }
        let mut out = Outputs::new()
            .metric("mean", average.clone().mean())
            .buffer("average", average);
        if config.forget != "loss" {
            out = out.loss("loss_map", loss);
        }
        if config.forget != "map" {
            out = out.map("p3", mixed);
        }
        Ok(out.loss("loss_box", boxes.mean() + labels.mean()))
    }
}

fn bench(config: Value) -> Result<Bench, EntryError> {
    let taps = TapShape::pair("neck.p3", [2, 3, 4, 5], [2, 3, 4, 5]);
    let mut bench = Bench::new::<Full>(&config, &taps)?;
    bench.fill(6);
    bench.push_target(
        "gt_boxes_xyxy",
        &[2, 4],
        vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
    );
    bench.push_target_ints(&[2], vec![3, 4]);
    Ok(bench)
}

#[test]
fn the_plan_arrives_whole() {
    let bench = bench(json!({})).unwrap();
    let names: Vec<&str> = bench
        .params()
        .iter()
        .map(|(name, ..)| name.as_str())
        .collect();
    assert_eq!(names, ["mix.weight", "mix.bias", "unused"]);
    assert!(bench.params()[1].2.contains("bias"));
    assert_eq!(bench.losses()[0], ("loss_map".to_owned(), 2.0));
    let (name, shape, tap) = &bench.maps()[0];
    assert_eq!(
        (name.as_str(), shape.as_slice(), *tap),
        ("p3", [-1, 3, -2, -3].as_slice(), 0)
    );
    let schedule: Schedule = serde_json::from_str(bench.schedule().unwrap()).unwrap();
    assert_eq!(schedule.stages[0].phases[0].until, Some(Until::Iters(10)));
}

#[test]
fn gradients_of_losses_and_maps_agree_with_differences() {
    let mut bench = bench(json!({})).unwrap();
    gradcheck::check(&mut bench, &gradcheck::Options::default()).unwrap();
}

#[test]
fn targets_buffers_metrics_and_log_messages_arrive() {
    let mut bench = bench(json!({})).unwrap();
    let out = bench.forward().unwrap();
    // Mean box coordinate 4.5, mean label 3.5.
    assert_eq!(out.losses[1], 8.0);
    let teacher = bench.tap_mut(1).to_vec();
    let plane = |n: usize, c: usize| &teacher[(n * 3 + c) * 20..(n * 3 + c + 1) * 20];
    let mean = plane(0, 1).iter().chain(plane(1, 1)).sum::<f32>() / 40.0;
    assert!(
        (bench.buffer(0)[1] - 0.1 * mean).abs() < 1e-6,
        "{:?}",
        bench.buffer(0)
    );
    let (name, value) = &bench.log().metrics[0];
    let average = bench.buffer(0).iter().sum::<f32>() / 3.0;
    assert_eq!(name, "mean");
    assert!((value - f64::from(average)).abs() < 1e-6);
    let (level, target, message, fields) = &bench.log().messages[0];
    assert_eq!((*level, message.as_str()), (3, "forward of full"));
    assert!(target.contains("burn_level"), "{target}");
    assert_eq!(fields, r#"{"step":0}"#);
    // The next forward starts from the new value.
    bench.forward().unwrap();
    assert!(
        (bench.buffer(0)[1] - 0.19 * mean).abs() < 1e-6,
        "{:?}",
        bench.buffer(0)
    );
}

#[test]
fn noise_follows_the_seed() {
    let mut bench = bench(json!({})).unwrap();
    let map = |bench: &mut Bench, seed| {
        bench.set_seed(seed);
        bench.forward().unwrap().maps.clone()
    };
    assert_eq!(map(&mut bench, 4), map(&mut bench, 4));
    assert_ne!(map(&mut bench, 4), map(&mut bench, 5));
}

#[test]
fn what_the_loss_does_not_reach_gets_zero() {
    let mut one = bench(json!({})).unwrap();
    let out = one.forward().unwrap();
    let zeros = vec![vec![0.0; out.maps[0].len()]];
    let gradients = one.backward(&out, &[1.0, 1.0], &zeros).unwrap();
    assert_eq!(gradients.params[2], [0.0; 4]);
    assert!(gradients.params[0].iter().any(|g| *g != 0.0));

    let mut constant = bench(json!({"constant": true})).unwrap();
    let out = constant.forward().unwrap();
    let gradients = constant.backward(&out, &[1.0, 1.0], &zeros).unwrap();
    assert!(gradients.taps[0].iter().all(|g| *g == 0.0));
}

#[test]
fn a_forgotten_output_is_an_error_by_name() {
    for (what, name) in [("loss", "loss_map"), ("map", "p3")] {
        let error = bench(json!({"forget": what}))
            .unwrap()
            .forward()
            .unwrap_err();
        assert_eq!(error.status, 11, "{error}");
        assert!(
            error.message.contains(&format!("{what} `{name}`")),
            "{error}"
        );
    }
}

#[test]
fn a_panic_on_a_worker_ends_in_a_status() {
    let error = bench(json!({"panic_in_pool": true}))
        .unwrap()
        .forward()
        .unwrap_err();
    assert_eq!(error.status, 12, "{error}");
}
