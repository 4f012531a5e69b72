//! The objects of a batch: who they are (descriptors) and where they are (masks).
//!
//! The rows are the `T` ground-truth objects of all images, then one row an image: the context (the
//! whole image) if it has objects, else a dummy object, so that no image is without a row. A row that
//! the options leave out stays, and is nobody's: shapes never depend on values.

use kd_plugin::burn::tensor::{Device, Int, Tensor};
use kd_plugin::{Inputs, MapSize, MethodError};

use crate::Config;

/// Side of the crop of an object's mask that `load_labelmap` appends to its descriptor.
pub const MASK_CROP: usize = 7;

/// The ground truth of a batch, as the host gives it.
#[derive(Clone, Debug)]
pub struct GroundTruth {
    /// `[T, 4]`, pixels of the padded input.
    pub boxes_xyxy: Tensor<2>,
    /// `[T]`.
    pub labels: Tensor<1, Int>,
    /// `[T]`: image of each object.
    pub batch: Tensor<1, Int>,
    /// `[2]`: height, width of the padded input in pixels.
    pub input_size: Tensor<1, Int>,
    /// `[T, 7, 7]`, or none where the data set has no masks.
    pub mask_crops: Tensor<3>,
}

impl GroundTruth {
    /// Reads the targets.
    ///
    /// # Errors
    /// If one is missing.
    pub fn read(inputs: &Inputs<'_>) -> Result<Self, MethodError> {
        Ok(GroundTruth {
            boxes_xyxy: inputs.target("gt_boxes_xyxy")?,
            labels: inputs.target_int("gt_labels")?,
            batch: inputs.target_int("gt_batch")?,
            input_size: inputs.target_int("input_size")?,
            mask_crops: inputs.target("gt_mask_crops")?,
        })
    }
}

/// Objects, contexts and dummies of a batch: `R = T + N` rows. Constant.
#[derive(Clone, Debug)]
pub struct Objects {
    /// `[R, 4 + K (+ 49)]`: normalised box, one-hot class, mask crop, all from [0, 1] to [-1, 1].
    pub descriptors: Tensor<2>,
    /// `[R, N]`: 1 where the row is of the image.
    pub member: Tensor<2>,
    /// `[R, 1]`: 1 where the row is rendered as an object.
    pub rendered: Tensor<2>,
    /// `[R, 1]`: 1 where the row stands for the whole image.
    context: Tensor<2>,
    /// `[R, 4]`: x1, y1, x2, y2 in input pixels, within the image.
    boxes_xyxy: Tensor<2>,
    /// `[1, 2]`: width, height of the padded input in pixels.
    input_wh: Tensor<2>,
}

impl Objects {
    /// From the batch's ground truth.
    ///
    /// # Errors
    /// If mask crops are wanted and the data set has no masks.
    pub fn new(
        config: &Config,
        truth: GroundTruth,
        images: usize,
        num_classes: usize,
    ) -> Result<Self, MethodError> {
        let device = truth.boxes_xyxy.device();
        let objects = truth.boxes_xyxy.dims()[0];
        let size = truth.input_size.float();
        let (height, width) = (size.clone().narrow(0, 0, 1), size.narrow(0, 1, 1));
        let input_wh: Tensor<2> = Tensor::cat(vec![width, height], 0).unsqueeze();

        let zeros = |rows: usize, columns: usize| Tensor::<2>::zeros([rows, columns], &device);
        let ones = |rows: usize| Tensor::<2>::ones([rows, 1], &device);
        let (of_image, one_hot) = if objects == 0 {
            (zeros(0, images), zeros(0, num_classes))
        } else {
            (
                one_hot(truth.batch, images, &device),
                one_hot(truth.labels, num_classes, &device),
            )
        };
        // [N, 1]
        let has_objects = match objects {
            0 => zeros(images, 1),
            _ => of_image.clone().sum_dim(0).transpose().clamp_max(1.0),
        };
        let is_dummy = has_objects.clone().neg() + 1.0;
        let is_context = match config.add_context_box {
            true => has_objects,
            false => zeros(images, 1),
        };

        // The context's box is (0, 0, W, H), the dummy's (0, 0, 1, 1).
        let far = is_context.clone() * input_wh.clone() + is_dummy.clone();
        let extra_boxes = Tensor::cat(vec![zeros(images, 2), far], 1);
        let boxes = stack(truth.boxes_xyxy, extra_boxes);
        let last_pixel = (input_wh.clone() - 1.0).repeat_dim(1, 2);
        let rows = objects + images;
        let boxes_xyxy = boxes.clamp_min(0.0).min_pair(last_pixel.expand([rows, 4]));

        let classes = stack(one_hot, zeros(images, num_classes));
        let scale = input_wh.clone().repeat_dim(1, 2);
        let mut parts = vec![boxes_xyxy.clone() / scale, classes];
        if config.load_labelmap {
            let crops = mask_crops(truth.mask_crops, objects)?;
            let of_extra = is_context.clone().expand([images, MASK_CROP * MASK_CROP]);
            parts.push(stack(crops, of_extra));
        }
        let extra_member =
            Tensor::<2>::eye(images, &device) * (is_context.clone() + is_dummy.clone());
        // With a context the dummy stands in for it and nothing is rendered; without, it is an
        // object like any other.
        let dummy_rendered = match config.add_context_box {
            true => zeros(images, 1),
            false => is_dummy,
        };
        Ok(Objects {
            descriptors: Tensor::cat(parts, 1) * 2.0 - 1.0,
            member: stack(of_image, extra_member),
            rendered: stack(ones(objects), dummy_rendered),
            context: stack(zeros(objects, 1), is_context),
            boxes_xyxy,
            input_wh,
        })
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.member.dims()[0]
    }

    /// `[R, N h w]` for the maps of one level: 1 where a cell of the row's image lies in its box. The
    /// context covers every cell, padding included; a box between two cells covers none.
    ///
    /// Cells are compared by their integer coordinates, in the arithmetic of the official code, so
    /// that cells on a border fall to the same side.
    #[must_use]
    pub fn masks(&self, size: MapSize) -> Tensor<2> {
        let MapSize { n, h, w } = size;
        let rows = self.rows();
        let inside_x = self.inside(0, w);
        let inside_y = self.inside(1, h);
        let inside: Tensor<2> = (inside_y.unsqueeze_dim::<3>(2) * inside_x.unsqueeze_dim::<3>(1))
            .reshape([rows, h * w]);
        let covered = self.context.clone().expand([rows, h * w]).max_pair(inside);
        let of_image = self.member.clone().unsqueeze_dim::<3>(2) * covered.unsqueeze_dim::<3>(1);
        of_image.reshape([rows, n * h * w])
    }

    /// `[R, cells]` along x (`axis` 0) or y (1).
    fn inside(&self, axis: usize, cells: usize) -> Tensor<2> {
        let rows = self.rows();
        let pixels = self.input_wh.clone().slice([0..1, axis..axis + 1]);
        let ratio = pixels.recip() * cells as f64;
        let corner = |at: usize| {
            let corner = self.boxes_xyxy.clone().slice([0..rows, at..at + 1]);
            corner * ratio.clone()
        };
        let (near, far) = (corner(axis), corner(axis + 2));
        let center = (near.clone() + far.clone()) * 0.5;
        let extent = far - near;
        let device = center.device();
        let cell: Tensor<2> = Tensor::<1, Int>::arange(0..cells as i64, &device)
            .float()
            .unsqueeze();
        // A box without extent divides by zero and is nowhere.
        ((center - cell).abs() / extent)
            .lower_equal_elem(0.5)
            .float()
    }
}

/// `[rows, classes]`.
fn one_hot(index: Tensor<1, Int>, classes: usize, device: &Device) -> Tensor<2> {
    let [rows] = index.dims();
    let all: Tensor<2, Int> = Tensor::<1, Int>::arange(0..classes as i64, device).unsqueeze();
    let index: Tensor<2, Int> = index.unsqueeze_dim(1);
    index
        .expand([rows, classes])
        .equal(all.expand([rows, classes]))
        .float()
}

/// Objects above the rows of the images.
fn stack(objects: Tensor<2>, images: Tensor<2>) -> Tensor<2> {
    match objects.dims()[0] {
        0 => images,
        _ => Tensor::cat(vec![objects, images], 0),
    }
}

fn mask_crops(crops: Tensor<3>, objects: usize) -> Result<Tensor<2>, MethodError> {
    if crops.dims()[0] != objects {
        return Err(MethodError::config(
            "`load_labelmap = true` needs instance masks, and the data set has none for these \
             images; set it to false",
        ));
    }
    Ok(crops.reshape([objects, MASK_CROP * MASK_CROP]))
}
