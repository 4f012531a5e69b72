//! Finite differences and the contract of `backward`.
//!
//! The scalar under test is `L = Σ u_i·loss_i + Σ v_j·map_j` with random upstream gradients `u, v`.
//! Its derivative along a direction `d` is compared with `g·d`, where `g` is what `backward` wrote.
//! Directions are masked copies of the gradient itself, so that the signal is large: a method that
//! forgets a term, a factor or a region fails even where a random direction would hide in rounding.

use super::{Bench, EntryError, Gradients, Random};

/// How far a derivative may be off, relative to the larger of both.
///
/// Losses are f32: with a step that moves the loss by about 1 %, its rounding (1e-7) leaves 1e-5,
/// and the third-order term of the central difference, after extrapolation, less than that for a
/// smooth loss. Kinks (`|x|`, clamps) that a step crosses cost more; hence the margin.
pub const DIRECTIONAL_TOLERANCE: f64 = 5e-3;
/// For single elements, relative to the largest gradient of the tensor: one element moves the loss
/// by so little that its rounding shows.
pub const ELEMENT_TOLERANCE: f64 = 3e-2;
/// Derivatives this small, as a share of the loss per unit of the largest change, cannot be told
/// from 0: f32 rounds the loss by 6e-8, which a step of 0.02 turns into 3e-6.
pub const NOISE: f64 = 3e-6;
/// Accumulating must equal overwriting and adding, up to one rounding of f32.
pub const ACCUMULATE_TOLERANCE: f64 = 1e-6;

/// How much to test.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Seed of upstream gradients, directions and samples.
    pub seed: u64,
    /// Masked directions a tensor.
    pub directions: usize,
    /// Single elements a tensor.
    pub elements: usize,
    /// See [`DIRECTIONAL_TOLERANCE`].
    pub directional_tolerance: f64,
    /// See [`ELEMENT_TOLERANCE`].
    pub element_tolerance: f64,
    /// Beginnings of names of parameters to leave out: layers so deep that f32 cannot take a step that
    /// is both small enough for their curvature and large enough to be seen. Test them against
    /// another implementation.
    pub skip_params: &'static [&'static str],
}

impl Default for Options {
    fn default() -> Self {
        Options {
            seed: 17,
            directions: 3,
            elements: 4,
            directional_tolerance: DIRECTIONAL_TOLERANCE,
            element_tolerance: ELEMENT_TOLERANCE,
            skip_params: &[],
        }
    }
}

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Which tensor, which direction.
    pub what: String,
    /// From `backward`.
    pub gradient: f64,
    /// From differences of `forward`.
    pub difference: f64,
}

/// What was compared.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// All comparisons.
    pub comparisons: Vec<Comparison>,
}

/// Runs every check: finite differences of each tap and parameter, zero upstream, accumulation,
/// determinism.
///
/// # Errors
/// With what failed; the message has the numbers and the seed.
pub fn check(bench: &mut Bench, options: &Options) -> Result<Report, String> {
    let upstream = Upstream::random(bench, options.seed)?;
    let gradients = upstream.gradients(bench)?;
    deterministic(bench, &upstream, &gradients)?;
    zero_in_zero_out(bench, &upstream)?;
    accumulates(bench, &upstream, &gradients)?;
    finite_differences(bench, &upstream, &gradients, options)
}

/// Random upstream gradients for the outputs of a method.
struct Upstream {
    losses: Vec<f32>,
    maps: Vec<Vec<f32>>,
}

impl Upstream {
    fn random(bench: &mut Bench, seed: u64) -> Result<Self, String> {
        let mut random = Random::new(seed);
        let shapes = bench.forward().map_err(text)?;
        Ok(Upstream {
            // Positive and away from zero, so that losses cannot cancel.
            losses: shapes
                .losses
                .iter()
                .map(|_| 0.5 + random.unit() as f32)
                .collect(),
            maps: shapes
                .maps
                .iter()
                .map(|map| random.normals(map.len()))
                .collect(),
        })
    }

    fn scalar(&self, bench: &mut Bench) -> Result<f64, String> {
        let out = bench.forward().map_err(text)?;
        let losses =
            (self.losses.iter().zip(&out.losses)).map(|(u, loss)| f64::from(*u) * f64::from(*loss));
        let maps = (self.maps.iter().flatten().zip(out.maps.iter().flatten()))
            .map(|(v, map)| f64::from(*v) * f64::from(*map));
        Ok(losses.sum::<f64>() + maps.sum::<f64>())
    }

    fn gradients(&self, bench: &mut Bench) -> Result<Gradients, String> {
        let out = bench.forward().map_err(text)?;
        if let Some(bad) = out
            .losses
            .iter()
            .chain(out.maps.iter().flatten())
            .find(|v| !v.is_finite())
        {
            return Err(format!("an output is {bad} or was not written"));
        }
        let gradients = bench
            .backward(&out, &self.losses, &self.maps)
            .map_err(text)?;
        let all = gradients.taps.iter().chain(&gradients.params).flatten();
        if let Some(bad) = { all }.find(|v| !v.is_finite()) {
            return Err(format!("a gradient is {bad} or was not written"));
        }
        Ok(gradients)
    }
}

fn deterministic(bench: &mut Bench, upstream: &Upstream, first: &Gradients) -> Result<(), String> {
    let losses = |bench: &mut Bench| bench.forward().map(|out| out.losses.clone()).map_err(text);
    if losses(bench)? != losses(bench)? {
        return Err("two forwards with equal inputs and seed differ".to_owned());
    }
    if upstream.gradients(bench)? != *first {
        return Err("two backwards with equal inputs and seed differ".to_owned());
    }
    Ok(())
}

fn zero_in_zero_out(bench: &mut Bench, upstream: &Upstream) -> Result<(), String> {
    let zero = Upstream {
        losses: vec![0.0; upstream.losses.len()],
        maps: upstream
            .maps
            .iter()
            .map(|map| vec![0.0; map.len()])
            .collect(),
    };
    let gradients = zero.gradients(bench)?;
    match gradients
        .taps
        .iter()
        .chain(&gradients.params)
        .flatten()
        .find(|v| **v != 0.0)
    {
        None => Ok(()),
        Some(value) => Err(format!(
            "zero upstream gradients gave a gradient of {value}"
        )),
    }
}

fn accumulates(bench: &mut Bench, upstream: &Upstream, plain: &Gradients) -> Result<(), String> {
    let fill = |lists: &[Vec<f32>], seed: u64| -> Vec<Vec<f32>> {
        let mut random = Random::new(seed);
        lists
            .iter()
            .map(|list| random.normals(list.len()))
            .collect()
    };
    let start = Gradients {
        taps: fill(&plain.taps, 1),
        params: fill(&plain.params, 2),
    };
    let out = bench.forward().map_err(text)?;
    let sum = bench
        .backward_onto(&out, &upstream.losses, &upstream.maps, start.clone())
        .map_err(text)?;
    let lists =
        |g: &Gradients| -> Vec<f32> { g.taps.iter().chain(&g.params).flatten().copied().collect() };
    for ((sum, start), plain) in lists(&sum).iter().zip(lists(&start)).zip(lists(plain)) {
        let (got, expected) = (f64::from(*sum), f64::from(start) + f64::from(plain));
        if (got - expected).abs() > ACCUMULATE_TOLERANCE * (1.0 + expected.abs()) {
            return Err(format!(
                "accumulating gave {got}, overwriting and adding {expected}"
            ));
        }
    }
    Ok(())
}

/// Which tensor is moved.
#[derive(Clone, Copy)]
enum Place {
    Tap(usize),
    Param(usize),
}

fn finite_differences(
    bench: &mut Bench,
    upstream: &Upstream,
    gradients: &Gradients,
    options: &Options,
) -> Result<Report, String> {
    let mut report = Report::default();
    let noise = NOISE * upstream.scalar(bench)?.abs();
    let mut random = Random::new(options.seed ^ 0xd1ff);
    let taps = (0..gradients.taps.len())
        .filter(|&slot| bench.has_grad(slot))
        .map(Place::Tap);
    let places: Vec<Place> = taps
        .chain(
            (0..gradients.params.len())
                .filter(|&slot| {
                    let name = &bench.params[slot].name;
                    !options
                        .skip_params
                        .iter()
                        .any(|skip| name.starts_with(skip))
                })
                .map(Place::Param),
        )
        .collect();
    for place in places {
        let (name, gradient) = match place {
            Place::Tap(slot) => (
                format!("tap `{}`", bench.taps[slot].name),
                &gradients.taps[slot],
            ),
            Place::Param(slot) => (
                format!("parameter `{}`", bench.params[slot].name),
                &gradients.params[slot],
            ),
        };
        let largest = gradient
            .iter()
            .fold(0.0f64, |max, g| max.max(f64::from(g.abs())));
        for sample in 0..options.directions {
            let direction: Vec<f64> = if largest == 0.0 {
                gradient.iter().map(|_| random.normal()).collect()
            } else {
                let keep = |random: &mut Random| sample == 0 || random.bits() & 1 == 0;
                gradient
                    .iter()
                    .map(|&g| f64::from(g) * f64::from(u8::from(keep(&mut random))))
                    .collect()
            };
            let comparison = compare(bench, upstream, place, gradient, &direction)?;
            let scale = comparison.gradient.abs().max(comparison.difference.abs());
            let what = format!("{name}, direction {sample}");
            let allowed = options.directional_tolerance * scale + noise * longest(&direction);
            report.push(what, comparison, allowed)?;
        }
        for sample in 0..options.elements.min(gradient.len()) {
            let index = if sample == 0 {
                arg_max(gradient)
            } else {
                random.below(gradient.len())
            };
            let mut direction = vec![0.0; gradient.len()];
            direction[index] = 1.0;
            let comparison = compare(bench, upstream, place, gradient, &direction)?;
            let what = format!("{name}, element {index}");
            report.push(
                what,
                comparison,
                options.element_tolerance * largest + noise,
            )?;
        }
    }
    Ok(report)
}

impl Report {
    fn push(&mut self, what: String, found: Comparison, allowed: f64) -> Result<(), String> {
        let error = (found.gradient - found.difference).abs();
        self.comparisons.push(Comparison {
            what: what.clone(),
            ..found
        });
        if error <= allowed {
            return Ok(());
        }
        let Comparison {
            gradient,
            difference,
            ..
        } = self.comparisons[self.comparisons.len() - 1].clone();
        Err(format!(
            "{what}: backward says {gradient:e}, differences say {difference:e} \
             (error {error:e}, allowed {allowed:e})"
        ))
    }
}

/// Derivative along `direction` from both sides, extrapolated over three steps; of those the one
/// is taken that agrees best with its neighbour, not with the gradient.
fn compare(
    bench: &mut Bench,
    upstream: &Upstream,
    place: Place,
    gradient: &[f32],
    direction: &[f64],
) -> Result<Comparison, String> {
    let expected: f64 = gradient
        .iter()
        .zip(direction)
        .map(|(g, d)| f64::from(*g) * d)
        .sum();
    let longest = longest(direction);
    if longest == 0.0 {
        return Ok(Comparison {
            what: String::new(),
            gradient: 0.0,
            difference: 0.0,
        });
    }
    let start = values(bench, place).clone();
    let mut at = |step: f64| -> Result<f64, String> {
        for ((value, start), d) in values(bench, place).iter_mut().zip(&start).zip(direction) {
            *value = (f64::from(*start) + step * d) as f32;
        }
        upstream.scalar(bench)
    };
    let mut central = Vec::new();
    // Steps as the largest change of an element: taps and weights are of order one.
    for size in [8e-2, 4e-2, 2e-2, 1e-2, 5e-3, 2.5e-3] {
        let step = size / longest;
        central.push((at(step)? - at(-step)?) / (2.0 * step));
    }
    values(bench, place).clone_from(&start);
    let extrapolated: Vec<f64> = central
        .windows(2)
        .map(|pair| (4.0 * pair[1] - pair[0]) / 3.0)
        .collect();
    let best = extrapolated
        .windows(2)
        .min_by(|a, b| (a[0] - a[1]).abs().total_cmp(&(b[0] - b[1]).abs()))
        .map_or(extrapolated[0], |pair| (pair[0] + pair[1]) / 2.0);
    Ok(Comparison {
        what: String::new(),
        gradient: expected,
        difference: best,
    })
}

fn longest(direction: &[f64]) -> f64 {
    direction.iter().fold(0.0, |max, d| max.max(d.abs()))
}

fn values(bench: &mut Bench, place: Place) -> &mut Vec<f32> {
    match place {
        Place::Tap(slot) => &mut bench.taps[slot].values,
        Place::Param(slot) => &mut bench.params[slot].values,
    }
}

fn arg_max(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if value.abs() > values[best].abs() {
            best = index;
        }
    }
    best
}

fn text(error: EntryError) -> String {
    error.to_string()
}
