//! Where an anchor's outputs lie in the packed maps of the head.

use super::HeadOutput;

/// One level of a [`HeadOutput`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// Anchors of a cell (`A`).
    pub(super) per_cell: usize,
    /// Cells of the level in one image (`H * W`).
    pub(super) cells: usize,
    /// Number of the level's first anchor.
    pub(super) first_anchor: usize,
    /// Row of the first image's first cell in the packed maps.
    pub(super) first_row: usize,
}

impl Level {
    /// Anchors of the level in one image.
    pub(super) fn num_anchors(&self) -> usize {
        self.cells * self.per_cell
    }

    /// Numbers of the level's anchors.
    pub(super) fn anchors(&self) -> std::ops::Range<usize> {
        self.first_anchor..self.first_anchor + self.num_anchors()
    }

    /// Rows of `image` where the packed maps are read anchor by anchor.
    pub(super) fn anchor_rows(&self, image: usize) -> std::ops::Range<usize> {
        let cells = self.rows(image);
        cells.start * self.per_cell..cells.end * self.per_cell
    }

    /// Rows of `image`.
    pub(super) fn rows(&self, image: usize) -> std::ops::Range<usize> {
        let start = self.first_row + image * self.cells;
        start..start + self.cells
    }
}

/// The levels of `head`, checked against each other and against the number of images and anchors.
///
/// # Panics
/// If the maps do not fit: all come from one detector, so that is a bug.
pub(super) fn levels(
    head: &HeadOutput,
    num_classes: usize,
    num_images: usize,
    num_anchors: usize,
) -> Vec<Level> {
    let (logits, deltas) = (&head.cls_logits, &head.box_deltas);
    assert_eq!(
        logits.segments(),
        deltas.segments(),
        "logits and box deltas of the same maps"
    );
    let per_cell = logits.channels() / num_classes;
    assert_eq!(
        [logits.channels(), deltas.channels()],
        [per_cell * num_classes, per_cell * 4],
        "logits have A*K channels with the model's K, box deltas A*4"
    );
    if let Some(centerness) = &head.centerness {
        assert_eq!(centerness.segments(), logits.segments());
        assert_eq!(centerness.channels(), per_cell, "centerness has A channels");
    }
    let (mut first_anchor, mut first_row) = (0, 0);
    let levels = logits
        .segments()
        .iter()
        .map(|segment| {
            assert_eq!(segment.n, num_images, "maps of the batch's images");
            let level = Level {
                per_cell,
                cells: segment.h * segment.w,
                first_anchor,
                first_row,
            };
            first_anchor += level.num_anchors();
            first_row += segment.cells();
            level
        })
        .collect();
    assert_eq!(
        first_anchor, num_anchors,
        "as many anchors as the head has outputs"
    );
    levels
}
