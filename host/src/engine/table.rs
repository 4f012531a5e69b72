//! The table at the end of a job.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::eval::{Metrics, percent};

use super::step_times::{MethodTimes, StepTimes};

/// One trained model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// `teacher`, `teacher <name>`, `student`, `student + <method> + <method>`.
    pub name: String,
    /// Of the evaluation at its end.
    pub metrics: Metrics,
    /// Of the head on each method's maps, by label, ground truth fed in, where `eval.oracle` asks for it.
    #[serde(default)]
    pub oracles: BTreeMap<String, Metrics>,
    /// Median seconds of an optimizer step, by part.
    pub step: StepTimes,
    /// Highest resident memory while training, bytes.
    pub peak_bytes: u64,
    /// Learned numbers of the methods, which are not deployed.
    #[serde(default)]
    pub method_parameters: usize,
    /// Seconds of the run, and joules of the processor packages meanwhile where the system tells; none
    /// of a run that was interrupted.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// See `seconds`.
    #[serde(default)]
    pub joules: Option<f64>,
    /// Taken from an earlier run with equal settings.
    pub reused: bool,
}

/// The task's numbers in percent, milliseconds per step, peak memory.
#[must_use]
pub fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    let columns = rows
        .first()
        .map_or_else(Vec::new, |row| row.metrics.columns());
    let names = columns.iter().map(|(name, _)| *name);
    let header = std::iter::once("model")
        .chain(names)
        .chain(["ms/step", "peak MiB"]);
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(header);
    for row in rows {
        let mut cells = vec![format!(
            "{}{}",
            row.name,
            if row.reused { " (reused)" } else { "" }
        )];
        let numbers = row.metrics.columns().into_iter();
        cells.extend(numbers.map(|(_, value)| percent(value)));
        cells.push(format!("{:.0}", 1e3 * row.step.total()));
        cells.push(format!("{:.0}", row.peak_bytes as f64 / f64::from(1 << 20)));
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// What the head makes of the maps of the method `label`, in words; none where it was not asked.
#[must_use]
pub fn oracle(row: &Row, label: &str) -> Option<String> {
    let metrics = row.oracles.get(label)?;
    Some(format!(
        "oracle (diagnostic, not a result: the head on the method's maps, ground truth fed in): \
         {}",
        metrics.line()
    ))
}

/// What each method added to a step, and what the teachers did, in words: with one method a line of
/// both, with several a line for each method after one for the teachers.
#[must_use]
pub fn costs(row: &Row) -> Vec<String> {
    let t = &row.step;
    let total = t.total();
    let share = |part: f64| format!("{:.1} ms ({:.1} %)", 1e3 * part, 100.0 * part / total);
    let teachers = match t.teachers.len() {
        0 | 1 => vec![format!("teacher forward {}", share(t.all_teachers()))],
        _ => t
            .teachers
            .iter()
            .map(|(name, seconds)| format!("teacher `{name}` forward {}", share(*seconds)))
            .collect(),
    };
    let of_method = |times: &MethodTimes| {
        let mut parts = vec![
            ("method forward", times.forward),
            ("method backward", times.backward),
            ("plugin boundary", times.boundary),
        ];
        if times.maps > 0.0 {
            parts.insert(1, ("head on its maps", times.maps));
        }
        let parts = parts.into_iter();
        let parts = parts.map(|(name, part)| format!("{name} {}", share(part)));
        parts.collect::<Vec<String>>()
    };
    match t.methods.len() {
        0 => Vec::new(),
        1 => (t.methods.iter())
            .map(|(label, times)| {
                let parts = [teachers.clone(), of_method(times)].concat();
                format!("{label}: per step: {}", parts.join(", "))
            })
            .collect(),
        _ => {
            let methods = t.methods.iter().map(|(label, times)| {
                let all = share(times.total());
                format!("{label}: per step: {all}: {}", of_method(times).join(", "))
            });
            let shared = t.all_teachers() > 0.0;
            let shared = shared.then(|| format!("per step: {}", teachers.join(", ")));
            shared.into_iter().chain(methods).collect()
        }
    }
}

/// `1 min 5 s`, for messages.
#[must_use]
pub fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}
