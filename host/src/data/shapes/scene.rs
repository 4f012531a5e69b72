//! What stands where: the geometry of one image, without colour.

use crate::data::MaskCrop;
use crate::rng::KeyedRng;

/// Class names in label order.
pub(super) const CLASSES: [&str; 5] = ["circle", "cross", "square", "star", "triangle"];

/// Sides that small and medium objects are drawn from, pixels; below 32 is "small" to COCO.
const SMALL: [f64; 2] = [12.0, 30.0];
const MEDIUM: [f64; 2] = [34.0, 72.0];
/// From this side on an object is "large" to COCO (96² pixels); needs an image with room for it.
const LARGE: f64 = 102.0;

/// Side of an image's only object, as a share of the image's shorter side.
const SINGLE: [f64; 2] = [1.0 / 3.0, 0.8];

/// Objects of one image, from back to front.
pub(super) struct Scene {
    /// `[height, width]`.
    pub(super) size: [usize; 2],
    pub(super) items: Vec<Item>,
}

/// One object.
pub(super) struct Item {
    pub(super) class: usize,
    /// `[x, y]` of its centre.
    pub(super) centre: [f32; 2],
    /// Half the side, pixels.
    pub(super) half: f32,
    /// Cosine and sine of its rotation.
    pub(super) axis: [f32; 2],
    /// Width over height before rotation, at the same area.
    pub(super) stretch: f32,
}

/// What is seen of an object.
pub(super) struct Visible {
    /// Tight box, pixel borders.
    pub(super) box_xyxy: [usize; 4],
    /// Pixels seen.
    pub(super) pixels: usize,
    /// Pixels that it covers within the image, seen or not.
    pub(super) painted: usize,
    /// The pixels seen, inside the box.
    pub(super) mask: MaskCrop,
}

/// A direction without trigonometry, which differs between platforms.
pub(super) fn direction(rng: &mut KeyedRng) -> [f32; 2] {
    loop {
        let [x, y] = [rng.range(-1.0, 1.0), rng.range(-1.0, 1.0)];
        let square = x * x + y * y;
        if (0.01..1.0).contains(&square) {
            let length = square.sqrt();
            return [(x / length) as f32, (y / length) as f32];
        }
    }
}

impl Scene {
    /// Draws the objects of the image that `key` names.
    pub(super) fn lay_out(size: [usize; 2], key: [u64; 3]) -> Self {
        let rng = &mut KeyedRng::new("shapes layout", &key);
        let [height, width] = size.map(|s| s as f64);
        let shorter = height.min(width);
        let count = count(rng, height * width);

        let mut sides: Vec<f64> = (0..count)
            .map(|number| side(rng, shorter, number))
            .collect();
        // Large ones stand behind: in front they would hide whole images.
        sides.sort_by(|a, b| b.total_cmp(a));

        let crowded = rng.uniform() < 0.35;
        let gathering = [
            rng.range(0.25, 0.75) * width,
            rng.range(0.25, 0.75) * height,
        ];
        let mut items: Vec<Item> = Vec::with_capacity(count);
        for side in sides {
            let class = rng.below(CLASSES.len());
            let axis = direction(rng);
            let stretch = rng.range(0.8, 1.25) as f32;
            let gathers = crowded && rng.uniform() < 0.7;
            let mut centre = [0.0; 2];
            // A few tries for a place that does not hide another one whole.
            for _ in 0..3 {
                centre = place(rng, [width, height], side, gathers.then_some(gathering));
                let covers = |item: &Item| {
                    let [dx, dy] = [
                        centre[0] - f64::from(item.centre[0]),
                        centre[1] - f64::from(item.centre[1]),
                    ];
                    let reach = 0.7 * side.min(2.0 * f64::from(item.half)) / 2.0;
                    dx * dx + dy * dy < reach * reach
                };
                if !items.iter().any(covers) {
                    break;
                }
            }
            items.push(Item {
                class,
                centre: centre.map(|v| v as f32),
                half: (side / 2.0) as f32,
                axis,
                stretch,
            });
        }
        Scene { size, items }
    }

    /// Draws the one object of the image that `key` names: any class, from a third to four fifths of the
    /// shorter side, near enough to the middle that the border cuts nothing off but corners of the
    /// largest.
    pub(super) fn single(size: [usize; 2], key: [u64; 3]) -> Self {
        let rng = &mut KeyedRng::new("shapes single", &key);
        let shorter = size[0].min(size[1]) as f64;
        let class = rng.below(CLASSES.len());
        let side = rng.range(SINGLE[0], SINGLE[1]) * shorter;
        let axis = direction(rng);
        let stretch = rng.range(0.8, 1.25) as f32;
        // Half the diagonal of what a stretched object fills.
        let reach = (0.75 * side).min(shorter / 2.0);
        let [y, x] = size.map(|extent| rng.range(reach, extent as f64 - reach));
        let item = Item {
            class,
            centre: [x as f32, y as f32],
            half: (side / 2.0) as f32,
            axis,
            stretch,
        };
        Scene {
            size,
            items: vec![item],
        }
    }

    /// Which object is seen at each pixel, row-major; `None`: ground or clutter.
    pub(super) fn owners(&self) -> Vec<Option<usize>> {
        self.owners_and_painted().0
    }

    /// As [`Scene::owners`], and how many pixels each object covers, seen or not.
    fn owners_and_painted(&self) -> (Vec<Option<usize>>, Vec<usize>) {
        let [height, width] = self.size;
        let mut owners = vec![None; height * width];
        let mut painted = vec![0; self.items.len()];
        for (index, item) in self.items.iter().enumerate() {
            item.for_each_pixel(self.size, |x, y, distance| {
                if distance <= 0.0 {
                    owners[y * width + x] = Some(index);
                    painted[index] += 1;
                }
            });
        }
        (owners, painted)
    }

    /// What is seen of each object; `None` where nothing is.
    pub(super) fn visible(&self) -> Vec<Option<Visible>> {
        let width = self.size[1];
        let (owners, painted) = self.owners_and_painted();
        let mut visible: Vec<Option<Visible>> = self.items.iter().map(|_| None).collect();
        for (position, &index) in owners
            .iter()
            .enumerate()
            .filter_map(|(position, owner)| Some((position, owner.as_ref()?)))
        {
            let (x, y) = (position % width, position / width);
            let seen = visible[index].get_or_insert(Visible {
                box_xyxy: [x, y, x + 1, y + 1],
                pixels: 0,
                painted: painted[index],
                mask: MaskCrop::default(),
            });
            let [x1, y1, x2, y2] = seen.box_xyxy;
            seen.box_xyxy = [x1.min(x), y1.min(y), x2.max(x + 1), y2.max(y + 1)];
            seen.pixels += 1;
        }
        // Masks are relative to their boxes, which only now are whole.
        for (index, seen) in visible.iter_mut().enumerate() {
            if let Some(seen) = seen {
                let shows = |x: f64, y: f64| owners[y as usize * width + x as usize] == Some(index);
                seen.mask = MaskCrop::from_coverage(shows, seen.box_xyxy.map(|v| v as f32));
            }
        }
        visible
    }
}

/// Two to seven objects on 128x128 pixels, more on larger images.
fn count(rng: &mut KeyedRng, pixels: f64) -> usize {
    let room = (pixels / (128.0 * 128.0)).clamp(0.25, 6.0);
    (((2 + rng.below(6)) as f64 * room).round() as usize).max(1)
}

fn side(rng: &mut KeyedRng, shorter: f64, number: usize) -> f64 {
    let kind = rng.uniform();
    // At most one large object an image, in every third.
    if number == 0 && kind < 0.33 && shorter >= LARGE * 1.2 {
        rng.range(LARGE, (shorter * 0.95).min(1.5 * LARGE))
    } else if kind < 0.55 || shorter < MEDIUM[0] * 1.5 {
        rng.range(SMALL[0], SMALL[1].min(shorter * 0.6))
    } else {
        rng.range(MEDIUM[0], MEDIUM[1].min(shorter * 0.7))
    }
}

/// `[x, y]` of a centre: anywhere (up to a quarter of the object may be cut off by the border), or
/// near the gathering.
fn place(
    rng: &mut KeyedRng,
    [width, height]: [f64; 2],
    side: f64,
    gathering: Option<[f64; 2]>,
) -> [f64; 2] {
    let margin = 0.25 * side;
    let anywhere = [
        rng.range(margin, width - margin),
        rng.range(margin, height - margin),
    ];
    match gathering {
        None => anywhere,
        Some([x, y]) => {
            let reach = 18.0 + 0.5 * side;
            [
                (x + rng.range(-reach, reach)).clamp(margin, width - margin),
                (y + rng.range(-reach, reach)).clamp(margin, height - margin),
            ]
        }
    }
}

impl Item {
    /// Calls `visit(x, y, distance)` for the pixels around the object, row by row. `distance` is in
    /// pixels, negative inside; exact enough at the outline to smooth it.
    pub(super) fn for_each_pixel(
        &self,
        size: [usize; 2],
        mut visit: impl FnMut(usize, usize, f32),
    ) {
        let [height, width] = size;
        // The farthest point of any class (a star's tip), stretched, and one pixel for smoothing.
        let reach = self.half * 1.5 + 1.0;
        let range = |centre: f32, extent: usize| {
            let from = (centre - reach).floor().max(0.0) as usize;
            from..((centre + reach).ceil().max(0.0) as usize).min(extent)
        };
        for y in range(self.centre[1], height) {
            for x in range(self.centre[0], width) {
                visit(x, y, self.distance([x as f32 + 0.5, y as f32 + 0.5]));
            }
        }
    }

    /// `[u, v]`: the point in the object's own frame, in units of `half`.
    pub(super) fn local(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let [dx, dy] = [x - self.centre[0], y - self.centre[1]];
        let [cosine, sine] = self.axis;
        let stretch = self.stretch.sqrt();
        [
            (dx * cosine + dy * sine) / (self.half * stretch),
            (dy * cosine - dx * sine) / self.half * stretch,
        ]
    }

    fn distance(&self, point: [f32; 2]) -> f32 {
        let local = self.local(point);
        let distance = match CLASSES[self.class] {
            "circle" => circle(local),
            "cross" => cross(local),
            "square" => square(local),
            "star" => star(local),
            _ => triangle(local),
        };
        distance * self.half
    }
}

fn circle([u, v]: [f32; 2]) -> f32 {
    (u * u + v * v).sqrt() - 1.0
}

fn square([u, v]: [f32; 2]) -> f32 {
    u.abs().max(v.abs()) - 0.86
}

fn cross([u, v]: [f32; 2]) -> f32 {
    let [u, v] = [u.abs(), v.abs()];
    let [arm, thickness] = [1.05, 0.36];
    (u - arm)
        .max(v - thickness)
        .min((u - thickness).max(v - arm))
}

/// Equilateral: the farthest of three sides, whose normals stand 120° apart.
fn triangle([u, v]: [f32; 2]) -> f32 {
    const HALF_SQRT_3: f32 = 0.866_025_4;
    const INRADIUS: f32 = 0.62;
    let sides = [v, HALF_SQRT_3 * u - 0.5 * v, -HALF_SQRT_3 * u - 0.5 * v];
    sides.into_iter().fold(f32::MIN, f32::max) - INRADIUS
}

/// Five points: where at most one of the five lines of a pentagram is crossed, so the second
/// largest distance decides.
fn star([u, v]: [f32; 2]) -> f32 {
    /// Cosine and sine of 72° and of 144°.
    const C1: f32 = 0.309_017;
    const S1: f32 = 0.951_056_5;
    const C2: f32 = -0.809_017;
    const S2: f32 = 0.587_785_25;
    const INRADIUS: f32 = 0.36;
    let lines = [
        v,
        S1 * u + C1 * v,
        S2 * u + C2 * v,
        -S2 * u + C2 * v,
        -S1 * u + C1 * v,
    ];
    let [mut first, mut second] = [f32::MIN; 2];
    for distance in lines {
        second = second.max(distance.min(first));
        first = first.max(distance);
    }
    second - INRADIUS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(class: usize, centre: [f32; 2], half: f32) -> Item {
        Item {
            class,
            centre,
            half,
            axis: [1.0, 0.0],
            stretch: 1.0,
        }
    }

    #[test]
    fn boxes_are_those_of_the_visible_part() {
        // Two squares of half side 0.86 * 10 / 0.86 = 10, the second over the first's right half.
        let half = 10.0 / 0.86;
        let square = 2;
        let scene = Scene {
            size: [64, 64],
            items: vec![
                item(square, [20.0, 20.0], half),
                item(square, [30.0, 20.0], half),
            ],
        };
        let [Some(back), Some(front)] = &scene.visible()[..] else {
            panic!("both are seen")
        };
        assert_eq!(front.box_xyxy, [20, 10, 40, 30]);
        assert_eq!((front.pixels, front.painted), (400, 400));
        assert_eq!(back.box_xyxy, [10, 10, 20, 30]);
        assert_eq!((back.pixels, back.painted), (200, 400));
    }

    #[test]
    fn masks_are_those_of_the_visible_part() {
        let [circle, square] = [0, 2];
        let scene = Scene {
            size: [64, 64],
            items: vec![
                item(circle, [24.0, 24.0], 20.0),
                // In front of the circle's lower right part, to the corner of its box.
                item(square, [38.0, 38.0], 6.0 / 0.86),
            ],
        };
        let [Some(back), Some(front)] = &scene.visible()[..] else {
            panic!("both are seen")
        };
        assert_eq!(front.mask.to_f32s(), [1.0; 49]);
        #[rustfmt::skip]
        let expected = [
            0, 0, 1, 1, 1, 0, 0,
            0, 1, 1, 1, 1, 1, 0,
            1, 1, 1, 1, 1, 1, 1,
            1, 1, 1, 1, 1, 1, 1,
            1, 1, 1, 1, 1, 1, 1,
            0, 1, 1, 1, 1, 0, 0,
            0, 0, 1, 1, 1, 0, 0,
        ];
        assert_eq!(back.mask.to_f32s().map(|cell| cell as u8), expected);
    }

    #[test]
    fn what_is_hidden_altogether_is_not_there() {
        let scene = Scene {
            size: [64, 64],
            items: vec![item(0, [30.0, 30.0], 5.0), item(0, [30.0, 30.0], 20.0)],
        };
        assert!(matches!(&scene.visible()[..], [None, Some(_)]));
    }

    #[test]
    fn every_class_covers_its_own_share_of_its_square() {
        // Areas over (2 half)².
        let half = 50.0;
        let expected = [
            std::f64::consts::PI / 4.0,
            // Two bars of 2.10 x 0.72 less their common 0.72 x 0.72, over 4.
            (2.0 * 2.1 * 0.72 - 0.72 * 0.72) / 4.0,
            0.86 * 0.86,
            // A pentagon of inradius r, 5 r² tan 36°, and five tips on its sides, of base
            // 2 r tan 36° and height r tan 36° tan 72°.
            {
                let (r, t36, t72) = (0.36, 36f64.to_radians().tan(), 72f64.to_radians().tan());
                (5.0 * r * r * t36 + 5.0 * r * t36 * r * t36 * t72) / 4.0
            },
            // An equilateral triangle of inradius r: 3 sqrt(3) r².
            3.0 * 3f64.sqrt() * 0.62 * 0.62 / 4.0,
        ];
        for (class, expected) in expected.into_iter().enumerate() {
            let mut pixels = 0;
            // Off the lattice, so that no edge runs along pixel centres.
            let mut item = item(class, [100.3, 99.6], half);
            item.axis = [0.8, 0.6];
            item.for_each_pixel([200, 200], |_, _, distance| {
                pixels += usize::from(distance <= 0.0);
            });
            let share = pixels as f64 / 1e4;
            // An outline of some 400 pixels on 10⁴, wrong by less than a tenth of its pixels.
            assert!(
                (share - expected).abs() < 4e-3,
                "{}: {share} {expected}",
                CLASSES[class]
            );
        }
    }
}
