//! The table at the end of a job.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::eval::coco::CocoMetrics;

use super::step_times::StepTimes;

/// One trained model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// `teacher`, `student`, `student + <method>`.
    pub name: String,
    /// The 12 numbers and AP by class.
    pub metrics: CocoMetrics,
    /// Of the head on the method's maps, ground truth fed in, where `eval.oracle` asks for it.
    #[serde(default)]
    pub oracle: Option<CocoMetrics>,
    /// Median seconds of an optimizer step, by part.
    pub step: StepTimes,
    /// Highest resident memory while training, bytes.
    pub peak_bytes: u64,
    /// Taken from an earlier run with equal settings.
    pub reused: bool,
}

fn percent(value: f64) -> String {
    if value < 0.0 {
        "-".into()
    } else {
        format!("{:.1}", 100.0 * value)
    }
}

/// AP, AP50, AP75, AP_S, AP_M, AP_L in percent, milliseconds per step, peak memory.
#[must_use]
pub fn render(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "model", "AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "ms/step", "peak MiB",
    ]);
    for row in rows {
        let m = &row.metrics;
        let aps = [m.ap, m.ap50, m.ap75, m.ap_small, m.ap_medium, m.ap_large].map(percent);
        let mut cells = vec![format!(
            "{}{}",
            row.name,
            if row.reused { " (reused)" } else { "" }
        )];
        cells.extend(aps);
        cells.push(format!("{:.0}", 1e3 * row.step.total()));
        cells.push(format!("{:.0}", row.peak_bytes as f64 / f64::from(1 << 20)));
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// What the head makes of the method's maps, in words; none where it was not asked.
#[must_use]
pub fn oracle(row: &Row) -> Option<String> {
    let m = row.oracle.as_ref()?;
    Some(format!(
        "oracle (diagnostic, not a result: the head on the method's maps, ground truth fed in): \
         AP {} AP50 {}",
        percent(m.ap),
        percent(m.ap50)
    ))
}

/// What a method added to a step, in words.
#[must_use]
pub fn cost(row: &Row) -> String {
    let t = &row.step;
    let share = |part: f64| format!("{:.1} ms ({:.1} %)", 1e3 * part, 100.0 * part / t.total());
    let mut parts = vec![
        ("teacher forward", t.teacher),
        ("method forward", t.method_forward),
        ("method backward", t.method_backward),
        ("plugin boundary", t.boundary),
    ];
    if t.maps > 0.0 {
        parts.insert(2, ("head on its maps", t.maps));
    }
    let parts: Vec<String> = parts
        .into_iter()
        .map(|(name, part)| format!("{name} {}", share(part)))
        .collect();
    format!("per step: {}", parts.join(", "))
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
