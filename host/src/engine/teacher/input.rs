//! Images as a teacher with its own normalisation or size sees them, made from the student's.
//!
//! They show what the student sees, the mirroring included. Numbers are brought from the student's
//! mean and deviation to the teacher's; a teacher of another size sees the part of the image that is
//! not padding, resized as Pillow's `BILINEAR` does it (antialiased where it shrinks), in f32. Padding
//! is zero, as the teacher's own pipeline has it.

use crate::config::{TeacherConfig, TransformConfig};
use crate::data::Batch;

/// How the student's images become a teacher's.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// `x * scale + shift` by channel.
    scale: [f32; 3],
    shift: [f32; 3],
    /// `[height, width]` without padding, if it is not the student's.
    size: Option<[usize; 2]>,
    divisor: usize,
}

/// The transform under which `teacher` is trained and evaluated, where its student has `student`.
#[must_use]
pub fn transform_of(teacher: &TeacherConfig, student: &TransformConfig) -> TransformConfig {
    let three = |own: &[f32], of_student| <[f32; 3]>::try_from(own).unwrap_or(of_student);
    TransformConfig {
        mean: three(&teacher.mean, student.mean),
        std: three(&teacher.std, student.std),
        size: <[usize; 2]>::try_from(teacher.input_size.as_slice()).unwrap_or(student.size),
        ..student.clone()
    }
}

/// `[height, width]` of the images of `teacher` without padding, if it is not the student's.
#[must_use]
pub fn own_size(teacher: &TeacherConfig, student: &TransformConfig) -> Option<[usize; 2]> {
    let size = transform_of(teacher, student).size;
    (size != student.size).then_some(size)
}

impl Input {
    /// None where the teacher sees the student's images as they are.
    pub(super) fn new(
        teacher: &TeacherConfig,
        student: &TransformConfig,
        divisor: usize,
    ) -> Option<Self> {
        let own = transform_of(teacher, student);
        if own == *student {
            return None;
        }
        let of = |channel: usize| {
            let [mean, std] = [own.mean, own.std].map(|v| f64::from(v[channel]));
            let [from_mean, from_std] = [student.mean, student.std].map(|v| f64::from(v[channel]));
            ((from_std / std) as f32, ((from_mean - mean) / std) as f32)
        };
        Some(Input {
            scale: std::array::from_fn(|channel| of(channel).0),
            shift: std::array::from_fn(|channel| of(channel).1),
            size: own_size(teacher, student),
            divisor,
        })
    }

    /// `[height, width]` without padding, if it is not the student's.
    pub(super) fn size(&self) -> Option<[usize; 2]> {
        self.size
    }

    /// `[height, width]` with padding, if it is not the student's.
    pub(super) fn padded_size(&self) -> Option<[usize; 2]> {
        let size = self.size?;
        Some(size.map(|extent| extent.next_multiple_of(self.divisor)))
    }

    /// Pixels and extents `[N, 3, H, W]`.
    pub(super) fn images(&self, batch: &Batch) -> (Vec<f32>, [usize; 4]) {
        let [images, channels, height, width] = batch.shape;
        let [out_height, out_width] = self.padded_size().unwrap_or([height, width]);
        let shape = [images, channels, out_height, out_width];
        let mut pixels = vec![0.0; shape.iter().product()];
        let planes = batch.images.chunks_exact(height * width).enumerate();
        let outs = pixels.chunks_exact_mut(out_height * out_width);
        for ((index, plane), out) in planes.zip(outs) {
            let (image, channel) = (index / channels, index % channels);
            let content = batch.metas[image].size;
            let seen = Plane {
                values: plane,
                width,
                size: content,
            };
            let resized = self.size.map(|size| seen.resized(size));
            let shown = match (&resized, self.size) {
                (Some(values), Some(size)) => Plane {
                    values,
                    width: size[1],
                    size,
                },
                _ => seen,
            };
            let (scale, shift) = (self.scale[channel], self.shift[channel]);
            for (row, out) in shown.rows().zip(out.chunks_exact_mut(out_width)) {
                for (value, out) in row.iter().zip(out) {
                    *out = value * scale + shift;
                }
            }
        }
        (pixels, shape)
    }
}

/// A channel of an image, in memory that holds padding too.
#[derive(Clone, Copy)]
struct Plane<'a> {
    values: &'a [f32],
    /// Of a row in memory.
    width: usize,
    /// Without padding.
    size: [usize; 2],
}

impl<'a> Plane<'a> {
    fn rows(self) -> impl Iterator<Item = &'a [f32]> {
        let rows = self.values.chunks_exact(self.width).take(self.size[0]);
        rows.map(move |row| &row[..self.size[1]])
    }

    fn resized(self, [height, width]: [usize; 2]) -> Vec<f32> {
        let columns = axis(self.size[1], width);
        let mut narrow = Vec::with_capacity(self.size[0] * width);
        for row in self.rows() {
            narrow.extend(columns.iter().map(|(first, weights)| {
                let taken = weights.iter().zip(&row[*first..]);
                taken.map(|(weight, value)| weight * value).sum::<f32>()
            }));
        }
        let mut out = vec![0.0; height * width];
        let rows = axis(self.size[0], height);
        for (out, (first, weights)) in out.chunks_exact_mut(width).zip(&rows) {
            for (weight, row) in weights.iter().zip(narrow.chunks_exact(width).skip(*first)) {
                for (out, value) in out.iter_mut().zip(row) {
                    *out += weight * value;
                }
            }
        }
        out
    }
}

/// For each position of the result, the first position of the source that it takes, and the weights of
/// those that follow: a triangle that reaches one pixel of the source to each side, or where the
/// image shrinks one of the result.
fn axis(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    let position = |index: usize| {
        let center = (index as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let distance = |x: usize| (x as f64 + 0.5 - center).abs() / support;
        let weights: Vec<f64> = (first..end).map(|x| (1.0 - distance(x)).max(0.0)).collect();
        let sum: f64 = weights.iter().sum();
        (
            first,
            weights.iter().map(|weight| (weight / sum) as f32).collect(),
        )
    };
    (0..to).map(position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::data::{ImageMeta, ImageTargets, Record, RgbPixels, Transform};

    /// Two images of `size` in a batch padded to `padded`, as the student's pipeline makes them.
    fn batch(student: &TransformConfig, padded: [usize; 2]) -> (Batch, Vec<RgbPixels>) {
        let transform = Transform::new(student).unwrap();
        let size = student.size;
        let [height, width] = padded;
        let mut images = Vec::new();
        let mut originals = Vec::new();
        for image in 0..2 {
            let byte = |i: usize| (i * (31 + image) % 253) as u8;
            let pixels = RgbPixels {
                size,
                data: (0..size[0] * size[1] * 3).map(byte).collect(),
            };
            let sample = transform.apply(&record(student.size), &pixels, false);
            for plane in sample.image.chunks_exact(size[0] * size[1]) {
                let mut padded = vec![0.0; height * width];
                let rows = plane.chunks_exact(size[1]);
                for (row, out) in rows.zip(padded.chunks_exact_mut(width)) {
                    out[..size[1]].copy_from_slice(row);
                }
                images.extend(padded);
            }
            originals.push(pixels);
        }
        let meta = ImageMeta {
            image_id: 0,
            original_size: size,
            size,
            flipped: false,
        };
        let batch = Batch {
            images,
            shape: [2, 3, height, width],
            targets: vec![ImageTargets::default(); 2],
            metas: vec![meta.clone(), meta],
            ..Batch::default()
        };
        (batch, originals)
    }

    fn record(size: [usize; 2]) -> Record {
        Record {
            image_id: 0,
            source: String::new(),
            size,
            objects: Vec::new(),
        }
    }

    fn student(size: [usize; 2]) -> TransformConfig {
        TransformConfig {
            size,
            ..Config::base().data.transform
        }
    }

    fn teacher(mean: &[f32], std: &[f32], size: &[usize]) -> TeacherConfig {
        TeacherConfig {
            mean: mean.to_vec(),
            std: std.to_vec(),
            input_size: size.to_vec(),
            ..Config::base().teacher
        }
    }

    #[test]
    fn the_students_own_settings_change_nothing() {
        let student = student([40, 48]);
        let same = teacher(&student.mean, &student.std, &[40, 48]);
        assert_eq!(Input::new(&same, &student, 32), None);
        assert_eq!(Input::new(&teacher(&[], &[], &[]), &student, 32), None);
    }

    #[test]
    fn another_normalisation_is_that_of_the_teachers_own_pipeline() {
        let student = student([40, 48]);
        let config = teacher(&[0.5, 0.4, 0.3], &[0.5, 0.25, 1.0], &[]);
        let (batch, originals) = batch(&student, [64, 64]);
        let input = Input::new(&config, &student, 32).unwrap();
        assert!(input.size().is_none());
        let (pixels, shape) = input.images(&batch);
        assert_eq!(shape, batch.shape);
        let own = Transform::new(&transform_of(&config, &student)).unwrap();
        for (image, original) in originals.iter().enumerate() {
            let expected = own.apply(&record(student.size), original, false).image;
            for channel in 0..3 {
                for y in 0..64 {
                    for x in 0..64 {
                        let got = pixels[((image * 3 + channel) * 64 + y) * 64 + x];
                        if y < 40 && x < 48 {
                            let want = expected[(channel * 40 + y) * 48 + x];
                            assert!((got - want).abs() < 2e-6, "{got} {want}");
                        } else {
                            assert_eq!(got, 0.0, "padding");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn another_size_is_resized_without_padding_and_padded_anew() {
        let student = student([40, 48]);
        let (batch, originals) = batch(&student, [64, 64]);
        for size in [[80, 90], [33, 35]] {
            let input = Input::new(&teacher(&[], &[], &size), &student, 32).unwrap();
            assert_eq!(input.size(), Some(size));
            let (pixels, shape) = input.images(&batch);
            let [height, width] = size.map(|extent| extent.next_multiple_of(32));
            assert_eq!(shape, [2, 3, height, width]);
            // The data pipeline resizes bytes, so that it rounds to 1/255 twice.
            let own = Transform::new(&TransformConfig {
                size,
                ..student.clone()
            });
            let own = own.unwrap();
            let resized = own.apply(&record(student.size), &originals[1], false).image;
            for channel in 0..3 {
                let bound = 1.1 / 255.0 / student.std[channel];
                for y in 0..height {
                    for x in 0..width {
                        let got = pixels[((3 + channel) * height + y) * width + x];
                        if y < size[0] && x < size[1] {
                            let want = resized[(channel * size[0] + y) * size[1] + x];
                            assert!((got - want).abs() < bound, "{got} {want}");
                        } else {
                            assert_eq!(got, 0.0, "padding");
                        }
                    }
                }
            }
        }
    }
}
