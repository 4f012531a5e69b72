//! Taps of student and teacher side by side.

use super::{Model, TapSpec};

/// A tap at a given input size.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TapShape {
    /// Channels.
    pub channels: usize,
    /// `[height, width]`.
    pub size: [usize; 2],
    /// Input pixels per cell; 0 without a grid.
    pub stride: usize,
}

/// One tap name and what each model has under it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TapRow {
    /// The tap's name.
    pub name: String,
    /// Absent if only the teacher has it.
    pub student: Option<TapShape>,
    /// Absent if there is no teacher or only the student has it.
    pub teacher: Option<TapShape>,
}

/// Cells of a map of `stride` over a `[height, width]` input; one where the tap has no grid (`stride`
/// 0). Every stride-2 layer of the models halves and rounds up, and rounding up repeatedly is rounding up
/// once.
#[must_use]
pub fn map_size(input_size: [usize; 2], stride: usize) -> [usize; 2] {
    match stride {
        0 => [1, 1],
        stride => input_size.map(|extent| extent.div_ceil(stride)),
    }
}

/// All taps in the student's order, then those that only the teacher has; `input_size` is
/// `[height, width]` in pixels.
#[must_use]
pub fn tap_table(
    student: &dyn Model,
    teacher: Option<&dyn Model>,
    input_size: [usize; 2],
) -> Vec<TapRow> {
    let shape = |model: &dyn Model, tap: &TapSpec| TapShape {
        channels: tap.channels,
        size: model.tap_size(tap, input_size),
        stride: tap.stride,
    };
    let mut rows: Vec<TapRow> = student
        .taps()
        .iter()
        .map(|tap| TapRow {
            name: tap.name.clone(),
            student: Some(shape(student, tap)),
            teacher: None,
        })
        .collect();
    let of_teacher = teacher.map(|teacher| (teacher.taps().iter(), teacher));
    for (tap, shape) in of_teacher
        .into_iter()
        .flat_map(|(taps, teacher)| taps.map(move |tap| (tap, shape(teacher, tap))))
    {
        match rows.iter_mut().find(|row| row.name == tap.name) {
            Some(row) => row.teacher = Some(shape),
            None => rows.push(TapRow {
                name: tap.name.clone(),
                student: None,
                teacher: Some(shape),
            }),
        }
    }
    rows
}
