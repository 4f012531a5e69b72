//! One step: forward and backward.

use std::sync::Arc;

use kd_abi::{KD_USE_GRAD, KdBackward, KdForward};

use super::instance::fit_specs;
use super::tensors::Marker;
use super::{ArrayMut, CallInfo, Method, Plan, Saved, TensorArg, TensorData};
use crate::plugin::error::PluginCallError;

impl Method {
    /// Computes losses and maps.
    ///
    /// The memory of taps, parameters and targets stays borrowed, and hence unchanged, until the
    /// saved state is dropped: the plugin may have kept views of it.
    ///
    /// # Shapes
    /// - `taps`: as bound, in that order, `[N, C, H, W]`.
    /// - `params`, `buffers`: as planned. Buffers are written, in check calls too: give a copy there.
    /// - `targets`: in the manifest's order.
    /// - `losses`: one value for each planned loss.
    /// - `maps`: as planned with the batch's extents put in.
    ///
    /// # Errors
    /// The plugin's error, arguments that do not fit the plan, or, in check calls, an output left
    /// unwritten. Values are not judged; see [`check_finite`](Self::check_finite).
    pub fn forward<'a>(
        &mut self,
        call: &CallInfo,
        taps: &[TensorArg<'a>],
        params: &[TensorArg<'a>],
        buffers: &mut [ArrayMut<'_>],
        targets: &[TensorArg<'a>],
        losses: &mut [f32],
        maps: &mut [ArrayMut<'_>],
    ) -> Result<Saved<'a>, PluginCallError> {
        const ENTRY: &str = "forward";
        let plan = self.require_plan(ENTRY)?;
        let instance = &self.instance;
        self.fit_inputs(ENTRY, &plan, taps, params)?;
        fit_specs(
            instance,
            ENTRY,
            "buffer",
            &plan.buffers,
            buffers.iter().map(|a| a.shape),
        )?;
        let counts = [
            ("targets", instance.manifest.targets.len(), targets.len()),
            ("losses", plan.losses.len(), losses.len()),
            ("maps", plan.maps.len(), maps.len()),
        ];
        for (what, planned, given) in counts {
            instance.fit(ENTRY, planned == given, || {
                format!("{given} {what} given, {planned} planned")
            })?;
        }
        for (spec, map) in plan.maps.iter().zip(maps.iter()) {
            let expected = taps[spec.replaces_tap].shape;
            instance.fit(ENTRY, map.shape == expected, || {
                format!(
                    "map `{}` has shape {:?}, its tap {expected:?}",
                    spec.name, map.shape
                )
            })?;
        }

        let marker = Marker::for_call(call);
        losses.fill(marker.value());
        for map in maps.iter_mut() {
            map.fill(marker);
        }
        let views = &mut self.views;
        views.clear();
        views.inputs(taps);
        views.inputs(params);
        views.in_out(buffers);
        views.inputs(targets);
        views.scalar_outputs(losses, marker);
        views.outputs(maps, marker);
        let mut cursor = views.finish();
        let mut next = |count: usize| {
            let first = cursor;
            // SAFETY: the views were made in this order; the sum of the counts is their number.
            cursor = unsafe { cursor.add(count) };
            first
        };
        let args = KdForward {
            struct_size: size_of::<KdForward>() as u32,
            n_taps: taps.len() as u32,
            n_params: params.len() as u32,
            n_buffers: buffers.len() as u32,
            n_targets: targets.len() as u32,
            n_losses: losses.len() as u32,
            n_maps: maps.len() as u32,
            reserved: 0,
            taps: next(taps.len()),
            params: next(params.len()),
            buffers: next(buffers.len()),
            targets: next(targets.len()),
            losses: next(losses.len()),
            maps: next(maps.len()),
        };
        let mut saved = std::ptr::null_mut();
        let forward = instance.table.forward.expect("checked at load");
        let outcome = instance.enter(ENTRY, call, true, |inst, kd_call| {
            // SAFETY: every view borrows memory that lives until this function returns.
            unsafe { forward(inst, kd_call, &raw const args, &raw mut saved) }
        })?;
        // From here on the saved state is owned, and released also if a check below fails.
        let saved = Saved::new(Arc::clone(instance), saved, outcome.saved);
        if marker.is_poison() {
            for (spec, loss) in plan.losses.iter().zip(losses.iter_mut()) {
                let name = format!("loss `{}`", spec.name);
                let array = ArrayMut::new(&[], std::slice::from_mut(loss));
                instance.require_written(ENTRY, &name, &array, marker)?;
            }
            for (spec, map) in plan.maps.iter().zip(maps.iter()) {
                let name = format!("map `{}`", spec.name);
                instance.require_written(ENTRY, &name, map, marker)?;
            }
        }
        Ok(saved)
    }

    /// Computes the gradients of `sum(d_losses * losses) + sum(d_maps * maps)` with respect to
    /// taps and parameters. At most once for each saved state.
    ///
    /// # Shapes
    /// - `taps`, `params`: the same values as in forward.
    /// - `d_losses`: one for each planned loss, the host's weights folded in.
    /// - `d_maps`: as the maps of forward.
    /// - `d_taps`, `d_params`: as taps and parameters; `None` where not wanted, which for taps
    ///   must include every one that the plan gives no gradient.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward), and a saved state of another instance or used before.
    pub fn backward(
        &mut self,
        call: &CallInfo,
        taps: &[TensorArg<'_>],
        params: &[TensorArg<'_>],
        d_losses: &[f32],
        d_maps: &[TensorArg<'_>],
        d_taps: &mut [Option<ArrayMut<'_>>],
        d_params: &mut [Option<ArrayMut<'_>>],
        saved: &mut Saved<'_>,
    ) -> Result<(), PluginCallError> {
        const ENTRY: &str = "backward";
        let plan = self.require_plan(ENTRY)?;
        let instance = &self.instance;
        self.fit_inputs(ENTRY, &plan, taps, params)?;
        let counts = [
            ("upstream losses", plan.losses.len(), d_losses.len()),
            ("upstream maps", plan.maps.len(), d_maps.len()),
            ("tap gradients", taps.len(), d_taps.len()),
            ("parameter gradients", params.len(), d_params.len()),
        ];
        for (what, planned, given) in counts {
            instance.fit(ENTRY, planned == given, || {
                format!("{given} {what} given, {planned} expected")
            })?;
        }
        for (index, gradient) in d_taps.iter().enumerate() {
            let Some(gradient) = gradient else { continue };
            let (wanted, has) = (taps[index].shape, plan.tap_use[index] & KD_USE_GRAD);
            instance.fit(ENTRY, has != 0, || {
                format!("a gradient is wanted for tap {index}, for which the plan gives none")
            })?;
            instance.fit(ENTRY, gradient.shape == wanted, || {
                format!(
                    "gradient of tap {index} has shape {:?}, the tap {wanted:?}",
                    gradient.shape
                )
            })?;
        }
        for (spec, gradient) in plan.params.iter().zip(d_params.iter()) {
            let fits = gradient.as_ref().is_none_or(|g| *g.shape == *spec.shape);
            instance.fit(ENTRY, fits, || {
                format!(
                    "the gradient of parameter `{}` has another shape than it",
                    spec.name
                )
            })?;
        }
        let saved_pointer = saved.take_for_backward(instance)?;

        let marker = Marker::for_call(call);
        d_taps
            .iter_mut()
            .flatten()
            .for_each(|array| array.fill(marker));
        d_params
            .iter_mut()
            .flatten()
            .for_each(|array| array.fill(marker));
        let views = &mut self.views;
        views.clear();
        views.inputs(taps);
        views.inputs(params);
        views.scalar_inputs(d_losses);
        views.inputs(d_maps);
        views.optional_outputs(d_taps, taps.iter().map(|t| t.shape), marker);
        let param_shapes = plan.params.iter().map(|spec| spec.shape.as_slice());
        views.optional_outputs(d_params, param_shapes, marker);
        let mut cursor = views.finish();
        let mut next = |count: usize| {
            let first = cursor;
            // SAFETY: the views were made in this order; the sum of the counts is their number.
            cursor = unsafe { cursor.add(count) };
            first
        };
        let args = KdBackward {
            struct_size: size_of::<KdBackward>() as u32,
            n_taps: taps.len() as u32,
            n_params: params.len() as u32,
            n_losses: d_losses.len() as u32,
            n_maps: d_maps.len() as u32,
            reserved: 0,
            taps: next(taps.len()),
            params: next(params.len()),
            d_losses: next(d_losses.len()),
            d_maps: next(d_maps.len()),
            d_taps: next(d_taps.len()),
            d_params: next(d_params.len()),
        };
        let backward = instance.table.backward.expect("checked at load");
        instance.enter(ENTRY, call, false, |inst, kd_call| {
            // SAFETY: every view borrows memory that lives until this function returns; the saved
            // state is this instance's and not yet released.
            unsafe { backward(inst, kd_call, &raw const args, saved_pointer) }
        })?;
        for (index, array) in d_taps.iter().enumerate() {
            if let Some(array) = array {
                instance.require_written(
                    ENTRY,
                    &format!("gradient of tap {index}"),
                    array,
                    marker,
                )?;
            }
        }
        for (spec, array) in plan.params.iter().zip(d_params.iter()) {
            if let Some(array) = array {
                let name = format!("gradient of parameter `{}`", spec.name);
                instance.require_written(ENTRY, &name, array, marker)?;
            }
        }
        Ok(())
    }

    fn fit_inputs(
        &self,
        entry: &'static str,
        plan: &Plan,
        taps: &[TensorArg<'_>],
        params: &[TensorArg<'_>],
    ) -> Result<(), PluginCallError> {
        let instance = &self.instance;
        let bound = self.tap_channels.len();
        instance.fit(entry, taps.len() == bound, || {
            format!("{} taps given, {bound} bound", taps.len())
        })?;
        for (index, (tap, channels)) in taps.iter().zip(&self.tap_channels).enumerate() {
            let fits = tap.shape.len() == 4 && tap.shape[1] == *channels;
            instance.fit(entry, fits, || {
                format!(
                    "tap {index} has shape {:?}, bound with {channels} channels",
                    tap.shape
                )
            })?;
            instance.fit(entry, matches!(tap.data(), TensorData::F32(_)), || {
                format!("tap {index} is not f32")
            })?;
        }
        fit_specs(
            instance,
            entry,
            "parameter",
            &plan.params,
            params.iter().map(|p| p.shape),
        )?;
        for (spec, param) in plan.params.iter().zip(params) {
            instance.fit(entry, matches!(param.data(), TensorData::F32(_)), || {
                format!("parameter `{}` is not f32", spec.name)
            })?;
        }
        Ok(())
    }
}
