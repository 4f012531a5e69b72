//! Which locations are foreground and background, of which class and object. Constant.

use kd_plugin::burn::tensor::{Int, Tensor};
use kd_plugin::{Inputs, MethodError};

use crate::options::{Config, Foreground};

/// What `assign.labels` says of background.
const BACKGROUND: i64 = -1;
/// Larger than the area of any box, and finite, so that products with 0 stay 0.
const NO_AREA: f64 = 1e30;

/// The locations of a batch: `N` images of `L`.
#[derive(Clone, Debug)]
pub struct Locations {
    /// `[N, L]`: 1 at foreground.
    pub fg: Tensor<2>,
    /// `[N, L]`: 1 at background.
    pub bg: Tensor<2>,
    /// `[N, L]`: the class of foreground, any class at others.
    pub classes: Tensor<2, Int>,
    /// `[N, L]`: the object of foreground, any at others; none if the batch has no object.
    objects: Option<Tensor<2, Int>>,
}

impl Locations {
    /// As the option says.
    ///
    /// # Errors
    /// If a target is missing or does not fit the head's levels.
    pub fn new(
        config: &Config,
        inputs: &Inputs<'_>,
        [images, count]: [usize; 2],
    ) -> Result<Self, MethodError> {
        match config.foreground {
            Foreground::Assigned => {
                let labels: Tensor<2, Int> = inputs.target_int("assign.labels")?;
                fits("assign.labels", labels.dims(), [images, count])?;
                let objects = match config.looks_at_boxes() && objects(inputs)? > 0 {
                    true => {
                        let index: Tensor<2, Int> = inputs.target_int("assign.gt_index")?;
                        fits("assign.gt_index", index.dims(), [images, count])?;
                        Some(index.clamp_min(0))
                    }
                    false => None,
                };
                Ok(Locations {
                    fg: labels.clone().greater_equal_elem(0).float(),
                    bg: labels.clone().equal_elem(BACKGROUND).float(),
                    classes: labels.clamp_min(0),
                    objects,
                })
            }
            Foreground::Boxes => inside_boxes(inputs, [images, count]),
        }
    }

    /// `1 - IoU` of these `[N, L, 4]` boxes in pixels and the objects of their locations, `[N, L]`; 0
    /// off foreground.
    ///
    /// # Errors
    /// If the boxes do not fit the locations.
    pub fn box_error(&self, inputs: &Inputs<'_>, target: &str) -> Result<Tensor<2>, MethodError> {
        let [images, count] = self.fg.dims();
        let Some(objects) = &self.objects else {
            return Ok(self.fg.clone().zeros_like());
        };
        let boxes: Tensor<3> = inputs.target(target)?;
        if boxes.dims() != [images, count, 4] {
            return Err(MethodError::shape(format!(
                "target `{target}` is {:?}, the levels have {count} locations in each of {images} \
                 images",
                boxes.dims()
            )));
        }
        let rows = images * count;
        let truth: Tensor<2> = inputs.target("gt_boxes_xyxy")?;
        let truth = truth.select(0, objects.clone().reshape([rows]));
        let iou = iou(boxes.reshape([rows, 4]), truth).reshape([images, count]);
        Ok((iou.neg() + 1.0) * self.fg.clone())
    }
}

/// Objects of the batch, `T`.
fn objects(inputs: &Inputs<'_>) -> Result<usize, MethodError> {
    Ok(inputs.target::<2>("gt_boxes_xyxy")?.dims()[0])
}

/// Foreground is inside a box of its image, border excluded; of several the smallest counts, of equal
/// ones the first.
fn inside_boxes(
    inputs: &Inputs<'_>,
    [images, count]: [usize; 2],
) -> Result<Locations, MethodError> {
    let device = inputs.device();
    let points: Tensor<2> = inputs.target("points_xy")?;
    if points.dims() != [count, 2] {
        return Err(MethodError::shape(format!(
            "target `points_xy` is {:?}, the levels have {count} locations",
            points.dims()
        )));
    }
    let boxes: Tensor<2> = inputs.target("gt_boxes_xyxy")?;
    let [total, _] = boxes.dims();
    if total == 0 {
        return Ok(Locations {
            fg: Tensor::zeros([images, count], &device),
            bg: Tensor::ones([images, count], &device),
            classes: Tensor::zeros([images, count], &device),
            objects: None,
        });
    }
    let labels: Tensor<1, Int> = inputs.target_int("gt_labels")?;
    let batch: Tensor<1, Int> = inputs.target_int("gt_batch")?;
    // [T, L]: the area of a box at the points inside it.
    let side = |axis: usize| {
        let at: Tensor<2> = points.clone().narrow(1, axis, 1).transpose();
        let low = boxes.clone().narrow(1, axis, 1);
        let high = boxes.clone().narrow(1, axis + 2, 1);
        let inside = (at.clone() - low.clone()).min_pair(high.clone() - at);
        (inside.greater_elem(0.0).float(), high - low)
    };
    let ((inside_x, width), (inside_y, height)) = (side(0), side(1));
    let inside = inside_x * inside_y;
    let area = inside.clone() * (width * height) + (inside.neg() + 1.0) * NO_AREA;
    let index: Tensor<2> = Tensor::<1, Int>::arange(0..total as i64, &device)
        .float()
        .reshape([total, 1]);
    // One image at a time: all at once would take N times the memory.
    let mut fg = Vec::with_capacity(images);
    let mut nearest = Vec::with_capacity(images);
    for image in 0..images {
        let elsewhere = batch.clone().not_equal_elem(image as i64).float();
        let area = (area.clone() + elsewhere.reshape([total, 1]) * NO_AREA).clamp_max(NO_AREA);
        let smallest = area.clone().min_dim(0);
        let larger = area
            .greater(smallest.clone().expand([total, count]))
            .float();
        let first = (index.clone() + larger * total as f64).min_dim(0);
        fg.push(smallest.lower_elem(NO_AREA).float());
        nearest.push(first);
    }
    let fg = Tensor::cat(fg, 0);
    let objects = Tensor::cat(nearest, 0).int();
    let classes = labels.select(0, objects.clone().reshape([images * count]));
    Ok(Locations {
        bg: fg.clone().neg() + 1.0,
        classes: classes.reshape([images, count]),
        fg,
        objects: Some(objects),
    })
}

/// Intersection over union of boxes `[R, 4]` and `[R, 4]`, corners in pixels: `[R]`. Boxes without area
/// have none.
fn iou(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    let corner = |boxes: &Tensor<2>, at: usize| boxes.clone().narrow(1, at, 2);
    let area = |low: Tensor<2>, high: Tensor<2>| {
        let sides = (high - low).clamp_min(0.0);
        sides.clone().narrow(1, 0, 1) * sides.narrow(1, 1, 1)
    };
    let (a_low, a_high) = (corner(&a, 0), corner(&a, 2));
    let (b_low, b_high) = (corner(&b, 0), corner(&b, 2));
    let common = area(
        a_low.clone().max_pair(b_low.clone()),
        a_high.clone().min_pair(b_high.clone()),
    );
    let all = area(a_low, a_high) + area(b_low, b_high) - common.clone();
    (common / all.clamp_min(1e-6)).squeeze_dim(1)
}

/// Whether a per-location target has the head's locations.
pub(crate) fn fits(
    target: &str,
    found: [usize; 2],
    [images, count]: [usize; 2],
) -> Result<(), MethodError> {
    if found == [images, count] {
        return Ok(());
    }
    Err(MethodError::shape(format!(
        "target `{target}` is {found:?}, the levels have {count} locations in each of {images} images"
    )))
}
