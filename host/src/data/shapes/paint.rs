//! Colours, textures, clutter and noise.

use super::scene::{Item, Scene, direction};
use crate::data::RgbPixels;
use crate::rng::KeyedRng;

type Colour = [f32; 3];

/// An object's colour differs from the ground's by at least this, summed over channels of 0..255.
const MIN_CONTRAST: f32 = 100.0;

/// Renders `scene`; colours are drawn under `key`.
pub(super) fn paint(scene: &Scene, key: [u64; 3]) -> RgbPixels {
    let rng = &mut KeyedRng::new("shapes paint", &key);
    let ground = colour(rng);
    let mut canvas = Canvas::ground(scene.size, ground, rng);
    for _ in 0..3 + rng.below(8) {
        canvas.stroke(rng, 0.8);
    }
    for _ in 0..rng.below(5) {
        canvas.blot(rng);
    }
    for item in &scene.items {
        let fill = Fill::draw(rng, ground);
        canvas.object(item, &fill);
    }
    // Thin strokes in front of everything cut through outlines.
    for _ in 0..rng.below(3) {
        canvas.stroke(rng, 0.6);
    }
    canvas.develop(key, rng.range(3.0, 12.0) as f32)
}

fn colour(rng: &mut KeyedRng) -> Colour {
    std::array::from_fn(|_| rng.range(20.0, 235.0) as f32)
}

fn mix(from: Colour, to: Colour, share: f32) -> Colour {
    std::array::from_fn(|channel| from[channel] + (to[channel] - from[channel]) * share)
}

/// Colour and texture of one object, drawn without regard to its class.
struct Fill {
    texture: Texture,
    first: Colour,
    second: Colour,
    /// Pixels.
    period: f32,
    /// Direction of stripes and shading.
    along: [f32; 2],
    /// A darker rim, pixels wide; 0 for none.
    rim: f32,
}

#[derive(Clone, Copy)]
enum Texture {
    Flat,
    Shaded,
    Striped,
    Checked,
}

impl Fill {
    fn draw(rng: &mut KeyedRng, ground: Colour) -> Self {
        let texture = match rng.below(5) {
            0 | 1 => Texture::Flat,
            2 => Texture::Shaded,
            3 => Texture::Striped,
            _ => Texture::Checked,
        };
        let mut first = colour(rng);
        // Bounded: eight draws fail together about once in a thousand, which is a hard object.
        for _ in 0..8 {
            let contrast: f32 = first.iter().zip(ground).map(|(a, b)| (a - b).abs()).sum();
            if contrast >= MIN_CONTRAST {
                break;
            }
            first = colour(rng);
        }
        let second = mix(first, colour(rng), rng.range(0.25, 0.6) as f32);
        Fill {
            texture,
            first,
            second,
            period: rng.range(3.0, 9.0) as f32,
            along: direction(rng),
            rim: if rng.uniform() < 0.3 {
                rng.range(1.0, 2.5) as f32
            } else {
                0.0
            },
        }
    }

    fn at(&self, item: &Item, point: [f32; 2], distance: f32) -> Colour {
        if distance > -self.rim {
            return self.first.map(|v| v * 0.45);
        }
        let [u, v] = item.local(point);
        let along = u * self.along[0] + v * self.along[1];
        let across = v * self.along[0] - u * self.along[1];
        let odd = |offset: f32| (offset * item.half / self.period).floor().rem_euclid(2.0) >= 1.0;
        match self.texture {
            Texture::Flat => self.first,
            Texture::Shaded => mix(self.first, self.second, (0.5 + 0.5 * along).clamp(0.0, 1.0)),
            Texture::Striped if odd(along) => self.second,
            Texture::Checked if odd(along) != odd(across) => self.second,
            Texture::Striped | Texture::Checked => self.first,
        }
    }
}

struct Canvas {
    size: [usize; 2],
    /// Row-major, 0..255, not clamped.
    pixels: Vec<Colour>,
}

impl Canvas {
    /// Uneven ground: a coarse pattern of colour and a finer one of brightness.
    fn ground(size: [usize; 2], base: Colour, rng: &mut KeyedRng) -> Self {
        let coarse: [Noise; 3] = std::array::from_fn(|_| Noise::draw(rng, 5));
        let fine = Noise::draw(rng, 19);
        let [coarse_amplitude, fine_amplitude] = [rng.range(8.0, 40.0), rng.range(4.0, 22.0)];
        let [height, width] = size;
        let mut pixels = Vec::with_capacity(height * width);
        for y in 0..height {
            for x in 0..width {
                let point = [x as f32 / width as f32, y as f32 / height as f32];
                let brightness = fine.at(point) * fine_amplitude as f32;
                pixels.push(std::array::from_fn(|channel| {
                    base[channel] + coarse[channel].at(point) * coarse_amplitude as f32 + brightness
                }));
            }
        }
        Canvas { size, pixels }
    }

    fn blend(&mut self, x: usize, y: usize, colour: Colour, share: f32) {
        let pixel = &mut self.pixels[y * self.size[1] + x];
        *pixel = mix(*pixel, colour, share);
    }

    /// Columns or rows from `low` to `high` that are within `extent`.
    fn span(low: f32, high: f32, extent: usize) -> std::ops::Range<usize> {
        low.floor().max(0.0) as usize..(high.ceil().max(0.0) as usize).min(extent)
    }

    fn point(&self, rng: &mut KeyedRng) -> [f32; 2] {
        let [height, width] = self.size.map(|s| s as f64);
        [rng.range(0.0, width) as f32, rng.range(0.0, height) as f32]
    }

    /// A straight line of 1 to 3 pixels; clutter.
    fn stroke(&mut self, rng: &mut KeyedRng, opacity: f32) {
        let [from, along] = [self.point(rng), direction(rng)];
        let length = rng.range(10.0, 60.0) as f32;
        let half = rng.range(0.5, 1.5) as f32;
        let colour = colour(rng);
        let to = [from[0] + along[0] * length, from[1] + along[1] * length];
        let [height, width] = self.size;
        let (low, high) = (from[1].min(to[1]) - 2.0, from[1].max(to[1]) + 2.0);
        for y in Self::span(low, high, height) {
            let (low, high) = (from[0].min(to[0]) - 2.0, from[0].max(to[0]) + 2.0);
            for x in Self::span(low, high, width) {
                let [dx, dy] = [x as f32 + 0.5 - from[0], y as f32 + 0.5 - from[1]];
                let position = (dx * along[0] + dy * along[1]).clamp(0.0, length);
                let [ex, ey] = [dx - along[0] * position, dy - along[1] * position];
                let coverage = (half + 0.5 - (ex * ex + ey * ey).sqrt()).clamp(0.0, 1.0);
                if coverage > 0.0 {
                    self.blend(x, y, colour, coverage * opacity);
                }
            }
        }
    }

    /// A soft spot without an outline; clutter.
    fn blot(&mut self, rng: &mut KeyedRng) {
        let centre = self.point(rng);
        let radius = rng.range(4.0, 22.0) as f32;
        let opacity = rng.range(0.2, 0.6) as f32;
        let colour = colour(rng);
        let [height, width] = self.size;
        for y in Self::span(centre[1] - radius, centre[1] + radius, height) {
            for x in Self::span(centre[0] - radius, centre[0] + radius, width) {
                let [dx, dy] = [x as f32 + 0.5 - centre[0], y as f32 + 0.5 - centre[1]];
                let fall = (1.0 - (dx * dx + dy * dy) / (radius * radius)).max(0.0);
                self.blend(x, y, colour, opacity * fall * fall);
            }
        }
    }

    fn object(&mut self, item: &Item, fill: &Fill) {
        let size = self.size;
        item.for_each_pixel(size, |x, y, distance| {
            let coverage = (0.5 - distance).clamp(0.0, 1.0);
            if coverage > 0.0 {
                let point = [x as f32 + 0.5, y as f32 + 0.5];
                self.blend(x, y, fill.at(item, point, distance), coverage);
            }
        });
    }

    /// Adds noise of standard deviation about `sigma` and rounds to bytes.
    fn develop(self, key: [u64; 3], sigma: f32) -> RgbPixels {
        let rng = &mut KeyedRng::new("shapes noise", &key);
        let mut data = Vec::with_capacity(self.pixels.len() * 3);
        for pixel in self.pixels {
            // Four uniform numbers of 5 bits a channel: near enough to a normal one, and cheap.
            let mut bits = rng.next_u64();
            for value in pixel {
                let mut sum = 0;
                for _ in 0..4 {
                    sum += bits & 31;
                    bits >>= 5;
                }
                // The sum's mean is 62, its deviation sqrt(4 * (32² - 1) / 12) = 18.5.
                let noise = (sum as f32 - 62.0) / 18.5 * sigma;
                data.push((value + noise).round().clamp(0.0, 255.0) as u8);
            }
        }
        RgbPixels {
            size: self.size,
            data,
        }
    }
}

/// Values in -1..1 on a square lattice over the image, linear in between.
struct Noise {
    cells: usize,
    values: Vec<f32>,
}

impl Noise {
    fn draw(rng: &mut KeyedRng, cells: usize) -> Self {
        let count = (cells + 1) * (cells + 1);
        Noise {
            cells,
            values: (0..count).map(|_| rng.range(-1.0, 1.0) as f32).collect(),
        }
    }

    /// `[x, y]` in 0..1.
    fn at(&self, point: [f32; 2]) -> f32 {
        let [x, y] = point.map(|v| v * self.cells as f32);
        let [column, row] = [x, y].map(|v| (v as usize).min(self.cells - 1));
        let [right, down] = [x - column as f32, y - row as f32];
        let value = |row: usize, column: usize| self.values[row * (self.cells + 1) + column];
        let upper = value(row, column) * (1.0 - right) + value(row, column + 1) * right;
        let lower = value(row + 1, column) * (1.0 - right) + value(row + 1, column + 1) * right;
        upper * (1.0 - down) + lower * down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lattice_noise_is_linear_between_its_values() {
        let noise = Noise {
            cells: 1,
            values: vec![0.0, 1.0, 2.0, 3.0],
        };
        // Values at corners: 0 1 / 2 3, so the plane x + 2 y.
        assert_eq!(noise.at([0.25, 0.5]), 1.25);
        assert_eq!(noise.at([1.0, 1.0]), 3.0);
    }

    #[test]
    fn an_outline_is_smooth() {
        let canvas = |share: f32| {
            let mut canvas = Canvas {
                size: [1, 1],
                pixels: vec![[0.0; 3]],
            };
            canvas.blend(0, 0, [200.0, 100.0, 0.0], share);
            canvas.pixels[0]
        };
        assert_eq!(canvas(0.25), [50.0, 25.0, 0.0]);
        assert_eq!(canvas(1.0), [200.0, 100.0, 0.0]);
    }

    #[test]
    fn noise_has_the_deviation_that_is_asked_for() {
        let canvas = Canvas {
            size: [100, 100],
            pixels: vec![[128.0; 3]; 10_000],
        };
        let data = canvas.develop([1, 2, 3], 8.0).data;
        let mean = data.iter().map(|v| f64::from(*v)).sum::<f64>() / 3e4;
        let var = data
            .iter()
            .map(|v| (f64::from(*v) - mean).powi(2))
            .sum::<f64>()
            / 3e4;
        // Five standard errors of 30 000 draws: 5 * 8 / 173 and, for the deviation, 5 * 8 / 245;
        // rounding to bytes adds 1/12 to a variance of 64.
        assert!((mean - 128.0).abs() < 0.24, "{mean}");
        assert!((var.sqrt() - 8.0).abs() < 0.17, "{var}");
    }
}
