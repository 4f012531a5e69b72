//! Boxes as offsets from anchors, as torchvision's `BoxCoder` with weights `(1, 1, 1, 1)`.
//!
//! ```text
//! dx = (cx − cx_a) / w_a    dw = ln(w / w_a)
//! dy = (cy − cy_a) / h_a    dh = ln(h / h_a)
//! ```

use burn::tensor::Tensor;

use crate::boxes::BoxXyxy;

/// Largest `dw` and `dh` that decoding uses: `ln(1000 / 16)`, torchvision's `bbox_xform_clip`.
/// Beyond it the exponential of an untrained head would overflow.
pub const MAX_LOG_SIZE_RATIO: f32 = 4.135_166_6;

/// Offsets of `target` from `anchor`. Both need positive extents.
#[must_use]
pub fn encode(target: BoxXyxy, anchor: BoxXyxy) -> [f32; 4] {
    let [anchor_x, anchor_y, anchor_w, anchor_h] = centre_and_size(anchor);
    let [target_x, target_y, target_w, target_h] = centre_and_size(target);
    [
        (target_x - anchor_x) / anchor_w,
        (target_y - anchor_y) / anchor_h,
        (target_w / anchor_w).ln(),
        (target_h / anchor_h).ln(),
    ]
}

/// The box at `deltas` from `anchor`, not clipped to any image.
#[must_use]
pub fn decode(deltas: [f32; 4], anchor: BoxXyxy) -> BoxXyxy {
    let [anchor_x, anchor_y, anchor_w, anchor_h] = centre_and_size(anchor);
    let [dx, dy, dw, dh] = deltas;
    let x = dx * anchor_w + anchor_x;
    let y = dy * anchor_h + anchor_y;
    let half_w = 0.5 * (dw.min(MAX_LOG_SIZE_RATIO).exp() * anchor_w);
    let half_h = 0.5 * (dh.min(MAX_LOG_SIZE_RATIO).exp() * anchor_h);
    [x - half_w, y - half_h, x + half_w, y + half_h]
}

/// As [`decode`], for many boxes.
///
/// # Shapes
/// - `deltas`: `[M, 4]`
/// - `anchors_xyxy`: `[M, 4]`
/// - result: `[M, 4]`
///
/// # Gradients
/// With respect to `deltas`; 0 for a `dw` or `dh` above [`MAX_LOG_SIZE_RATIO`].
#[must_use]
pub fn decode_tensor(deltas: Tensor<2>, anchors_xyxy: Tensor<2>) -> Tensor<2> {
    let near = anchors_xyxy.clone().narrow(1, 0, 2); // [M, 2]
    let size = anchors_xyxy.narrow(1, 2, 2) - near.clone();
    let centre = near + size.clone() * 0.5;
    let shift = deltas.clone().narrow(1, 0, 2) * size.clone() + centre;
    let half = deltas
        .narrow(1, 2, 2)
        .clamp_max(MAX_LOG_SIZE_RATIO)
        .exp()
        .mul(size)
        .mul_scalar(0.5);
    Tensor::cat(vec![shift.clone() - half.clone(), shift + half], 1) // [M, 4]
}

fn centre_and_size([x1, y1, x2, y2]: BoxXyxy) -> [f32; 4] {
    let (width, height) = (x2 - x1, y2 - y1);
    [x1 + 0.5 * width, y1 + 0.5 * height, width, height]
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn encode_by_hand() {
        // Anchor centre (8, 4), size 16 × 8; target centre (12, 6), size 8 × 8.
        // dx = 4/16, dy = 2/8, dw = ln(8/16), dh = ln(1).
        let deltas = encode([8.0, 2.0, 16.0, 10.0], [0.0, 0.0, 16.0, 8.0]);
        assert_eq!(deltas, [0.25, 0.25, 0.5_f32.ln(), 0.0]);
    }

    #[test]
    fn decode_inverts_encode() {
        let anchor = [3.0, 5.0, 35.0, 21.0];
        let target = [10.0, 2.0, 31.5, 40.0];
        let back = decode(encode(target, anchor), anchor);
        for (b, t) in back.iter().zip(target) {
            // A few roundings of numbers below 64: 64 · 2⁻²⁴ · 8.
            assert!((b - t).abs() < 3e-5, "{back:?} is not {target:?}");
        }
    }

    #[test]
    fn size_is_clipped() {
        let [x1, _, x2, _] = decode([0.0, 0.0, 50.0, 0.0], [0.0, 0.0, 16.0, 16.0]);
        // 16 · 1000/16 = 1000 wide.
        assert!(((x2 - x1) - 1000.0).abs() < 1e-2);
    }

    #[test]
    fn tensor_form_equals_scalar_form() {
        let anchors = [[3.0, 5.0, 35.0, 21.0], [-8.0, -8.0, 8.0, 8.0]];
        let deltas = [[0.3, -0.2, 0.5, 9.0], [0.0, 1.5, -2.0, 0.1]];
        let device = Device::flex();
        let decoded = decode_tensor(
            Tensor::from_data(TensorData::from(deltas), &device),
            Tensor::from_data(TensorData::from(anchors), &device),
        )
        .into_data();
        let got = decoded.as_slice::<f32>().expect("f32");
        let want: Vec<f32> = deltas
            .iter()
            .zip(anchors)
            .flat_map(|(&d, a)| decode(d, a))
            .collect();
        for (g, w) in got.iter().zip(&want) {
            // The tensor's exponential may round differently by an ulp.
            assert!((g - w).abs() <= 1e-5 * w.abs().max(1.0), "{got:?} {want:?}");
        }
    }
}
