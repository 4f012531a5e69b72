//! Evaluation protocols: [`coco`] scores boxes against ground truth, [`detector`] turns a detector's
//! outputs into them; [`segmentation`] scores label maps, [`classification`] classes of images; [`Metrics`] is what a task's
//! evaluation gives, [`ByImage`] what it is made of. Nothing here runs a network.

mod by_image;
pub mod classification;
pub mod coco;
pub mod detector;
mod metrics;
pub mod segmentation;

pub use by_image::{ByImage, ImageClass, ImageConfusion, PREDICTIONS_FILE, PredictionsError};
pub use metrics::{Metrics, percent};

use sha2::{Digest, Sha256};

use crate::state::hex;

/// SHA-256 (hex) of a set of images, of each its id and `[height, width]`: a line `id height width`
/// each, by ascending id.
#[must_use]
pub fn image_list_hash(images: impl Iterator<Item = (i64, [usize; 2])>) -> String {
    let mut images: Vec<(i64, [usize; 2])> = images.collect();
    images.sort_unstable_by_key(|(id, _)| *id);
    let mut hasher = Sha256::new();
    for (id, [height, width]) in images {
        hasher.update(format!("{id} {height} {width}\n"));
    }
    hex(&hasher.finalize())
}
