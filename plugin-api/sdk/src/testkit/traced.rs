//! A method's program against the method itself.
#![expect(unsafe_code, reason = "calls the method's table as a host does")]

use std::ffi::c_void;
use std::ptr;

use burn::backend::{Backend, Flex};
use burn::tensor::TensorData;
use burn_backend::ops::{FloatTensorOps, IntTensorOps};
use kd_abi::{
    KD_E_INTERNAL, KD_E_INVALID_ARG, KD_EXT_GRAPH, KD_OK, KD_TRACE_FORWARD, KD_TRACE_INIT, KdDType,
    KdGraphTable, KdProgramSink, KdStatus, KdStr, KdTensor, KdTrace,
};
use kd_graph::burn_ir::HandleKind;
use kd_graph::{DType, Executable, Place, Program, Slot};

use super::bench::Bench;
use super::lend::{Owned, Target};
use super::{EntryError, own_ops};
use crate::method::flex::{contiguous, values};
use crate::raw::TraceKind;

/// Compares program and method on what the bench holds: initial state, losses, maps, statistics,
/// buffers and gradients must be equal to the bit.
///
/// `d_losses` and `d_maps` are the upstream gradients of the backward. The convolution of
/// [`Bench::offer_convolution`] serves both sides.
///
/// # Errors
/// What differs, or why there is no program.
pub fn check(bench: &mut Bench, d_losses: &[f32], d_maps: &[Vec<f32>]) -> Result<(), String> {
    let offered = bench.offers_convolution();
    bench.offer_convolution(true);
    let result = compare(bench, d_losses, d_maps);
    bench.offer_convolution(offered);
    result
}

fn compare(bench: &mut Bench, d_losses: &[f32], d_maps: &[Vec<f32>]) -> Result<(), String> {
    initial_state(bench)?;
    let traced = run(bench, d_losses, d_maps)?;
    let buffers = bench.buffers.clone();
    let logged = bench.log().metrics.len();
    let entry = |error: EntryError| format!("the method: {error}");
    let out = bench.forward().map_err(entry)?;
    let gradients = bench.backward(&out, d_losses, d_maps).map_err(entry)?;
    let metrics = bench.log().metrics[logged..].to_vec();
    let after = std::mem::replace(&mut bench.buffers, buffers);

    for (index, loss) in out.losses.iter().enumerate() {
        same(&traced, &Place::Loss(index as u32), &[*loss])?;
    }
    for (index, map) in out.maps.iter().enumerate() {
        same(&traced, &Place::Map(index as u32), map)?;
    }
    for (name, value) in metrics {
        same(&traced, &Place::Metric(name), &[value as f32])?;
    }
    for (index, (before, after)) in bench.buffers.iter().zip(&after).enumerate() {
        let place = Place::Buffer(index as u32);
        if traced.iter().any(|(known, _)| *known == place) || before != after {
            same(&traced, &place, &after.values)?;
        }
    }
    let taps = gradients.taps.iter().zip(&bench.grad).enumerate();
    for (index, (gradient, _)) in taps.filter(|(_, (_, grad))| **grad) {
        same(&traced, &Place::DTap(index as u32), gradient)?;
    }
    for (index, gradient) in gradients.params.iter().enumerate() {
        same(&traced, &Place::DParam(index as u32), gradient)?;
    }
    Ok(())
}

type Results = Vec<(Place, Vec<f32>)>;

/// A gradient that the program does not give is zero.
fn same(traced: &Results, place: &Place, direct: &[f32]) -> Result<(), String> {
    let found = traced.iter().find(|(known, _)| known == place);
    let zeros;
    let found: &[f32] = match (found, place) {
        (Some((_, values)), _) => values,
        (None, Place::DTap(_) | Place::DParam(_)) => {
            zeros = vec![0.0; direct.len()];
            &zeros
        }
        (None, _) => return Err(format!("the program does not give {place:?}")),
    };
    let equal = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
    if found.len() == direct.len() && found.iter().zip(direct).all(equal) {
        return Ok(());
    }
    let wide: Vec<f64> = direct.iter().map(|&v| f64::from(v)).collect();
    Err(format!(
        "{place:?}: the program differs from the method by {:e} of the norm",
        super::relative_error(found, &wide)
    ))
}

fn initial_state(bench: &mut Bench) -> Result<(), String> {
    let (params, buffers) = (bench.params.clone(), bench.buffers.clone());
    bench.init_state().map_err(|error| error.to_string())?;
    let program = bench.program(TraceKind::Init, &[])?;
    // Both draw from the backend's generator, which is one for all threads.
    let _lock = crate::method::generator();
    Flex::seed(&Default::default(), bench.seed);
    let traced = floats(executable(&program).forward(Vec::new()));
    let made = bench.params.iter().enumerate();
    for (index, param) in made {
        same(&traced, &Place::Param(index as u32), &param.values)?;
    }
    for (index, buffer) in bench.buffers.iter().enumerate() {
        same(&traced, &Place::Buffer(index as u32), &buffer.values)?;
    }
    (bench.params, bench.buffers) = (params, buffers);
    Ok(())
}

fn run(bench: &mut Bench, d_losses: &[f32], d_maps: &[Vec<f32>]) -> Result<Results, String> {
    let program = bench.program(TraceKind::Training, d_losses)?;
    let mut executable = executable(&program);
    let float = |shape: &[i64], values: &[f32]| {
        let shape: Vec<usize> = shape.iter().map(|&extent| extent as usize).collect();
        let data = TensorData::new(values.to_vec(), shape);
        HandleKind::Float(Flex::float_from_data(data, &Default::default()))
    };
    let owned = |owned: &Owned| float(&owned.shape, &owned.values);
    let bind = |slot| match slot {
        Slot::Tap(index) => owned(&bench.taps[index as usize]),
        Slot::Param(index) => owned(&bench.params[index as usize]),
        Slot::Buffer(index) => owned(&bench.buffers[index as usize]),
        Slot::Target(index) => match &bench.targets[index as usize] {
            Target::Floats(target) => owned(target),
            Target::Ints(target) => {
                let data = TensorData::new(target.values.clone(), target.extents());
                let data = data.convert_dtype(DType::I32);
                HandleKind::Int(Flex::int_from_data(data, &Default::default()))
            }
        },
        Slot::DLoss(index) => float(&[1], &[d_losses[index as usize]]),
        Slot::DMap(index) => {
            let index = index as usize;
            float(&bench.map_shape(index), &d_maps[index])
        }
    };
    let inputs = executable.forward_slots().map(bind).collect();
    let mut results = executable.forward(inputs);
    let inputs = executable.backward_slots().map(bind).collect();
    results.extend(executable.backward(inputs));
    Ok(floats(results))
}

fn executable(program: &Program) -> Executable<Flex> {
    Executable::new(program, Default::default(), Box::new(own_ops::take))
}

fn floats(results: Vec<(Place, HandleKind<Flex>)>) -> Results {
    let read = |(place, handle)| match handle {
        HandleKind::Float(tensor) => (place, values(&contiguous(tensor)).to_vec()),
        other => panic!("{place:?} is of {}", other.name()),
    };
    results.into_iter().map(read).collect()
}

impl Bench {
    fn graph_table(&self) -> Option<&'static KdGraphTable> {
        let get = self.table.get_extension.expect("the table is complete");
        // SAFETY: an instance that has planned.
        let table = unsafe { get(self.inst, KdStr::new(KD_EXT_GRAPH)) }.cast::<KdGraphTable>();
        // SAFETY: under this id the method gives null or a static table.
        unsafe { table.as_ref() }
    }

    /// Whether the method can be traced.
    #[must_use]
    pub fn has_program(&self) -> bool {
        self.graph_table().is_some()
    }

    /// The method's program for what the bench holds, with this upstream gradient of the losses.
    ///
    /// # Errors
    /// Why there is none.
    pub fn program(&mut self, kind: TraceKind, d_losses: &[f32]) -> Result<Program, String> {
        let table = self.graph_table().ok_or("the method has no program")?;
        let trace = table.trace.ok_or("the method's table has no `trace`")?;
        let bare = |mut tensor: KdTensor| {
            tensor.dl.data = ptr::null_mut();
            tensor
        };
        let list =
            |owned: &[Owned]| -> Vec<KdTensor> { owned.iter().map(|o| bare(o.lend())).collect() };
        let is_init = kind == TraceKind::Init;
        let (taps, targets) = match is_init {
            true => (Vec::new(), Vec::new()),
            false => (
                list(&self.taps),
                self.targets.iter().map(|t| bare(t.lend())).collect(),
            ),
        };
        let (params, buffers) = (list(&self.params), list(&self.buffers));
        let wanted: Vec<u8> = d_losses.iter().map(|&d| u8::from(d != 0.0)).collect();
        let request = KdTrace {
            struct_size: size_of::<KdTrace>() as u32,
            flags: match kind {
                TraceKind::Training => 0,
                TraceKind::Forward => KD_TRACE_FORWARD,
                TraceKind::Init => KD_TRACE_INIT,
            },
            n_taps: taps.len() as u32,
            n_params: params.len() as u32,
            n_buffers: buffers.len() as u32,
            n_targets: targets.len() as u32,
            n_losses: wanted.len() as u32,
            int_dtype: KdDType::I32,
            bool_bytes: 0,
            reserved: 0,
            taps: taps.as_ptr(),
            params: params.as_ptr(),
            buffers: buffers.as_ptr(),
            targets: targets.as_ptr(),
            loss_wanted: wanted.as_ptr(),
        };
        let mut bytes: Option<Vec<u8>> = None;
        let sink = KdProgramSink {
            struct_size: size_of::<KdProgramSink>() as u32,
            reserved: 0,
            sink: (&raw mut bytes).cast(),
            program: Some(take_program),
        };
        let call = self.call();
        // SAFETY: all arguments live to the end of the statement.
        let status = unsafe {
            trace(
                self.inst,
                &raw const call,
                &raw const request,
                &raw const sink,
            )
        };
        self.done("trace", status)
            .map_err(|error| error.to_string())?;
        let bytes = bytes.ok_or("`trace` gave no program")?;
        kd_graph::decode(&bytes).map_err(|error| error.to_string())
    }
}

unsafe extern "C" fn take_program(sink: *mut c_void, bytes: *const u8, len: u64) -> KdStatus {
    // SAFETY: the pointer of `Bench::program`, whose place lives as long as the call.
    let Some(place) = (unsafe { sink.cast::<Option<Vec<u8>>>().as_mut() }) else {
        return KD_E_INTERNAL;
    };
    if bytes.is_null() {
        return KD_E_INVALID_ARG;
    }
    // SAFETY: the plugin's promise.
    *place = Some(unsafe { std::slice::from_raw_parts(bytes, len as usize) }.to_vec());
    KD_OK
}
