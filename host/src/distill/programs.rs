//! A method's programs: traced once for each set of extents, checked, made ready, kept.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device};
use kd_graph::{Place, Slot};

use crate::graph::check::{self, Interface, Limits, Role};
use crate::graph::compiled::{self, Compiled, Failure};
use crate::plugin::{CallInfo, Method, Plan, ProgramKind, TraceRequest};

use super::DistillError;

/// Programs kept; batches differ in their number of objects.
const MAX_KEPT: usize = 64;

/// What a program holds for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: ProgramKind,
    /// In this phase the losses send no gradient into student taps.
    pub(super) detach_student: bool,
    /// Index of the phase, which a method may look at.
    pub(super) phase: u32,
    pub(super) taps: Vec<Vec<usize>>,
    /// Extents, and whether these are integers.
    pub(super) targets: Vec<(Vec<usize>, bool)>,
    pub(super) loss_wanted: Vec<bool>,
}

/// The programs of one method on one device.
pub(super) struct Programs {
    device: Device,
    kept: BTreeMap<Key, Kept>,
    uses: u64,
}

struct Kept {
    program: Box<dyn Compiled>,
    last_use: u64,
}

impl Programs {
    pub(super) fn new(device: Device) -> Self {
        Programs {
            device,
            kept: BTreeMap::new(),
            uses: 0,
        }
    }

    /// Where they run.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Takes the program for `key`, tracing it if there is none.
    ///
    /// # Errors
    /// If the plugin refuses, or what it gives is not a sound program.
    pub(super) fn take(
        &mut self,
        method: &mut Method,
        plan: &Plan,
        call: &CallInfo,
        key: &Key,
    ) -> Result<Taken, DistillError> {
        if let Some(kept) = self.kept.remove(key) {
            return Ok(Taken {
                program: kept.program,
                keep: true,
            });
        }
        let (int_dtype, bool_bytes) = compiled::preferred_types(&self.device);
        let request = TraceRequest {
            kind: key.kind,
            taps: &key.taps,
            targets: &key.targets,
            loss_wanted: &key.loss_wanted,
            long_ints: int_dtype == DType::I64,
            bool_bytes,
        };
        let bytes = method.trace(call, &request)?;
        let refused = |reason: String| DistillError::Program {
            method: method.manifest().id.clone(),
            reason,
        };
        let program = kd_graph::decode(&bytes).map_err(|error| refused(error.to_string()))?;
        let (slots, places) = crossing(method, plan, key, int_dtype);
        let interface = Interface {
            role: match key.kind {
                ProgramKind::Training => Role::Training,
                ProgramKind::Forward => Role::Forward,
                ProgramKind::Init => Role::Init,
            },
            slots: &slots,
            places: &places,
        };
        check::check(&program, &interface, &Limits::default())
            .map_err(|error| refused(error.to_string()))?;
        tracing::debug!(
            target: "kdhost::distill",
            "method `{}`: traced a program ({:?}, {} bytes)",
            method.manifest().id,
            key.kind,
            bytes.len()
        );
        let ready = compiled::compile(&program, &self.device);
        Ok(Taken {
            program: ready.map_err(|failure| refused(failure.to_string()))?,
            keep: !program.depends_on_call,
        })
    }

    /// Puts a program back that did not fail.
    pub(super) fn put(&mut self, key: Key, taken: Taken) {
        if !taken.keep {
            return;
        }
        self.uses += 1;
        if self.kept.len() >= MAX_KEPT {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.last_use);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.kept.remove(&oldest);
            }
        }
        let kept = Kept {
            program: taken.program,
            last_use: self.uses,
        };
        self.kept.insert(key, kept);
    }
}

/// A program in use.
pub(super) struct Taken {
    pub(super) program: Box<dyn Compiled>,
    keep: bool,
}

type Slots = BTreeMap<Slot, (Vec<usize>, DType)>;
type Places = BTreeMap<Place, Vec<usize>>;

/// What a program may read and give.
fn crossing(method: &Method, plan: &Plan, key: &Key, int_dtype: DType) -> (Slots, Places) {
    let (mut inputs, mut places) = (Slots::new(), Places::new());
    let numbered = |index: usize| index as u32;
    if key.kind == ProgramKind::Init {
        for (index, spec) in plan.params.iter().enumerate() {
            places.insert(Place::Param(numbered(index)), spec.shape.clone());
        }
        for (index, spec) in plan.buffers.iter().enumerate() {
            places.insert(Place::Buffer(numbered(index)), spec.shape.clone());
        }
        return (inputs, places);
    }
    for (index, shape) in key.taps.iter().enumerate() {
        inputs.insert(Slot::Tap(numbered(index)), (shape.clone(), DType::F32));
        if plan.tap_use[index] & kd_abi::KD_USE_GRAD != 0 {
            places.insert(Place::DTap(numbered(index)), shape.clone());
        }
    }
    for (index, spec) in plan.params.iter().enumerate() {
        let shape = spec.shape.clone();
        inputs.insert(Slot::Param(numbered(index)), (shape.clone(), DType::F32));
        places.insert(Place::DParam(numbered(index)), shape);
    }
    for (index, spec) in plan.buffers.iter().enumerate() {
        let shape = spec.shape.clone();
        inputs.insert(Slot::Buffer(numbered(index)), (shape.clone(), DType::F32));
        places.insert(Place::Buffer(numbered(index)), shape);
    }
    for (index, (shape, is_int)) in key.targets.iter().enumerate() {
        let dtype = if *is_int { int_dtype } else { DType::F32 };
        inputs.insert(Slot::Target(numbered(index)), (shape.clone(), dtype));
    }
    for index in 0..plan.losses.len() {
        inputs.insert(Slot::DLoss(numbered(index)), (vec![1], DType::F32));
        places.insert(Place::Loss(numbered(index)), vec![1]);
    }
    for (index, spec) in plan.maps.iter().enumerate() {
        let shape = key.taps[spec.replaces_tap].clone();
        inputs.insert(Slot::DMap(numbered(index)), (shape.clone(), DType::F32));
        places.insert(Place::Map(numbered(index)), shape);
    }
    for name in &method.manifest().metrics {
        places.insert(Place::Metric(name.to_string()), vec![1]);
    }
    (inputs, places)
}

/// A failure of `method`'s program, as the run reports it.
pub(super) fn failed(method: &Method, entry: &'static str, failure: Failure) -> DistillError {
    DistillError::Execution {
        plugin: method.library().manifest().plugin.clone(),
        method: method.manifest().id.clone(),
        entry,
        failure,
    }
}
