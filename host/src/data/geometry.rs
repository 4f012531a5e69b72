//! Where the pixels of an image go: what every view of it has in common.

/// A part of a picture, in whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// `[top, left]`.
    pub corner: [usize; 2],
    /// `[height, width]`.
    pub size: [usize; 2],
}

/// How a picture becomes the network's input, in this order: a part of it is taken, resized, of that a
/// part is taken, mirrored, and laid on a canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The part that is taken before resizing; none: all of it.
    pub part: Option<Part>,
    /// `[height, width]` that it is resized to.
    pub resized: [usize; 2],
    /// What is taken of that.
    pub kept: Part,
    /// `[height, width]` of the result, at least that of `kept`, which lies at its upper left; the rest
    /// is padding.
    pub canvas: [usize; 2],
    /// Mirrors what was kept, left to right.
    pub flip: bool,
}

impl Geometry {
    /// All of a picture, resized to `size`.
    #[must_use]
    pub fn whole(size: [usize; 2], flip: bool) -> Self {
        Geometry {
            part: None,
            resized: size,
            kept: Part {
                corner: [0, 0],
                size,
            },
            canvas: size,
            flip,
        }
    }

    /// The same look at the same picture with `ratio` (`[vertical, horizontal]`) times the pixels.
    ///
    /// The part of the picture and the mirroring are equal; every extent and the corner of what is kept
    /// are multiplied and rounded to the nearest pixel, extents to at least 1. A corner gives way by a pixel
    /// where rounding would take it out of the image. With a ratio of 1 nothing changes.
    #[must_use]
    pub fn scaled(&self, ratio: [f64; 2]) -> Self {
        let extents = |extents: [usize; 2]| scaled(extents, ratio).map(|extent| extent.max(1));
        let (resized, canvas) = (extents(self.resized), extents(self.canvas));
        let wanted = extents(self.kept.size);
        let size = [0, 1].map(|axis| wanted[axis].min(resized[axis]).min(canvas[axis]));
        let corner = scaled(self.kept.corner, ratio);
        let corner = [0, 1].map(|axis| corner[axis].min(resized[axis] - size[axis]));
        Geometry {
            part: self.part,
            resized,
            kept: Part { corner, size },
            canvas,
            flip: self.flip,
        }
    }
}

/// Lengths times `ratio`, to the nearest whole one.
pub(super) fn scaled(lengths: [usize; 2], ratio: [f64; 2]) -> [usize; 2] {
    [0, 1].map(|axis| (lengths[axis] as f64 * ratio[axis]).round() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::KeyedRng;

    fn any(rng: &mut KeyedRng) -> Geometry {
        let resized = [1 + rng.below(200), 1 + rng.below(200)];
        let canvas = [1 + rng.below(200), 1 + rng.below(200)];
        let size = [0, 1].map(|axis| canvas[axis].min(resized[axis]));
        let corner = [0, 1].map(|axis| rng.below(resized[axis] - size[axis] + 1));
        Geometry {
            part: None,
            resized,
            kept: Part { corner, size },
            canvas,
            flip: rng.below(2) == 1,
        }
    }

    #[test]
    fn a_scaled_look_stays_within_image_and_canvas_and_on_its_place() {
        let mut rng = KeyedRng::new("geometry", &[1]);
        for ratio in [1.0, 0.25, 0.4, 1.5, 2.0, 2.5, 4.0] {
            for _ in 0..500 {
                let geometry = any(&mut rng);
                let other = geometry.scaled([ratio; 2]);
                if ratio == 1.0 {
                    assert_eq!(other, geometry);
                }
                for axis in 0..2 {
                    let Part { corner, size } = other.kept;
                    assert!(corner[axis] + size[axis] <= other.resized[axis]);
                    assert!(0 < size[axis] && size[axis] <= other.canvas[axis]);
                    let exact = geometry.kept.corner[axis] as f64 * ratio;
                    // Half a pixel of rounding, and one where the corner gives way.
                    assert!((corner[axis] as f64 - exact).abs() <= 1.5, "{geometry:?}");
                    // What fills the canvas of the one fills that of the other.
                    if geometry.kept.size == geometry.canvas {
                        assert_eq!(size, other.canvas);
                    }
                }
            }
        }
    }

    #[test]
    fn whole_ratios_are_exact() {
        let mut rng = KeyedRng::new("geometry", &[2]);
        for _ in 0..200 {
            let geometry = any(&mut rng);
            let other = geometry.scaled([3.0, 2.0]);
            let times = |lengths: [usize; 2]| [3 * lengths[0], 2 * lengths[1]];
            assert_eq!(other.resized, times(geometry.resized));
            assert_eq!(other.canvas, times(geometry.canvas));
            assert_eq!(other.kept.corner, times(geometry.kept.corner));
            assert_eq!(other.kept.size, times(geometry.kept.size));
        }
    }
}
