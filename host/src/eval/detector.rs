//! From a detector's outputs on the network input to predictions on the original image.

use crate::data::ImageMeta;
use crate::detection::Detections;
use crate::eval::coco::Prediction;

/// Predictions of one image.
///
/// Undoes the mirroring, then scales each axis by original over resized extent (the two factors
/// differ by rounding even where the aspect ratio is kept). Order is kept, nothing is dropped.
///
/// # Units
/// `detections` in pixels of the network input, padding at the right and bottom; predictions in
/// pixels of the original image. `category_ids[label]` is the category id of a label.
///
/// # Panics
/// If a label has no category id or `meta.size` has a zero extent: the detector was built for
/// other classes, or the image was never resized.
#[must_use]
pub fn to_predictions(
    detections: &Detections,
    meta: &ImageMeta,
    category_ids: &[i64],
) -> Vec<Prediction> {
    boxes_on_original(&detections.boxes_xyxy, meta)
        .into_iter()
        .zip(&detections.scores)
        .zip(&detections.labels)
        .map(|((box_xyxy, &score), &label)| Prediction {
            image_id: meta.image_id,
            category_id: category_ids[label],
            bbox_xywh: super::coco::xywh_from_xyxy(box_xyxy),
            score: f64::from(score),
        })
        .collect()
}

/// Boxes in pixels of the network input, `[x1, y1, x2, y2]`, as boxes in pixels of the original.
///
/// # Panics
/// If `meta.size` has a zero extent.
#[must_use]
pub fn boxes_on_original(boxes_xyxy: &[[f32; 4]], meta: &ImageMeta) -> Vec<[f64; 4]> {
    let [height, width] = meta.size;
    assert!(
        height > 0 && width > 0,
        "image {} was resized to nothing",
        meta.image_id
    );
    let scale_y = meta.original_size[0] as f64 / height as f64;
    let scale_x = meta.original_size[1] as f64 / width as f64;
    boxes_xyxy
        .iter()
        .map(|box_xyxy| {
            let [mut x1, y1, mut x2, y2] = box_xyxy.map(f64::from);
            if meta.flipped {
                (x1, x2) = (width as f64 - x2, width as f64 - x1);
            }
            [x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(flipped: bool) -> ImageMeta {
        // Factors: 300 / 100 = 3 down, 320 / 80 = 4 across.
        ImageMeta {
            image_id: 7,
            original_size: [300, 320],
            size: [100, 80],
            flipped,
        }
    }

    fn detections() -> Detections {
        Detections {
            boxes_xyxy: vec![[10.0, 20.0, 30.0, 50.0], [0.0, 0.0, 80.0, 100.0]],
            scores: vec![0.5, 0.25],
            labels: vec![1, 0],
        }
    }

    #[test]
    fn each_axis_has_its_own_factor() {
        let predictions = to_predictions(&detections(), &meta(false), &[3, 90]);
        assert_eq!(
            predictions[0],
            Prediction {
                image_id: 7,
                category_id: 90,
                bbox_xywh: [40.0, 60.0, 80.0, 90.0],
                score: 0.5
            }
        );
        assert_eq!(predictions[1].category_id, 3);
        assert_eq!(predictions[1].bbox_xywh, [0.0, 0.0, 320.0, 300.0]);
    }

    #[test]
    fn mirroring_is_undone_within_the_unpadded_width() {
        let predictions = to_predictions(&detections(), &meta(true), &[3, 90]);
        // x from 80 - 30 = 50 to 80 - 10 = 70, times 4.
        assert_eq!(predictions[0].bbox_xywh, [200.0, 60.0, 80.0, 90.0]);
        assert_eq!(predictions[1].bbox_xywh, [0.0, 0.0, 320.0, 300.0]);
    }

    #[test]
    fn no_detections_make_no_predictions() {
        assert!(to_predictions(&Detections::default(), &meta(false), &[]).is_empty());
    }
}
