//! The images of a teacher beside those of its student.

use super::{ResizeMode, TeacherConfig, TransformConfig};

impl TeacherConfig {
    /// The transform under which it is trained and evaluated, where its student has `student`.
    ///
    /// With an `input_scale` every extent of it is that many times the student's, to the nearest pixel.
    /// With an `input_size` and `center_crop` the shorter side grows as the size does.
    #[must_use]
    pub fn transform(&self, student: &TransformConfig) -> TransformConfig {
        let three = |own: &[f32], of_student| <[f32; 3]>::try_from(own).unwrap_or(of_student);
        let scale @ [vertical, horizontal] = self.scale(student);
        let times = |extent: usize, scale: f64| (extent as f64 * scale).round() as usize;
        let larger = vertical.max(horizontal);
        let [height, width] = student.size;
        TransformConfig {
            mean: three(&self.mean, student.mean),
            std: three(&self.std, student.std),
            size: [times(height, vertical), times(width, horizontal)],
            short_side: match student.resize {
                ResizeMode::Fixed => student.short_side,
                _ => times(student.short_side, larger),
            },
            long_side: match student.resize {
                ResizeMode::KeepRatio => times(student.long_side, larger),
                _ => student.long_side,
            },
            own_scale: match student.resize {
                ResizeMode::None => student.own_scale * larger,
                _ => student.own_scale,
            },
            crop_size: (student.crop_size.iter())
                .zip(scale)
                .map(|(extent, scale)| times(*extent, scale))
                .collect(),
            ..student.clone()
        }
    }

    /// Extents of its images over those of its student's, `[vertical, horizontal]`.
    #[must_use]
    pub fn scale(&self, student: &TransformConfig) -> [f64; 2] {
        if let [height, width] = self.input_size[..] {
            return [
                height as f64 / student.size[0] as f64,
                width as f64 / student.size[1] as f64,
            ];
        }
        match self.input_scale {
            0.0 => [1.0, 1.0],
            scale => [scale, scale],
        }
    }
}
