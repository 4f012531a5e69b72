//! `kdhost runs diff`.

use std::fmt::Write as _;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};

use super::sized;
use crate::config::KeyDifference;
use crate::eval::percent;
use crate::runs::compare::{Comparison, Pair};

/// Where two runs differ, for people.
pub(super) fn text(a: &Path, b: &Path, comparison: &Comparison, all: bool) -> String {
    let mut text = format!("A: {}\nB: {}\n", a.display(), b.display());
    group(&mut text, "configuration", &comparison.configuration);
    if all {
        let heading = "configuration that cannot change a result";
        group(&mut text, heading, &comparison.without_effect);
    } else if !comparison.without_effect.is_empty() {
        let count = comparison.without_effect.len();
        writeln!(
            text,
            "  {count} more that cannot change a result: `--all` shows"
        )
        .expect("strings grow");
    }
    group(&mut text, "environment", &comparison.environment);
    group(&mut text, "plugins", &comparison.plugins);
    group(&mut text, "data", &comparison.data);
    text.push_str("\nresults\n");
    for caution in &comparison.cautions {
        writeln!(text, "  {caution}").expect("strings grow");
    }
    let mut rows: Vec<[String; 4]> = comparison.metrics.iter().map(metric).collect();
    rows.extend(comparison.costs.iter().filter_map(cost));
    if comparison.metrics.iter().all(is_equal) && !comparison.metrics.is_empty() {
        text.push_str("  no difference in any metric\n");
    }
    match rows.is_empty() {
        true => text.push_str("  none of the two was evaluated yet\n"),
        false => text.push_str(&table(&rows)),
    }
    text
}

fn group(text: &mut String, heading: &str, differences: &[KeyDifference]) {
    writeln!(text, "\n{heading}").expect("strings grow");
    if differences.is_empty() {
        text.push_str("  no difference\n");
    }
    for KeyDifference { key, a, b } in differences {
        let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
        writeln!(text, "  {key}\n    A: {}\n    B: {}", said(a), said(b)).expect("strings grow");
    }
}

fn is_equal(pair: &Pair) -> bool {
    pair.a == pair.b
}

/// Name, both values in percent, and their difference in points.
fn metric(pair: &Pair) -> [String; 4] {
    let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), percent);
    let points = pair
        .difference
        .map(|points| format!("{:+.2}", 100.0 * points));
    [
        pair.name.clone(),
        value(pair.a),
        value(pair.b),
        points.unwrap_or_else(|| "-".to_owned()),
    ]
}

/// The whole step, and memory; parts are in the JSON.
fn cost(pair: &Pair) -> Option<[String; 4]> {
    let shown: fn(f64) -> String = match pair.name.as_str() {
        "total" => |seconds| format!("{:.1} ms", 1e3 * seconds),
        "peak_bytes" => |bytes| sized(bytes as u64),
        _ => return None,
    };
    let name = match pair.name.as_str() {
        "total" => "step",
        _ => "peak memory",
    };
    let value = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), shown);
    let ratio = pair.a.zip(pair.b).filter(|(a, _)| *a > 0.0);
    let ratio = ratio.map(|(a, b)| format!("x{:.2}", b / a));
    Some([
        name.to_owned(),
        value(pair.a),
        value(pair.b),
        ratio.unwrap_or_else(|| "-".to_owned()),
    ])
}

fn table(rows: &[[String; 4]]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(["", "A", "B", "B - A"]);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}
