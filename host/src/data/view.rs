//! Further views of the images of a batch: other sizes and numbers of the same pictures.
//!
//! A student that sees small images learns from a teacher that sees large ones. Both are made from the
//! decoded picture, each resized once by Pillow's `BILINEAR` (antialiased where it shrinks), with the same
//! part of the picture and the same mirroring ([`Geometry`]): the small image is never enlarged for the
//! large network.

use serde::Serialize;

use super::transforms::{Normalised, move_box, render};
use super::{DatasetError, Geometry, Record, RgbPixels, geometry};

/// How a view differs from the images of the batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ViewSpec {
    /// Its extents over those of the batch's images, `[vertical, horizontal]`; products are rounded to the
    /// nearest pixel.
    pub scale: [f64; 2],
    /// Subtracted per RGB channel, on values in 0..1.
    pub mean: [f32; 3],
    /// Divided by per RGB channel.
    pub std: [f32; 3],
    /// Where `frame_scale` is none, images are padded at right and bottom to a multiple of it.
    pub size_divisor: usize,
    /// The padded extents are those of the batch times it, to the nearest pixel: both networks' grids
    /// then agree.
    pub frame_scale: Option<f64>,
}

/// A further view of the images of a batch, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// What was asked for.
    pub spec: ViewSpec,
    /// `[N, 3, H, W]` normalised, zero where padded.
    pub images: Vec<f32>,
    /// `[N, 3, H, W]`.
    pub shape: [usize; 4],
    /// `[height, width]` of each image, before padding.
    pub sizes: Vec<[usize; 2]>,
    /// The boxes of the batch's targets, one for one, in pixels of this view.
    pub boxes_xyxy: Vec<Vec<[f32; 4]>>,
}

impl ViewSpec {
    /// `[height, width]` of the view of an image of `size`, both without padding.
    #[must_use]
    pub fn size(&self, size: [usize; 2]) -> [usize; 2] {
        geometry::scaled(size, self.scale).map(|extent| extent.max(1))
    }

    /// `[height, width]` with padding, where the batch's images have `batch` with theirs, and the largest
    /// extents of the view are `largest`.
    ///
    /// # Errors
    /// If they do not fit into the frame.
    pub fn padded(
        &self,
        batch: [usize; 2],
        largest: [usize; 2],
    ) -> Result<[usize; 2], DatasetError> {
        let Some(scale) = self.frame_scale else {
            return Ok(largest.map(|extent| extent.next_multiple_of(self.size_divisor)));
        };
        let frame = geometry::scaled(batch, [scale; 2]);
        if largest[0] > frame[0] || largest[1] > frame[1] {
            return Err(DatasetError::Config {
                key: "teacher.input_size",
                reason: format!(
                    "images of {largest:?} do not fit into {frame:?}, which is {scale} times the padded \
                     size {batch:?} of the student's; make both sizes multiples of its size divisor"
                ),
            });
        }
        Ok(frame)
    }
}

/// Makes a view of single images.
pub(super) struct ViewMaker {
    pub(super) spec: ViewSpec,
    normalised: Normalised,
}

/// One image of a view, not yet padded.
pub(super) struct Seen {
    /// `[3, H, W]`.
    image: Vec<f32>,
    size: [usize; 2],
    boxes_xyxy: Vec<[f32; 4]>,
}

impl ViewMaker {
    pub(super) fn new(spec: &ViewSpec) -> Self {
        ViewMaker {
            spec: spec.clone(),
            normalised: Normalised::new(spec.mean, spec.std),
        }
    }

    /// The picture under `geometry`, which is that of the batch's image; boxes are the objects `shown` of
    /// `record`.
    pub(super) fn see(
        &self,
        record: &Record,
        pixels: &RgbPixels,
        geometry: &Geometry,
        shown: &[usize],
    ) -> Seen {
        let geometry = geometry.scaled(self.spec.scale);
        let size = geometry.canvas;
        let moved = |object: &usize| {
            let original = record.objects[*object].box_xyxy;
            move_box(original, pixels.size, size, geometry.flip)
        };
        Seen {
            image: render(&self.normalised, pixels, &geometry),
            size,
            boxes_xyxy: shown.iter().map(moved).collect(),
        }
    }
}

/// Puts the images of a view together; those of the batch have `batch` `[height, width]` with padding.
pub(super) fn collate(
    spec: &ViewSpec,
    seen: Vec<Seen>,
    batch: [usize; 2],
) -> Result<View, DatasetError> {
    let extent = |axis: usize| seen.iter().map(|one| one.size[axis]).max().unwrap_or(0);
    let [height, width] = spec.padded(batch, [extent(0), extent(1)])?;
    let mut view = View {
        spec: spec.clone(),
        images: vec![0.0; seen.len() * 3 * height * width],
        shape: [seen.len(), 3, height, width],
        sizes: Vec::with_capacity(seen.len()),
        boxes_xyxy: Vec::with_capacity(seen.len()),
    };
    let images = view.images.chunks_exact_mut(3 * height * width);
    for (out, one) in images.zip(seen) {
        place(out, [height, width], &one.image, one.size);
        view.sizes.push(one.size);
        view.boxes_xyxy.push(one.boxes_xyxy);
    }
    Ok(view)
}

/// Lays the planes `[3, h, w]` of an image of `size` at the upper left of planes of `padded`.
pub(super) fn place(out: &mut [f32], padded: [usize; 2], image: &[f32], size: [usize; 2]) {
    let [height, width] = padded;
    let [rows, columns] = size;
    let planes = image.chunks_exact(rows * columns);
    for (out, plane) in out.chunks_exact_mut(height * width).zip(planes) {
        for (out, row) in out.chunks_exact_mut(width).zip(plane.chunks_exact(columns)) {
            out[..columns].copy_from_slice(row);
        }
    }
}

#[cfg(test)]
mod tests;
