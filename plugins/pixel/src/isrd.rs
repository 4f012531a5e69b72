//! Input spatial representation distillation: the student's first map must be enough to paint the
//! teacher's image.

use kd_plugin::burn::module::{Module, Param};
use kd_plugin::burn::nn::Initializer;
use kd_plugin::burn::tensor::{Device, Tensor};
use kd_plugin::burn::{self};
use kd_plugin::{MethodError, Taps, resize_bilinear, torch_default};

use crate::options::{Config, IsrdFit};

/// The teacher's tap that is painted.
pub const IMAGE: &str = "image";
/// Channels of an image.
const COLOURS: usize = 3;
/// First slope of PReLU, torch's.
const SLOPE: f64 = 0.25;

/// 1×1 convolution without bias, pixel shuffle, PReLU with one slope a colour.
#[derive(Module, Debug)]
pub struct Decoder {
    conv: Conv,
    prelu: Prelu,
}

#[derive(Module, Debug)]
struct Conv {
    /// `[3 s², C, 1, 1]`.
    weight: Param<Tensor<4>>,
}

#[derive(Module, Debug)]
struct Prelu {
    /// `[3]`.
    weight: Param<Tensor<1>>,
}

impl Decoder {
    /// For the stem and the image that are bound; initial values are torch's.
    ///
    /// # Errors
    /// If a tap is missing, or its size is not known before the run.
    pub fn plan(config: &Config, taps: &Taps, device: &Device) -> Result<Self, MethodError> {
        let (stem, image) = (taps.student(config.gsfp.tap())?, taps.teacher(IMAGE)?);
        if image.channels()? != COLOURS {
            return Err(MethodError::shape(format!(
                "teacher tap `{IMAGE}` has {} channels; `isrd` paints images of {COLOURS}",
                image.channels()?
            )));
        }
        let (Some(grid), Some(target)) = (stem.size(), image.size()) else {
            return Err(MethodError::shape(format!(
                "the decoder of `isrd` is made for the sizes of student tap `{}` and teacher tap \
                 `{IMAGE}`, and the images of this run have no fixed size; set \
                 `data.transform.resize = \"fixed\"`, or `isrd = \"off\"`",
                stem.name
            )));
        };
        Ok(Self::new(stem.channels()?, scale(grid, target), device))
    }

    /// From `channels` to blocks of `scale` × `scale` pixels.
    #[must_use]
    pub fn new(channels: usize, scale: usize, device: &Device) -> Self {
        let shape = [COLOURS * scale * scale, channels, 1, 1];
        Decoder {
            conv: Conv {
                weight: torch_default(channels).init(shape, device),
            },
            prelu: Prelu {
                weight: Initializer::Constant { value: SLOPE }.init([COLOURS], device),
            },
        }
    }

    /// Side of a cell's block of pixels, `s`.
    fn scale(&self) -> usize {
        let [rows, ..] = self.conv.weight.dims();
        (rows / COLOURS).isqrt()
    }

    /// What the map `[N, C, h, w]` shows, `[N, 3, s h, s w]`:
    /// `out[c, y s + i, x s + j] = PReLU_c(Σ weight[c s² + i s + j] · map[y, x])`.
    #[must_use]
    pub fn paint(&self, map: Tensor<4>) -> Tensor<4> {
        let weight = self.conv.weight.val();
        let [rows, channels, ..] = weight.dims();
        let [n, _, h, w] = map.dims();
        let s = self.scale();
        let weight: Tensor<3> = weight.reshape([1, rows, channels]);
        let pixels = weight.matmul(map.reshape([n, channels, h * w]));
        // [N, colour, i, j, y, x] to [N, colour, y, i, x, j].
        let pixels = (pixels.reshape([n, COLOURS, s, s, h, w])).permute([0, 1, 4, 2, 5, 3]);
        let pixels: Tensor<4> = pixels.reshape([n, COLOURS, s * h, s * w]);
        let slope = (self.prelu.weight.val()).reshape([1, COLOURS, 1, 1]);
        let is_negative = pixels.clone().lower_equal_elem(0.0);
        pixels.clone().mask_where(is_negative, pixels * slope)
    }

    /// [`Self::paint`] at `size` `[H, W]`.
    ///
    /// # Errors
    /// If the decoder was made for smaller images or larger maps.
    pub fn forward(
        &self,
        fit: IsrdFit,
        map: Tensor<4>,
        size: [usize; 2],
    ) -> Result<Tensor<4>, MethodError> {
        let [_, _, h, w] = map.dims();
        let s = self.scale();
        if s * h < size[0] || s * w < size[1] {
            return Err(MethodError::shape(format!(
                "the decoder of `isrd` paints {s} x {s} pixels a cell, so the student's map of \
                 {h} x {w} gives {} x {} of the teacher's image of {} x {}: its images are larger than \
                 those that the run began with; set `data.transform.resize = \"fixed\"`",
                s * h,
                s * w,
                size[0],
                size[1]
            )));
        }
        let painted = self.paint(map);
        Ok(match fit {
            IsrdFit::Crop => painted.narrow(2, 0, size[0]).narrow(3, 0, size[1]),
            IsrdFit::Resize => resize_bilinear(painted, size),
        })
    }
}

/// Mean of `|painted − image|` over colours and the pixels where `mask` is 1, and the share of the
/// image's mean absolute value that it is less (0: as a single colour, the normalisation's mean, would be).
///
/// # Shapes
/// - `painted`, `image`: `[N, 3, H, W]`; `mask`: `[N, 1, H, W]`, of 0 and 1
/// - result: `[1]` each; the second one without gradient
#[must_use]
pub fn loss(painted: Tensor<4>, image: Tensor<4>, mask: Tensor<4>) -> (Tensor<1>, Tensor<1>) {
    let count = (mask.clone().sum() * COLOURS as f64).clamp_min(1.0);
    let mean = |x: Tensor<4>| (x.abs() * mask.clone()).sum() / count.clone();
    let loss = mean(painted - image.clone());
    let single = mean(image).clamp_min(f64::from(f32::MIN_POSITIVE));
    let gain = (loss.clone().detach() / single).neg() + 1.0;
    (loss, gain)
}

/// Side of the block of pixels that a cell must paint, so that `grid` covers `target`: the larger of
/// both axes, rounded up.
#[must_use]
pub fn scale(grid: [usize; 2], target: [usize; 2]) -> usize {
    target[0].div_ceil(grid[0]).max(target[1].div_ceil(grid[1]))
}
