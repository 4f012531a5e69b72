//! One method, bound to a student (and a teacher), with its weights; asked once a micro-batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};

use crate::config::{DistillConfig, check_plugin_config};
use crate::data::Batch;
use crate::model::Detector;
use crate::plugin::{
    ArrayMut, CallInfo, Library, LossSpec, Method, MethodManifest, Plan, TapBinding, TensorArg,
    TensorSpec,
};
use crate::state::{Array, StateDict};

use super::DistillError;
use super::schedule::Schedule;
use super::tap_view::TapView;
use super::taps::{self, STUDENT, TEACHER};
use super::targets::{self, Target, TargetValues};

/// A bound method with its parameters and buffers.
pub struct Distiller {
    method: Method,
    manifest: MethodManifest,
    bindings: Vec<TapBinding>,
    plan: Plan,
    loss_weights: Vec<f64>,
    params: Vec<Array>,
    buffers: Vec<Array>,
}

/// What a method answered for one micro-batch.
#[derive(Debug)]
pub struct DistillStep {
    /// Loss names and values before weighting, in the plan's order.
    pub losses: Vec<(String, f32)>,
    /// Gradient of the weighted sum at student taps, plain device.
    pub tap_gradients: Vec<(String, Tensor<4>)>,
    /// Gradient of the weighted sum at the method's parameters, in the plan's order.
    pub param_gradients: Vec<Vec<f32>>,
    /// Statistics the method reported.
    pub metrics: Vec<(String, f64)>,
    /// Time inside `forward`.
    pub forward: Duration,
    /// Time inside `backward`.
    pub backward: Duration,
    /// Time of everything else on this side: views, output buffers, checks.
    pub boundary: Duration,
}

/// The models a method is bound to.
#[derive(Clone, Copy)]
pub struct Models<'a> {
    /// The model to deploy.
    pub student: &'a dyn Detector,
    /// The model to learn from.
    pub teacher: Option<&'a dyn Detector>,
}

/// The manifest of the method that `config` names (empty: the plugin's only one).
///
/// # Errors
/// If the plugin has no such method.
pub fn method_manifest(library: &Library, id: &str) -> Result<MethodManifest, DistillError> {
    match library.method_manifest(id) {
        Some(manifest) => Ok(manifest.clone()),
        None => Err(DistillError::UnknownMethod {
            plugin: library.manifest().plugin.clone(),
            method: id.into(),
            known: taps::names(library.manifest().methods.iter().map(|m| m.id.as_str())),
        }),
    }
}

impl Distiller {
    /// Creates the method, binds its taps and targets, plans, and initialises its parameters from
    /// `call.seed`.
    ///
    /// # Errors
    /// If the configuration, a tap, a target, a loss weight or the plan is refused, or the plugin
    /// fails.
    pub fn bind(
        library: &Arc<Library>,
        config: &DistillConfig,
        models: Models<'_>,
        call: &CallInfo,
    ) -> Result<Self, DistillError> {
        let manifest = method_manifest(library, &config.method)?;
        let config_json =
            check_plugin_config(&manifest.config_schema, &config.config, &manifest.id)?;
        let bindings = taps::bind(&manifest, models.student, models.teacher, &config.taps)?;
        for target in &manifest.targets {
            if targets::find(target).is_none() {
                return Err(DistillError::UnknownTarget {
                    method: manifest.id.clone(),
                    target: target.to_string(),
                    known: targets::known(),
                });
            }
        }
        let mut method = Method::create(library, &manifest.id, &config_json, call)?;
        let plan = method.plan(&bindings, call)?;
        if !plan.maps.is_empty() {
            return Err(DistillError::Plan {
                method: manifest.id.clone(),
                reason: "it generates maps, which this host does not run through the head yet"
                    .into(),
            });
        }
        let loss_weights = loss_weights(&manifest, &plan.losses, config)?;
        let zeros = |spec: &TensorSpec| Array {
            shape: spec.shape.clone(),
            data: vec![0.0; spec.shape.iter().product()],
        };
        let mut params: Vec<Array> = plan.params.iter().map(zeros).collect();
        let mut buffers: Vec<Array> = plan.buffers.iter().map(zeros).collect();
        method.init_state(
            call,
            &mut array_muts(&mut params),
            &mut array_muts(&mut buffers),
        )?;
        for (spec, array) in plan
            .params
            .iter()
            .zip(&params)
            .chain(plan.buffers.iter().zip(&buffers))
        {
            method.check_finite("init_state", &format!("`{}`", spec.name), &array.data)?;
        }
        Ok(Distiller {
            method,
            manifest,
            bindings,
            plan,
            loss_weights,
            params,
            buffers,
        })
    }

    /// Id of the method.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.manifest.id
    }

    /// The bound taps.
    #[must_use]
    pub fn bindings(&self) -> &[TapBinding] {
        &self.bindings
    }

    /// Names of the taps that the method uses of the model in `role`.
    #[must_use]
    pub fn tap_names(&self, role: &str) -> Vec<String> {
        self.bindings
            .iter()
            .zip(&self.plan.tap_use)
            .filter(|(binding, used)| binding.role == role && **used != 0)
            .map(|(binding, _)| binding.name.clone())
            .collect()
    }

    /// True if the method reads a teacher.
    #[must_use]
    pub fn uses_teacher(&self) -> bool {
        !self.tap_names(TEACHER).is_empty()
    }

    /// Losses with the weight each has in the total.
    pub fn losses(&self) -> impl Iterator<Item = (&str, f64)> {
        self.plan
            .losses
            .iter()
            .map(|l| l.name.as_str())
            .zip(self.loss_weights.iter().copied())
    }

    /// Names of the learned parameters, in the order of [`DistillStep::param_gradients`].
    pub fn param_names(&self) -> impl Iterator<Item = &str> {
        self.plan.params.iter().map(|p| p.name.as_str())
    }

    /// The learned parameters, in the plan's order.
    pub fn params_mut(&mut self) -> &mut [Array] {
        &mut self.params
    }

    /// The phases the method asks for, placed in a run.
    ///
    /// # Errors
    /// If the declared schedule breaks the schema or asks for what this host cannot do.
    pub fn schedule(
        &self,
        total_steps: u64,
        steps_per_epoch: u64,
    ) -> Result<Schedule, DistillError> {
        match &self.plan.schedule_json {
            None => Ok(Schedule::single(total_steps)),
            Some(json) => Schedule::parse(json, total_steps, steps_per_epoch).map_err(|reason| {
                DistillError::Schedule {
                    method: self.manifest.id.clone(),
                    reason,
                }
            }),
        }
    }

    /// Parameters and buffers by name, for a checkpoint.
    #[must_use]
    pub fn to_state(&self) -> StateDict {
        let mut state = StateDict::default();
        for (spec, array) in self.plan.params.iter().zip(&self.params) {
            state
                .entries
                .insert(format!("param.{}", spec.name), array.clone());
        }
        for (spec, array) in self.plan.buffers.iter().zip(&self.buffers) {
            state
                .entries
                .insert(format!("buffer.{}", spec.name), array.clone());
        }
        state
    }

    /// Takes parameters and buffers from a checkpoint.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub fn load_state(&mut self, state: &StateDict) -> Result<(), DistillError> {
        let id = self.manifest.id.clone();
        let params = self
            .plan
            .params
            .iter()
            .zip(&mut self.params)
            .map(|(s, a)| ("param", s, a));
        let buffers = self
            .plan
            .buffers
            .iter()
            .zip(&mut self.buffers)
            .map(|(s, a)| ("buffer", s, a));
        for (kind, spec, array) in params.chain(buffers) {
            let saved = state.entries.get(&format!("{kind}.{}", spec.name));
            match saved {
                Some(saved) if saved.shape == array.shape => array.data.clone_from(&saved.data),
                _ => {
                    return Err(DistillError::Plan {
                        method: id,
                        reason: format!(
                            "the checkpoint has {} for {kind} `{}`, expected shape {:?}",
                            saved.map_or("nothing".into(), |s| format!("shape {:?}", s.shape)),
                            spec.name,
                            array.shape
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    /// Runs the method on one micro-batch.
    ///
    /// The gradients are those of `scale * sum(weight * loss)`.
    ///
    /// # Errors
    /// If an entry fails, or a loss or gradient is not finite.
    ///
    /// # Panics
    /// If a tap that the method uses is missing from `student` or `teacher`: a bug of the engine.
    pub fn step(
        &mut self,
        call: &CallInfo,
        student: &BTreeMap<String, Tensor<4>>,
        teacher: &BTreeMap<String, Tensor<4>>,
        batch: &Batch,
        scale: f32,
    ) -> Result<DistillStep, DistillError> {
        let started = Instant::now();
        let views: Vec<Option<TapView>> = self
            .bindings
            .iter()
            .zip(&self.plan.tap_use)
            .map(|(binding, used)| {
                let from = if binding.role == STUDENT {
                    student
                } else {
                    teacher
                };
                (*used != 0).then(|| {
                    TapView::new(
                        from.get(&binding.name)
                            .expect("the engine requests every used tap"),
                    )
                })
            })
            .collect();
        let targets: Vec<Target> = self
            .manifest
            .targets
            .iter()
            .map(|name| (targets::find(name).expect("targets were checked at bind time"))(batch))
            .collect();
        // A tap that the plan does not use crosses without elements.
        let absent: Vec<[usize; 4]> = self
            .bindings
            .iter()
            .map(|b| [0, b.channels, 0, 0])
            .collect();
        let tap_args: Vec<TensorArg<'_>> = views
            .iter()
            .zip(&absent)
            .map(|(view, absent)| match view {
                Some(view) => TensorArg::f32(view.shape(), view.values()),
                None => TensorArg::f32(absent, &[]),
            })
            .collect();
        let target_args: Vec<TensorArg<'_>> = targets.iter().map(target_arg).collect();
        let mut losses = vec![0.0f32; self.plan.losses.len()];

        let param_args: Vec<TensorArg<'_>> = self.params.iter().map(array_arg).collect();
        let clock = Instant::now();
        let mut saved = self.method.forward(
            call,
            &tap_args,
            &param_args,
            &mut array_muts(&mut self.buffers),
            &target_args,
            &mut losses,
            &mut [],
        )?;
        let forward = clock.elapsed();
        for (spec, value) in self.plan.losses.iter().zip(&losses) {
            let value = std::slice::from_ref(value);
            let loss = format!("loss `{}`", spec.name);
            self.method.check_finite("forward", &loss, value)?;
        }

        let mut d_taps: Vec<Option<Array>> = self
            .bindings
            .iter()
            .zip(&views)
            .zip(&self.plan.tap_use)
            .map(|((binding, view), used)| {
                let view = view.as_ref()?;
                (binding.grad && used & kd_abi::KD_USE_GRAD != 0).then(|| Array {
                    shape: view.shape().to_vec(),
                    data: vec![0.0; view.values().len()],
                })
            })
            .collect();
        let mut d_params: Vec<Array> = self
            .params
            .iter()
            .map(|p| Array {
                shape: p.shape.clone(),
                data: vec![0.0; p.data.len()],
            })
            .collect();
        let d_losses: Vec<f32> = self
            .loss_weights
            .iter()
            .map(|w| *w as f32 * scale)
            .collect();
        let clock = Instant::now();
        self.method.backward(
            call,
            &tap_args,
            &param_args,
            &d_losses,
            &[],
            &mut d_taps
                .iter_mut()
                .map(|a| a.as_mut().map(array_mut))
                .collect::<Vec<Option<ArrayMut<'_>>>>(),
            &mut d_params
                .iter_mut()
                .map(|a| Some(array_mut(a)))
                .collect::<Vec<_>>(),
            &mut saved,
        )?;
        let backward = clock.elapsed();
        drop(saved);

        let device = Device::flex();
        let mut tap_gradients = Vec::new();
        for (binding, gradient) in self.bindings.iter().zip(d_taps) {
            let Some(Array { shape, data }) = gradient else {
                continue;
            };
            let what = format!("the gradient of tap `{}`", binding.name);
            self.method.check_finite("backward", &what, &data)?;
            let data = TensorData::new(data, shape);
            tap_gradients.push((binding.name.clone(), Tensor::from_data(data, &device)));
        }
        let mut param_gradients = Vec::new();
        for (spec, gradient) in self.plan.params.iter().zip(d_params) {
            let what = format!("the gradient of parameter `{}`", spec.name);
            self.method
                .check_finite("backward", &what, &gradient.data)?;
            param_gradients.push(gradient.data);
        }
        let losses = self
            .plan
            .losses
            .iter()
            .map(|l| l.name.clone())
            .zip(losses)
            .collect();
        let metrics = self.method.take_metrics();
        let boundary = started.elapsed().saturating_sub(forward + backward);
        Ok(DistillStep {
            losses,
            tap_gradients,
            param_gradients,
            metrics,
            forward,
            backward,
            boundary,
        })
    }
}

fn loss_weights(
    manifest: &MethodManifest,
    losses: &[LossSpec],
    config: &DistillConfig,
) -> Result<Vec<f64>, DistillError> {
    for name in config.loss_weights.keys() {
        if !losses.iter().any(|l| &l.name == name) {
            return Err(DistillError::UnknownLoss {
                method: manifest.id.clone(),
                name: name.clone(),
                known: taps::names(losses.iter().map(|l| l.name.as_str())),
            });
        }
    }
    let weight = |l: &LossSpec| {
        config
            .loss_weights
            .get(&l.name)
            .copied()
            .unwrap_or(l.default_weight)
    };
    Ok(losses.iter().map(weight).collect())
}

fn array_mut(array: &mut Array) -> ArrayMut<'_> {
    ArrayMut::new(&array.shape, &mut array.data)
}

fn array_muts(arrays: &mut [Array]) -> Vec<ArrayMut<'_>> {
    arrays.iter_mut().map(array_mut).collect()
}

fn array_arg(array: &Array) -> TensorArg<'_> {
    TensorArg::f32(&array.shape, &array.data)
}

fn target_arg(target: &Target) -> TensorArg<'_> {
    match &target.values {
        TargetValues::F32(values) => TensorArg::f32(&target.shape, values),
        TargetValues::I64(values) => TensorArg::i64(&target.shape, values),
    }
}
