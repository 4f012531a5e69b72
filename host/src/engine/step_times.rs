//! Where the time of a training step goes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::TeacherConfig;

/// Seconds spent in each part of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepTimes {
    /// Waiting for data.
    pub data: f64,
    /// Forward of each teacher, by name.
    #[serde(default)]
    pub teachers: BTreeMap<String, f64>,
    /// Student forward and task losses.
    pub student_forward: f64,
    /// Of each method, by label.
    #[serde(default)]
    pub methods: BTreeMap<String, MethodTimes>,
    /// Backward of the student.
    pub student_backward: f64,
    /// Clipping, optimizer, statistics, EMA.
    pub optimizer: f64,
}

/// Seconds spent on one method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MethodTimes {
    /// Inside its forward.
    pub forward: f64,
    /// The student's head and task losses on its maps, forward and backward.
    pub maps: f64,
    /// Inside its backward.
    pub backward: f64,
    /// This side of the plugin boundary: views, outputs, checks.
    pub boundary: f64,
}

impl MethodTimes {
    fn named(self) -> [(&'static str, f64); 4] {
        [
            ("method_forward", self.forward),
            ("maps", self.maps),
            ("method_backward", self.backward),
            ("boundary", self.boundary),
        ]
    }

    /// Sum over the parts.
    #[must_use]
    pub fn total(self) -> f64 {
        self.named().iter().map(|(_, seconds)| seconds).sum()
    }
}

impl StepTimes {
    /// Parts with their names, in the order of a step. Those of one method are called
    /// `method_forward` and so on, of several `method_forward_LABEL`; the teacher called `teacher` is
    /// `teacher`, another one `teacher_NAME`. Without a teacher or method, theirs are 0.
    #[must_use]
    pub fn named(&self) -> Vec<(String, f64)> {
        let mut named = vec![("data".to_owned(), self.data)];
        if self.teachers.is_empty() {
            named.push((TeacherConfig::UNNAMED.to_owned(), 0.0));
        }
        for (name, seconds) in &self.teachers {
            named.push(match name.as_str() {
                TeacherConfig::UNNAMED => (name.clone(), *seconds),
                name => (format!("{}_{name}", TeacherConfig::UNNAMED), *seconds),
            });
        }
        named.push(("student_forward".to_owned(), self.student_forward));
        let plain = MethodTimes::default().named();
        if self.methods.is_empty() {
            named.extend(plain.map(|(part, _)| (part.to_owned(), 0.0)));
        }
        for (label, times) in &self.methods {
            named.extend(
                times
                    .named()
                    .map(|(part, seconds)| match self.methods.len() {
                        1 => (part.to_owned(), seconds),
                        _ => (format!("{part}_{label}"), seconds),
                    }),
            );
        }
        named.push(("student_backward".to_owned(), self.student_backward));
        named.push(("optimizer".to_owned(), self.optimizer));
        named
    }

    /// Median of each part.
    #[must_use]
    pub fn median(steps: &[StepTimes]) -> StepTimes {
        let part = |of: &dyn Fn(&StepTimes) -> f64| {
            let mut values: Vec<f64> = steps.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        let Some(first) = steps.first() else {
            return StepTimes::default();
        };
        let teacher = |name: &String| {
            let of = |t: &StepTimes| t.teachers.get(name).copied().unwrap_or(0.0);
            (name.clone(), part(&of))
        };
        let method = |label: &String| {
            let of = |t: &StepTimes| t.methods.get(label).copied().unwrap_or_default();
            let times = MethodTimes {
                forward: part(&|t| of(t).forward),
                maps: part(&|t| of(t).maps),
                backward: part(&|t| of(t).backward),
                boundary: part(&|t| of(t).boundary),
            };
            (label.clone(), times)
        };
        StepTimes {
            data: part(&|t| t.data),
            teachers: first.teachers.keys().map(teacher).collect(),
            student_forward: part(&|t| t.student_forward),
            methods: first.methods.keys().map(method).collect(),
            student_backward: part(&|t| t.student_backward),
            optimizer: part(&|t| t.optimizer),
        }
    }

    /// Sum over the parts.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.named().iter().map(|(_, seconds)| seconds).sum()
    }

    /// Sum over the forward passes of teachers.
    #[must_use]
    pub fn all_teachers(&self) -> f64 {
        self.teachers.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(forward: f64) -> StepTimes {
        let method = MethodTimes {
            forward,
            backward: 1.0,
            ..MethodTimes::default()
        };
        StepTimes {
            data: 0.5,
            teachers: [("teacher".to_owned(), 2.0)].into(),
            methods: [("a".to_owned(), method)].into(),
            ..StepTimes::default()
        }
    }

    #[test]
    fn parts_are_named_by_label_where_there_are_several() {
        let names = |times: &StepTimes| {
            let named = times.named().into_iter().map(|(name, _)| name);
            named.collect::<Vec<_>>().join(" ")
        };
        let plain = "data teacher student_forward method_forward maps method_backward boundary \
                     student_backward optimizer";
        assert_eq!(names(&StepTimes::default()), plain);
        let mut several = times(3.0);
        assert_eq!(names(&several), plain);
        assert_eq!(several.total(), 6.5);
        several
            .methods
            .insert("b".to_owned(), MethodTimes::default());
        several.teachers.insert("big".to_owned(), 0.25);
        let text = names(&several);
        for name in ["teacher_big", "method_forward_a", "boundary_b"] {
            assert!(text.contains(name), "{name}: {text}");
        }
        assert_eq!(several.total(), 6.75);
    }

    #[test]
    fn medians_are_taken_part_by_part() {
        let median = StepTimes::median(&[times(1.0), times(9.0), times(2.0)]);
        assert_eq!(median.methods["a"].forward, 2.0);
        assert_eq!(median.teachers["teacher"], 2.0);
        assert_eq!(StepTimes::median(&[]), StepTimes::default());
    }
}
