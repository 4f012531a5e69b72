//! Boxes: conversions at the edge of a file format, overlap, clipping, rescaling.
//!
//! Inside the program a box is always [`BoxXyxy`]. Arithmetic is f32 in the order of torchvision's
//! `box_iou`, so that ties between overlaps agree with it to the bit.

/// `[x1, y1, x2, y2]` in pixels, `x1 <= x2`, `y1 <= y2`; a box covers `[x1, x2) × [y1, y2)`, with no
/// extra pixel.
pub type BoxXyxy = [f32; 4];

/// `[x, y, width, height]` in pixels as COCO's JSON has it. Only at the edge of a file.
pub type BoxXywh = [f64; 4];

/// Corners of a COCO box.
#[must_use]
pub fn xyxy_from_xywh([x, y, width, height]: BoxXywh) -> BoxXyxy {
    // Added in f64: the far corner is then the nearest f32 to the file's numbers.
    [x as f32, y as f32, (x + width) as f32, (y + height) as f32]
}

/// COCO's form of a box.
#[must_use]
pub fn xywh_from_xyxy([x1, y1, x2, y2]: BoxXyxy) -> BoxXywh {
    let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(f64::from);
    [x1, y1, x2 - x1, y2 - y1]
}

/// Area in pixels².
#[must_use]
pub fn area([x1, y1, x2, y2]: BoxXyxy) -> f32 {
    (x2 - x1) * (y2 - y1)
}

/// `[x, y]` of the centre.
#[must_use]
pub fn centre([x1, y1, x2, y2]: BoxXyxy) -> [f32; 2] {
    [(x1 + x2) / 2.0, (y1 + y2) / 2.0]
}

/// Area of the overlap in pixels²; 0 for boxes that only touch.
#[must_use]
pub fn intersection(a: BoxXyxy, b: BoxXyxy) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    width * height
}

/// Intersection over union, in `[0, 1]`; 0 where both boxes are empty.
#[must_use]
pub fn iou(a: BoxXyxy, b: BoxXyxy) -> f32 {
    let overlap = intersection(a, b);
    let union = area(a) + area(b) - overlap;
    if union > 0.0 { overlap / union } else { 0.0 }
}

/// Generalised intersection over union (arXiv 1902.09630), in `[-1, 1]`: the IoU less the share of
/// the smallest enclosing box that neither box covers.
#[must_use]
pub fn generalized_iou(a: BoxXyxy, b: BoxXyxy) -> f32 {
    let overlap = intersection(a, b);
    let union = area(a) + area(b) - overlap;
    let hull = area([
        a[0].min(b[0]),
        a[1].min(b[1]),
        a[2].max(b[2]),
        a[3].max(b[3]),
    ]);
    let iou = if union > 0.0 { overlap / union } else { 0.0 };
    if hull > 0.0 {
        iou - (hull - union) / hull
    } else {
        iou
    }
}

/// The part of a box inside an image of `[height, width]`; a box outside becomes empty at the edge.
#[must_use]
pub fn clip([x1, y1, x2, y2]: BoxXyxy, [height, width]: [usize; 2]) -> BoxXyxy {
    let (width, height) = (width as f32, height as f32);
    [
        x1.clamp(0.0, width),
        y1.clamp(0.0, height),
        x2.clamp(0.0, width),
        y2.clamp(0.0, height),
    ]
}

/// A box of an image of size `from` in the pixels of the same image at size `to`; both
/// `[height, width]`.
#[must_use]
pub fn scale([x1, y1, x2, y2]: BoxXyxy, from: [usize; 2], to: [usize; 2]) -> BoxXyxy {
    let ratio_y = to[0] as f32 / from[0] as f32;
    let ratio_x = to[1] as f32 / from[1] as f32;
    [x1 * ratio_x, y1 * ratio_y, x2 * ratio_x, y2 * ratio_y]
}

#[cfg(test)]
mod tests {
    use super::*;

    // Floats are compared with `==` where every step is exact in binary.

    #[test]
    fn xywh_round_trips() {
        assert_eq!(
            xyxy_from_xywh([10.5, 20.25, 4.0, 8.0]),
            [10.5, 20.25, 14.5, 28.25]
        );
        assert_eq!(
            xywh_from_xyxy([10.5, 20.25, 14.5, 28.25]),
            [10.5, 20.25, 4.0, 8.0]
        );
    }

    #[test]
    fn far_corner_is_added_in_double_precision() {
        // 0.1 + 0.6 = 0.7 in f64, which rounds to the f32 nearest 0.7; the rounded parts add up to
        // the f32 above it.
        let [_, _, x2, _] = xyxy_from_xywh([0.1, 0.0, 0.6, 1.0]);
        assert_eq!(x2, 0.7_f32);
        assert_ne!(0.1_f32 + 0.6_f32, 0.7_f32);
    }

    #[test]
    fn overlap_of_half_shifted_squares() {
        let a = [0.0, 0.0, 4.0, 4.0];
        let b = [2.0, 0.0, 6.0, 4.0];
        assert_eq!(area(a), 16.0);
        // 2 × 4 = 8; 8 / (16 + 16 - 8) = 1/3.
        assert_eq!(intersection(a, b), 8.0);
        assert_eq!(iou(a, b), 8.0 / 24.0);
        // The hull is 6 × 4 = 24 = the union, so GIoU = IoU.
        assert_eq!(generalized_iou(a, b), 8.0 / 24.0);
    }

    #[test]
    fn giou_of_distant_boxes_is_negative() {
        let a = [0.0, 0.0, 2.0, 2.0];
        let b = [6.0, 0.0, 8.0, 2.0];
        // Union 8, hull 8 × 2 = 16: 0 - (16 - 8) / 16 = -0.5.
        assert_eq!(iou(a, b), 0.0);
        assert_eq!(generalized_iou(a, b), -0.5);
    }

    #[test]
    fn touching_and_empty_boxes_do_not_overlap() {
        assert_eq!(iou([0.0, 0.0, 2.0, 2.0], [2.0, 0.0, 4.0, 2.0]), 0.0);
        assert_eq!(iou([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]), 0.0);
        assert_eq!(
            generalized_iou([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]),
            0.0
        );
    }

    #[test]
    fn clip_keeps_inside_and_empties_outside() {
        // An image 10 high, 20 wide.
        assert_eq!(
            clip([-3.0, 2.0, 25.0, 12.0], [10, 20]),
            [0.0, 2.0, 20.0, 10.0]
        );
        assert_eq!(area(clip([30.0, 2.0, 40.0, 5.0], [10, 20])), 0.0);
    }

    #[test]
    fn scale_is_per_axis() {
        // Height 10 -> 20 doubles y; width 40 -> 20 halves x.
        assert_eq!(
            scale([4.0, 1.0, 8.0, 3.0], [10, 40], [20, 20]),
            [2.0, 2.0, 4.0, 6.0]
        );
    }
}
