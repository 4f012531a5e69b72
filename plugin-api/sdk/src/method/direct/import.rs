//! The host's memory as Burn tensors, without a copy.
//!
//! The ABI promises that taps, parameters and targets given to a forward stay valid and unchanged
//! until its saved state is released, so the autodiff graph may hold views of them that long. Burn
//! never writes through a view: an in-place operation on shared bytes copies them first.
#![expect(unsafe_code, reason = "lends the host's memory to Burn")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{AllocationProperty, Bytes, DType, Device, Int, Tensor, TensorData};

use crate::{MethodError, TensorView};

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// How many views of the host's memory Burn holds in this library. Zero whenever no forward is
/// outstanding; anything else means that a method kept a tensor it was lent.
#[must_use]
pub fn live_views() -> usize {
    LIVE.load(Ordering::SeqCst)
}

/// Counts the views of one forward, and ends them.
///
/// Burn keeps the tape of a graph until a backward: dropping every tensor of a forward that nobody
/// differentiated leaves its views alive. Any later backward sweeps such tapes, so dropping the
/// last handle of a loan runs a minute one. Drop it after the tensors.
#[derive(Debug, Default)]
pub(in crate::method) struct Loan(Arc<AtomicUsize>);

impl Loan {
    pub(in crate::method) fn new() -> Self {
        Loan::default()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // While unwinding, a second panic would abort; the instance is poisoned anyway.
        if self.0.load(Ordering::SeqCst) > 0 && !std::thread::panicking() {
            let leaf = Tensor::<1>::ones([1], &Device::flex().autodiff()).require_grad();
            let _ = leaf.mul_scalar(1.0).backward();
        }
    }
}

/// Owner of a view, as Burn sees it; the memory is the host's.
struct Lent {
    first: *const u8,
    len: usize,
    of_loan: Arc<AtomicUsize>,
}

// SAFETY: the memory is only read, and the host does not write it while it is lent.
unsafe impl Send for Lent {}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: valid for `len` bytes until the saved state is released, by contract.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.of_loan.fetch_sub(1, Ordering::SeqCst);
        LIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Borrows `view`; copies only what Burn cannot address (strided or unaligned memory).
pub(in crate::method) fn borrow<const D: usize>(
    view: &TensorView<'_>,
    device: &Device,
    loan: &Loan,
) -> Result<Tensor<D>, MethodError> {
    let shape = extents::<D>(view.shape())?;
    let data = match view.f32_ptr() {
        Some(first) => {
            LIVE.fetch_add(1, Ordering::SeqCst);
            loan.0.fetch_add(1, Ordering::SeqCst);
            let owner = Lent {
                first: first.cast(),
                len: view.len() * size_of::<f32>(),
                of_loan: loan.0.clone(),
            };
            let bytes = bytes::Bytes::from_owner(owner);
            let bytes = Bytes::from_shared(bytes, AllocationProperty::Other);
            TensorData::from_bytes(bytes, shape, DType::F32)
        }
        None => TensorData::new(view.f32s()?.into_owned(), shape),
    };
    Ok(Tensor::from_data(data, device))
}

/// Integers of any width, copied into Burn's default integer type.
pub(in crate::method) fn integers<const D: usize>(
    view: &TensorView<'_>,
    device: &Device,
) -> Result<Tensor<D, Int>, MethodError> {
    let data = TensorData::new(view.i64s()?, extents::<D>(view.shape())?);
    Ok(Tensor::from_data(data, device))
}

/// Values of a tensor in row-major order.
pub(in crate::method) fn values<const D: usize>(
    tensor: Tensor<D>,
) -> Result<Vec<f32>, MethodError> {
    let data = tensor.into_data();
    match data.as_slice::<f32>() {
        Ok(values) => Ok(values.to_vec()),
        Err(error) => Err(MethodError::dtype(format!("expected f32: {error:?}"))),
    }
}

fn extents<const D: usize>(shape: &[usize]) -> Result<[usize; D], MethodError> {
    <[usize; D]>::try_from(shape)
        .map_err(|_| MethodError::shape(format!("expected {D} extents, got {shape:?}")))
}
