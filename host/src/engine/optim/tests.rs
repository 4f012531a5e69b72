use serde::Deserialize;

use super::*;
use crate::values::{flat_tensor, into_vec};

/// Twenty updates; one rounding of f32 (6e-8) may differ per operation, where torch's vector code
/// fuses a multiplication with an addition and ours does not.
const TOLERANCE: f64 = 1e-6;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    lrs: Vec<f64>,
    decays: BTreeMap<String, f64>,
    frozen_until: BTreeMap<String, usize>,
    start: BTreeMap<String, Vec<f32>>,
    grads: BTreeMap<String, Vec<Vec<f32>>>,
    params: BTreeMap<String, Vec<Vec<f32>>>,
    state: BTreeMap<String, Vec<f32>>,
}

impl Case {
    fn algorithm(&self) -> Algorithm {
        match self.name.as_str() {
            "sgd_momentum" => Algorithm::Sgd { momentum: 0.9 },
            "sgd_plain" => Algorithm::Sgd { momentum: 0.0 },
            "adamw" => Algorithm::AdamW {
                betas: [0.9, 0.99],
                eps: 1e-8,
            },
            other => panic!("no such case: {other}"),
        }
    }

    fn lengths(&self) -> BTreeMap<String, usize> {
        let lengths = self.start.iter().map(|(n, v)| (n.clone(), v.len()));
        lengths.collect()
    }

    fn step(
        &self,
        step: usize,
        optimizer: &mut Optimizer,
        params: &mut BTreeMap<String, Vec<f32>>,
    ) {
        optimizer.begin_step();
        for (name, param) in params {
            if step >= self.frozen_until[name] {
                let grad = &self.grads[name][step];
                optimizer.update(name, param, grad, self.lrs[step], self.decays[name]);
            }
        }
    }

    fn step_on_device(
        &self,
        step: usize,
        optimizer: &mut Optimizer,
        params: &mut BTreeMap<String, Vec<f32>>,
    ) {
        optimizer.begin_step();
        for (name, param) in params {
            if step >= self.frozen_until[name] {
                let grad = flat_tensor(self.grads[name][step].clone());
                let old = flat_tensor(param.clone());
                let (lr, decay) = (self.lrs[step], self.decays[name]);
                *param = into_vec(optimizer.updated(name, old, grad, lr, decay));
            }
        }
    }
}

fn golden() -> Vec<Case> {
    let text = include_str!("../../../../tests/golden/optim/optim_golden.json");
    serde_json::from_str::<Golden>(text).unwrap().cases
}

fn relative_error(out: &[f32], reference: &[f32]) -> f64 {
    assert_eq!(out.len(), reference.len());
    let square = |v: f64| v * v;
    let difference: f64 = out
        .iter()
        .zip(reference)
        .map(|(&a, &b)| square(f64::from(a) - f64::from(b)))
        .sum();
    let norm: f64 = reference.iter().map(|&b| square(f64::from(b))).sum();
    (difference / norm).sqrt()
}

#[test]
fn every_step_is_torchs() {
    for case in golden() {
        let mut optimizer = Optimizer::new(case.algorithm());
        let mut params = case.start.clone();
        for step in 0..case.lrs.len() {
            case.step(step, &mut optimizer, &mut params);
            for (name, param) in &params {
                let error = relative_error(param, &case.params[name][step]);
                assert!(error < TOLERANCE, "{} {name} {step}: {error}", case.name);
            }
        }
        let state = optimizer.to_state();
        for (key, reference) in &case.state {
            let ours = key.replace("momentum_buffer.", "momentum.");
            let error = relative_error(&state.entries[&ours].data, reference);
            assert!(error < TOLERANCE, "{} {key}: {error}", case.name);
        }
        assert_eq!(state.entries.len(), case.state.len(), "{}", case.name);
    }
}

#[test]
fn a_resumed_optimizer_goes_on_bit_for_bit() {
    for case in golden() {
        let mut straight = Optimizer::new(case.algorithm());
        let mut params = case.start.clone();
        for step in 0..9 {
            case.step(step, &mut straight, &mut params);
        }
        let bytes = straight.to_state().to_bytes();
        let file = StateDict::from_bytes(&bytes, "optimizer.safetensors".as_ref()).unwrap();
        let mut resumed = Optimizer::new(case.algorithm());
        resumed.load_state(&file, &case.lengths()).unwrap();
        assert_eq!(resumed.steps(), 9);
        let mut again = params.clone();
        for step in 9..20 {
            case.step(step, &mut straight, &mut params);
            case.step(step, &mut resumed, &mut again);
        }
        assert_eq!(params, again, "{}", case.name);
        assert_eq!(straight.to_state(), resumed.to_state(), "{}", case.name);
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let length = 3 * CHUNK + 1;
    let grad: Vec<f32> = (0..length).map(|i| (i as f32 * 0.37).sin()).collect();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let betas = [0.9, 0.999];
            let mut optimizer = Optimizer::new(Algorithm::AdamW { betas, eps: 1e-8 });
            let mut param = vec![1.0f32; length];
            for _ in 0..3 {
                optimizer.begin_step();
                optimizer.update("p", &mut param, &grad, 0.1, 0.01);
            }
            param
        })
    };
    assert!(run(1) == run(3));
}

#[test]
fn a_state_that_does_not_fit_is_refused_by_name() {
    let mut optimizer = Optimizer::new(Algorithm::Sgd { momentum: 0.9 });
    optimizer.begin_step();
    optimizer.update("fc.weight", &mut [1.0, 2.0], &[0.1, 0.2], 0.1, 0.0);
    let state = optimizer.to_state();
    let refuse = |state: &StateDict, lengths: &[(&str, usize)]| {
        let lengths = lengths.iter().map(|(n, l)| ((*n).to_owned(), *l)).collect();
        let mut fresh = Optimizer::new(Algorithm::Sgd { momentum: 0.9 });
        let message = fresh.load_state(state, &lengths).unwrap_err().to_string();
        assert_eq!(fresh, Optimizer::new(Algorithm::Sgd { momentum: 0.9 }));
        message
    };
    let message = refuse(&state, &[("fc.weight", 3)]);
    assert!(
        message.contains("`momentum.fc.weight` has 2 values"),
        "{message}"
    );
    let message = refuse(&state, &[("other", 2)]);
    assert!(
        message.contains("`fc.weight` belongs to no parameter"),
        "{message}"
    );
    let mut half = state.clone();
    half.entries.clear();
    let message = refuse(&half, &[("fc.weight", 2)]);
    assert!(message.contains("lacks `momentum.fc.weight`"), "{message}");
    let mut stray = state.clone();
    let array = stray.entries["momentum.fc.weight"].clone();
    stray.entries.insert("momentum.ghost".into(), array);
    let message = refuse(&stray, &[("fc.weight", 2)]);
    assert!(message.contains("`momentum.ghost`"), "{message}");
    let mut other = state;
    other.metadata.insert("algorithm".into(), "adamw".into());
    let message = refuse(&other, &[("fc.weight", 2)]);
    assert!(message.contains("is of `adamw`"), "{message}");
}

#[test]
fn updates_on_a_device_are_torchs_too_and_states_go_either_way() {
    for case in golden() {
        let mut on_device = Optimizer::new(case.algorithm());
        // Every second step elsewhere: what a checkpoint does once a run.
        let mut mixed = Optimizer::new(case.algorithm());
        let mut params = case.start.clone();
        let mut mixed_params = case.start.clone();
        for step in 0..case.lrs.len() {
            for (optimizer, params, here) in [
                (&mut on_device, &mut params, false),
                (&mut mixed, &mut mixed_params, step % 2 == 0),
            ] {
                if here {
                    case.step(step, optimizer, params);
                } else {
                    case.step_on_device(step, optimizer, params);
                }
                for (name, param) in &*params {
                    let error = relative_error(param, &case.params[name][step]);
                    assert!(error < TOLERANCE, "{} {name} {step}: {error}", case.name);
                }
            }
        }
        for state in [on_device.to_state(), mixed.to_state()] {
            for (key, reference) in &case.state {
                let ours = key.replace("momentum_buffer.", "momentum.");
                let error = relative_error(&state.entries[&ours].data, reference);
                assert!(error < TOLERANCE, "{} {key}: {error}", case.name);
            }
            let mut again = Optimizer::new(case.algorithm());
            again.load_state(&state, &case.lengths()).unwrap();
            assert_eq!(again.to_state(), state);
        }
    }
}
