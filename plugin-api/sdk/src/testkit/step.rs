//! Forward, backward and release, as a host does them.
#![expect(unsafe_code, reason = "calls the method's table as a host does")]

use std::ptr;

use kd_abi::{KD_T_ACCUMULATE, KdBackward, KdForward, KdMethod, KdSaved, KdTensor};

use super::EntryError;
use super::bench::Bench;
use super::lend::{Owned, Target};

/// What a forward gave. Dropping it releases the saved state.
///
/// As for a host: drop it before the taps, parameters or targets of its [`Bench`] are changed, and
/// before the bench itself.
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

impl Bench {
    pub(super) fn map_shape(&self, slot: usize) -> Vec<i64> {
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
}
