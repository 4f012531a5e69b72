//! `kdhost visualize`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};

use super::print;
use crate::config::OnError;
use crate::data::{Batch, Loader, LoaderOptions, Selection, Split};
use crate::engine::EngineError;
use crate::engine::checkpoint::Choice;
use crate::engine::restored::{Restored, Subject};
use crate::engine::teacher::views;
use crate::exit_code;
use crate::model::TapSpec;
use crate::visualize::heat::Scene;
use crate::visualize::level::{Level, View, contact_sheet};
use crate::visualize::save_png;

/// Images without a choice.
const IMAGES: usize = 4;
/// Taps without a choice and without a method, and the first choice among a method's.
const NECK: &str = "neck.*";

/// Arguments of `visualize`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Of each tap and image, DIR gets
  ID/TAP_student.png     the student's map
  ID/TAP_map.png         a method's map in its place, if a method makes maps (--method: which)
  ID/TAP_teacher.png     a teacher's map of the same name, if there is a teacher (--teacher: which)
  ID/TAP_difference.png  the method's map, or else the teacher's, minus the student's
  ID.png                 all of them on one sheet: a row a tap; captions give the value range
over the image as the network sees it, in gray, with the ground truth outlined in white.

Shown is the L2 norm over the channels, from dark (lowest of the picture) to bright (highest).
Models differ in the scale of their channels, so the difference is taken between maps standardised
over the cells of the image (each channel to mean 0, variance 1), and then its norm. The table
gives Pearson's correlation of student and counterpart over the cells, averaged over channels and
images; of a map of few cells it says little. Maps are compared as the models make them: layers
that a method puts between the student and its counterpart are not applied.

Examples:
  kdhost visualize --run runs/DIR --out maps
  kdhost visualize --run runs/DIR --images 3,17 --taps 'neck.p3,backbone.*' --out maps
  kdhost visualize photo_012.jpg --run runs/DIR --split train --checkpoint iter_00000400 --out maps")]
pub struct VisualizeArgs {
    /// Images of the data set by file: a path or the end of one, or a name without extension.
    /// Without images: the first 4.
    #[arg(value_name = "IMAGE", conflicts_with = "images")]
    pub files: Vec<String>,
    /// The directory of a run; it may be going on.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// Folder for the pictures; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Images of the data set by id.
    #[arg(
        long,
        value_name = "ID,…",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    pub images: Vec<i64>,
    /// Taps of the student, a `*` for any part of a name between dots. Without it: those of the neck
    /// that the method reads, or what else it reads; without a method the neck's.
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',')]
    pub taps: Vec<String>,
    /// The method whose maps are drawn, by its label, where several make some.
    #[arg(long, value_name = "LABEL")]
    pub method: Option<String>,
    /// The teacher whose maps are drawn, by its name, where the run has several.
    #[arg(long, value_name = "NAME")]
    pub teacher: Option<String>,
    /// Which images: `val` or `train`.
    #[arg(long, value_name = "SPLIT", default_value = "val", value_parser = split)]
    pub split: Split,
    /// Which checkpoint: `latest` or a folder's name, as in `iter_00000400`.
    #[arg(long, value_name = "NAME", default_value_t = Choice::Latest)]
    pub checkpoint: Choice,
}

/// Sums of correlations by tap and counterpart.
type Correlations = BTreeMap<(String, View), (f64, usize)>;

/// Draws feature maps of a run over images of its data set.
///
/// # Errors
/// If there is no such run, checkpoint, image or tap, the run cannot be opened, the method fails, or a
/// file cannot be read or written.
pub fn run(args: &VisualizeArgs) -> anyhow::Result<i32> {
    let mut run = Restored::open(&args.run, args.checkpoint)?;
    let taps = taps(&run, &args.taps)?;
    let subject = Subject {
        method: run.choose_method(args.method.as_deref())?,
        teacher: run.choose_teacher(args.teacher.as_deref())?,
    };
    let loader = loader(&run, args)?;
    let mut correlations = Correlations::new();
    for batch in loader.epoch(0, 0) {
        let batch = batch?;
        let levels = levels(&mut run, &batch, &taps, &subject)?;
        let scene = Scene::new(&batch, &run.config.data.transform);
        let id = batch.metas[0].image_id;
        print(&save(args, &scene, &levels, id)?)?;
        for level in &levels {
            for (view, correlation) in &level.correlations {
                let sum = correlations.entry((level.tap.clone(), *view)).or_default();
                if let Some(correlation) = correlation {
                    *sum = (sum.0 + correlation, sum.1 + 1);
                }
            }
        }
    }
    if !correlations.is_empty() {
        print(&table(&taps, &correlations))?;
    }
    Ok(exit_code::OK)
}

fn taps(run: &Restored, patterns: &[String]) -> Result<Vec<String>, EngineError> {
    if !patterns.is_empty() {
        return run.matching_taps(patterns);
    }
    let neck = run.matching_taps(&[NECK.to_owned()])?;
    let read = run.matching_taps(&run.method_taps())?;
    let read_of_neck: Vec<String> = read.iter().filter(|t| neck.contains(t)).cloned().collect();
    Ok(match (read_of_neck.is_empty(), read.is_empty()) {
        (false, _) => read_of_neck,
        (true, false) => read,
        (true, true) => neck,
    })
}

/// One image a batch, as evaluation prepares it. Somebody chose these images: a broken one is an
/// error whatever the run does with broken ones.
fn loader(run: &Restored, args: &VisualizeArgs) -> anyhow::Result<Loader> {
    let dataset = match args.split {
        Split::Train => &run.datasets.train,
        Split::Val => &run.datasets.val,
    };
    let selection = if !args.images.is_empty() {
        Selection::Ids(args.images.clone())
    } else if !args.files.is_empty() {
        Selection::Files(args.files.clone())
    } else {
        Selection::First(IMAGES)
    };
    let images = selection.indices(dataset.as_ref(), args.split)?;
    let options = LoaderOptions {
        on_error: OnError::Error,
        views: views(&run.teachers),
        ..LoaderOptions::evaluation(&run.config.data, 1, run.model.size_divisor(), 0)
    };
    Ok(Loader::of_images(Arc::clone(dataset), options, images)?)
}

fn levels(
    run: &mut Restored,
    batch: &Batch,
    taps: &[String],
    subject: &Subject,
) -> Result<Vec<Level>, EngineError> {
    let observed = run.observe(batch, taps, subject)?;
    let size = batch.metas[0].size;
    let named = |specs: &[TapSpec], name: &String| specs.iter().find(|s| &s.name == name).cloned();
    let level = |tap: &String| {
        let student = named(run.model.taps(), tap).expect("taps are the student's");
        let teacher = subject.teacher.as_ref().map(|name| &run.teachers[name]);
        let teacher = teacher.and_then(|teacher| {
            let spec = named(teacher.model().taps(), tap)?;
            Some((spec, teacher.image_size(batch, 0)))
        });
        Level::new(&observed, &student, teacher.as_ref(), size)
    };
    Ok(taps.iter().map(level).collect())
}

/// Writes the pictures of one image and gives their list.
fn save(args: &VisualizeArgs, scene: &Scene, levels: &[Level], id: i64) -> anyhow::Result<String> {
    let folder = args.out.join(id.to_string());
    fs::create_dir_all(&folder)
        .with_context(|| format!("`--out`: `{}` cannot be made", folder.display()))?;
    let sheet = args.out.join(format!("{id}.png"));
    save_png(&contact_sheet(scene, levels), &sheet)?;
    let mut list = sheet.display().to_string();
    for level in levels {
        for (view, grid) in &level.views {
            // Where maps cannot be compared, the sheet says why.
            let Ok(grid) = grid else { continue };
            let path = folder.join(format!("{}_{}.png", level.tap, view.name()));
            save_png(&scene.overlay(grid), &path)?;
            list.push_str(&format!("\n{}", path.display()));
        }
    }
    Ok(list)
}

fn table(taps: &[String], correlations: &Correlations) -> String {
    let mut views: Vec<View> = correlations.keys().map(|(_, view)| *view).collect();
    views.sort_unstable();
    views.dedup();
    let mut header = vec!["tap".to_owned()];
    header.extend(
        views
            .iter()
            .map(|view| format!("student ~ {}", view.name())),
    );
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_header(header);
    for tap in taps {
        let mut row = vec![tap.clone()];
        row.extend(
            views
                .iter()
                .map(|view| match correlations.get(&(tap.clone(), *view)) {
                    Some((sum, count)) if *count > 0 => format!("{:.3}", sum / *count as f64),
                    _ => "-".to_owned(),
                }),
        );
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\nmean correlation over channels and images; - where it has no meaning")
}

fn split(text: &str) -> Result<Split, String> {
    [Split::Val, Split::Train]
        .into_iter()
        .find(|split| split.name() == text)
        .ok_or_else(|| "expected `val` or `train`".to_owned())
}
