//! The table to paste into a pull request, an issue or a paper's notes.

use crate::report::{Arm, Comparison, Cost, Report};
use crate::words::{self, NONE};

/// GitHub-flavoured: a row for each arm, then a line each for design and resolution, then problems and
/// left-out seeds where there are any.
pub fn table(report: &Report) -> String {
    let mut text = format!(
        "| arm | {} (n) | difference [95 %] | p (Holm) | verdict | ms/step | peak MiB | training parameters |\n",
        escaped(&report.design.metric)
    );
    text += "|---|---:|---:|---:|---|---:|---:|---:|\n";
    for arm in &report.arms {
        text += &row(report, arm);
    }
    text += &format!(
        "\n{}\n\n{}\n",
        escaped(&words::design(report)),
        escaped(&words::resolution(report))
    );
    for (heading, lines) in [
        ("Problems", problems(report)),
        ("Left out", left_out(report)),
    ] {
        if !lines.is_empty() {
            text += &format!("\n**{heading}**\n\n{lines}");
        }
    }
    text
}

fn row(report: &Report, arm: &Arm) -> String {
    let quality = arm.summary.get(&report.design.metric);
    let comparison = report.comparisons.iter().find(|c| c.arm == arm.name);
    let cost = report.machine.costs.get(&arm.name);
    let cells = [
        escaped(&arm.name),
        quality
            .map(|q| format!("{} ({})", words::mean_sd(q, 2), q.n))
            .unwrap_or_else(none),
        comparison.map(difference).unwrap_or_else(none),
        comparison
            .and_then(|c| c.p_holm)
            .map(words::p_value)
            .map(|p| escaped(&p))
            .unwrap_or_else(none),
        match comparison {
            Some(comparison) => words::verdict(comparison.verdict).to_owned(),
            None if arm.control => "control".to_owned(),
            None => none(),
        },
        cost.and_then(|c| c.step_ms)
            .map(|ms| words::mean_sd(&ms, 1))
            .unwrap_or_else(none),
        cost.and_then(|c| c.peak_mib)
            .map(|mib| words::mean_sd(&mib, 0))
            .unwrap_or_else(none),
        cost.and_then(parameters).unwrap_or_else(none),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn none() -> String {
    NONE.to_owned()
}

fn parameters(cost: &Cost) -> Option<String> {
    cost.method_parameters.map(|count| count.to_string())
}

fn difference(of: &Comparison) -> String {
    match (of.difference, &of.interval) {
        (Some(mean), Some(interval)) => {
            format!("{} {}", words::signed(mean), words::interval(interval))
        }
        (Some(mean), None) => words::signed(mean),
        (None, _) => none(),
    }
}

fn problems(report: &Report) -> String {
    let mut lines = String::new();
    for problem in &report.problems {
        let mut place = problem.arm.clone().unwrap_or_default();
        if let Some(seed) = problem.seed {
            place += &format!("{}seed {seed}", if place.is_empty() { "" } else { ", " });
        }
        let place = if place.is_empty() {
            place
        } else {
            format!("{place}: ")
        };
        lines += &format!("- {}\n", escaped(&(place + &problem.message)));
    }
    lines
}

fn left_out(report: &Report) -> String {
    let mut lines = String::new();
    for comparison in &report.comparisons {
        for left in &comparison.left_out {
            lines += &format!(
                "- {}\n",
                escaped(&format!(
                    "{}, seed {}: {}",
                    comparison.arm, left.seed, left.reason
                ))
            );
        }
    }
    lines
}

/// Text that stands for itself: neither a column, nor emphasis, a link or HTML, and on one line.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let after = rest.peek().copied().unwrap_or(' ');
        // An underscore inside a word is no emphasis, and names have many.
        let inside_word = before.is_alphanumeric() && after.is_alphanumeric();
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            '\\' | '|' | '`' | '*' | '<' | '[' | '~' | '&' => out.extend(['\\', c]),
            '_' if !inside_word => out.extend(['\\', c]),
            c => out.push(c),
        }
        before = c;
    }
    out
}
