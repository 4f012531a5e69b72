use std::ffi::c_void;

use kd_abi::{KdDevice, KdDlTensor};

use super::*;

fn raw(data: *mut c_void, shape: &[i64], strides: &[i64], dtype: KdDType, span: u64) -> KdTensor {
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
        span_bytes: span,
        flags: 0,
        slot: 0,
    }
}

fn of(values: &[f32], shape: &[i64], strides: &[i64]) -> KdTensor {
    let data = values.as_ptr().cast_mut().cast();
    raw(data, shape, strides, KdDType::F32, 4 * values.len() as u64)
}

#[test]
fn contiguous_memory_is_borrowed() {
    let values = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let tensor = of(&values, &[2, 3], &[3, 1]);
    // SAFETY: `values` lives to the end of the test.
    let view = unsafe { TensorView::from_raw(&tensor, "x") }.unwrap();
    let seen = view.f32s().unwrap();
    assert!(matches!(seen, Cow::Borrowed(_)));
    assert_eq!(seen.as_ptr(), values.as_ptr());
}

#[test]
fn transposed_memory_is_gathered_in_row_major_order() {
    let values = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let tensor = of(&values, &[3, 2], &[1, 3]);
    // SAFETY: as above.
    let view = unsafe { TensorView::from_raw(&tensor, "x") }.unwrap();
    assert_eq!(&*view.f32s().unwrap(), &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
}

#[test]
fn a_span_that_is_too_short_is_refused() {
    let values = [1.0f32; 5];
    let tensor = of(&values, &[2, 3], &[3, 1]);
    // SAFETY: refused before any read.
    let error = unsafe { TensorView::from_raw(&tensor, "tap 3") }.unwrap_err();
    assert!(error.message().contains("tap 3"), "{error}");
    assert!(error.message().contains("24 bytes"), "{error}");
}

#[test]
fn extents_that_overflow_are_refused() {
    let values = [1.0f32; 4];
    let tensor = of(&values, &[i64::MAX, 4], &[4, 1]);
    // SAFETY: refused before any read.
    assert!(unsafe { TensorView::from_raw(&tensor, "x") }.is_err());
}

#[test]
fn writes_follow_the_strides_and_the_accumulate_flag() {
    let mut values = [10.0f32; 6];
    let mut tensor = of(&values, &[3, 2], &[1, 3]);
    tensor.dl.data = values.as_mut_ptr().cast();
    tensor.flags = KD_T_ACCUMULATE;
    // SAFETY: `values` is exclusive and lives to the end of the test.
    let mut view = unsafe { TensorViewMut::from_raw(&tensor, "out") }.unwrap();
    view.write(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    assert_eq!(values, [11.0, 13.0, 15.0, 12.0, 14.0, 16.0]);
}

#[test]
fn an_unwanted_output_is_left_alone() {
    let tensor = raw(std::ptr::null_mut(), &[2], &[1], KdDType::F32, 0);
    // SAFETY: null data is never touched.
    let mut view = unsafe { TensorViewMut::from_raw(&tensor, "out") }.unwrap();
    assert!(!view.is_wanted());
    view.write(&[1.0, 2.0]).unwrap();
}

#[test]
fn integers_are_widened_and_floats_are_not_integers() {
    let labels = [3i32, -1];
    let tensor = raw(
        labels.as_ptr().cast_mut().cast(),
        &[2],
        &[1],
        KdDType::I32,
        8,
    );
    // SAFETY: `labels` lives to the end of the test.
    let view = unsafe { TensorView::from_raw(&tensor, "labels") }.unwrap();
    assert_eq!(view.i64s().unwrap(), [3, -1]);
    assert!(view.f32s().is_err());
}

#[test]
fn a_tensor_without_elements_may_have_no_data() {
    let tensor = raw(std::ptr::null_mut(), &[0, 4], &[4, 1], KdDType::F32, 0);
    // SAFETY: null data is never touched.
    let view = unsafe { TensorView::from_raw(&tensor, "boxes") }.unwrap();
    assert!(view.f32s().unwrap().is_empty());
}
