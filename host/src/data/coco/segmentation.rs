//! An annotation's `segmentation`, read down to what is kept of it.

use hotcoco::mask::RleRef;
use serde::Deserialize;

use crate::data::MaskCrop;

/// Pixels as run lengths, column by column.
#[derive(Deserialize)]
struct RunLengths {
    /// `[height, width]`.
    size: [u32; 2],
    counts: Counts,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Compressed(String),
    Runs(Vec<u32>),
}

/// The mask of an object inside `box_xyxy`; `None` for an empty list, which says that it has none.
///
/// Polygons of fewer than three points or half a point enclose nothing and are passed over, as in
/// the common trainers, unless no other is left.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn crop(
    json: &str,
    box_xyxy: [f32; 4],
    size: [usize; 2],
) -> Result<Option<MaskCrop>, String> {
    if json.starts_with('{') {
        let read = serde_json::from_str(json);
        let run_lengths: RunLengths =
            read.map_err(|e| format!("`segmentation` is not run lengths: {e}"))?;
        return run_lengths.crop(box_xyxy, size).map(Some);
    }
    let mut polygons: Vec<Vec<f64>> = serde_json::from_str(json)
        .map_err(|e| format!("`segmentation` is not a list of polygons: {e}"))?;
    if polygons.is_empty() {
        return Ok(None);
    }
    polygons.retain(|polygon| polygon.len() >= 6 && polygon.len() % 2 == 0);
    if polygons.is_empty() {
        return Err("no polygon of `segmentation` has three points".into());
    }
    Ok(Some(MaskCrop::from_polygons(&polygons, box_xyxy)))
}

impl RunLengths {
    fn crop(&self, box_xyxy: [f32; 4], size: [usize; 2]) -> Result<MaskCrop, String> {
        let [h, w] = self.size;
        if [h, w].map(|s| s as usize) != size {
            return Err(format!(
                "`segmentation` is of a {h}x{w} image, not {}x{}",
                size[0], size[1]
            ));
        }
        let encoded = match &self.counts {
            Counts::Compressed(counts) => RleRef::Compressed { counts, h, w },
            Counts::Runs(counts) => RleRef::Runs { counts, h, w },
        };
        let runs = encoded
            .to_rle()
            .map_err(|e| format!("`segmentation`: {e}"))?;
        // Where each run ends; they are outside and inside in turns, outside first. Looked up per
        // sample, since a bitmap of the whole image costs more than its few hundred samples.
        let ends: Vec<u64> = runs
            .counts
            .iter()
            .scan(0, |end, &count| {
                *end += u64::from(count);
                Some(*end)
            })
            .collect();
        let covers = |x: f64, y: f64| {
            let pixel = x as u64 * u64::from(h) + y as u64;
            let run = ends.partition_point(|&end| end <= pixel);
            run % 2 == 1 && run < ends.len()
        };
        Ok(MaskCrop::from_coverage(covers, box_xyxy))
    }
}
