//! PNG files whose values are classes.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, Transformations};

use super::file_fault;
use crate::data::{DatasetError, LabelMap};

/// The values of a PNG as stored: indices of a palette of 1 to 8 bits, never its colours, or 8-bit
/// gray.
///
/// # Errors
/// If the file is missing or broken, or its values are colours or of other depths: gray of fewer bits
/// means one number to one program and another to the next, which scales it.
pub(super) fn read_ids(path: &Path) -> Result<LabelMap, DatasetError> {
    let broken = |e: png::DecodingError| file_fault(path, format!("cannot be decoded: {e}"));
    let bytes = fs::read(path).map_err(|e| file_fault(path, e))?;
    let mut decoder = Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(broken)?;
    let info = reader.info();
    let (color, depth) = (info.color_type, info.bit_depth);
    let size = [info.height as usize, info.width as usize];
    let bits = match (color, depth) {
        (ColorType::Indexed, depth) => depth as usize,
        (ColorType::Grayscale, BitDepth::Eight) => 8,
        _ => {
            let reason = format!(
                "has {color:?} pixels of {} bits; a label map is a PNG with a palette, or gray of \
                 8 bits, whose values are classes",
                depth as u8
            );
            return Err(file_fault(path, reason));
        }
    };
    let length = reader
        .output_buffer_size()
        .ok_or_else(|| file_fault(path, "too large"))?;
    let mut packed = vec![0; length];
    reader.next_frame(&mut packed).map_err(broken)?;
    let data = if bits == 8 {
        packed
    } else {
        unpacked(&packed, bits, size)
    };
    Ok(LabelMap { size, data })
}

/// Rows of several values a byte, the first in the highest bits; each row starts a byte.
fn unpacked(packed: &[u8], bits: usize, [height, width]: [usize; 2]) -> Vec<u8> {
    let row_bytes = (width * bits).div_ceil(8);
    let per_byte = 8 / bits;
    let mask = (1 << bits) - 1;
    let mut data = Vec::with_capacity(height * width);
    for row in packed.chunks_exact(row_bytes) {
        data.extend((0..width).map(|x| {
            let shift = 8 - bits * (x % per_byte + 1);
            row[x / per_byte] >> shift & mask
        }));
    }
    data
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Made by `tests/golden/data/make_label_maps.py`.
    const GOLDEN: &str = include_str!("../../../../tests/golden/data/label_maps.json");

    #[derive(Deserialize)]
    struct Golden {
        palettes: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        size: [usize; 2],
        bits: usize,
        png: Vec<u8>,
        ids: Vec<u8>,
    }

    #[test]
    fn palettes_give_indices_as_pillow_wrote_them() {
        let folder = tempfile::tempdir().unwrap();
        let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
        let depths: Vec<usize> = golden.palettes.iter().map(|case| case.bits).collect();
        assert_eq!(depths, [1, 2, 4, 8]);
        for case in golden.palettes {
            let path = folder.path().join(format!("{}.png", case.bits));
            fs::write(&path, &case.png).unwrap();
            let map = read_ids(&path).unwrap();
            assert_eq!((map.size, map.data), (case.size, case.ids), "{}", case.bits);
            fs::write(&path, &case.png[..case.png.len() - 20]).unwrap();
            let message = read_ids(&path).unwrap_err().to_string();
            assert!(message.contains("cannot be decoded"), "{message}");
        }
    }

    #[test]
    fn gray_is_taken_as_it_is_and_colours_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gray.png");
        let data = vec![0, 11, 255, 3, 4, 5];
        let gray = image::GrayImage::from_raw(3, 2, data.clone()).unwrap();
        gray.save(&path).unwrap();
        assert_eq!(read_ids(&path).unwrap(), LabelMap { size: [2, 3], data });
        let path = folder.path().join("colours.png");
        image::RgbImage::new(3, 2).save(&path).unwrap();
        let message = read_ids(&path).unwrap_err().to_string();
        assert!(message.contains("colours.png"), "{message}");
        assert!(message.contains("Rgb pixels of 8 bits"), "{message}");
        let missing = read_ids(&folder.path().join("gone.png")).unwrap_err();
        assert!(missing.to_string().contains("gone.png"), "{missing}");
    }
}
