//! Numbers and sentences that the forms for people share.

use crate::report::{Design, Interval, Report, Summary, Verdict};

/// What stands where there is no number.
pub(crate) const NONE: &str = "–";

/// A difference in points, with its sign; zero has none.
pub(crate) fn signed(value: f64) -> String {
    let text = format!("{value:+.2}");
    match text.as_str() {
        "+0.00" | "-0.00" => "0.00".to_owned(),
        _ => text,
    }
}

/// `[+0.61, +2.23]`.
pub(crate) fn interval(of: &Interval) -> String {
    format!("[{}, {}]", signed(of.low), signed(of.high))
}

/// `30.22 ± 0.30`; without a spread the mean alone.
pub(crate) fn mean_sd(of: &Summary, decimals: usize) -> String {
    let mean = format!("{:.decimals$}", of.mean);
    match of.sd {
        Some(sd) => format!("{mean} ± {sd:.decimals$}"),
        None => mean,
    }
}

/// Two digits that count, but never more than four decimals.
pub(crate) fn p_value(p: f64) -> String {
    match p {
        p if p < 0.0001 => "< 0.0001".to_owned(),
        p if p < 0.001 => format!("{p:.4}"),
        p if p < 0.01 => format!("{p:.3}"),
        p => format!("{p:.2}"),
    }
}

/// The verdict as a reader sees it.
pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::NoDifferenceShown => "no difference shown",
        Verdict::Underpowered => "underpowered",
    }
}

/// `1 seed`, `5 seeds`.
pub(crate) fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// `1–5` for a run of numbers, else all of them.
pub(crate) fn seeds(seeds: &[u64]) -> String {
    let in_a_row = seeds
        .windows(2)
        .all(|pair| pair[0].checked_add(1) == Some(pair[1]));
    match seeds {
        [first, .., last] if in_a_row && seeds.len() > 2 => format!("{first}–{last}"),
        _ => seeds
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// One line that names the comparison.
pub(crate) fn title(design: &Design) -> String {
    format!("A/B comparison: {} on {}", design.metric, design.dataset)
}

/// What was fixed before the first run, in a few sentences.
pub(crate) fn design(report: &Report) -> String {
    let Design {
        task,
        metric,
        threshold,
        alpha,
        dataset,
        protocol,
        ..
    } = &report.design;
    let hash: String = report.design.image_list_hash.chars().take(12).collect();
    let control = report
        .arms
        .iter()
        .find(|arm| arm.control)
        .map_or(NONE, |arm| &arm.name);
    let mut text = format!(
        "{} against the control ({control}) in {task}, {} ({}), paired by seed. ",
        counted(report.arms.iter().filter(|arm| !arm.control).count(), "arm"),
        counted(report.design.seeds.len(), "seed"),
        seeds(&report.design.seeds),
    );
    text += &format!(
        "Differences are arm − control in points of {metric}, with Student's 95 % intervals; the smallest that matters is {threshold:.2}; α = {alpha} over {} (Holm). ",
        counted(report.comparisons.len(), "comparison"),
    );
    text += &format!(
        "Evaluated on {} of {dataset} (list {hash}) with {protocol}.",
        counted(report.design.num_images, "image"),
    );
    text
}

/// What differences the number of seeds can show.
pub(crate) fn resolution(report: &Report) -> String {
    let resolution = &report.design.resolution;
    let seeds = counted(report.design.seeds.len(), "seed");
    let Some(in_sd) = resolution.in_sd else {
        return format!("Resolution: {seeds} cannot show any difference; at least 2 are needed.");
    };
    let mut text = format!(
        "Resolution: {seeds} find a true difference of {in_sd:.2} standard deviations of the paired differences with a probability of {:.0} %",
        resolution.power * 100.0
    );
    if let (Some(sd), Some(difference)) = (resolution.sd, resolution.difference) {
        let source = resolution
            .sd_source
            .as_deref()
            .unwrap_or("of unknown source");
        text += &format!(
            ", which is {difference:.2} points at a standard deviation of {sd:.2} ({source})"
        );
    }
    text.push('.');
    text
}
