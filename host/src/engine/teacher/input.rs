//! Images as a teacher with its own normalisation or size sees them.
//!
//! They are made by the loader, from the pictures and under the draws of the student's images
//! ([`View`](crate::data::View)): here is which view a teacher asks for.

use crate::config::{TeacherConfig, TransformConfig};
use crate::data::{DatasetError, ViewSpec};
use crate::engine::image_size::ImageSize;

/// Whether the images of `teacher` have another size than the student's.
#[must_use]
pub fn has_own_size(teacher: &TeacherConfig, student: &TransformConfig) -> bool {
    teacher.scale(student) != [1.0, 1.0]
}

/// The view of each image that `teacher` sees, whose model wants extents that are multiples of
/// `size_divisor`; none where it sees the student's.
///
/// `grid_scale` is how many cells the student's grids have along an axis for one of a plain detector's on the
/// same image: 1, or where its pyramid is upsampled the factor. A teacher that sees so many times the
/// student's pixels then has padded images exactly as many times larger, so that both grids agree. One
/// that differs in normalisation alone has them padded as the student's.
#[must_use]
pub fn view_of(
    teacher: &TeacherConfig,
    student: &TransformConfig,
    grid_scale: f64,
    size_divisor: usize,
) -> Option<ViewSpec> {
    let own = teacher.transform(student);
    let scale = teacher.scale(student);
    if scale == [1.0, 1.0] && own.mean == student.mean && own.std == student.std {
        return None;
    }
    // A size that is given is a whole number near the product, or the student's is one near the
    // quotient.
    let near = |axis: usize| {
        let extent = student.size[axis] as f64;
        (extent * scale[axis] - extent * grid_scale).abs() < grid_scale
    };
    let agrees = match teacher.input_size.is_empty() {
        true => scale.iter().all(|s| (s / grid_scale - 1.0).abs() < 1e-9),
        false => near(0) && near(1),
    };
    let same_size = scale == [1.0, 1.0];
    let frame_scale = match (same_size, agrees && grid_scale != 1.0) {
        (true, _) => Some(1.0),
        (false, true) => Some(grid_scale),
        (false, false) => None,
    };
    Some(ViewSpec {
        scale,
        mean: own.mean,
        std: own.std,
        size_divisor,
        frame_scale,
    })
}

/// `[height, width]` with padding of the images that a teacher sees in its `view`, where the student's
/// all have the size `student`.
///
/// # Errors
/// If they do not fit into the frame of a student whose pyramid is upsampled.
pub fn padded_size(
    view: Option<&ViewSpec>,
    student: ImageSize,
) -> Result<[usize; 2], DatasetError> {
    match view {
        None => Ok(student.padded),
        Some(view) => view.padded(student.padded, view.size(student.size)),
    }
}

#[cfg(test)]
mod tests;
