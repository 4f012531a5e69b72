//! One instance of a method with all its tensors.
#![expect(unsafe_code, reason = "calls the method's table as a host does")]

use std::ptr;

use kd_abi::{
    KD_CALL_DETACH_STUDENT, KD_DIM_H, KD_DIM_N, KD_DIM_W, KD_OK, KD_USE_GRAD, KD_USE_VALUE,
    KdDType, KdInst, KdMethod, KdStatus, KdStr, KdTap, KdTask, KdTensor,
};
use serde_json::Value;

use super::host::{self, Declared, FakeHost, HostLog};
use super::lend::{Ints, Owned, Target, extents};
use super::{EntryError, Random};
use crate::entry;
use crate::raw::RawMethod;

/// A tap to bind: role, name, concrete `[N, C, H, W]` and stride.
#[derive(Clone, Debug)]
pub struct TapShape {
    /// `student`, `teacher`, …
    pub role: &'static str,
    /// `neck.p3`, …
    pub name: String,
    /// Concrete extents.
    pub shape: [usize; 4],
    /// Input pixels per cell.
    pub stride: u32,
}

impl TapShape {
    /// A student and a teacher tap of one name; `[N, C, H, W]` each.
    #[must_use]
    pub fn pair(name: &str, student: [usize; 4], teacher: [usize; 4]) -> [TapShape; 2] {
        let tap = |role, shape| TapShape {
            role,
            name: name.to_owned(),
            shape,
            stride: 8,
        };
        [tap("student", student), tap("teacher", teacher)]
    }
}

/// What the host of a bench says of the run, beside the taps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Classes of the data set; without, the host does not tell.
    pub num_classes: Option<u32>,
    /// Every training image has one size: the plan sees height and width of taps as numbers
    /// ([`TapInfo::size`](crate::TapInfo::size)), not as symbols.
    pub fixed_sizes: bool,
}

/// A method with taps, parameters, buffers and targets, and the fake host that runs it.
#[derive(Debug)]
pub struct Bench {
    pub(super) table: &'static KdMethod,
    pub(super) inst: *mut KdInst,
    host: Box<FakeHost>,
    pub(super) seed: u64,
    detach_student: bool,
    stage: u32,
    phase: u32,
    cancel: Box<u32>,
    pub(super) declared: Declared,
    pub(super) grad: Vec<bool>,
    pub(super) taps: Vec<Owned>,
    pub(super) params: Vec<Owned>,
    pub(super) buffers: Vec<Owned>,
    pub(super) targets: Vec<Target>,
    target_names: &'static [&'static str],
}

impl Bench {
    /// Creates, plans and initialises an instance of a raw method.
    ///
    /// `config` is merged over the defaults; taps start at zero (see [`Self::fill`]), parameters
    /// at what `init_state` writes.
    ///
    /// # Errors
    /// If an entry refuses.
    pub fn new_raw<R: RawMethod>(config: &Value, taps: &[TapShape]) -> Result<Self, EntryError> {
        Self::new_raw_in::<R>(Run::default(), config, taps)
    }

    /// As [`Self::new_raw`], in a run of which the host says more.
    ///
    /// # Errors
    /// If an entry refuses.
    pub fn new_raw_in<R: RawMethod>(
        run: Run,
        config: &Value,
        taps: &[TapShape],
    ) -> Result<Self, EntryError> {
        let table: &'static KdMethod = Box::leak(Box::new(entry::table::<R>()));
        let grad = |tap: &TapShape| tap.role == "student" && R::TAPS.iter().any(|p| p.grad);
        let mut bench = Bench {
            table,
            inst: ptr::null_mut(),
            host: Box::new(FakeHost {
                task: run.num_classes.map(|num_classes| KdTask {
                    struct_size: size_of::<KdTask>() as u32,
                    num_classes,
                }),
                ..FakeHost::default()
            }),
            seed: 1,
            detach_student: false,
            stage: 0,
            phase: 0,
            cancel: Box::new(0),
            declared: Declared::default(),
            grad: taps.iter().map(grad).collect(),
            taps: taps
                .iter()
                .map(|tap| Owned::zeros(&tap.name, &extents(&tap.shape)))
                .collect(),
            params: Vec::new(),
            buffers: Vec::new(),
            targets: Vec::new(),
            target_names: R::TARGETS,
        };
        let text = config.to_string();
        let call = bench.call();
        let create = table.create.expect("the table is complete");
        let mut inst = ptr::null_mut();
        // SAFETY: all arguments live to the end of the statement.
        let status = unsafe { create(&raw const call, KdStr::new(&text), &raw mut inst) };
        bench.inst = inst;
        bench.done("create", status)?;
        bench.plan(taps, run.fixed_sizes)?;
        bench.init_state()?;
        Ok(bench)
    }

    /// [`Self::new_raw`] for a method over Burn tensors.
    ///
    /// # Errors
    /// If an entry refuses.
    #[cfg(feature = "cpu")]
    pub fn new<M: crate::DistillMethod>(
        config: &Value,
        taps: &[TapShape],
    ) -> Result<Self, EntryError> {
        Self::new_raw::<crate::BurnLevel<M>>(config, taps)
    }

    /// As [`Self::new`], for a task of `num_classes` classes.
    ///
    /// # Errors
    /// If an entry refuses.
    #[cfg(feature = "cpu")]
    pub fn for_classes<M: crate::DistillMethod>(
        num_classes: u32,
        config: &Value,
        taps: &[TapShape],
    ) -> Result<Self, EntryError> {
        let run = Run {
            num_classes: Some(num_classes),
            ..Run::default()
        };
        Self::new_in::<M>(run, config, taps)
    }

    /// As [`Self::new`], in a run of which the host says more.
    ///
    /// # Errors
    /// If an entry refuses.
    #[cfg(feature = "cpu")]
    pub fn new_in<M: crate::DistillMethod>(
        run: Run,
        config: &Value,
        taps: &[TapShape],
    ) -> Result<Self, EntryError> {
        Self::new_raw_in::<crate::BurnLevel<M>>(run, config, taps)
    }

    fn plan(&mut self, taps: &[TapShape], fixed_sizes: bool) -> Result<(), EntryError> {
        let shape = |tap: &TapShape| {
            let [_, channels, height, width] = tap.shape.map(|extent| extent as i64);
            match fixed_sizes {
                true => [KD_DIM_N, channels, height, width],
                false => [KD_DIM_N, channels, KD_DIM_H, KD_DIM_W],
            }
        };
        let shapes: Vec<[i64; 4]> = taps.iter().map(shape).collect();
        let raw: Vec<KdTap> = taps
            .iter()
            .zip(&shapes)
            .zip(&self.grad)
            .map(|((tap, shape), &grad)| KdTap {
                name: KdStr::new(&tap.name),
                role: KdStr::new(tap.role),
                dtype: KdDType::F32,
                ndim: 4,
                shape: shape.as_ptr(),
                stride: tap.stride,
                use_bits: KD_USE_VALUE | if grad { KD_USE_GRAD } else { 0 },
            })
            .collect();
        let mut declared = Declared::default();
        let sink = host::sink(&raw mut declared);
        let call = self.call();
        let plan = self.table.plan.expect("the table is complete");
        // SAFETY: all arguments live to the end of the statement.
        let status = unsafe {
            plan(
                self.inst,
                &raw const call,
                raw.as_ptr(),
                raw.len() as u32,
                &raw const sink,
            )
        };
        self.done("plan", status)?;
        self.params = declared
            .params
            .iter()
            .map(|(n, s, _)| Owned::zeros(n, s))
            .collect();
        self.buffers = declared
            .buffers
            .iter()
            .map(|(n, s)| Owned::zeros(n, s))
            .collect();
        // As from a host, what is unused crosses without elements.
        for &(tap, bits) in &declared.tap_uses {
            if bits == 0 {
                let tap = tap as usize;
                let channels = taps[tap].shape[1] as i64;
                self.taps[tap] = Owned::zeros(&taps[tap].name, &[0, channels, 0, 0]);
                self.grad[tap] = false;
            }
        }
        self.declared = declared;
        // A plan that reads no target needs none to be set.
        if self.declared.target_uses.len() == self.target_names.len() {
            let empty = |name: &&str| Target::Floats(Owned::new(name, &[0], Vec::new()));
            self.targets = self.target_names.iter().map(empty).collect();
        }
        Ok(())
    }

    /// Runs `init_state` with the current seed.
    ///
    /// # Errors
    /// If it refuses.
    pub fn init_state(&mut self) -> Result<(), EntryError> {
        let call = self.call();
        let mut params: Vec<KdTensor> = self.params.iter_mut().map(Owned::lend_mut).collect();
        let mut buffers: Vec<KdTensor> = self.buffers.iter_mut().map(Owned::lend_mut).collect();
        let init = self.table.init_state.expect("the table is complete");
        // SAFETY: all arguments live to the end of the statement.
        let status = unsafe {
            init(
                self.inst,
                &raw const call,
                params.as_mut_ptr(),
                params.len() as u32,
                buffers.as_mut_ptr(),
                buffers.len() as u32,
            )
        };
        self.done("init_state", status)
    }

    /// Fills every tap with normal values of this seed, each tap with its own scale and shift.
    pub fn fill(&mut self, seed: u64) {
        for (slot, tap) in self.taps.iter_mut().enumerate() {
            let mut random = Random::new(seed.wrapping_add(1000 * slot as u64));
            let (scale, shift) = (0.5 + random.unit() as f32, random.normal() as f32);
            let len = tap.values.len();
            tap.values = random
                .normals(len)
                .iter()
                .map(|v| scale * v + shift)
                .collect();
        }
    }

    /// Adds a float target, in the order of the method's `TARGETS`.
    pub fn push_target(&mut self, name: &str, shape: &[i64], values: Vec<f32>) {
        let mut target = Owned::zeros(name, shape);
        assert_eq!(
            target.values.len(),
            values.len(),
            "values for shape {shape:?}"
        );
        target.values = values;
        self.targets.push(Target::Floats(target));
    }

    /// Adds an integer target, in the order of the method's `TARGETS`.
    pub fn push_target_ints(&mut self, shape: &[i64], values: Vec<i64>) {
        self.targets.push(Target::Ints(Ints::new(shape, values)));
    }

    /// Sets the float target `name`; those before it that are not set yet are empty, and one that the
    /// plan does not read stays so.
    ///
    /// # Panics
    /// If the method has none of this name; the message lists them.
    pub fn set_target(&mut self, name: &str, shape: &[i64], values: Vec<f32>) {
        let extent: i64 = shape.iter().product();
        assert_eq!(values.len() as i64, extent, "values for shape {shape:?}");
        if let Some(target) = self.target_slot(name) {
            *target = Target::Floats(Owned::new(name, shape, values));
        }
    }

    /// As [`Self::set_target`], for integers.
    ///
    /// # Panics
    /// If the method has none of this name; the message lists them.
    pub fn set_target_ints(&mut self, name: &str, shape: &[i64], values: Vec<i64>) {
        let extent: i64 = shape.iter().product();
        assert_eq!(values.len() as i64, extent, "values for shape {shape:?}");
        if let Some(target) = self.target_slot(name) {
            *target = Target::Ints(Ints::new(shape, values));
        }
    }

    fn target_slot(&mut self, name: &str) -> Option<&mut Target> {
        let names = self.target_names;
        let slot = (names.iter().position(|known| *known == name))
            .unwrap_or_else(|| panic!("no target `{name}` in {names:?}"));
        let empty = |name: &&str| Target::Floats(Owned::new(name, &[0], Vec::new()));
        let set = self.targets.len();
        self.targets.extend(names[set..].iter().map(empty));
        let is_read = !self.declared.target_uses.contains(&(slot as u32, 0));
        is_read.then(|| &mut self.targets[slot])
    }

    /// Forgets all targets.
    pub fn clear_targets(&mut self) {
        self.targets.clear();
    }

    /// Values of a tap, by position.
    pub fn tap_mut(&mut self, slot: usize) -> &mut [f32] {
        &mut self.taps[slot].values
    }

    /// Values of a parameter.
    ///
    /// # Panics
    /// If there is none of this name; the message lists them.
    pub fn param_mut(&mut self, name: &str) -> &mut [f32] {
        let names: Vec<String> = self.params.iter().map(|p| p.name.clone()).collect();
        let found = self.params.iter_mut().find(|param| param.name == name);
        &mut found
            .unwrap_or_else(|| panic!("no parameter `{name}` in {names:?}"))
            .values
    }

    /// Name, shape, and attributes of each parameter, in slot order.
    #[must_use]
    pub fn params(&self) -> &[(String, Vec<i64>, String)] {
        &self.declared.params
    }

    /// Name and default weight of each loss, in slot order.
    #[must_use]
    pub fn losses(&self) -> &[(String, f64)] {
        &self.declared.losses
    }

    /// Name, extents and replaced tap of each map, in slot order.
    #[must_use]
    pub fn maps(&self) -> &[(String, Vec<i64>, u32)] {
        &self.declared.maps
    }

    /// The declared schedule.
    #[must_use]
    pub fn schedule(&self) -> Option<&str> {
        self.declared.schedule.as_deref()
    }

    /// Values of a buffer, by position.
    #[must_use]
    pub fn buffer(&self, slot: usize) -> &[f32] {
        &self.buffers[slot].values
    }

    /// Name and shape of each buffer, in slot order.
    #[must_use]
    pub fn buffers(&self) -> &[(String, Vec<i64>)] {
        &self.declared.buffers
    }

    /// Values of a buffer, by name.
    ///
    /// # Panics
    /// If there is none of this name; the message lists them.
    pub fn buffer_mut(&mut self, name: &str) -> &mut [f32] {
        let names: Vec<String> = self.buffers.iter().map(|b| b.name.clone()).collect();
        let found = self.buffers.iter_mut().find(|buffer| buffer.name == name);
        &mut found
            .unwrap_or_else(|| panic!("no buffer `{name}` in {names:?}"))
            .values
    }

    /// What the plugin told the host so far.
    #[must_use]
    pub fn log(&self) -> &HostLog {
        &self.host.log
    }

    /// Whether the host offers its convolution (`kd.conv/1`, here plain loops). At first it does not.
    pub fn offer_convolution(&mut self, offered: bool) {
        self.host.offers_convolution = offered;
    }

    /// Whether it does.
    #[must_use]
    pub fn offers_convolution(&self) -> bool {
        self.host.offers_convolution
    }

    /// How often the plugin had the host convolve: forward, backward.
    #[must_use]
    pub fn convolutions(&self) -> [usize; 2] {
        self.host.convolutions
    }

    /// Whether the plan reads tap `slot`.
    #[must_use]
    pub fn uses_tap(&self, slot: usize) -> bool {
        !self.declared.tap_uses.contains(&(slot as u32, 0))
    }

    /// Whether the plan reads the target `name`.
    #[must_use]
    pub fn reads_target(&self, name: &str) -> bool {
        let slot = self.target_names.iter().position(|known| *known == name);
        slot.is_some_and(|slot| !self.declared.target_uses.contains(&(slot as u32, 0)))
    }

    /// Whether tap `slot` gets a gradient.
    #[must_use]
    pub fn has_grad(&self, slot: usize) -> bool {
        self.grad[slot]
    }

    /// Sets the seed of all further calls.
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Sets whether losses must keep their gradient from student taps in all further calls.
    pub fn set_detach_student(&mut self, detach: bool) {
        self.detach_student = detach;
    }

    /// Sets the stage of all further calls, an index into those of the plan; 0 at first.
    pub fn set_stage(&mut self, stage: u32) {
        self.stage = stage;
    }

    /// Sets the phase of all further calls, an index into those of the stage; 0 at first.
    pub fn set_phase(&mut self, phase: u32) {
        self.phase = phase;
    }

    /// Raises or lowers the cancel flag.
    pub fn set_cancel(&mut self, cancel: bool) {
        *self.cancel = u32::from(cancel);
    }

    pub(super) fn call(&mut self) -> kd_abi::KdCall {
        let mut call = host::call(&raw mut *self.host, self.seed, &raw const *self.cancel);
        call.stage = self.stage;
        call.phase = self.phase;
        if self.detach_student {
            call.flags |= KD_CALL_DETACH_STUDENT;
        }
        call
    }

    pub(super) fn done(&self, entry: &'static str, status: KdStatus) -> Result<(), EntryError> {
        if status == KD_OK {
            return Ok(());
        }
        let message = self
            .host
            .log
            .errors
            .last()
            .map(|error| error.1.clone())
            .unwrap_or_default();
        Err(EntryError {
            entry,
            status,
            message,
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: made by create (or null), destroyed once.
            unsafe { destroy(self.inst) };
        }
    }
}
