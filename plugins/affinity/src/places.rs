//! Where maps are compared.

use kd_plugin::{MethodError, Role, TapInfo, Taps};

use crate::options::{AutoEncoder, Config};

/// The map before the classifier.
const LAST: &str = "feat.last";
/// Name of the auto-encoder that all places share.
const SHARED: &str = "shared";
/// Strides of the encoder's three convolutions, by how often the grid is halved.
const STRIDES: [[usize; 3]; 4] = [[1, 1, 1], [2, 1, 1], [2, 2, 1], [2, 2, 2]];

/// One tap of the student and the teacher's of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of both taps.
    pub name: String,
    /// `C_s`.
    pub student_channels: usize,
    /// `C_t`.
    pub teacher_channels: usize,
    /// `C_z`.
    pub code_channels: usize,
    strides: [usize; 3],
}

/// All places of a plan, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places(Vec<Place>);

impl Places {
    /// `feat.last` if the student has it, else the neck's levels.
    ///
    /// # Errors
    /// If there is neither, a teacher lacks the tap, or maps that share an auto-encoder differ in
    /// channels.
    pub fn of(config: &Config, taps: &Taps) -> Result<Self, MethodError> {
        let students = || taps.iter().filter(|tap| tap.role == Role::Student);
        let pairs = if students().any(|tap| tap.name == LAST) {
            vec![(taps.student(LAST)?, taps.teacher(LAST)?)]
        } else if students().any(|tap| tap.name.starts_with("neck.")) {
            let levels: Vec<String> = config.levels.iter().map(|l| format!("p{l}")).collect();
            taps.pairs_at("neck", &levels)?
        } else {
            let bound: Vec<&str> = students().map(|tap| tap.name.as_str()).collect();
            return Err(MethodError::unsupported(format!(
                "looked for the student's tap `{LAST}` (segmenters) and its taps `neck.p*` \
                 (detectors), and found neither; bound are: [{}]",
                bound.join(", ")
            )));
        };
        let places: Vec<Place> = pairs
            .into_iter()
            .map(|(student, teacher)| Place::new(config, student, teacher))
            .collect::<Result<_, _>>()?;
        if config.autoencoder == AutoEncoder::Shared {
            let first = &places[0];
            let other = (places.iter()).find(|p| p.teacher_channels != first.teacher_channels);
            if let Some(other) = other {
                return Err(MethodError::config(format!(
                    "the teacher's `{}` has {} channels, its `{}` {}; `autoencoder = \"shared\"` needs \
                     them equal: take \"per_level\"",
                    first.name, first.teacher_channels, other.name, other.teacher_channels
                )));
            }
        }
        Ok(Places(places))
    }

    /// All of them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Place> {
        self.0.iter()
    }

    /// Whether the tap of this name is one.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.iter().any(|place| place.name == name)
    }

    /// The auto-encoders' names and the places that each serves.
    #[must_use]
    pub fn groups(&self, config: &Config) -> Vec<(&str, &[Place])> {
        match config.autoencoder {
            AutoEncoder::None => Vec::new(),
            AutoEncoder::Shared => vec![(SHARED, &self.0)],
            AutoEncoder::PerLevel => (self.0.chunks(1))
                .map(|place| (place[0].name.as_str(), place))
                .collect(),
        }
    }
}

impl Place {
    fn new(config: &Config, student: &TapInfo, teacher: &TapInfo) -> Result<Self, MethodError> {
        let teacher_channels = teacher.channels()?;
        let to = match config.code_stride {
            0 => student.stride,
            stride => stride,
        };
        for (tap, stride) in [(student, to), (teacher, teacher.stride)] {
            if stride == 0 {
                return Err(MethodError::shape(format!(
                    "{} tap `{}` has no stride",
                    tap.role.name(),
                    tap.name
                )));
            }
        }
        Ok(Place {
            name: student.name.clone(),
            student_channels: student.channels()?,
            teacher_channels,
            code_channels: config.code_channels(teacher_channels),
            strides: strides(teacher.stride, to),
        })
    }

    /// Strides of the encoder's convolutions, `a_1` to `a_3`; the decoder's are the same backwards.
    #[must_use]
    pub fn strides(&self) -> [usize; 3] {
        self.strides
    }
}

/// Strides of the encoder from a grid of stride `from` to one of `to`: their ratio rounded down to 1, 2, 4
/// or 8. A code that is still too fine, or too coarse from the start, is resized.
///
/// # Panics
/// If `from` is 0.
#[must_use]
pub fn strides(from: u32, to: u32) -> [usize; 3] {
    let halvings = (to / from).max(1).ilog2() as usize;
    STRIDES[halvings.min(STRIDES.len() - 1)]
}
