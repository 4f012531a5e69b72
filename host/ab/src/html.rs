//! One page that needs nothing but a browser: no network, no other file, no storage.
//!
//! Styles, scripts and the report's JSON are inside, and the page's own policy forbids whatever would
//! come from elsewhere. Charts are drawn by the scripts of `assets/` with Observable Plot and D3 (`assets/vendor/`).

use crate::markdown;
use crate::report::Report;
use crate::words;

const TEMPLATE: &str = include_str!("../assets/report.html");
const STYLE: &str = include_str!("../assets/report.css");
const D3: &str = include_str!("../assets/vendor/d3.min.js");
const PLOT: &str = include_str!("../assets/vendor/plot.umd.min.js");
/// In the order in which they build on each other.
const SCRIPTS: [&str; 6] = [
    include_str!("../assets/dom.js"),
    include_str!("../assets/format.js"),
    include_str!("../assets/chart.js"),
    include_str!("../assets/quality.js"),
    include_str!("../assets/tables.js"),
    include_str!("../assets/report.js"),
];

/// The page of a report.
pub fn render(report: &Report) -> String {
    // `<` can only stand inside JSON's texts; escaped there, nothing of them is ever read as a tag.
    let data = serde_json::to_string(report)
        .expect("a report has text keys and no type that refuses to be written")
        .replace('<', "\\u003c");
    fill(
        TEMPLATE,
        &[
            ("title", &escaped(&words::title(&report.design))),
            ("design", &sentence(words::design(report))),
            ("resolution", &sentence(words::resolution(report))),
            ("table", &escaped(&markdown::table(report))),
            ("style", STYLE),
            ("d3", D3),
            ("plot", PLOT),
            ("scripts", &SCRIPTS.join("\n")),
            ("data", &data),
        ],
    )
}

/// Puts each part where the template says `{{name}}`. One pass: what is put in is not read again.
fn fill(template: &str, parts: &[(&str, &str)]) -> String {
    let mut page =
        String::with_capacity(template.len() + parts.iter().map(|p| p.1.len()).sum::<usize>());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after
            .split_once("}}")
            .expect("every place of the template is closed");
        let part = parts
            .iter()
            .find(|part| part.0 == name)
            .expect("every place of the template has its part");
        page.push_str(before);
        page.push_str(part.1);
        rest = after;
    }
    page.push_str(rest);
    page
}

/// Where no line ends between a number and its unit.
fn sentence(text: String) -> String {
    escaped(&text).replace(" %", "\u{a0}%")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
