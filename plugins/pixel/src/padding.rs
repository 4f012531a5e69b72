//! Which cells of a map show the image and not its padding. Constant.

use kd_plugin::burn::tensor::{Int, Tensor, TensorData};
use kd_plugin::{Inputs, MethodError};

/// Targets that say it: the student's images, in its own pixels.
pub const TARGETS: [&str; 2] = ["image_sizes", "input_size"];

/// The images of a batch as the teacher sees them.
#[derive(Clone, Debug)]
pub struct Frame {
    /// `[N, 2]`: height and width without padding, teacher's pixels.
    images: Tensor<2>,
    /// Height and width of the teacher's input.
    input: [usize; 2],
}

impl Frame {
    /// From the teacher's `image` and the student's sizes.
    ///
    /// An image's size in the teacher's pixels is `k` times or once the student's, whichever is nearer to
    /// the ratio of both inputs: each pads its own images, so the ratio itself is not exact.
    ///
    /// # Errors
    /// If a target or the tap is missing.
    pub fn of(inputs: &Inputs<'_>, k: f64) -> Result<Self, MethodError> {
        let [_, _, height, width] = inputs.teacher("image")?.dims();
        let sizes: Tensor<2, Int> = inputs.target_int("image_sizes")?;
        let of_student: Tensor<1, Int> = inputs.target_int("input_size")?;
        let [n, _] = sizes.dims();
        let of_student: Tensor<2> = of_student.float().reshape([1, 2]);
        let of_teacher = TensorData::new(vec![height as f32, width as f32], [1, 2]);
        let of_teacher = Tensor::<2>::from_data(of_teacher, &inputs.device());
        let is_one = (of_teacher / of_student).square().lower_elem(k).float();
        let ratio = is_one * (1.0 - k) + k;
        Ok(Frame {
            images: sizes.float() * ratio.expand([n, 2]),
            input: [height, width],
        })
    }

    /// 1 where the centre of a cell is in its image, else 0, for maps of `size` `[H, W]` that span the
    /// teacher's input: `[N, 1, H, W]`.
    #[must_use]
    pub fn mask(&self, size: [usize; 2]) -> Tensor<4> {
        let [n, _] = self.images.dims();
        let inside = |axis: usize| -> Tensor<2> {
            let (cells, pixels) = (size[axis], self.input[axis] as f64);
            let centre = |cell: usize| ((cell as f64 + 0.5) * pixels / cells as f64) as f32;
            let centres = TensorData::new((0..cells).map(centre).collect(), [1, cells]);
            let centres = Tensor::<2>::from_data(centres, &self.images.device());
            let extent = self.images.clone().narrow(1, axis, 1);
            let inside = (centres.expand([n, cells])).lower(extent.expand([n, cells]));
            inside.float()
        };
        let rows: Tensor<4> = inside(0).reshape([n, 1, size[0], 1]);
        let columns: Tensor<4> = inside(1).reshape([n, 1, 1, size[1]]);
        rows * columns
    }
}

/// [`Frame::mask`], and ones where nothing is padded.
#[must_use]
pub fn mask(frame: Option<&Frame>, like: &Tensor<4>) -> Tensor<4> {
    let [n, _, h, w] = like.dims();
    match frame {
        Some(frame) => frame.mask([h, w]),
        None => Tensor::ones([n, 1, h, w], &like.device().without_autodiff()),
    }
}
