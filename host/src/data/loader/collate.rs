//! Images that were read, put together as a batch.

use crate::data::view::{self, Seen, ViewMaker};
use crate::data::{Batch, DatasetError, IGNORE_LABEL, LabelMap, Sample};

/// One image that was read.
pub(super) struct Read {
    pub(super) sample: Sample,
    /// One for each further view.
    pub(super) views: Vec<Seen>,
    /// In evaluation of segmentation.
    pub(super) original_labels: Option<LabelMap>,
    /// In classification.
    pub(super) label: Option<usize>,
}

/// Pads to the largest extents, rounded up to a multiple of `divisor`; views as they ask for it.
///
/// # Errors
/// If an image of a view does not fit into the view's frame.
pub(super) fn collate(
    reads: Vec<Read>,
    divisor: usize,
    views: &[ViewMaker],
) -> Result<Batch, DatasetError> {
    let extent = |axis: usize| {
        let largest = reads.iter().map(|read| read.sample.meta.size[axis]).max();
        largest.unwrap_or(0).next_multiple_of(divisor)
    };
    let padded @ [height, width] = [extent(0), extent(1)];
    let mut batch = Batch {
        images: vec![0.0; reads.len() * 3 * height * width],
        shape: [reads.len(), 3, height, width],
        targets: Vec::with_capacity(reads.len()),
        metas: Vec::with_capacity(reads.len()),
        ..Batch::default()
    };
    let mut seen: Vec<Vec<Seen>> = views.iter().map(|_| Vec::new()).collect();
    let images = batch.images.chunks_exact_mut(3 * height * width);
    for (out, read) in images.zip(reads) {
        let Read {
            sample,
            views,
            original_labels,
            label,
        } = read;
        let columns = sample.meta.size[1];
        view::place(out, padded, &sample.image, sample.meta.size);
        if let Some(labels) = sample.label_map {
            let start = batch.label_maps.len();
            let end = start + height * width;
            batch.label_maps.resize(end, IGNORE_LABEL);
            let out = batch.label_maps[start..].chunks_exact_mut(width);
            for (out, row) in out.zip(labels.data.chunks_exact(columns)) {
                out[..columns].copy_from_slice(row);
            }
        }
        for (of_view, one) in seen.iter_mut().zip(views) {
            of_view.push(one);
        }
        batch.original_label_maps.extend(original_labels);
        batch.labels.extend(label);
        batch.targets.push(sample.targets);
        batch.metas.push(sample.meta);
    }
    let views = views.iter().zip(seen);
    batch.views = views
        .map(|(maker, seen)| view::collate(&maker.spec, seen, padded))
        .collect::<Result<_, _>>()?;
    Ok(batch)
}
