//! `kdhost runs list`.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::{ListArgs, methods, readable, summary};
use crate::cli::clock::Utc;
use crate::cli::{print, report};
use crate::config::Config;
use crate::eval::percent;
use crate::exit_code;
use crate::runs::find::{Found, find};
use crate::runs::read::Run;

/// A folder of a run, and the run in it or why there is none.
struct Entry {
    found: Found,
    run: Result<Run, String>,
}

impl Entry {
    fn read(found: Found) -> Entry {
        let run = match &found.problem {
            Some(problem) => Err(problem.clone()),
            None => Run::read(&found.folder).map_err(|error| explained(&error.into())),
        };
        Entry { found, run }
    }

    fn started(&self) -> Option<SystemTime> {
        self.run.as_ref().ok()?.started
    }

    fn value(&self, metric: &str) -> Option<f64> {
        let evaluation = self.run.as_ref().ok()?.evaluation.as_ref()?;
        evaluation.value(metric).filter(|value| *value >= 0.0)
    }
}

/// An error with its causes, on one line.
fn explained(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.split('\n')
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Lists the runs below a folder.
pub(super) fn run(args: &ListArgs) -> anyhow::Result<i32> {
    let root = match &args.folder {
        Some(folder) => folder.clone(),
        None => Config::base().output_dir,
    };
    readable(&root)?;
    let (kept, shown): (Vec<Found>, Vec<Found>) = find(&root)?
        .into_iter()
        .partition(|found| found.is_kept && !args.all);
    let mut jobs = grouped(shown.into_iter().map(Entry::read).collect());
    let metric = args
        .sort
        .as_deref()
        .map(|m| m.strip_prefix("val/").unwrap_or(m));
    match metric {
        None => jobs.sort_by_key(|job| job[0].started()),
        Some(metric) => {
            if let Some(known) = unknown(metric, &jobs) {
                report::error(&anyhow::anyhow!("no run has a metric `{metric}`; {known}"));
                return Ok(exit_code::USAGE);
            }
            // Runs without the number come last.
            let value = |job: &[Entry]| job[0].value(metric).unwrap_or(-1.0);
            jobs.sort_by(|a, b| value(b).total_cmp(&value(a)));
        }
    }
    let entries: Vec<Entry> = jobs.into_iter().flatten().collect();
    if args.json {
        let entries: Vec<Value> = entries.iter().map(in_json).collect();
        print(&serde_json::to_string_pretty(&entries)?)?;
        return Ok(exit_code::OK);
    }
    let mut text = match entries.is_empty() {
        true => format!("no runs in `{}`", root.display()),
        false => table(&root, &entries, metric),
    };
    for entry in &entries {
        if let Err(reason) = &entry.run {
            text.push_str(&format!("\n{}: {reason}", entry.found.folder.display()));
        }
    }
    if !kept.is_empty() {
        text.push_str(&format!(
            "\n{} more in the cache: controls and teachers; `--all` shows them",
            kept.len()
        ));
    }
    print(&text)?;
    Ok(exit_code::OK)
}

/// Each run that lies in no other, with those that lie in it.
fn grouped(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut jobs: Vec<Vec<Entry>> = Vec::new();
    for entry in entries {
        match jobs.last_mut() {
            Some(job) if entry.found.depth > 0 => job.push(entry),
            _ => jobs.push(vec![entry]),
        }
    }
    jobs
}

/// What there is instead, if no run has the metric.
fn unknown(metric: &str, jobs: &[Vec<Entry>]) -> Option<String> {
    let mut known: Vec<String> = Vec::new();
    for run in jobs.iter().flatten().filter_map(|e| e.run.as_ref().ok()) {
        for (name, _) in run.evaluation.iter().flat_map(|e| &e.values) {
            if name == metric {
                return None;
            }
            // Numbers of single classes would drown the others.
            if !known.contains(name) && !name.contains('/') {
                known.push(name.clone());
            }
        }
    }
    Some(match known.is_empty() {
        true => "none was evaluated yet".to_owned(),
        false => format!("there are: {}", known.join(", ")),
    })
}

fn in_json(entry: &Entry) -> Value {
    let mut json = match &entry.run {
        Ok(run) => summary(run),
        Err(reason) => json!({
            "folder": entry.found.folder.to_string_lossy(),
            "state": "unreadable",
            "reason": reason,
        }),
    };
    json["depth"] = entry.found.depth.into();
    json["is_kept"] = entry.found.is_kept.into();
    json
}

fn table(root: &Path, entries: &[Entry], metric: Option<&str>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "run",
        "started (UTC)",
        "task",
        "student",
        "methods",
        "seed",
        "state",
        metric.unwrap_or("result"),
        "ms/step",
    ]);
    let mut above: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let Found { folder, depth, .. } = &entry.found;
        above.truncate(*depth);
        let within = above.last().map_or(root, PathBuf::as_path);
        let name = folder.strip_prefix(within).unwrap_or(folder).display();
        let name = match name.to_string() {
            name if name.is_empty() => folder.display().to_string(),
            name => name,
        };
        let kept = if entry.found.is_kept { " (cache)" } else { "" };
        let name = format!("{}{name}{kept}", "  ".repeat(*depth));
        above.push(folder.clone());
        table.add_row([vec![name], cells(entry, metric)].concat());
    }
    for index in [5, 7, 8] {
        let column = table.column_mut(index).expect("the header has nine");
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// All cells after the name.
fn cells(entry: &Entry, metric: Option<&str>) -> Vec<String> {
    let none = || "-".to_owned();
    let Ok(run) = &entry.run else {
        let mut cells = vec![none(); 8];
        cells[5] = "unreadable".to_owned();
        return cells;
    };
    let config = run.config.as_ref();
    let result = match metric {
        Some(metric) => entry.value(metric).map(percent),
        None => run
            .main()
            .map(|(name, value)| format!("{name} {}", percent(value))),
    };
    let started = run.started.map(|time| Utc::of(time).to_the_minute());
    let seconds = run.costs.total();
    let state = match config {
        Some(_) => run.state.to_string(),
        None => format!("{}, from the cache", run.state),
    };
    vec![
        started.unwrap_or_else(none),
        config.map_or_else(none, |config| config.task.name().to_owned()),
        run.student().unwrap_or_else(none),
        methods(run),
        config.map_or_else(none, |config| config.seed.to_string()),
        state,
        result.unwrap_or_else(none),
        seconds.map_or_else(none, |seconds| format!("{:.0}", 1e3 * seconds)),
    ]
}
