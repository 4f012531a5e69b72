//! Taps: named tensors of the student and its teachers.

use kd_abi::{KD_USE_GRAD, KD_USE_VALUE, KdDType};

use crate::MethodError;

/// Whose tensor a tap is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The model that learns.
    Student,
    /// The model that teaches.
    Teacher,
    /// A further teacher, by name.
    Other(String),
}

impl Role {
    /// `student`, `teacher`, or the further teacher's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Role::Student => "student",
            Role::Teacher => "teacher",
            Role::Other(name) => name,
        }
    }

    pub(crate) fn from_name(name: &str) -> Role {
        match name {
            "student" => Role::Student,
            "teacher" => Role::Teacher,
            other => Role::Other(other.to_owned()),
        }
    }
}

/// What a method asks to be shown: all tensors of one role whose name fits a pattern.
///
/// In a pattern `*` stands for any run of characters, and `|` stands between patterns of which any may
/// fit: `neck.*`, `neck.*|feat.last` (a detector's or a segmenter's), `backbone.c5`,
/// `head.cls_logits.*`. Patterns are part of the manifest, so the host knows what to compute
/// before it runs any code of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapPattern {
    /// `student`, `teacher`, or the role of a further model to learn from.
    pub role: &'static str,
    /// Name with `*` as wildcard.
    pub pattern: &'static str,
    /// The method gives a gradient for these taps.
    pub grad: bool,
    /// The method works without any tap that fits.
    pub optional: bool,
}

impl TapPattern {
    /// Student tensors that receive a gradient.
    #[must_use]
    pub const fn student(pattern: &'static str) -> Self {
        TapPattern {
            role: "student",
            pattern,
            grad: true,
            optional: false,
        }
    }

    /// Teacher tensors; they never receive a gradient.
    #[must_use]
    pub const fn teacher(pattern: &'static str) -> Self {
        TapPattern {
            role: "teacher",
            pattern,
            grad: false,
            optional: false,
        }
    }

    /// Tensors of a further model to learn from, in a role of any other name; they never receive a
    /// gradient. The user configures a teacher of that name, or casts one for the role.
    #[must_use]
    pub const fn of_role(role: &'static str, pattern: &'static str) -> Self {
        TapPattern {
            role,
            pattern,
            grad: false,
            optional: false,
        }
    }

    /// Values alone: no gradient flows back.
    #[must_use]
    pub const fn without_grad(mut self) -> Self {
        self.grad = false;
        self
    }

    /// The method also works if nothing fits.
    #[must_use]
    pub const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// One bound tap, as the plan sees it: everything but its values.
#[derive(Clone, Debug, PartialEq)]
pub struct TapInfo {
    /// Position in the host's list.
    pub index: usize,
    /// `neck.p3`, `backbone.c4`, `head.cls_logits.p3`, …
    pub name: String,
    /// Whose tensor it is.
    pub role: Role,
    /// Element type.
    pub dtype: KdDType,
    /// Extents; negative ones are the symbolic `KD_DIM_*`. The batch's always is symbolic; for height
    /// and width see [`TapInfo::size`].
    pub shape: Vec<i64>,
    /// Input pixels per cell; 0 where the tap has no grid.
    pub stride: u32,
    /// `KD_USE_*` bits.
    pub use_bits: u32,
}

impl TapInfo {
    /// Number of channels: the second extent.
    ///
    /// # Errors
    /// If that extent is missing or symbolic.
    pub fn channels(&self) -> Result<usize, MethodError> {
        match self.shape.get(1) {
            Some(&extent) if extent > 0 => Ok(extent as usize),
            _ => Err(MethodError::shape(format!(
                "{} tap `{}` has no fixed channel extent: {:?}",
                self.role.name(),
                self.name,
                self.shape
            ))),
        }
    }

    /// `[height, width]` in cells, where every training image of the run has one size: in training all
    /// values of this tap have it. None where images differ, or the host does not tell.
    #[must_use]
    pub fn size(&self) -> Option<[usize; 2]> {
        match self.shape[..] {
            [_, _, height, width] if height > 0 && width > 0 => {
                Some([height as usize, width as usize])
            }
            _ => None,
        }
    }

    /// Whether a gradient is wanted.
    #[must_use]
    pub fn wants_grad(&self) -> bool {
        self.role == Role::Student && self.use_bits & KD_USE_GRAD != 0
    }

    /// Whether the values are read.
    #[must_use]
    pub fn wants_value(&self) -> bool {
        self.use_bits & KD_USE_VALUE != 0
    }
}

/// The taps that the host bound, in its order, and the task of the models.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taps {
    taps: Vec<TapInfo>,
    num_classes: Option<usize>,
}

impl Taps {
    /// Wraps a list; indices must be positions.
    #[must_use]
    pub fn new(taps: Vec<TapInfo>) -> Self {
        debug_assert!(taps.iter().enumerate().all(|(i, tap)| tap.index == i));
        Taps {
            taps,
            num_classes: None,
        }
    }

    /// With the number of classes of the task.
    #[must_use]
    pub fn with_num_classes(mut self, num_classes: Option<usize>) -> Self {
        self.num_classes = num_classes;
        self
    }

    /// Classes of the data set, background excluded; labels are below it.
    ///
    /// # Errors
    /// If the host does not say it.
    pub fn num_classes(&self) -> Result<usize, MethodError> {
        self.num_classes.ok_or_else(|| {
            MethodError::unsupported(
                "the host does not tell the number of classes (extension `kd.task/1`)",
            )
        })
    }

    /// All taps.
    pub fn iter(&self) -> impl Iterator<Item = &TapInfo> {
        self.taps.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.taps.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taps.is_empty()
    }

    /// The tap of `role` called `name`.
    ///
    /// # Errors
    /// If it is not bound; the message lists what is.
    pub fn get(&self, role: &Role, name: &str) -> Result<&TapInfo, MethodError> {
        self.taps
            .iter()
            .find(|tap| tap.role == *role && tap.name == name)
            .ok_or_else(|| {
                let bound: Vec<&str> = self
                    .taps
                    .iter()
                    .filter(|tap| tap.role == *role)
                    .map(|tap| tap.name.as_str())
                    .collect();
                MethodError::invalid_argument(format!(
                    "no {} tap `{name}` is bound; bound are: {}",
                    role.name(),
                    bound.join(", ")
                ))
            })
    }

    /// The student tap called `name`.
    ///
    /// # Errors
    /// If it is not bound.
    pub fn student(&self, name: &str) -> Result<&TapInfo, MethodError> {
        self.get(&Role::Student, name)
    }

    /// The teacher tap called `name`.
    ///
    /// # Errors
    /// If it is not bound.
    pub fn teacher(&self, name: &str) -> Result<&TapInfo, MethodError> {
        self.get(&Role::Teacher, name)
    }

    /// Student and teacher taps of the same name, in the order of the student's.
    ///
    /// # Errors
    /// If a student tap has no partner, or there is none at all.
    pub fn pairs(&self) -> Result<Vec<(&TapInfo, &TapInfo)>, MethodError> {
        let pairs = self
            .taps
            .iter()
            .filter(|tap| tap.role == Role::Student)
            .map(|tap| Ok((tap, self.teacher(&tap.name)?)))
            .collect::<Result<Vec<_>, MethodError>>()?;
        if pairs.is_empty() {
            return Err(MethodError::invalid_argument(
                "no student tap is bound; check the taps of the configuration",
            ));
        }
        Ok(pairs)
    }

    /// Student and teacher taps at one place of these levels: `neck` and `p3`, … for `neck.p3`, ….
    ///
    /// # Errors
    /// If one is not bound; the message lists what is.
    pub fn pairs_at(
        &self,
        place: &str,
        levels: &[String],
    ) -> Result<Vec<(&TapInfo, &TapInfo)>, MethodError> {
        let pair = |level: &String| {
            let name = format!("{place}.{level}");
            Ok((self.student(&name)?, self.teacher(&name)?))
        };
        levels.iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(index: usize, name: &str, role: Role) -> TapInfo {
        TapInfo {
            index,
            name: name.to_owned(),
            role,
            dtype: KdDType::F32,
            shape: vec![-1, 8, -2, -3],
            stride: 8,
            use_bits: KD_USE_VALUE | KD_USE_GRAD,
        }
    }

    #[test]
    fn pairs_go_by_name() {
        let taps = Taps::new(vec![
            tap(0, "neck.p3", Role::Student),
            tap(1, "neck.p4", Role::Teacher),
            tap(2, "neck.p3", Role::Teacher),
        ]);
        let pairs = taps.pairs().unwrap();
        assert_eq!(pairs.len(), 1);
        assert_eq!((pairs[0].0.index, pairs[0].1.index), (0, 2));
    }

    #[test]
    fn a_missing_partner_is_named() {
        let taps = Taps::new(vec![
            tap(0, "neck.p3", Role::Student),
            tap(1, "neck.p4", Role::Teacher),
        ]);
        let error = taps.pairs().unwrap_err();
        assert!(
            error.message().contains("no teacher tap `neck.p3`"),
            "{error}"
        );
        assert!(error.message().contains("neck.p4"), "{error}");
    }

    #[test]
    fn a_size_needs_both_extents() {
        let of = |shape: &[i64]| TapInfo {
            shape: shape.to_vec(),
            ..tap(0, "image", Role::Teacher)
        };
        assert_eq!(of(&[-1, 3, 224, 160]).size(), Some([224, 160]));
        for shape in [&[-1, 3, -2, -3][..], &[-1, 3, 224, -3], &[-1, 3]] {
            assert_eq!(of(shape).size(), None, "{shape:?}");
        }
    }

    #[test]
    fn teacher_taps_never_want_a_gradient() {
        assert!(!tap(0, "neck.p3", Role::Teacher).wants_grad());
        assert!(tap(0, "neck.p3", Role::Student).wants_grad());
    }
}
