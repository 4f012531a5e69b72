//! Which work is done by kernels and loops over slices, and which by Burn's operations.

use burn::backend::Flex;
use burn::tensor::{DType, Tensor};

/// Whether the tensor lives on the CPU backend, where reading it costs nothing and loops over slices
/// are the fastest way; everywhere else Burn's operations do the work. This one function decides, for
/// models, losses, weights and optimizer alike.
pub(crate) fn is_on_host<const D: usize>(tensor: &Tensor<D>) -> bool {
    let plain = tensor.clone().without_autodiff();
    plain.try_into_primitive::<Flex>().is_ok() && !mode::on_operations()
}

/// Whether the kernels take the tensor: [`is_on_host`] and f32. The convolution takes half precision
/// too, where it is storage alone.
pub(crate) fn is_for_kernels<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && is_on_host(tensor)
}

#[cfg(not(test))]
mod mode {
    pub(super) fn on_operations() -> bool {
        false
    }
}

#[cfg(test)]
pub(crate) use mode::run as with_operations;

/// Tests run the form for other devices on the CPU backend.
#[cfg(test)]
mod mode {
    use std::cell::Cell;

    thread_local! {
        static ON_OPERATIONS: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn on_operations() -> bool {
        ON_OPERATIONS.get()
    }

    /// Runs `f` with Burn's operations everywhere, or not. Of this thread alone: other tests go on
    /// beside it, and with operations a step stays on its thread.
    pub(crate) fn run<R>(on_operations: bool, f: impl FnOnce() -> R) -> R {
        struct Restore(bool);
        impl Drop for Restore {
            fn drop(&mut self) {
                ON_OPERATIONS.set(self.0);
            }
        }
        let _restore = Restore(ON_OPERATIONS.replace(on_operations));
        f()
    }
}
