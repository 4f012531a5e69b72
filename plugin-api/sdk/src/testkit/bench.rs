//! One instance of a method with all its tensors.
#![expect(unsafe_code, reason = "calls the method's table as a host does")]

use std::ptr;

use kd_abi::{
    KD_OK, KD_T_ACCUMULATE, KD_USE_GRAD, KD_USE_VALUE, KdBackward, KdDType, KdDevice, KdDlTensor,
    KdForward, KdInst, KdMethod, KdSaved, KdStatus, KdStr, KdTap, KdTensor,
};
use serde_json::Value;

use super::host::{self, Declared, HostLog};
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

/// Values of one tensor.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owned {
    pub(crate) name: String,
    pub(crate) shape: Vec<i64>,
    strides: Vec<i64>,
    pub(crate) values: Vec<f32>,
}

/// An integer target.
#[derive(Clone, Debug)]
struct Ints {
    shape: Vec<i64>,
    strides: Vec<i64>,
    values: Vec<i64>,
}

#[derive(Clone, Debug)]
enum Target {
    Floats(Owned),
    Ints(Ints),
}

/// What a forward gave. Release it by dropping it before its [`Bench`].
#[derive(Debug)]
pub struct Forwarded {
    /// One value a loss, in slot order.
    pub losses: Vec<f32>,
    /// One list a map, in slot order.
    pub maps: Vec<Vec<f32>>,
    saved: *mut KdSaved,
    table: &'static KdMethod,
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        if let Some(release) = self.table.release_saved {
            // SAFETY: made by forward, released once; the table does not look at the instance.
            unsafe { release(ptr::null_mut(), self.saved) };
        }
    }
}

/// What a backward gave, in slot order.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// One list a tap; empty for taps without gradient.
    pub taps: Vec<Vec<f32>>,
    /// One list a parameter.
    pub params: Vec<Vec<f32>>,
}

/// A method with taps, parameters, buffers and targets, and the fake host that runs it.
#[derive(Debug)]
pub struct Bench {
    table: &'static KdMethod,
    inst: *mut KdInst,
    log: Box<HostLog>,
    pub(crate) seed: u64,
    cancel: Box<u32>,
    declared: Declared,
    grad: Vec<bool>,
    pub(crate) taps: Vec<Owned>,
    pub(crate) params: Vec<Owned>,
    buffers: Vec<Owned>,
    targets: Vec<Target>,
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
        let table: &'static KdMethod = Box::leak(Box::new(entry::table::<R>()));
        let grad = |tap: &TapShape| tap.role == "student" && R::TAPS.iter().any(|p| p.grad);
        let mut bench = Bench {
            table,
            inst: ptr::null_mut(),
            log: Box::default(),
            seed: 1,
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
        };
        let text = config.to_string();
        let call = bench.call();
        let create = table.create.expect("the table is complete");
        let mut inst = ptr::null_mut();
        // SAFETY: all arguments live to the end of the statement.
        let status = unsafe { create(&raw const call, KdStr::new(&text), &raw mut inst) };
        bench.inst = inst;
        bench.done("create", status)?;
        bench.plan(taps)?;
        bench.init_state()?;
        Ok(bench)
    }

    /// [`Self::new_raw`] for a method over Burn tensors.
    ///
    /// # Errors
    /// If an entry refuses.
    #[cfg(feature = "burn")]
    pub fn new<M: crate::DistillMethod>(
        config: &Value,
        taps: &[TapShape],
    ) -> Result<Self, EntryError> {
        Self::new_raw::<crate::BurnLevel<M>>(config, taps)
    }

    fn plan(&mut self, taps: &[TapShape]) -> Result<(), EntryError> {
        let shapes: Vec<[i64; 4]> = taps
            .iter()
            .map(|tap| {
                [
                    kd_abi::KD_DIM_N,
                    tap.shape[1] as i64,
                    kd_abi::KD_DIM_H,
                    kd_abi::KD_DIM_W,
                ]
            })
            .collect();
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
        self.declared = declared;
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
        self.targets.push(Target::Ints(Ints {
            shape: shape.to_vec(),
            strides: strides(shape),
            values,
        }));
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

    /// What the plugin told the host so far.
    #[must_use]
    pub fn log(&self) -> &HostLog {
        &self.log
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

    /// Raises or lowers the cancel flag.
    pub fn set_cancel(&mut self, cancel: bool) {
        *self.cancel = u32::from(cancel);
    }

    fn map_shape(&self, slot: usize) -> Vec<i64> {
        self.taps[self.declared.maps[slot].2 as usize].shape.clone()
    }

    /// Runs `forward`.
    ///
    /// # Errors
    /// If it refuses.
    pub fn forward(&mut self) -> Result<Forwarded, EntryError> {
        let call = self.call();
        let taps: Vec<KdTensor> = self.taps.iter().map(Owned::lend).collect();
        let params: Vec<KdTensor> = self.params.iter().map(Owned::lend).collect();
        let targets: Vec<KdTensor> = self.targets.iter().map(Target::lend).collect();
        let mut buffers: Vec<KdTensor> = self.buffers.iter_mut().map(Owned::lend_mut).collect();
        // NaN shows an output that was not written.
        let mut losses: Vec<Owned> = self
            .declared
            .losses
            .iter()
            .map(|(name, _)| Owned::nan(name, &[]))
            .collect();
        let mut maps: Vec<Owned> = (0..self.declared.maps.len())
            .map(|slot| Owned::nan(&self.declared.maps[slot].0, &self.map_shape(slot)))
            .collect();
        let mut out_losses: Vec<KdTensor> = losses.iter_mut().map(Owned::lend_mut).collect();
        let mut out_maps: Vec<KdTensor> = maps.iter_mut().map(Owned::lend_mut).collect();
        let args = KdForward {
            struct_size: size_of::<KdForward>() as u32,
            n_taps: taps.len() as u32,
            n_params: params.len() as u32,
            n_buffers: buffers.len() as u32,
            n_targets: targets.len() as u32,
            n_losses: out_losses.len() as u32,
            n_maps: out_maps.len() as u32,
            reserved: 0,
            taps: taps.as_ptr(),
            params: params.as_ptr(),
            buffers: buffers.as_mut_ptr(),
            targets: targets.as_ptr(),
            losses: out_losses.as_mut_ptr(),
            maps: out_maps.as_mut_ptr(),
        };
        let mut saved = ptr::null_mut();
        let forward = self.table.forward.expect("the table is complete");
        // SAFETY: all arguments live to the end of the statement.
        let status =
            unsafe { forward(self.inst, &raw const call, &raw const args, &raw mut saved) };
        self.done("forward", status)?;
        Ok(Forwarded {
            losses: losses.iter().map(|loss| loss.values[0]).collect(),
            maps: maps.into_iter().map(|map| map.values).collect(),
            saved,
            table: self.table,
        })
    }

    /// Runs `backward` with these upstream gradients, overwriting.
    ///
    /// # Errors
    /// If it refuses.
    pub fn backward(
        &mut self,
        forwarded: &Forwarded,
        d_losses: &[f32],
        d_maps: &[Vec<f32>],
    ) -> Result<Gradients, EntryError> {
        let out = self.nan_gradients();
        self.backward_into(forwarded, d_losses, d_maps, out, 0)
    }

    /// Runs `backward` with these upstream gradients, adding to `onto`.
    ///
    /// # Errors
    /// If it refuses.
    pub fn backward_onto(
        &mut self,
        forwarded: &Forwarded,
        d_losses: &[f32],
        d_maps: &[Vec<f32>],
        onto: Gradients,
    ) -> Result<Gradients, EntryError> {
        self.backward_into(forwarded, d_losses, d_maps, onto, KD_T_ACCUMULATE)
    }

    fn nan_gradients(&self) -> Gradients {
        let nan = |len: usize| vec![f32::NAN; len];
        Gradients {
            taps: (self.taps.iter().zip(&self.grad))
                .map(|(tap, &grad)| nan(if grad { tap.values.len() } else { 0 }))
                .collect(),
            params: self
                .params
                .iter()
                .map(|param| nan(param.values.len()))
                .collect(),
        }
    }

    fn backward_into(
        &mut self,
        forwarded: &Forwarded,
        d_losses: &[f32],
        d_maps: &[Vec<f32>],
        out: Gradients,
        flags: u32,
    ) -> Result<Gradients, EntryError> {
        let call = self.call();
        let taps: Vec<KdTensor> = self.taps.iter().map(Owned::lend).collect();
        let params: Vec<KdTensor> = self.params.iter().map(Owned::lend).collect();
        let d_losses: Vec<Owned> = d_losses
            .iter()
            .map(|&v| Owned::new("", &[], vec![v]))
            .collect();
        let d_maps: Vec<Owned> = (d_maps.iter().enumerate())
            .map(|(slot, values)| Owned::new("", &self.map_shape(slot), values.clone()))
            .collect();
        let place = |(like, values): (&Owned, Vec<f32>)| Owned {
            values,
            ..like.clone()
        };
        let mut d_taps: Vec<Owned> = self.taps.iter().zip(out.taps).map(place).collect();
        let mut d_params: Vec<Owned> = self.params.iter().zip(out.params).map(place).collect();
        let lend_losses: Vec<KdTensor> = d_losses.iter().map(Owned::lend).collect();
        let lend_maps: Vec<KdTensor> = d_maps.iter().map(Owned::lend).collect();
        let with_flags = |owned: &mut Owned| KdTensor {
            flags,
            ..owned.lend_mut()
        };
        let mut out_taps: Vec<KdTensor> = d_taps.iter_mut().map(with_flags).collect();
        let mut out_params: Vec<KdTensor> = d_params.iter_mut().map(with_flags).collect();
        for (tensor, &grad) in out_taps.iter_mut().zip(&self.grad) {
            if !grad {
                tensor.dl.data = ptr::null_mut();
            }
        }
        let args = KdBackward {
            struct_size: size_of::<KdBackward>() as u32,
            n_taps: taps.len() as u32,
            n_params: params.len() as u32,
            n_losses: lend_losses.len() as u32,
            n_maps: lend_maps.len() as u32,
            reserved: 0,
            taps: taps.as_ptr(),
            params: params.as_ptr(),
            d_losses: lend_losses.as_ptr(),
            d_maps: lend_maps.as_ptr(),
            d_taps: out_taps.as_mut_ptr(),
            d_params: out_params.as_mut_ptr(),
        };
        let backward = self.table.backward.expect("the table is complete");
        // SAFETY: all arguments live to the end of the statement.
        let status =
            unsafe { backward(self.inst, &raw const call, &raw const args, forwarded.saved) };
        self.done("backward", status)?;
        Ok(Gradients {
            taps: d_taps.into_iter().map(|t| t.values).collect(),
            params: d_params.into_iter().map(|t| t.values).collect(),
        })
    }

    fn call(&mut self) -> kd_abi::KdCall {
        host::call(&raw mut *self.log, self.seed, &raw const *self.cancel)
    }

    fn done(&self, entry: &'static str, status: KdStatus) -> Result<(), EntryError> {
        if status == KD_OK {
            return Ok(());
        }
        let message = self
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

impl Owned {
    fn new(name: &str, shape: &[i64], values: Vec<f32>) -> Self {
        Owned {
            name: name.to_owned(),
            shape: shape.to_vec(),
            strides: strides(shape),
            values,
        }
    }

    fn zeros(name: &str, shape: &[i64]) -> Self {
        Owned::new(name, shape, vec![0.0; count(shape)])
    }

    fn nan(name: &str, shape: &[i64]) -> Self {
        Owned::new(name, shape, vec![f32::NAN; count(shape)])
    }

    fn lend(&self) -> KdTensor {
        let data = self.values.as_ptr().cast_mut().cast();
        lend(
            data,
            KdDType::F32,
            &self.shape,
            &self.strides,
            4 * self.values.len(),
        )
    }

    fn lend_mut(&mut self) -> KdTensor {
        let data = self.values.as_mut_ptr().cast();
        lend(
            data,
            KdDType::F32,
            &self.shape,
            &self.strides,
            4 * self.values.len(),
        )
    }
}

impl Target {
    fn lend(&self) -> KdTensor {
        match self {
            Target::Floats(owned) => owned.lend(),
            Target::Ints(ints) => {
                let data = ints.values.as_ptr().cast_mut().cast();
                lend(
                    data,
                    KdDType::I64,
                    &ints.shape,
                    &ints.strides,
                    8 * ints.values.len(),
                )
            }
        }
    }
}

fn lend(
    data: *mut std::ffi::c_void,
    dtype: KdDType,
    shape: &[i64],
    strides: &[i64],
    span: usize,
) -> KdTensor {
    KdTensor {
        dl: KdDlTensor {
            data,
            device: KdDevice::CPU,
            ndim: shape.len() as i32,
            dtype,
            shape: shape.as_ptr(),
            strides: strides.as_ptr(),
            byte_offset: 0,
        },
        span_bytes: span as u64,
        flags: 0,
        slot: 0,
    }
}

fn extents(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&extent| extent as i64).collect()
}

fn count(shape: &[i64]) -> usize {
    shape.iter().product::<i64>() as usize
}

fn strides(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}
