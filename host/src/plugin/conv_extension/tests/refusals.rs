//! What breaks the contract is refused, and no output is touched.

use std::ptr::null;

use kd_abi::{KD_E_INVALID_ARG, KD_EXT_CONV, KdStr};

use super::*;
use crate::plugin::host_table::HOST;

/// The arguments of both functions, for a test to break.
struct Arguments {
    conv: KdConv,
    /// In place of `conv`.
    conv_at: Option<*const KdConv>,
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    y_in: *const f32,
    dy: *const f32,
    y: *mut f32,
    dx: *mut f32,
    dw: *mut f32,
    db: *mut f32,
}

/// Statuses of forward and backward with broken arguments.
fn ask(context: &HostContext, relu: bool, change: impl FnOnce(&mut Arguments)) -> [KdStatus; 2] {
    let case = Case::new(&[[1, 4, 3], [1, 2, 2]], [3, 5], 3, relu);
    let lens = [case.dy.len(), case.x.len(), case.weight.len(), case.o];
    let mut out = lens.map(|len| vec![f32::NAN; len]);
    let [y, dx, dw, db] = out.each_mut().map(|out| out.as_mut_ptr());
    let mut a = Arguments {
        conv: case.conv(),
        conv_at: None,
        x: case.x.as_ptr(),
        weight: case.weight.as_ptr(),
        bias: case.bias.as_ptr(),
        y_in: case.dy.as_ptr(),
        dy: case.dy.as_ptr(),
        y,
        dx,
        dw,
        db,
    };
    change(&mut a);
    let (ctx, conv) = (context.as_pointer(), a.conv_at.unwrap_or(&raw const a.conv));
    let is_untouched = |first: *mut f32, len| {
        // SAFETY: `len` floats, as allocated above.
        let values = unsafe { std::slice::from_raw_parts(first, len) };
        values.iter().all(|v| v.is_nan())
    };
    // SAFETY: what was not broken is valid, and what was must be refused before it is read.
    let ahead = unsafe { forward(ctx, conv, a.x, a.weight, a.bias, a.y) };
    assert!(ahead == KD_OK || is_untouched(y, lens[0]));
    // SAFETY: as above.
    let back = unsafe { backward(ctx, conv, a.x, a.weight, a.y_in, a.dy, a.dx, a.dw, a.db) };
    for (first, len) in [(dx, lens[1]), (dw, lens[2]), (db, lens[3])] {
        assert!(back == KD_OK || is_untouched(first, len));
    }
    [ahead, back]
}

fn refused(change: impl FnOnce(&mut Arguments)) {
    assert_eq!(ask(&in_call(), true, change), [KD_E_INVALID_ARG; 2]);
}

#[test]
fn sound_arguments_are_taken() {
    assert_eq!(ask(&in_call(), true, |_| ()), [KD_OK; 2]);
    // Without ReLU, the output is not read again.
    assert_eq!(ask(&in_call(), false, |a| a.y_in = null()), [KD_OK; 2]);
    // A later struct begins with this one.
    assert_eq!(
        ask(&in_call(), true, |a| a.conv.struct_size += 8),
        [KD_OK; 2]
    );
}

#[test]
fn a_description_that_makes_no_sense_is_refused() {
    refused(|a| a.conv_at = Some(null()));
    refused(|a| a.conv_at = Some((&raw const a.conv).wrapping_byte_add(1)));
    refused(|a| a.conv.struct_size -= 1);
    refused(|a| a.conv.struct_size = 0);
    refused(|a| a.conv.sizes = null());
    refused(|a| a.conv.sizes = a.conv.sizes.wrapping_byte_add(4));
    refused(|a| a.conv.c_in = 0);
    refused(|a| a.conv.c_out = 0);
    refused(|a| a.conv.kernel = 0);
    refused(|a| a.conv.kernel = 2);
    refused(|a| a.conv.flags |= 2);
}

#[test]
fn extents_that_overflow_are_refused() {
    const BIG: u64 = u64::MAX;
    for [n, h, w] in [
        [BIG, 1, 1],
        [1 << 32, 1 << 32, 1],
        [1, 1 << 40, 1 << 40],
        // The cells alone would fit, their channels would not.
        [1, 1 << 31, 1 << 31],
        [1, 1, (1 << 61) - 1],
    ] {
        let size = KdMapSize { n, h, w };
        refused(|a| (a.conv.sizes, a.conv.n_sizes) = (&raw const size, 1));
    }
    // The sum over levels.
    let sizes = [KdMapSize {
        n: 1,
        h: 1 << 31,
        w: 1 << 28,
    }; 9];
    refused(|a| (a.conv.sizes, a.conv.n_sizes) = (sizes.as_ptr(), 9));
    refused(|a| (a.conv.c_in, a.conv.c_out) = (u32::MAX, u32::MAX));
    refused(|a| a.conv.kernel = u32::MAX);
}

#[test]
fn memory_that_cannot_be_used_is_refused() {
    refused(|a| a.x = null());
    refused(|a| a.weight = null());
    refused(|a| a.x = a.x.wrapping_byte_add(2));
    refused(|a| a.weight = a.weight.wrapping_byte_add(1));
    // The end of the memory would wrap.
    refused(|a| a.x = (usize::MAX - 7) as *const f32);
    let only_forward = [KD_E_INVALID_ARG, KD_OK];
    assert_eq!(ask(&in_call(), true, |a| a.bias = null()), only_forward);
    assert_eq!(ask(&in_call(), true, |a| a.y = null_mut()), only_forward);
    let only_backward = [KD_OK, KD_E_INVALID_ARG];
    assert_eq!(ask(&in_call(), true, |a| a.dy = null()), only_backward);
    assert_eq!(ask(&in_call(), true, |a| a.y_in = null()), only_backward);
    let unaligned = |a: &mut Arguments| a.db = a.db.wrapping_byte_add(2);
    assert_eq!(ask(&in_call(), true, unaligned), only_backward);
}

#[test]
fn outputs_overlap_nothing() {
    let over_x = |a: &mut Arguments| a.y = a.x.cast_mut();
    assert_eq!(ask(&in_call(), true, over_x), [KD_E_INVALID_ARG, KD_OK]);
    let only_backward = [KD_OK, KD_E_INVALID_ARG];
    let over_dy = |a: &mut Arguments| a.dx = a.dy.cast_mut().wrapping_add(1);
    assert_eq!(ask(&in_call(), true, over_dy), only_backward);
    let over_dw = |a: &mut Arguments| a.db = a.dw.wrapping_add(7);
    assert_eq!(ask(&in_call(), true, over_dw), only_backward);
}

#[test]
fn outside_a_call_nothing_is_done() {
    let context = in_call();
    context.end();
    assert_eq!(ask(&context, true, |_| ()), [KD_E_STATE; 2]);
    let context = in_call();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(ask(&context, true, |_| ()), [KD_E_STATE; 2]));
    });
}

#[test]
fn the_host_offers_it_inside_a_call() {
    let context = in_call();
    let get = HOST.get_extension.unwrap();
    // SAFETY: the context and the strings are alive.
    let offered = |id| unsafe { get(context.as_pointer(), KdStr::new(id)) };
    assert_eq!(offered(KD_EXT_CONV), (&raw const TABLE).cast());
    assert!(offered("kd.conv/2").is_null());
    context.end();
    assert!(offered(KD_EXT_CONV).is_null());
    // SAFETY: a null context is refused before it is read.
    assert!(unsafe { get(null_mut(), KdStr::new(KD_EXT_CONV)) }.is_null());
}
