//! Image files to RGB pixels.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, ImageReader};

use super::{DatasetError, RgbPixels};

/// Decodes a JPEG or PNG file, told by its content, to 8-bit RGB.
///
/// Gray is repeated, alpha dropped, 16 bits scaled to 8. The EXIF orientation is not applied:
/// annotations of COCO and PASCAL VOC are in the stored orientation, as their own tools read it.
///
/// # Errors
/// If the file is missing, of another format, or broken (a truncated JPEG included).
pub fn decode(path: &Path) -> Result<RgbPixels, DatasetError> {
    let bytes = fs::read(path).map_err(|e| fault(path, e.to_string()))?;
    let reader = ImageReader::new(Cursor::new(&bytes))
        .with_guessed_format()
        .map_err(|e| fault(path, e.to_string()))?;
    match reader.format() {
        Some(ImageFormat::Jpeg) if !jpeg_is_complete(&bytes) => {
            return Err(fault(path, "truncated JPEG: its end is missing".into()));
        }
        Some(ImageFormat::Jpeg | ImageFormat::Png) => {}
        _ => {
            let reason = "neither a JPEG nor a PNG; convert it to one of them";
            return Err(fault(path, reason.into()));
        }
    }
    let image = reader
        .decode()
        .map_err(|e| fault(path, format!("cannot be decoded: {e}")))?
        .into_rgb8();
    Ok(RgbPixels {
        size: [image.height() as usize, image.width() as usize],
        data: image.into_raw(),
    })
}

/// As [`decode`], for an image whose size an annotation file states: boxes are in its pixels, so
/// another size means that they do not belong to this file.
pub(super) fn decode_annotated(path: &Path, size: [usize; 2]) -> Result<RgbPixels, DatasetError> {
    let pixels = decode(path)?;
    if pixels.size == size {
        return Ok(pixels);
    }
    let [height, width] = pixels.size;
    Err(fault(
        path,
        format!(
            "is {width}x{height} (width x height) but annotated as {}x{}",
            size[1], size[0]
        ),
    ))
}

/// `[height, width]` from the header alone.
pub(super) fn stored_size(path: &Path) -> Result<[usize; 2], DatasetError> {
    let (width, height) = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|e| fault(path, e.to_string()))?
        .into_dimensions()
        .map_err(|e| fault(path, e.to_string()))?;
    Ok([height as usize, width as usize])
}

fn fault(path: &Path, reason: String) -> DatasetError {
    DatasetError::File {
        path: path.display().to_string(),
        reason,
    }
}

/// Whether an end marker follows the last start of scan. The decoder fills what is missing with
/// gray, silently; within a scan 0xff is escaped, so the markers cannot be image data. Searched
/// from the end, where a whole file has it.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut markers = bytes.windows(2).rev();
    markers.find(|pair| matches!(pair, [0xff, 0xd9 | 0xda])) == Some(&[0xff, 0xd9])
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    #[test]
    fn a_png_keeps_its_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("two.png");
        let data = vec![1, 2, 3, 250, 128, 0];
        RgbImage::from_raw(2, 1, data.clone())
            .unwrap()
            .save(&path)
            .unwrap();
        assert_eq!(decode(&path).unwrap(), RgbPixels { size: [1, 2], data });
        assert_eq!(stored_size(&path).unwrap(), [1, 2]);
        let message = decode_annotated(&path, [2, 1]).unwrap_err().to_string();
        assert!(
            message.contains("two.png` is 2x1") || message.contains("is 2x1"),
            "{message}"
        );
        assert!(message.contains("annotated as 1x2"), "{message}");
    }

    #[test]
    fn a_gray_image_is_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gray.png");
        image::GrayImage::from_raw(1, 1, vec![77])
            .unwrap()
            .save(&path)
            .unwrap();
        assert_eq!(decode(&path).unwrap().data, [77, 77, 77]);
    }

    #[test]
    fn a_broken_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.jpg");
        let image = RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8 * 3, y as u8 * 5, 9]));
        image.save(&path).unwrap();
        assert_eq!(decode(&path).unwrap().size, [48, 64]);
        let whole = fs::read(&path).unwrap();
        for keep in [0, 10, whole.len() / 2, whole.len() - 2] {
            fs::write(&path, &whole[..keep]).unwrap();
            let message = decode(&path).unwrap_err().to_string();
            assert!(message.contains("cut.jpg"), "{keep}: {message}");
        }
        fs::write(&path, b"plain text").unwrap();
        assert!(
            decode(&path)
                .unwrap_err()
                .to_string()
                .contains("neither a JPEG nor a PNG")
        );
        let missing = decode(&folder.path().join("gone.jpg"))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("gone.jpg"), "{missing}");
    }
}
