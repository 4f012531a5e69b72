//! Where an anchor's outputs lie in the maps of the head.

use super::HeadOutput;

/// One level of a [`HeadOutput`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// Anchors of a cell (`A`).
    pub(super) per_cell: usize,
    /// Cells of the level (`H * W`).
    pub(super) cells: usize,
    /// Number of the level's first anchor.
    pub(super) first_anchor: usize,
}

impl Level {
    /// Number of the anchor `a` of `cell`, over all levels.
    pub(super) fn anchor(&self, cell: usize, a: usize) -> usize {
        self.first_anchor + cell * self.per_cell + a
    }

    /// Anchors of the level.
    pub(super) fn num_anchors(&self) -> usize {
        self.cells * self.per_cell
    }
}

/// The levels of `head`, checked against each other and against the number of images and anchors.
///
/// # Panics
/// If the maps do not fit: all three come from one detector, so that is a bug.
pub(super) fn levels(
    head: &HeadOutput,
    num_classes: usize,
    num_images: usize,
    num_anchors: usize,
) -> Vec<Level> {
    assert_eq!(
        head.cls_logits.len(),
        head.box_deltas.len(),
        "as many maps of logits as of box deltas"
    );
    let mut first_anchor = 0;
    let levels = head
        .cls_logits
        .iter()
        .zip(&head.box_deltas)
        .map(|(logits, deltas)| {
            let [images, channels, height, width] = logits.dims();
            let per_cell = channels / num_classes;
            assert_eq!(
                [images, channels],
                [num_images, per_cell * num_classes],
                "logits are [N, A*K, H, W] with the batch's N and the model's K"
            );
            assert_eq!(
                deltas.dims(),
                [num_images, per_cell * 4, height, width],
                "box deltas are [N, A*4, H, W] with the logits' A, H and W"
            );
            let level = Level {
                per_cell,
                cells: height * width,
                first_anchor,
            };
            first_anchor += level.num_anchors();
            level
        })
        .collect();
    assert_eq!(
        first_anchor, num_anchors,
        "as many anchors as the head has outputs"
    );
    levels
}
