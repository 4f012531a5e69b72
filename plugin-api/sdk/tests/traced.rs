//! Methods as programs: what they hold, that they equal the method, and what they refuse.

use kd_graph::Place;
use kd_plugin::burn::module::{Module, Param};
use kd_plugin::burn::nn::Initializer;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};
use kd_plugin::raw::TraceKind;
use kd_plugin::testkit::{Bench, TapShape, traced};
use kd_plugin::{
    Conv2d, DistillMethod, Inputs, MethodError, Outputs, Packed, Plan, TapPattern, Taps,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What `forward` does beside its loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Act {
    #[default]
    Nothing,
    IntoScalar,
    OneHot,
    Nonzero,
    Inner,
    Seed,
    Noise,
    Step,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Config {
    act: Act,
}

#[derive(Module, Debug)]
struct Parts {
    conv: Conv2d,
    scale: Param<Tensor<1>>,
    /// No gradient: a buffer.
    mean: Param<Tensor<1>>,
}

struct Everything;

impl DistillMethod for Everything {
    type Config = Config;
    type Module = Parts;

    const ID: &'static str = "everything";
    const TITLE: &'static str = "Everything";
    const DOC: &'static str = "Maps, losses, a statistic, a buffer, parameters and targets.";
    const TAPS: &'static [TapPattern] =
        &[TapPattern::student("neck.*"), TapPattern::teacher("neck.*")];
    const TARGETS: &'static [&'static str] = &["gt_boxes_xyxy", "gt_labels"];
    const LOSSES: &'static [&'static str] = &["loss_a", "loss_b"];
    const MAPS: &'static [&'static str] = &["map_p3"];
    const METRICS: &'static [&'static str] = &["labels"];

    fn plan(_: &Config, taps: &Taps, device: &Device) -> Result<Plan<Parts>, MethodError> {
        let channels = taps.pairs()?[0].0.shape[1] as usize;
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 0.5,
        };
        let mean: Param<Tensor<1>> = Initializer::Zeros.init([channels], device);
        let parts = Parts {
            conv: Conv2d::new(channels, channels, 3, device),
            scale: normal.init([channels], device),
            mean: mean.map(|mean| mean.set_require_grad(false)),
        };
        Ok(Plan::new(parts)
            .loss("loss_a", 1.0)
            .loss("loss_b", 0.5)
            .map("map_p3", "neck.p3"))
    }

    fn forward(
        config: &Config,
        parts: &Parts,
        inputs: &Inputs<'_>,
    ) -> Result<Outputs, MethodError> {
        let (student, teacher) = (inputs.student("neck.p3")?, inputs.teacher("neck.p3")?);
        let [_, c, _, _] = student.dims();
        let boxes: Tensor<2> = inputs.target("gt_boxes_xyxy")?;
        let labels = inputs.target_int::<1>("gt_labels")?;
        let packed = Packed::pack([student.clone()]);
        let map = parts.conv.forward_relu(&packed).group_norm_relu().level(0);
        let scale: Tensor<4> = parts.scale.val().reshape([1, c, 1, 1]);
        let mean: Tensor<4> = parts.mean.val().reshape([1, c, 1, 1]);
        let difference = (student.clone() - mean) * scale - teacher;
        let loss_a = difference.square().mean();
        let mut loss_b = (map.clone().mean() - boxes.mean()).abs();
        act(config.act, inputs, &labels, &mut loss_b);
        let next = student
            .detach()
            .mean_dim(0)
            .mean_dim(2)
            .mean_dim(3)
            .reshape([c]);
        Ok(Outputs::new()
            .loss("loss_a", loss_a)
            .loss("loss_b", loss_b)
            .map("map_p3", map)
            .metric("labels", labels.float().sum())
            .buffer("mean", next))
    }
}

fn act(act: Act, inputs: &Inputs<'_>, labels: &Tensor<1, burn::tensor::Int>, loss: &mut Tensor<1>) {
    match act {
        Act::Nothing => {}
        Act::IntoScalar => {
            let value = loss.clone().into_scalar::<f32>();
            *loss = loss.clone() * value;
        }
        Act::OneHot => {
            let rows: Tensor<2> = labels.clone().one_hot::<2>(4).float();
            *loss = loss.clone() + rows.sum();
        }
        Act::Nonzero => {
            let rows = labels.clone().greater_elem(0).nonzero();
            *loss = loss.clone() * rows.len() as f64;
        }
        Act::Inner => {
            let plain = loss.clone().inner();
            *loss = loss.clone() * plain;
        }
        Act::Seed => inputs.device().seed(1),
        Act::Noise => *loss = loss.clone() * inputs.noise("x").uniform([1]),
        Act::Step => *loss = loss.clone() * (inputs.call().step + 1) as f64,
    }
}

fn bench(act: Act) -> Bench {
    let taps = TapShape::pair("neck.p3", [2, 4, 5, 6], [2, 4, 5, 6]);
    let mut bench = Bench::new::<Everything>(&json!({ "act": act }), &taps).expect("a plan");
    bench.fill(3);
    bench.push_target(
        "gt_boxes_xyxy",
        &[3, 4],
        (0..12).map(|v| v as f32).collect(),
    );
    bench.push_target_ints(&[3], vec![0, 2, 1]);
    bench
}

fn upstream() -> Vec<Vec<f32>> {
    vec![
        (0..2 * 4 * 5 * 6)
            .map(|i| (i as f32 * 0.37).sin())
            .collect(),
    ]
}

#[test]
fn a_program_equals_its_method_to_the_bit() {
    for act in [Act::Nothing, Act::Noise, Act::Step] {
        for d_losses in [[1.0, 0.5], [0.25, 0.0], [0.0, 0.0]] {
            traced::check(&mut bench(act), &d_losses, &upstream())
                .unwrap_or_else(|difference| panic!("{act:?} {d_losses:?}: {difference}"));
        }
    }
}

#[test]
fn equal_extents_give_equal_bytes_and_the_call_is_noticed() {
    let program = |act, d| bench(act).program(TraceKind::Training, d).unwrap();
    let one = program(Act::Nothing, &[1.0, 0.5]);
    let other = program(Act::Nothing, &[0.5, 3.0]);
    assert_eq!(kd_graph::encode(&one), kd_graph::encode(&other));
    assert!(!one.depends_on_call);
    assert!(program(Act::Noise, &[1.0, 1.0]).depends_on_call);
    assert!(program(Act::Step, &[1.0, 1.0]).depends_on_call);
}

#[test]
fn a_forward_alone_has_no_gradients_and_initial_state_no_inputs() {
    let forward = bench(Act::Nothing)
        .program(TraceKind::Forward, &[0.0, 0.0])
        .unwrap();
    assert_eq!(forward.forward_len as usize, forward.operations.len());
    let backward = |place: &Place| matches!(place, Place::DTap(_) | Place::DParam(_));
    assert!(!forward.outputs.iter().any(|output| backward(&output.place)));
    let init = bench(Act::Nothing).program(TraceKind::Init, &[]).unwrap();
    assert!(init.inputs.is_empty());
    let places: Vec<&Place> = init.outputs.iter().map(|output| &output.place).collect();
    assert_eq!(places.len(), 4, "{places:?}");
}

#[test]
fn what_cannot_be_traced_is_refused_by_name_and_the_instance_lives_on() {
    for (act, operation, instead) in [
        (Act::IntoScalar, "into_scalar", "mask instead of branching"),
        (Act::OneHot, "one_hot", "compare the labels with `arange`"),
        (Act::Nonzero, "argwhere", "keep all rows"),
        (Act::Inner, "without_autodiff", "detach"),
        (Act::Seed, "seed", "inputs.noise"),
    ] {
        let mut bench = bench(act);
        let refused = bench.program(TraceKind::Training, &[1.0, 1.0]).unwrap_err();
        for word in ["cannot be traced", operation, instead, "traced::"] {
            assert!(refused.contains(word), "{act:?}: no `{word}` in: {refused}");
        }
        // Not poisoned: the initial state can still be had.
        bench.program(TraceKind::Init, &[]).unwrap();
    }
}
