//! Boxes as numbers that a head predicts, relative to the anchor or location that they belong to.

use burn::tensor::Tensor;

use crate::boxes::{self, BoxXyxy};

/// How box deltas are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxCoder {
    /// RetinaNet's, torchvision's `BoxCoder` with weights `(1, 1, 1, 1)`:
    ///
    /// ```text
    /// dx = (cx − cx_a) / w_a    dw = ln(w / w_a)
    /// dy = (cy − cy_a) / h_a    dh = ln(h / h_a)
    /// ```
    CenterSize,
    /// FCOS's, torchvision's `BoxLinearCoder` with `normalize_by_size`: distances from the anchor's
    /// centre to the sides of the box, outward positive.
    ///
    /// ```text
    /// l = (cx_a − x1) / w_a    r = (x2 − cx_a) / w_a
    /// t = (cy_a − y1) / h_a    b = (y2 − cy_a) / h_a        in the order l, t, r, b
    /// ```
    EdgeDistances,
}

/// Largest `dw` and `dh` that decoding uses: `ln(1000 / 16)`, torchvision's `bbox_xform_clip`.
/// Beyond it the exponential of an untrained head would overflow.
pub const MAX_LOG_SIZE_RATIO: f32 = 4.135_166_6;

impl BoxCoder {
    /// The numbers that stand for `target`. The anchor needs positive extents, and for
    /// [`BoxCoder::CenterSize`] so does the target.
    #[must_use]
    pub fn encode(self, target: BoxXyxy, anchor: BoxXyxy) -> [f32; 4] {
        match self {
            BoxCoder::CenterSize => {
                let [anchor_x, anchor_y, anchor_w, anchor_h] = centre_and_size(anchor);
                let [target_x, target_y, target_w, target_h] = centre_and_size(target);
                [
                    (target_x - anchor_x) / anchor_w,
                    (target_y - anchor_y) / anchor_h,
                    (target_w / anchor_w).ln(),
                    (target_h / anchor_h).ln(),
                ]
            }
            BoxCoder::EdgeDistances => {
                let [x, y] = boxes::centre(anchor);
                let (width, height) = (anchor[2] - anchor[0], anchor[3] - anchor[1]);
                [
                    (x - target[0]) / width,
                    (y - target[1]) / height,
                    (target[2] - x) / width,
                    (target[3] - y) / height,
                ]
            }
        }
    }

    /// The box that `deltas` stand for, not clipped to any image.
    #[must_use]
    pub fn decode(self, deltas: [f32; 4], anchor: BoxXyxy) -> BoxXyxy {
        match self {
            BoxCoder::CenterSize => {
                let [anchor_x, anchor_y, anchor_w, anchor_h] = centre_and_size(anchor);
                let [dx, dy, dw, dh] = deltas;
                let x = dx * anchor_w + anchor_x;
                let y = dy * anchor_h + anchor_y;
                let half_w = 0.5 * (dw.min(MAX_LOG_SIZE_RATIO).exp() * anchor_w);
                let half_h = 0.5 * (dh.min(MAX_LOG_SIZE_RATIO).exp() * anchor_h);
                [x - half_w, y - half_h, x + half_w, y + half_h]
            }
            BoxCoder::EdgeDistances => {
                let [x, y] = boxes::centre(anchor);
                let (width, height) = (anchor[2] - anchor[0], anchor[3] - anchor[1]);
                let [left, top, right, bottom] = deltas;
                [
                    x - left * width,
                    y - top * height,
                    x + right * width,
                    y + bottom * height,
                ]
            }
        }
    }

    /// As [`BoxCoder::decode`], for many boxes.
    ///
    /// # Shapes
    /// - `deltas`: `[M, 4]`
    /// - `anchors_xyxy`: `[M, 4]`
    /// - result: `[M, 4]`
    ///
    /// # Gradients
    /// With respect to `deltas`; 0 for a `dw` or `dh` above [`MAX_LOG_SIZE_RATIO`].
    #[must_use]
    pub fn decode_tensor(self, deltas: Tensor<2>, anchors_xyxy: Tensor<2>) -> Tensor<2> {
        let near = anchors_xyxy.clone().narrow(1, 0, 2); // [M, 2]
        let far = anchors_xyxy.narrow(1, 2, 2);
        let size = far.clone() - near.clone();
        match self {
            BoxCoder::CenterSize => {
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
            BoxCoder::EdgeDistances => {
                let centre = (near + far) * 0.5;
                let back = deltas.clone().narrow(1, 0, 2) * size.clone();
                let forth = deltas.narrow(1, 2, 2) * size;
                Tensor::cat(vec![centre.clone() - back, centre + forth], 1) // [M, 4]
            }
        }
    }
}

fn centre_and_size([x1, y1, x2, y2]: BoxXyxy) -> [f32; 4] {
    let (width, height) = (x2 - x1, y2 - y1);
    [x1 + 0.5 * width, y1 + 0.5 * height, width, height]
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    const CODERS: [BoxCoder; 2] = [BoxCoder::CenterSize, BoxCoder::EdgeDistances];

    #[test]
    fn encode_by_hand() {
        // Anchor centre (8, 4), size 16 × 8; target centre (12, 6), size 8 × 8.
        // dx = 4/16, dy = 2/8, dw = ln(8/16), dh = ln(1).
        let deltas = BoxCoder::CenterSize.encode([8.0, 2.0, 16.0, 10.0], [0.0, 0.0, 16.0, 8.0]);
        assert_eq!(deltas, [0.25, 0.25, 0.5_f32.ln(), 0.0]);
    }

    #[test]
    fn distances_by_hand() {
        // Centre (8, 4), size 16 × 8: 8 left, 2 up, 4 right, and 1 past the lower side.
        let anchor = [0.0, 0.0, 16.0, 8.0];
        let distances = BoxCoder::EdgeDistances.encode([0.0, 2.0, 12.0, 3.0], anchor);
        assert_eq!(distances, [0.5, 0.25, 0.25, -0.125]);
    }

    #[test]
    fn decode_inverts_encode() {
        let anchor = [3.0, 5.0, 35.0, 21.0];
        let target = [10.0, 2.0, 31.5, 40.0];
        for coder in CODERS {
            let back = coder.decode(coder.encode(target, anchor), anchor);
            for (b, t) in back.iter().zip(target) {
                // A few roundings of numbers below 64: 64 · 2⁻²⁴ · 8.
                assert!(
                    (b - t).abs() < 3e-5,
                    "{coder:?}: {back:?} is not {target:?}"
                );
            }
        }
    }

    #[test]
    fn size_is_clipped() {
        let [x1, _, x2, _] =
            BoxCoder::CenterSize.decode([0.0, 0.0, 50.0, 0.0], [0.0, 0.0, 16.0, 16.0]);
        // 16 · 1000/16 = 1000 wide.
        assert!(((x2 - x1) - 1000.0).abs() < 1e-2);
    }

    #[test]
    fn tensor_form_equals_scalar_form() {
        let anchors = [[3.0, 5.0, 35.0, 21.0], [-8.0, -8.0, 8.0, 8.0]];
        let deltas = [[0.3, -0.2, 0.5, 9.0], [0.0, 1.5, -2.0, 0.1]];
        let device = Device::flex();
        for coder in CODERS {
            let decoded = coder
                .decode_tensor(
                    Tensor::from_data(TensorData::from(deltas), &device),
                    Tensor::from_data(TensorData::from(anchors), &device),
                )
                .into_data();
            let got = decoded.as_slice::<f32>().expect("f32");
            let want: Vec<f32> = deltas
                .iter()
                .zip(anchors)
                .flat_map(|(&d, a)| coder.decode(d, a))
                .collect();
            for (g, w) in got.iter().zip(&want) {
                // The tensor's exponential may round differently by an ulp.
                assert!((g - w).abs() <= 1e-5 * w.abs().max(1.0), "{got:?} {want:?}");
            }
        }
    }
}
