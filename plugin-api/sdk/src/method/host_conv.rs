//! The host's convolution, if the host of the running call offers it (`kd.conv/1`).
//!
//! It belongs to one call: forward and backward each ask anew, and a graph never keeps it.
#![expect(unsafe_code, reason = "enters the host's functions")]

use kd_abi::{KD_CONV_RELU, KD_EXT_CONV, KD_OK, KdConv, KdConvTable, KdMapSize, KdStatus};
use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::{null, null_mut};

use super::conv_op::Conv;
use super::packed::MapSize;
use crate::call::Call;

thread_local! {
    static CURRENT: Cell<Option<HostConv>> = const { Cell::new(None) };
}

/// What forward used, `y` with ReLU alone, and the gradient at its result.
pub(crate) struct Operands<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) y: Option<&'a [f32]>,
    pub(crate) dy: &'a [f32],
}

/// The host's functions and the context of the running call.
#[derive(Clone, Copy)]
pub(crate) struct HostConv {
    table: &'static KdConvTable,
    host_ctx: *mut c_void,
}

/// While it lives, convolutions on this thread may go to the host of a call.
#[must_use]
pub(crate) struct Entered<'a> {
    outer: Option<HostConv>,
    // Bound to the call and to its thread.
    _call: PhantomData<(&'a (), *const ())>,
}

impl<'a> Entered<'a> {
    pub(crate) fn new(call: &Call<'a>) -> Self {
        Entered {
            outer: CURRENT.replace(HostConv::offered(call)),
            _call: PhantomData,
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}

impl HostConv {
    fn offered(call: &Call<'_>) -> Option<HostConv> {
        let table = call.extension(KD_EXT_CONV).cast::<KdConvTable>();
        // SAFETY: under this id the host gives null or a static table.
        let table = unsafe { table.as_ref()? };
        let whole = table.struct_size as usize >= size_of::<KdConvTable>()
            && table.forward.is_some()
            && table.backward.is_some();
        whole.then_some(HostConv {
            table,
            host_ctx: call.host_ctx(),
        })
    }

    /// That of the call which runs on this thread.
    pub(crate) fn current() -> Option<HostConv> {
        CURRENT.get()
    }

    /// `[cells, c_out]`.
    ///
    /// # Panics
    /// If operands have other extents, or the host refuses.
    pub(crate) fn forward(self, conv: &Conv, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let cells = conv.fit(x, weight);
        assert_eq!(bias.len(), conv.c_out, "one bias a channel");
        let mut y = Vec::with_capacity(cells * conv.c_out);
        let forward = self.table.forward.expect("it was offered whole");
        conv.with_raw(|raw| {
            // SAFETY: inside the call, on its thread; lengths were checked, and the host writes all of
            // `y` if it says so.
            unsafe {
                let (x, weight, bias) = (x.as_ptr(), weight.as_ptr(), bias.as_ptr());
                let status = forward(self.host_ctx, raw, x, weight, bias, y.as_mut_ptr());
                accept(status, conv);
                y.set_len(cells * conv.c_out);
            }
        });
        y
    }

    /// Gradients at `x`, weight and bias, as far as they are wanted.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub(crate) fn backward(
        self,
        conv: &Conv,
        operands: &Operands<'_>,
        wanted: [bool; 3],
    ) -> [Option<Vec<f32>>; 3] {
        let Operands { x, weight, y, dy } = *operands;
        let cells = conv.fit(x, weight);
        assert_eq!(dy.len(), cells * conv.c_out, "gradient of other maps");
        assert_eq!(conv.relu, y.is_some(), "ReLU needs the output");
        assert!(
            y.is_none_or(|y| y.len() == dy.len()),
            "output of other maps"
        );
        let lens = [x.len(), weight.len(), conv.c_out];
        let mut outputs = [0, 1, 2].map(|i| wanted[i].then(|| Vec::with_capacity(lens[i])));
        let [dx, dweight, dbias] = outputs
            .each_mut()
            .map(|out| out.as_mut().map_or(null_mut(), Vec::as_mut_ptr));
        let backward = self.table.backward.expect("it was offered whole");
        conv.with_raw(|raw| {
            let y = y.map_or(null(), <[f32]>::as_ptr);
            let (x, weight, dy) = (x.as_ptr(), weight.as_ptr(), dy.as_ptr());
            // SAFETY: inside the call, on its thread; lengths were checked.
            let status =
                unsafe { backward(self.host_ctx, raw, x, weight, y, dy, dx, dweight, dbias) };
            accept(status, conv);
        });
        for (output, len) in outputs.iter_mut().zip(lens) {
            if let Some(output) = output {
                // SAFETY: the capacity is there, and the host said that it wrote every element.
                unsafe { output.set_len(len) };
            }
        }
        outputs
    }
}

impl Conv {
    /// Number of cells; the host cannot see how long a slice is.
    fn fit(&self, x: &[f32], weight: &[f32]) -> usize {
        let cells: usize = self.sizes.iter().map(MapSize::cells).sum();
        assert_eq!(x.len(), cells * self.c_in, "maps of other extents");
        let weights = self.c_out * self.c_in * self.kernel * self.kernel;
        assert_eq!(weight.len(), weights, "weight of other extents");
        cells
    }

    fn with_raw(&self, body: impl FnOnce(&KdConv)) {
        let size = |size: &MapSize| KdMapSize {
            n: size.n as u64,
            h: size.h as u64,
            w: size.w as u64,
        };
        let sizes: Vec<KdMapSize> = self.sizes.iter().map(size).collect();
        let narrow = |extent: usize| u32::try_from(extent).expect("extents fit into 32 bits");
        body(&KdConv {
            struct_size: size_of::<KdConv>() as u32,
            n_sizes: narrow(sizes.len()),
            sizes: sizes.as_ptr(),
            c_in: narrow(self.c_in),
            c_out: narrow(self.c_out),
            kernel: narrow(self.kernel),
            flags: if self.relu { KD_CONV_RELU } else { 0 },
        });
    }
}

/// A refusal is a fault of this crate, for which a method has no answer.
fn accept(status: KdStatus, conv: &Conv) {
    assert!(
        status == KD_OK,
        "the host refused a convolution with status {status} (its log says why): {conv:?}"
    );
}
