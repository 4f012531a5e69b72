//! Where the time of a training step goes.

/// Time spent in each part of a step.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct StepTimes {
    /// Waiting for data.
    pub data: f64,
    /// Teacher forward.
    pub teacher: f64,
    /// Student forward and task losses.
    pub student_forward: f64,
    /// Inside the method's forward.
    pub method_forward: f64,
    /// The student's head and task losses on the method's maps, forward and backward.
    #[serde(default)]
    pub maps: f64,
    /// Inside the method's backward.
    pub method_backward: f64,
    /// Backward of the student.
    pub student_backward: f64,
    /// Clipping, optimizer, statistics, EMA.
    pub optimizer: f64,
    /// This side of the plugin boundary: views, outputs, checks.
    pub boundary: f64,
}

impl StepTimes {
    /// Parts with their names, seconds.
    #[must_use]
    pub fn named(&self) -> [(&'static str, f64); 9] {
        [
            ("data", self.data),
            ("teacher", self.teacher),
            ("student_forward", self.student_forward),
            ("method_forward", self.method_forward),
            ("maps", self.maps),
            ("method_backward", self.method_backward),
            ("student_backward", self.student_backward),
            ("optimizer", self.optimizer),
            ("boundary", self.boundary),
        ]
    }

    /// Median of each part.
    #[must_use]
    pub fn median(steps: &[StepTimes]) -> StepTimes {
        let part = |of: fn(&StepTimes) -> f64| {
            let mut values: Vec<f64> = steps.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        StepTimes {
            data: part(|t| t.data),
            teacher: part(|t| t.teacher),
            student_forward: part(|t| t.student_forward),
            method_forward: part(|t| t.method_forward),
            maps: part(|t| t.maps),
            method_backward: part(|t| t.method_backward),
            student_backward: part(|t| t.student_backward),
            optimizer: part(|t| t.optimizer),
            boundary: part(|t| t.boundary),
        }
    }

    /// Sum over the parts, seconds.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.named().iter().map(|(_, seconds)| seconds).sum()
    }
}
