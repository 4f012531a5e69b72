//! The step on any device: the form for other devices runs on the CPU backend here, and must do what
//! the kernels do.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};

use super::*;
use crate::config::{BoxLoss, Config, NormKind, OptimizerKind, Task, VitConfig};
use crate::data::{Loader, LoaderOptions, Split, open};
use crate::engine::assemble::{learner, restore};
use crate::engine::checkpoint::{Progress, Snapshot};
use crate::engine::evaluate::{EvaluationSet, evaluate};
use crate::engine::metrics_log::LogPosition;
use crate::eval::ByImage;
use crate::kernels::with_operations;
use crate::model;
use crate::state::StateDict;
use crate::values::into_vec;

const STEPS: u64 = 20;

/// A detector that takes milliseconds a step, at a learning rate that keeps two runs together: batch
/// normalisation over few cells magnifies a rounding tenfold in a few steps otherwise.
fn tiny() -> Config {
    let mut config = Config::base();
    config.data.batch_size = 4;
    config.data.workers = 0;
    config.data.shapes.num_train = 96;
    config.student.tiny_width = 8;
    config.student.fpn_channels = 16;
    config.student.head_convs = 1;
    config.student.anchor_base_size = 12;
    config.student.box_loss = BoxLoss::Giou;
    config.train.lr = 2e-4;
    config.train.warmup_iters = 4;
    config
}

/// Everything else than in [`tiny`] that a step can be made of.
fn tiny_with_sgd() -> Config {
    let mut config = tiny();
    config.data.transform.size = [64, 64];
    config.data.shapes.size = [64, 64];
    config.student.norm = NormKind::FrozenBatch;
    config.student.box_loss = BoxLoss::L1;
    config.train.optimizer = OptimizerKind::Sgd;
    config.train.lr = 0.01;
    config.train.norm_decay = 1e-4;
    config.train.grad_clip_norm = 1.0;
    config.train.grad_clip_value = 0.05;
    config.train.accumulate = 2;
    config.train.ema_decay = 0.9;
    config
}

/// [`tiny`] without anchors.
fn tiny_fcos() -> Config {
    let mut config = tiny();
    config.student.detector = "fcos".into();
    config.student.fcos.norm_groups = 4;
    config
}

/// A vision transformer.
fn tiny_vit() -> Config {
    let mut config = tiny();
    config.task = Task::Classification;
    config.student.classifier = "vit".into();
    config.student.vit = VitConfig {
        patch_size: 16,
        dim: 24,
        depth: 2,
        heads: 3,
        mlp_ratio: 2.0,
        image_size: config.data.transform.size.to_vec(),
    };
    config.train.lr = 1e-3;
    config
}

/// A run of [`STEPS`] in memory.
struct Run {
    learner: Learner,
    loader: Loader,
    accumulate: usize,
    /// Losses by step.
    losses: Vec<Vec<(String, f64)>>,
    norms: Vec<f64>,
}

impl Run {
    fn new(config: &Config) -> Self {
        let train = open(&config.data, config.task, Split::Train).unwrap();
        let detector = model::build(&config.student, config.task, train.classes().len()).unwrap();
        let options = LoaderOptions::training(&config.data, 0, detector.size_divisor());
        let detector: Arc<dyn Model> = Arc::from(detector);
        let lengths = [STEPS, STEPS];
        Run {
            learner: learner("test", config, &[], detector, Teachers::new(), lengths).unwrap(),
            loader: Loader::new(train, options).unwrap(),
            accumulate: config.train.accumulate,
            losses: Vec::new(),
            norms: Vec::new(),
        }
    }

    /// Does the steps of `range`.
    fn steps(&mut self, range: std::ops::Range<u64>) {
        for step in range {
            // Batches are those of the step, wherever the run was taken up.
            let (epoch, first) = (step / 10, (step % 10) as usize * self.accumulate);
            let batches = self.loader.epoch(epoch, first);
            let micro = batches.take(self.accumulate).map(Result::unwrap).collect();
            let at = StepPosition {
                step,
                total_steps: STEPS,
                epoch,
                seed: 0,
            };
            let report = self.learner.step(micro, at).unwrap();
            self.losses.push(report.losses);
            self.norms.push(report.grad_norm);
        }
    }

    fn snapshot(&self, iter: u64) -> Snapshot {
        Snapshot {
            progress: Progress {
                iter,
                epoch: 0,
                batch_in_epoch: 0,
                pretrain: None,
                seed: 0,
                config_hash: String::new(),
                plugins: BTreeMap::new(),
                finished: false,
                metrics: BTreeMap::new(),
                best: None,
                log: LogPosition::default(),
            },
            student: self.learner.weights.to_state(),
            optimizer: self.learner.optimizer.to_state(),
            method_optimizer: None,
            pretrain_optimizer: None,
            method: None,
            ema: self.learner.ema.as_ref().map(Ema::to_state),
        }
    }

    fn states(&self) -> [StateDict; 3] {
        let Snapshot {
            student,
            optimizer,
            ema,
            ..
        } = self.snapshot(0);
        [student, optimizer, ema.unwrap_or_default()]
    }
}

fn run(config: &Config, on_operations: bool) -> Run {
    with_operations(on_operations, || {
        let mut run = Run::new(config);
        run.steps(0..STEPS);
        run
    })
}

/// `‖a − b‖ / ‖b‖` over all arrays of a state.
fn distance(a: &StateDict, b: &StateDict) -> f64 {
    assert_eq!(a.entries.len(), b.entries.len());
    let (mut difference, mut norm) = (0.0, 0.0);
    for ((name, a), (other, b)) in a.entries.iter().zip(&b.entries) {
        assert_eq!((name, &a.shape), (other, &b.shape));
        for (&a, &b) in a.data.iter().zip(&b.data) {
            difference += f64::from(a - b).powi(2);
            norm += f64::from(b).powi(2);
        }
    }
    if difference == 0.0 {
        0.0
    } else {
        (difference / norm).sqrt()
    }
}

fn distances(a: &[StateDict; 3], b: &[StateDict; 3]) -> [f64; 3] {
    std::array::from_fn(|i| distance(&a[i], &b[i]))
}

/// Weights and average are those of another run up to roundings. What the optimizer keeps is made of
/// gradients, where an activation within a rounding of 0 is on one side in one run and on the other in
/// the other.
fn near([weights, optimizer, average]: &[f64; 3], what: &str) {
    assert!(*weights < 1e-3, "{what}: weights {weights}");
    assert!(*optimizer < 2e-2, "{what}: optimizer {optimizer}");
    assert!(*average < 1e-3, "{what}: average {average}");
}

/// The largest relative difference of a loss.
fn losses_differ(a: &Run, b: &Run) -> f64 {
    assert_eq!(a.losses.len(), b.losses.len());
    let mut largest = 0.0_f64;
    for (a, b) in a.losses.iter().flatten().zip(b.losses.iter().flatten()) {
        assert_eq!(a.0, b.0);
        largest = largest.max((a.1 / b.1 - 1.0).abs());
    }
    largest
}

#[test]
fn operations_of_any_device_learn_what_the_kernels_learn() {
    for (name, config) in [
        ("adamw", tiny()),
        ("sgd", tiny_with_sgd()),
        ("fcos", tiny_fcos()),
        ("vit", tiny_vit()),
    ] {
        let (kernels, operations) = (run(&config, false), run(&config, true));
        let losses = losses_differ(&operations, &kernels);
        let states = distances(&operations.states(), &kernels.states());
        println!("{name}: losses {losses:.1e}, weights, optimizer, average {states:?}");
        // Two orders of summation, twenty steps long.
        assert!(losses < 1e-3, "{name}: {losses}");
        near(&states, name);
        for (a, b) in operations.norms.iter().zip(&kernels.norms) {
            assert!((a / b - 1.0).abs() < 1e-3, "{name}: norms {a} {b}");
        }
        assert!(kernels.norms[0] != kernels.norms[1]);
    }
}

#[test]
fn from_one_state_a_step_differs_by_roundings_alone() {
    let mut config = tiny();
    config.student.box_loss = BoxLoss::L1;
    config.train.lr = 2e-3;
    let mut kernels = Run::new(&config);
    let mut close = 0;
    for step in 0..STEPS {
        let mut operations = Run::new(&config);
        restore(&mut operations.learner, &kernels.snapshot(step)).unwrap();
        with_operations(true, || operations.steps(step..step + 1));
        kernels.losses.clear();
        kernels.steps(step..step + 1);
        let losses = losses_differ(&operations, &kernels);
        assert!(losses < 1e-5, "step {step}: {losses}");
        // The first moment has a tenth of this step's gradient in it.
        let gradients = distance(&operations.states()[1], &kernels.states()[1]);
        close += u32::from(gradients < 1e-5);
        // An activation within a rounding of 0 is on one side here and on the other there.
        assert!(gradients < 2e-2, "step {step}: {gradients}");
    }
    assert!(close >= 14, "{close} of {STEPS}");
}

#[test]
fn maps_are_judged_and_images_evaluated_the_same_on_any_device() {
    for (config, losses) in [(tiny(), 2), (tiny_fcos(), 3)] {
        judge_and_evaluate(config, losses);
    }
}

fn judge_and_evaluate(mut config: Config, losses: usize) {
    // Below the probability that every anchor starts with.
    config.student.score_threshold = 0.005;
    let dataset = open(&config.data, config.task, Split::Val).unwrap();
    let results = [false, true].map(|on_operations| {
        with_operations(on_operations, || {
            // A few steps, so that something is detected.
            let mut run = Run::new(&config);
            run.steps(0..3);
            let weights = &run.learner.weights;
            let detector = run.learner.model.as_ref();
            let batch = run.loader.epoch(0, 0).next().unwrap().unwrap();
            let truth = Truth::of(detector, &batch);
            let mut sum = Accumulated {
                student: vec![None; detector.specs().len()],
                methods: Vec::new(),
                weightless: Vec::new(),
                losses: Vec::new(),
                metrics: Vec::new(),
                batch_stats: Vec::new(),
                times: StepTimes::default(),
                tap_gradients: BTreeMap::new(),
            };
            let maps = [16, 8, 4, 2, 1].map(|side| {
                let values = (0..4 * 16 * side * side).map(|i| (i as f32 * 0.7).sin());
                let data = TensorData::new(values.collect::<Vec<f32>>(), [4, 16, side, side]);
                Tensor::<4>::from_data(data, &weights.device())
            });
            let judge = Judge {
                student: detector,
                leaves: &weights.leaves(&|_| true),
                precision: Precision::F32,
                truth: &truth,
                suffix: "_maps",
                scale: 0.5,
                step: 0,
            };
            let gradients = judge.gradients(maps.to_vec(), &mut sum).unwrap();
            let maps: Vec<Vec<f32>> = gradients.into_iter().map(into_vec).collect();
            let head: Vec<Vec<f32>> = sum
                .student
                .into_iter()
                .flatten()
                .map(|g| g.into_vec())
                .collect();
            let set = EvaluationSet {
                dataset: &dataset,
                data: &config.data,
                eval: &config.eval,
            };
            let found = evaluate(detector, weights.tensors(), set).unwrap();
            let ByImage::Detection(found) = found.by_image else {
                panic!("a detector gives detections")
            };
            (maps, head, sum.losses, found)
        })
    });
    let [kernels, operations] = &results;
    for (a, b) in [(&kernels.0, &operations.0), (&kernels.1, &operations.1)] {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            let largest = a.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            let differ = a
                .iter()
                .zip(b)
                .fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(differ <= 1e-4 * largest, "{differ} of {largest}");
        }
    }
    assert_eq!((kernels.2.len(), operations.2.len()), (losses, losses));
    for (a, b) in kernels.2.iter().zip(&operations.2) {
        assert!(a.0 == b.0 && (a.1 / b.1 - 1.0).abs() < 1e-5, "{a:?} {b:?}");
    }
    assert!(!kernels.3.is_empty());
    assert_eq!(kernels.3.len(), operations.3.len());
}

#[test]
fn a_run_goes_on_from_its_checkpoint_on_any_device() {
    for config in [tiny(), tiny_with_sgd(), tiny_fcos(), tiny_vit()] {
        for (first, second) in [(true, true), (false, true), (true, false)] {
            let half = with_operations(first, || {
                let mut run = Run::new(&config);
                run.steps(0..10);
                run.snapshot(10)
            });
            let resumed = with_operations(second, || {
                let mut run = Run::new(&config);
                restore(&mut run.learner, &half).unwrap();
                run.steps(10..STEPS);
                run.states()
            });
            let straight = run(&config, second).states();
            assert!(first != second || resumed == straight, "to the bit");
            near(&distances(&resumed, &straight), "resumed");
            for (resumed, straight) in resumed.iter().zip(&straight) {
                assert_eq!(resumed.metadata, straight.metadata);
            }
        }
    }
}

#[test]
fn half_precision_learns_as_f32_does() {
    for config in [tiny(), tiny_fcos()] {
        learn_in_half_precision(config);
    }
}

fn learn_in_half_precision(mut config: Config) {
    config.train.lr = 2e-3;
    let full = run(&config, false);
    config.train.precision = Precision::Bf16;
    for on_operations in [false, true] {
        let half = run(&config, on_operations);
        let total = |losses: &[(String, f64)]| losses.iter().map(|(_, v)| v).sum::<f64>();
        let mean = |run: &Run, steps: std::ops::Range<usize>| {
            let count = steps.len() as f64;
            run.losses[steps].iter().map(|l| total(l)).sum::<f64>() / count
        };
        let (start, end) = (mean(&half, 0..5), mean(&half, 15..20));
        let reference = mean(&full, 15..20);
        let largest = losses_differ(&half, &full);
        println!("bf16 {on_operations}: {start:.3} to {end:.3}, f32 {reference:.3}, {largest:.1e}");
        assert!(end < 0.9 * start, "{start} to {end}");
        assert!(
            (end / reference - 1.0).abs() < 0.05,
            "{end}, f32 {reference}"
        );
        // Numbers of 8 bits did take part.
        assert!(largest > 1e-4);
        // Weights and what the optimizer keeps are f32: not every value is one of bf16.
        for state in half.states() {
            let values = || state.entries.values().flat_map(|array| &array.data);
            assert!(values().count() == 0 || values().any(|v| v.to_bits() & 0xffff != 0));
        }
    }
}

#[test]
fn a_micro_batch_has_its_own_seed_and_the_place_of_the_step() {
    let call = CallInfo {
        seed: 3,
        step: 7,
        epoch: 1,
        ..CallInfo::default()
    };
    let first = of_micro_batch(&call, 0);
    assert_eq!((first.step, first.epoch), (7, 1));
    assert_eq!(first.seed, of_micro_batch(&call, 0).seed);
    let with = |change: fn(&mut CallInfo)| {
        let mut other = call.clone();
        change(&mut other);
        of_micro_batch(&other, 0).seed
    };
    let others = [
        of_micro_batch(&call, 1).seed,
        with(|call| call.step += 1),
        with(|call| call.phase += 1),
        with(|call| call.stage += 1),
        with(|call| call.seed += 1),
    ];
    let all = [&[call.seed, first.seed], &others[..]].concat();
    let distinct: std::collections::BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
}
