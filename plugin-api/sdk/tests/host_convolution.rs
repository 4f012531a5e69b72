//! [`Conv2d`] on the host's kernels against the same on Burn's: values and every gradient.

use kd_abi::KD_E_PANIC;
use kd_plugin::burn;
use kd_plugin::burn::module::{Module, Param};
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::testkit::{Bench, Gradients, TapShape, gradcheck, relative_error};
use kd_plugin::{
    Conv2d, DistillMethod, Inputs, MethodError, Outputs, Packed, Plan, TapPattern, Taps,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Sums of f32 against the fake host's in f64.
const TOLERANCE: f64 = 2e-6;

const SHAPES: [[usize; 4]; 3] = [[2, 3, 5, 4], [2, 3, 3, 2], [2, 3, 1, 1]];
const LOSSES: [&str; 6] = [
    "loss_both",
    "loss_x_constant",
    "loss_weight_constant",
    "loss_detached",
    "loss_shared",
    "loss_view",
];

#[derive(Default, Serialize, Deserialize, JsonSchema)]
struct Config {
    /// No ReLU, whose kinks differences step over, and nothing detached, which they do not see.
    smooth: bool,
}

/// A loss for each way in which maps and weights may be constants.
struct Convolving;

#[derive(Module, Debug)]
struct Parts {
    wide: Conv2d,
    narrow: Conv2d,
    frozen: Conv2d,
    scale: Param<Tensor<1>>,
}

impl DistillMethod for Convolving {
    type Config = Config;
    type Module = Parts;
    const ID: &'static str = "convolving";
    const TITLE: &'static str = "convolving";
    const DOC: &'static str = "convolves taps";
    const TAPS: &'static [TapPattern] =
        &[TapPattern::student("neck.*"), TapPattern::teacher("neck.*")];
    const LOSSES: &'static [&'static str] = &LOSSES;

    fn plan(_: &Config, _: &Taps, device: &Device) -> Result<Plan<Parts>, MethodError> {
        let parts = Parts {
            wide: Conv2d::new(3, 5, 3, device),
            narrow: Conv2d::new(5, 3, 1, device),
            frozen: Conv2d::new(3, 4, 5, device).no_grad(),
            scale: Param::from_tensor(Tensor::ones([1], device)),
        };
        Ok(LOSSES
            .iter()
            .fold(Plan::new(parts), |plan, name| plan.loss(name, 1.0)))
    }

    fn forward(
        config: &Config,
        parts: &Parts,
        inputs: &Inputs<'_>,
    ) -> Result<Outputs, MethodError> {
        let (mut student, mut teacher) = (Vec::new(), Vec::new());
        for pair in inputs.pairs()? {
            student.push(pair.student);
            teacher.push(pair.teacher);
        }
        let (student, teacher) = (Packed::pack(student), Packed::pack(teacher));
        // Unequal weights of the terms, so that no gradient is the same everywhere.
        let loss = |x: &Packed| (x.cells().sin() + x.cells().square() * 0.3).mean();
        let convolve = |conv: &Conv2d, x: &Packed| match config.smooth {
            true => conv.forward(x),
            false => conv.forward_relu(x),
        };
        let wide = convolve(&parts.wide, &student);
        let constant = match config.smooth {
            true => wide.clone(),
            false => wide.detach(),
        };
        // The values of the maps, dealt out to other cells: a matrix whose rows are not contiguous.
        let [cells, channels] = student.cells().dims();
        let view = student.with(student.cells().reshape([channels, cells]).transpose());
        Ok(Outputs::new()
            .loss("loss_both", loss(&parts.narrow.forward(&wide)))
            .loss("loss_x_constant", loss(&parts.wide.forward(&teacher)))
            .loss(
                "loss_weight_constant",
                loss(&convolve(&parts.frozen, &student)),
            )
            .loss(
                "loss_detached",
                loss(&convolve(&parts.narrow, &constant)) * parts.scale.val(),
            )
            // The result is read three times; gradients add up.
            .loss(
                "loss_shared",
                loss(&wide.with(wide.cells() * wide.cells().tanh())),
            )
            .loss("loss_view", loss(&convolve(&parts.wide, &view))))
    }
}

fn bench(offered: bool, smooth: bool) -> Bench {
    let taps: Vec<TapShape> = SHAPES
        .iter()
        .enumerate()
        .flat_map(|(at, shape)| TapShape::pair(&format!("neck.p{}", at + 3), *shape, *shape))
        .collect();
    let mut bench =
        Bench::new::<Convolving>(&json!({"smooth": smooth}), &taps).expect("a sound plan");
    bench.fill(9);
    bench.offer_convolution(offered);
    bench
}

/// Losses, and the gradients of each.
fn run(bench: &mut Bench) -> (Vec<f32>, Vec<Gradients>) {
    let losses = bench.forward().expect("forward runs").losses.clone();
    let gradients = (0..LOSSES.len()).map(|slot| {
        let mut upstream = vec![0.0; LOSSES.len()];
        upstream[slot] = 1.0;
        let out = bench.forward().expect("forward runs");
        bench.backward(&out, &upstream, &[]).expect("backward runs")
    });
    (losses, gradients.collect())
}

fn assert_close(what: &str, got: &[f32], want: &[f32]) {
    let want: Vec<f64> = want.iter().map(|&v| f64::from(v)).collect();
    let error = relative_error(got, &want);
    assert!(error < TOLERANCE, "{what}: off by {error:e}");
}

#[test]
fn values_and_gradients_agree_with_burn() {
    for smooth in [false, true] {
        let (mut host, mut burn) = (bench(true, smooth), bench(false, smooth));
        let (losses, gradients) = run(&mut host);
        let (expected_losses, expected) = run(&mut burn);
        assert_eq!(burn.convolutions(), [0, 0]);
        // Six convolutions in each of seven forwards.
        assert_eq!(host.convolutions()[0], 42);
        assert_close("losses", &losses, &expected_losses);
        for ((loss, got), want) in LOSSES.iter().zip(&gradients).zip(&expected) {
            for (slot, (got, want)) in got.taps.iter().zip(&want.taps).enumerate() {
                assert_close(&format!("{loss}, smooth {smooth}, tap {slot}"), got, want);
            }
            for (slot, (got, want)) in got.params.iter().zip(&want.params).enumerate() {
                assert_close(&format!("{loss}, smooth {smooth}, param {slot}"), got, want);
            }
        }
    }
}

#[test]
fn only_convolutions_that_a_gradient_passes_run_backward() {
    let mut bench = bench(true, false);
    let mut count = |slot: usize| {
        let mut upstream = [0.0; LOSSES.len()];
        upstream[slot] = 1.0;
        let out = bench.forward().unwrap();
        let before = bench.convolutions()[1];
        bench.backward(&out, &upstream, &[]).unwrap();
        bench.convolutions()[1] - before
    };
    let counts: Vec<usize> = (0..LOSSES.len()).map(&mut count).collect();
    assert_eq!(counts, [2, 1, 1, 1, 1, 1]);
}

#[test]
fn gradients_on_the_host_agree_with_differences() {
    let mut bench = bench(true, true);
    gradcheck::check(&mut bench, &gradcheck::Options::default()).unwrap();
}

#[test]
fn a_backward_without_the_host_that_computed_forward_says_so() {
    let mut bench = bench(true, false);
    let out = bench.forward().unwrap();
    bench.offer_convolution(false);
    let error = bench.backward(&out, &[1.0; LOSSES.len()], &[]).unwrap_err();
    assert_eq!(error.status, KD_E_PANIC);
    assert!(error.message.contains("kd.conv/1"), "{}", error.message);
}
