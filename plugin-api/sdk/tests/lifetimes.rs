//! Host memory is lent, never written, and given back when the saved state is released.
//!
//! One test, because the number of live views is counted for the whole process.

use kd_plugin::burn::{self, module::Module, module::Param, tensor::Device, tensor::Tensor};
use kd_plugin::live_views;
use kd_plugin::testkit::{Bench, TapShape};
use kd_plugin::{DistillMethod, Inputs, MethodError, NoConfig, Outputs, Plan, TapPattern, Taps};
use serde_json::json;

/// Consumes every imported tensor by operations that Burn runs in place when it can.
struct InPlace;

#[derive(Module, Debug)]
struct Parts {
    scale: Param<Tensor<4>>,
}

impl DistillMethod for InPlace {
    type Config = NoConfig;
    type Module = Parts;
    const ID: &'static str = "in_place";
    const TITLE: &'static str = "in place";
    const DOC: &'static str = "in place";
    const TAPS: &'static [TapPattern] =
        &[TapPattern::student("neck.*"), TapPattern::teacher("neck.*")];
    const TARGETS: &'static [&'static str] = &["gt_boxes_xyxy"];
    const LOSSES: &'static [&'static str] = &["loss"];

    fn plan(_: &NoConfig, _: &Taps, device: &Device) -> Result<Plan<Parts>, MethodError> {
        let scale = Param::from_tensor(Tensor::ones([1, 2, 1, 1], device));
        Ok(Plan::new(Parts { scale }).loss("loss", 1.0))
    }

    fn forward(_: &NoConfig, parts: &Parts, inputs: &Inputs<'_>) -> Result<Outputs, MethodError> {
        let overwrite = |x: Tensor<4>| {
            let x = x + 1.0;
            let x = x.mul_scalar(3.0).clamp(-2.0, 2.0).exp();
            x.slice_fill([0..1, 0..1, 0..1, 0..1], 7.0)
                .neg()
                .abs()
                .sqrt()
        };
        let student = overwrite(inputs.student("neck.p3")?);
        let teacher = overwrite(inputs.teacher("neck.p3")?);
        let scale = overwrite(parts.scale.val());
        let boxes = inputs.target::<2>("gt_boxes_xyxy")?.mul_scalar(2.0).sin();
        if boxes.dims()[0] == 0 {
            return Err(MethodError::shape("no objects"));
        }
        let loss = ((student - teacher) * scale).square().mean() + boxes.mean();
        Ok(Outputs::new().loss("loss", loss))
    }
}

fn bench(objects: usize) -> Bench {
    let taps = TapShape::pair("neck.p3", [2, 2, 5, 4], [2, 2, 5, 4]);
    let mut bench = Bench::new::<InPlace>(&json!({}), &taps).expect("a plan for these taps");
    bench.fill(3);
    bench.push_target(
        "gt_boxes_xyxy",
        &[objects as i64, 4],
        vec![2.0; objects * 4],
    );
    bench
}

fn bytes(bench: &mut Bench) -> Vec<u32> {
    let mut all = bench.tap_mut(0).to_vec();
    all.extend_from_slice(bench.tap_mut(1));
    all.extend_from_slice(bench.param_mut("scale"));
    all.into_iter().map(f32::to_bits).collect()
}

#[test]
fn memory_is_lent_unwritten_and_given_back() {
    let mut bench1 = bench(3);
    let before = bytes(&mut bench1);

    // Two forwards outstanding, as with gradient accumulation.
    let first = bench1.forward().unwrap();
    assert!(live_views() > 0, "taps were copied instead of borrowed");
    let second = bench1.forward().unwrap();
    let gradients = bench1.backward(&first, &[1.0], &[]).unwrap();
    assert!(gradients.taps[0].iter().any(|g| *g != 0.0));
    let again = bench1.backward(&second, &[1.0], &[]).unwrap();
    assert_eq!(gradients, again);
    drop((first, second));
    assert_eq!(live_views(), 0, "after backward and release");

    // A forward that nobody differentiates.
    for _ in 0..5 {
        drop(bench1.forward().unwrap());
        assert_eq!(live_views(), 0, "after release without backward");
    }

    // A second backward on the same forward.
    let third = bench1.forward().unwrap();
    bench1.backward(&third, &[1.0], &[]).unwrap();
    let error = bench1.backward(&third, &[1.0], &[]).unwrap_err();
    assert_eq!(error.status, 10, "{error}");
    drop(third);

    // A forward that fails after its graph was built.
    let mut bench2 = bench(0);
    assert_eq!(bench2.forward().unwrap_err().status, 4);
    assert_eq!(live_views(), 0, "after a failed forward");

    assert_eq!(before, bytes(&mut bench1), "the host's memory was written");
}
