//! A grid of values as colours over a picture.

use super::canvas::Canvas;
use super::feature::Grid;
use crate::config::TransformConfig;
use crate::data::{Batch, RgbPixels, resize};

/// Share of the colour in the blend with the gray picture.
const ALPHA: f32 = 0.6;
/// Boxes of the ground truth: no colour of the map is white.
const BOX_COLOR: [u8; 3] = [255; 3];

/// An image as the network saw it, in gray, with its ground truth.
#[derive(Clone, Debug)]
pub struct Scene {
    gray: RgbPixels,
    boxes_xyxy: Vec<[f32; 4]>,
    /// `[height, width]` of the network input, without padding; boxes and maps are in its pixels.
    input_size: [usize; 2],
}

impl Scene {
    /// The first image of a batch, its normalisation undone and its padding cut off.
    ///
    /// # Panics
    /// If the batch is empty.
    #[must_use]
    pub fn new(batch: &Batch, transform: &TransformConfig) -> Self {
        let [_, _, padded_height, padded_width] = batch.shape;
        let [height, width] = batch.metas[0].size;
        let plane = padded_height * padded_width;
        let mut data = Vec::with_capacity(height * width * 3);
        for y in 0..height {
            for x in 0..width {
                let at = y * padded_width + x;
                let channel = |c: usize| {
                    let value = batch.images[c * plane + at];
                    value * transform.std[c] + transform.mean[c]
                };
                // Rec. 601 luma.
                let luma = 0.299 * channel(0) + 0.587 * channel(1) + 0.114 * channel(2);
                data.extend([(255.0 * luma).round() as u8; 3]);
            }
        }
        Scene {
            gray: RgbPixels {
                size: [height, width],
                data,
            },
            boxes_xyxy: batch.targets[0].boxes_xyxy.clone(),
            input_size: [height, width],
        }
    }

    /// The same scene in another size. Maps and boxes stay in pixels of the network input.
    #[must_use]
    pub fn resized(&self, size: [usize; 2]) -> Self {
        Scene {
            gray: resize(&self.gray, size),
            ..self.clone()
        }
    }

    /// `[height, width]` of its pictures.
    #[must_use]
    pub fn size(&self) -> [usize; 2] {
        self.gray.size
    }

    /// `grid` in colours from its lowest to its highest value over the gray image, with the boxes of
    /// the ground truth outlined.
    #[must_use]
    pub fn overlay(&self, grid: &Grid) -> RgbPixels {
        let [height, width] = self.size();
        let [step_y, step_x] = [
            self.input_size[0] as f32 / height as f32,
            self.input_size[1] as f32 / width as f32,
        ];
        let [low, high] = grid.range();
        let spread = if high > low { high - low } else { 1.0 };
        let colors = palette();
        let mut pixels = self.gray.clone();
        for (index, pixel) in pixels.data.chunks_exact_mut(3).enumerate() {
            let (y, x) = ((index / width) as f32, (index % width) as f32);
            let value = grid.at([(y + 0.5) * step_y, (x + 0.5) * step_x]);
            let color = colors[(255.0 * (value - low) / spread).round() as usize];
            for (byte, color) in pixel.iter_mut().zip(color) {
                let blend = (1.0 - ALPHA) * f32::from(*byte) + ALPHA * f32::from(color);
                *byte = blend.round() as u8;
            }
        }
        let mut canvas = Canvas::new(pixels);
        let line_width = canvas.line_width();
        for [x1, y1, x2, y2] in &self.boxes_xyxy {
            let scaled = [x1 / step_x, y1 / step_y, x2 / step_x, y2 / step_y];
            if let Some(rect) = canvas.visible(&scaled) {
                canvas.outline(rect, line_width, BOX_COLOR);
            }
        }
        canvas.into_pixels()
    }
}

/// Viridis: as bright as the value is high, also in print and for the color-blind.
fn palette() -> [[u8; 3]; 256] {
    std::array::from_fn(|index| {
        let color = colorous::VIRIDIS.eval_rational(index, 256);
        [color.r, color.g, color.b]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::data::{ImageMeta, ImageTargets};

    /// White, 2 by 4 pixels, padded to 4 by 4.
    fn scene(boxes_xyxy: Vec<[f32; 4]>) -> Scene {
        let transform = Config::base().data.transform;
        let white = |c: usize| (1.0 - transform.mean[c]) / transform.std[c];
        let plane = |c| (0..16).map(move |i| if i < 8 { white(c) } else { 0.0 });
        let batch = Batch {
            images: (0..3).flat_map(plane).collect(),
            shape: [1, 3, 4, 4],
            targets: vec![ImageTargets {
                labels: vec![0; boxes_xyxy.len()],
                boxes_xyxy,
                ..ImageTargets::default()
            }],
            metas: vec![ImageMeta {
                image_id: 1,
                original_size: [2, 4],
                size: [2, 4],
                flipped: false,
            }],
            ..Batch::default()
        };
        Scene::new(&batch, &transform)
    }

    fn grid(values: [f32; 2]) -> Grid {
        Grid {
            size: [1, 2],
            stride: [2.0; 2],
            values: values.into(),
        }
    }

    #[test]
    fn colours_end_at_viridis_ends() {
        let colors = palette();
        assert_eq!((colors[0], colors[255]), ([68, 1, 84], [253, 231, 37]));
    }

    #[test]
    fn the_lowest_value_is_dark_and_the_highest_bright() {
        let scene = scene(Vec::new());
        assert_eq!(scene.size(), [2, 4]);
        assert!(scene.gray.data.iter().all(|v| *v == 255));
        let picture = scene.overlay(&grid([-3.0, 5.0]));
        let blend = |color: [u8; 3]| color.map(|c| (102.0 + 0.6 * f32::from(c)).round() as u8);
        assert_eq!(picture.data[..3], blend([68, 1, 84]));
        assert_eq!(picture.data[9..12], blend([253, 231, 37]));
        // A map without contrast is all low.
        let flat = scene.overlay(&grid([5.0, 5.0]));
        assert!(flat.data.chunks_exact(3).all(|p| p == blend([68, 1, 84])));
    }

    #[test]
    fn boxes_follow_the_size_of_the_picture() {
        let picture = scene(vec![[2.0, 0.0, 4.0, 2.0]])
            .resized([20, 40])
            .overlay(&grid([0.0, 1.0]));
        assert_eq!(picture.size, [20, 40]);
        let white = |x: usize| picture.data[(10 * 40 + x) * 3..][..3] == [255; 3];
        let columns: Vec<usize> = (0..40).filter(|x| white(*x)).collect();
        assert_eq!(columns, [20, 39]);
    }
}
