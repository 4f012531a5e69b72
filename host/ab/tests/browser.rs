//! The page of a report in a real browser: what it draws, at the widths of a desk and of a phone, on a light
//! and on a dark ground.
//!
//! `KD_UPDATE_STRUCTURE=1` writes `structure.json` anew; `KDHOST_REPORT_PICTURES=FOLDER` keeps the pages
//! and pictures of them.
#![expect(
    clippy::unwrap_used,
    reason = "functions shared by tests fail as tests do"
)]

#[path = "browser/chromium.rs"]
mod chromium;
mod example;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

use chromium::Window;
use kdhost_ab::html;
use kdhost_ab::report::Report;
use serde::Deserialize;
use serde_json::Value;

const PROBE: &str = include_str!("browser/probe.js");
const DESK: u32 = 1280;
const PHONE: u32 = 390;

/// What `probe.js` answers.
#[derive(Deserialize)]
struct Seen {
    structure: Vec<Value>,
    width: u32,
    font: f64,
    background: String,
    contrast: f64,
    faintest: String,
    loaded: Vec<u32>,
    addresses: Vec<String>,
    unnamed: usize,
    attacked: bool,
}

#[test]
fn pages_hold_at_every_width_and_in_both_schemes() {
    let Some(chromium) = chromium::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let pictures = env::var_os("KDHOST_REPORT_PICTURES");
    let mut window = Window::open(&chromium);
    let mut structures = BTreeMap::new();
    for (name, report) in example::all() {
        let page = folder.path().join(format!("{name}.html"));
        fs::write(&page, html::render(&report)).unwrap();
        let mut grounds = Vec::new();
        for (width, scheme) in [
            (DESK, "light"),
            (DESK, "dark"),
            (PHONE, "light"),
            (PHONE, "dark"),
        ] {
            let place = format!("{name} at {width}, {scheme}");
            let seen = look(&mut window, &page, width, scheme, &place);
            check_drawn(&report, &seen.structure, &place);
            grounds.push(seen.background);
            let first = structures
                .entry(name)
                .or_insert_with(|| seen.structure.clone());
            assert_eq!(
                *first, seen.structure,
                "{place}: the width changes what is drawn"
            );
            if let Some(folder) = &pictures {
                fs::create_dir_all(folder).unwrap();
                fs::write(
                    Path::new(folder).join(format!("{name}-{width}-{scheme}.png")),
                    window.picture(width),
                )
                .unwrap();
                fs::copy(&page, Path::new(folder).join(format!("{name}.html"))).unwrap();
            }
        }
        assert_eq!(
            (&grounds[0], &grounds[1]),
            (&grounds[2], &grounds[3]),
            "{name}"
        );
        assert_ne!(grounds[0], grounds[1], "{name}: dark is light");
    }
    compare_with_committed(&structures);
}

/// Opens the page and checks what must hold of every page.
fn look(window: &mut Window, page: &Path, width: u32, scheme: &str, place: &str) -> Seen {
    window.become_like(width, scheme);
    window.visit(page);
    let seen: Seen = serde_json::from_str(&window.ask(PROBE)).unwrap();
    assert_eq!(window.complaints(), Vec::<String>::new(), "{place}");
    let requests = window.requests();
    let own = format!("file://{}", page.display());
    assert!(
        requests.contains(&own),
        "{place}: the browser's requests are not seen"
    );
    let strange: Vec<_> = requests
        .iter()
        .filter(|address| **address != own && !address.starts_with("data:"))
        .collect();
    assert!(strange.is_empty(), "{place} asks for {strange:?}");
    let leading_out: Vec<_> = seen
        .addresses
        .iter()
        .filter(|a| !a.starts_with('#') && !a.starts_with("data:"))
        .collect();
    assert!(leading_out.is_empty(), "{place} names {leading_out:?}");
    assert!(
        seen.width <= width,
        "{place}: the page is {} wide",
        seen.width
    );
    assert!(seen.font >= 14.0, "{place}: letters of {}", seen.font);
    // WCAG 2.2, 1.4.3.
    assert!(
        seen.contrast >= 4.5,
        "{place}: {} stands out by {:.2} only",
        seen.faintest,
        seen.contrast
    );
    assert!(
        seen.loaded.iter().all(|&width| width > 0),
        "{place}: {:?}",
        seen.loaded
    );
    assert_eq!(seen.unnamed, 0, "{place}: a chart without words");
    assert!(!seen.attacked, "{place}: text of the report ran");
    seen
}

/// What the numbers of the report ask of each chart.
fn check_drawn(report: &Report, structure: &[Value], place: &str) {
    let charts: Vec<&Value> = structure
        .iter()
        .flat_map(|section| section["charts"].as_array().unwrap())
        .collect();
    let of_kind = |kind: &str| {
        charts
            .iter()
            .filter(|chart| chart["kind"] == kind)
            .copied()
            .collect::<Vec<_>>()
    };
    let marks = |kind: &str, mark: &str| {
        of_kind(kind)
            .iter()
            .map(|chart| chart["marks"][mark].as_u64().unwrap_or(0))
            .sum::<u64>() as usize
    };
    for chart in &charts {
        let drawn = usize::from(chart["kind"] != "sample");
        assert_eq!(chart["svgs"], drawn, "{place}: {chart}");
        assert!(
            drawn == 0 || !chart["marks"].as_object().unwrap().is_empty(),
            "{place}: empty {chart}"
        );
    }

    let compared = &report.comparisons;
    assert_eq!(
        of_kind("forest").len(),
        usize::from(!compared.is_empty()),
        "{place}"
    );
    assert_eq!(
        marks("forest", "mean"),
        compared.iter().filter(|c| c.difference.is_some()).count(),
        "{place}"
    );
    assert_eq!(
        marks("forest", "interval"),
        compared.iter().filter(|c| c.interval.is_some()).count(),
        "{place}"
    );
    assert_eq!(
        marks("forest", "interval-together"),
        compared
            .iter()
            .filter(|c| c.interval_together.is_some())
            .count(),
        "{place}"
    );
    assert_eq!(
        marks("forest", "seed"),
        compared.iter().map(|c| c.pairs.len()).sum::<usize>(),
        "{place}"
    );

    assert_eq!(
        marks("curve", "curve"),
        report.arms.iter().filter(|a| !a.curve.is_empty()).count(),
        "{place}"
    );
    assert_eq!(
        marks("curve", "evaluation"),
        report.arms.iter().map(|a| a.curve.len()).sum::<usize>(),
        "{place}"
    );
    assert_eq!(
        marks("precision-recall", "curve"),
        report
            .arms
            .iter()
            .filter(|a| a.precision_recall.is_some())
            .count(),
        "{place}"
    );

    let known = |c: &kdhost_ab::report::Comparison| {
        c.by_class
            .iter()
            .filter(|d| d.difference.is_some())
            .count()
            .min(15)
    };
    assert_eq!(
        marks("by-class", "mean"),
        compared.iter().map(known).sum::<usize>(),
        "{place}"
    );
    let known = |c: &kdhost_ab::report::Comparison| {
        c.metrics.iter().filter(|d| d.difference.is_some()).count()
    };
    assert_eq!(
        marks("by-metric", "mean"),
        compared.iter().map(known).sum::<usize>(),
        "{place}"
    );

    let costs = &report.machine.costs;
    assert_eq!(
        marks("cost-memory", "bar"),
        costs.values().filter(|c| c.peak_mib.is_some()).count(),
        "{place}"
    );
    assert_eq!(
        marks("cost-seconds", "bar"),
        costs.values().filter(|c| c.run_seconds.is_some()).count(),
        "{place}"
    );
    let parts: usize = costs.values().map(|c| c.parts_ms.len()).sum();
    assert_eq!(
        marks("cost-step", "part"),
        parts + costs.len(),
        "{place}: each part, and the rest of each arm"
    );

    assert_eq!(of_kind("sample").len(), report.samples.len(), "{place}");
    let inside = |address: &str| usize::from(address.starts_with("data:image/"));
    let pictures: usize = report
        .samples
        .iter()
        .map(|s| inside(&s.control_image) + inside(&s.arm_image))
        .sum();
    assert_eq!(
        of_kind("sample")
            .iter()
            .map(|chart| chart["images"].as_u64().unwrap())
            .sum::<u64>() as usize,
        pictures,
        "{place}"
    );
}

/// Sections, headings, charts with their marks, sizes of tables: against the committed ones.
fn compare_with_committed(structures: &BTreeMap<&str, Vec<Value>>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/structure.json");
    let now = serde_json::to_value(structures).unwrap();
    if env::var_os("KD_UPDATE_STRUCTURE").is_some() {
        fs::write(&file, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
    }
    let committed: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for (name, structure) in now.as_object().unwrap() {
        assert_eq!(
            structure, &committed[name],
            "{name}: if the new page is right, run with KD_UPDATE_STRUCTURE=1 and commit"
        );
    }
    assert_eq!(
        now, committed,
        "structure.json has pages that are no more: run with KD_UPDATE_STRUCTURE=1"
    );
}

#[test]
fn controls_work() {
    let Some(chromium) = chromium::find() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    fs::write(&page, html::render(&example::complete())).unwrap();
    let mut window = Window::open(&chromium);
    window.become_like(DESK, "dark");
    window.visit(&page);

    let ground = "getComputedStyle(document.body).backgroundColor";
    let dark = window.ask(ground);
    let light = window.ask(&format!(
        "document.getElementById('theme').click(), {ground}"
    ));
    assert_ne!(dark, light);
    assert_eq!(
        window.ask(&format!(
            "document.getElementById('theme').click(), {ground}"
        )),
        dark
    );

    let mut filter = |text: &str| {
        window.ask(&format!(
            "(() => {{ const field = document.querySelector('#settings input'); field.value = {text:?};
             field.dispatchEvent(new Event('input'));
             const rows = [...field.parentElement.querySelectorAll('tbody tr')];
             return rows.filter((row) => !row.hidden).map((row) => row.cells[0].textContent).join(); }})()"
        ))
    };
    assert_eq!(filter("warmup"), "schedule.warmup_iters");
    assert_eq!(filter("nothing like it"), "");
    assert_eq!(filter("").split(',').count(), 21);

    // A window that changes draws again, for its new width.
    let width = "new Promise((done) => setTimeout(() => done(document.querySelector('.plot svg').getAttribute('width')), 300))";
    let wide: u32 = window.ask(width).parse().unwrap();
    window.become_like(PHONE, "dark");
    let narrow: u32 = window.ask(width).parse().unwrap();
    assert!(narrow < PHONE && PHONE < wide, "{wide} then {narrow}");
    assert_eq!(window.complaints(), Vec::<String>::new());
}
