//! Targets of single locations: anchors, the student's assignment, what models predict there.

use super::{Sources, Target, TargetValues};
use crate::detection::{Assignment, LocationLosses};

/// Name of the head's input on `level`: the place of its cells.
pub(in crate::distill) fn neck_tap(level: &str) -> String {
    format!("neck.{level}")
}

pub(super) fn anchors_xyxy(sources: &Sources<'_>) -> Target {
    let anchors = &sources.assignment().anchors_xyxy;
    Target {
        shape: vec![anchors.len(), 4],
        values: TargetValues::F32(anchors.as_flattened().to_vec()),
    }
}

pub(super) fn points_xy(sources: &Sources<'_>) -> Target {
    let anchors = &sources.assignment().anchors_xyxy;
    let centre = |[x1, y1, x2, y2]: &[f32; 4]| [(x1 + x2) / 2.0, (y1 + y2) / 2.0];
    Target {
        shape: vec![anchors.len(), 2],
        values: TargetValues::F32(anchors.iter().flat_map(centre).collect()),
    }
}

/// `of` every location: `[N, L]`.
fn integers(assignment: &Assignment, of: impl Fn(usize, i32) -> i64) -> Target {
    let images = assignment.matched.iter().enumerate();
    let values = images.flat_map(|(image, matched)| {
        let of = &of;
        matched.iter().map(move |&object| of(image, object))
    });
    Target {
        shape: vec![assignment.matched.len(), assignment.anchors_xyxy.len()],
        values: TargetValues::I64(values.collect()),
    }
}

pub(super) fn labels(sources: &Sources<'_>) -> Target {
    let assignment = sources.assignment();
    integers(assignment, |image, object| {
        let class = usize::try_from(object).map(|object| assignment.labels[image][object] as i64);
        class.unwrap_or(i64::from(object))
    })
}

pub(super) fn gt_index(sources: &Sources<'_>) -> Target {
    let assignment = sources.assignment();
    let mut first = 0;
    let first_of_image: Vec<i64> = (assignment.labels.iter())
        .map(|labels| {
            let this = first;
            first += labels.len() as i64;
            this
        })
        .collect();
    integers(assignment, |image, object| match object {
        0.. => first_of_image[image] + i64::from(object),
        _ => -1,
    })
}

/// # Panics
/// If the student's head reads no such level; checked when a method is bound.
pub(super) fn fg_mask(sources: &Sources<'_>, level: &str) -> Target {
    let assignment = sources.assignment();
    let student = sources.student();
    let size_of = |tap: &String| {
        let spec = student.taps().iter().find(|spec| &spec.name == tap);
        let spec = spec.expect("what the head reads is a tap");
        student.tap_size(spec, sources.input_size())
    };
    let taps = student.head_taps();
    let sizes: Vec<[usize; 2]> = taps.iter().map(size_of).collect();
    let cells = |sizes: &[[usize; 2]]| sizes.iter().map(|[h, w]| h * w).sum::<usize>();
    let per_cell = assignment.anchors_xyxy.len() / cells(&sizes);
    let position = taps.iter().position(|tap| *tap == neck_tap(level));
    let position = position.expect("levels were checked when the method was bound");
    let first = cells(&sizes[..position]) * per_cell;
    let [height, width] = sizes[position];
    let of_image = |matched: &Vec<i32>| {
        let of_level = &matched[first..][..height * width * per_cell];
        let is_fg = |anchors: &[i32]| f32::from(anchors.iter().any(|&object| object >= 0));
        of_level.chunks(per_cell).map(is_fg).collect::<Vec<f32>>()
    };
    Target {
        shape: vec![assignment.matched.len(), 1, height, width],
        values: TargetValues::F32(assignment.matched.iter().flat_map(of_image).collect()),
    }
}

pub(super) fn boxes_xyxy(sources: &Sources<'_>, role: &str) -> Target {
    let prediction = sources.prediction(role);
    let boxes = (prediction.detector).decoded_boxes(prediction.head, sources.input_size());
    let [images, ..] = sources.batch.shape;
    Target {
        shape: vec![images, boxes.len() / images.max(1), 4],
        values: TargetValues::F32(boxes.into_flattened()),
    }
}

fn losses(sources: &Sources<'_>, role: &str, of: impl Fn(&LocationLosses) -> &Vec<f32>) -> Target {
    let values = of(&sources.losses(role)).clone();
    let [images, ..] = sources.batch.shape;
    Target {
        shape: vec![images, values.len() / images.max(1)],
        values: TargetValues::F32(values),
    }
}

pub(super) fn loss_cls(sources: &Sources<'_>, role: &str) -> Target {
    losses(sources, role, |losses| &losses.cls)
}

pub(super) fn loss_bbox(sources: &Sources<'_>, role: &str) -> Target {
    losses(sources, role, |losses| &losses.bbox)
}

pub(super) fn task_loss(sources: &Sources<'_>, role: &str) -> Target {
    losses(sources, role, |losses| &losses.task)
}
