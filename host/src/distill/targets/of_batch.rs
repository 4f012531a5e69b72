//! Targets made from ground truth and images.

use super::{Target, TargetValues};
use crate::data::{Batch, MaskCrop};

pub(super) fn gt_boxes_xyxy(batch: &Batch) -> Target {
    let values: Vec<f32> = batch
        .targets
        .iter()
        .flat_map(|t| t.boxes_xyxy.iter().flatten().copied())
        .collect();
    Target {
        shape: vec![values.len() / 4, 4],
        values: TargetValues::F32(values),
    }
}

pub(super) fn gt_semantic_seg(batch: &Batch) -> Target {
    let [images, _, height, width] = batch.shape;
    Target {
        shape: vec![images, height, width],
        values: TargetValues::I64(batch.label_maps.iter().map(|&l| i64::from(l)).collect()),
    }
}

pub(super) fn gt_label(batch: &Batch) -> Target {
    Target {
        shape: vec![batch.labels.len()],
        values: TargetValues::I64(batch.labels.iter().map(|&l| l as i64).collect()),
    }
}

pub(super) fn gt_labels(batch: &Batch) -> Target {
    let values: Vec<i64> = batch
        .targets
        .iter()
        .flat_map(|t| t.labels.iter().map(|&l| l as i64))
        .collect();
    Target {
        shape: vec![values.len()],
        values: TargetValues::I64(values),
    }
}

pub(super) fn gt_batch(batch: &Batch) -> Target {
    let values: Vec<i64> = batch
        .targets
        .iter()
        .enumerate()
        .flat_map(|(i, t)| std::iter::repeat_n(i as i64, t.labels.len()))
        .collect();
    Target {
        shape: vec![values.len()],
        values: TargetValues::I64(values),
    }
}

pub(super) fn image_sizes(batch: &Batch) -> Target {
    let values: Vec<i64> = batch
        .metas
        .iter()
        .flat_map(|m| m.size.iter().map(|&s| s as i64))
        .collect();
    Target {
        shape: vec![batch.metas.len(), 2],
        values: TargetValues::I64(values),
    }
}

pub(super) fn gt_mask_crops(batch: &Batch) -> Target {
    let objects: usize = batch.targets.iter().map(|t| t.boxes_xyxy.len()).sum();
    let mut crops: Vec<MaskCrop> = batch
        .targets
        .iter()
        .flat_map(|t| t.mask_crops.iter().flatten().copied())
        .collect();
    // Some without the others could not be told whose they are.
    if crops.len() != objects {
        crops.clear();
    }
    Target {
        shape: vec![crops.len(), MaskCrop::SIDE, MaskCrop::SIDE],
        values: TargetValues::F32(crops.into_iter().flat_map(MaskCrop::to_f32s).collect()),
    }
}

pub(super) fn input_size(batch: &Batch) -> Target {
    let [_, _, height, width] = batch.shape;
    Target {
        shape: vec![2],
        values: TargetValues::I64(vec![height as i64, width as i64]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ImageMeta, ImageTargets};

    #[test]
    fn targets_are_flat_over_the_batch_and_may_be_empty() {
        let meta = |w| ImageMeta {
            image_id: 1,
            original_size: [10, w],
            size: [10, w],
            flipped: false,
        };
        let batch = Batch {
            images: vec![],
            shape: [3, 3, 10, 20],
            targets: vec![
                ImageTargets {
                    boxes_xyxy: vec![[0.0, 1.0, 2.0, 3.0]],
                    labels: vec![4],
                    ..ImageTargets::default()
                },
                ImageTargets::default(),
                ImageTargets {
                    boxes_xyxy: vec![[1.0; 4], [2.0; 4]],
                    labels: vec![5, 6],
                    ..ImageTargets::default()
                },
            ],
            metas: vec![meta(18), meta(20), meta(19)],
            ..Batch::default()
        };
        assert_eq!(gt_boxes_xyxy(&batch).shape, [3, 4]);
        assert_eq!(gt_batch(&batch).values, TargetValues::I64(vec![0, 2, 2]));
        assert_eq!(gt_labels(&batch).values, TargetValues::I64(vec![4, 5, 6]));
        assert_eq!(
            image_sizes(&batch).values,
            TargetValues::I64(vec![10, 18, 10, 20, 10, 19])
        );
        assert_eq!(input_size(&batch).values, TargetValues::I64(vec![10, 20]));
        let empty = Batch {
            targets: vec![ImageTargets::default(); 3],
            ..batch
        };
        assert_eq!(gt_boxes_xyxy(&empty).shape, [0, 4]);
    }

    #[test]
    fn mask_crops_are_all_there_or_none() {
        let box_xyxy = [0.0, 0.0, 7.0, 7.0];
        let polygon = |right: f64| vec![0.0, 0.0, right, 0.0, right, 7.0, 0.0, 7.0];
        let [full, left] =
            [7.0, 3.0].map(|right| MaskCrop::from_polygons(&[polygon(right)], box_xyxy));
        let image = |mask_crops: Vec<Option<MaskCrop>>, objects| ImageTargets {
            boxes_xyxy: vec![box_xyxy; objects],
            labels: vec![0; objects],
            mask_crops,
        };
        let batch = |targets| Batch {
            images: vec![],
            shape: [3, 3, 7, 7],
            targets,
            metas: vec![],
            ..Batch::default()
        };
        let none = Target {
            shape: vec![0, 7, 7],
            values: TargetValues::F32(vec![]),
        };

        let all = gt_mask_crops(&batch(vec![
            image(vec![Some(full)], 1),
            ImageTargets::default(),
            image(vec![Some(left), Some(full)], 2),
        ]));
        assert_eq!(all.shape, [3, 7, 7]);
        let TargetValues::F32(values) = all.values else {
            panic!("masks are floats")
        };
        let expected = [full, left, full].map(MaskCrop::to_f32s);
        assert_eq!(values, expected.as_flattened());
        assert_eq!(values[49..56], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);

        let mixed = vec![image(vec![Some(full)], 1), image(vec![Some(left), None], 2)];
        assert_eq!(gt_mask_crops(&batch(mixed)), none);
        let absent = vec![image(vec![Some(full)], 1), image(vec![], 1)];
        assert_eq!(gt_mask_crops(&batch(absent)), none);
        assert_eq!(gt_mask_crops(&batch(vec![])), none);
    }
}
