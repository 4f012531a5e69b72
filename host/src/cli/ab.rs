//! `kdhost ab`.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::clock::Utc;
use super::job::ShowArgs;
use super::print;
use super::source::SourceArgs;
use crate::ab::plan::Plan;
use crate::ab::spec::{ArmSpec, Spec, parse_seeds};
use crate::ab::{self, AbError};
use crate::engine::interrupt::Interrupt;
use crate::engine::progress::ProgressMode;
use crate::exit_code;

/// Arguments of `ab`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Every arm is trained with every seed, each run in a process of its own; plain training is always one
of the arms. Runs of one seed share initial weights, images, their order and their draws; a fingerprint of
each proves it, and any other difference ends the comparison with its key. The same command goes on
where it was stopped.

A key of an arm is one of its method (`weight`, `loss_weights.NAME`, or of its own configuration), or a
whole one (`train.lr`), which must then be allowed to differ.

Examples:
  kdhost ab --arm none --arm libkd_lgd.so --arm libkd_ssim.so:weight=2 --seeds 5 --threshold 0.3
  kdhost ab --arm a=libkd_ssim.so --arm b=libkd_ssim.so:weight=2 --config F.toml --jobs 2 --out runs/ab
  kdhost ab comparison.toml")]
pub struct AbArgs {
    /// The comparison as a TOML file: the long names of these flags as keys, `[[arms]]` with `name`,
    /// `plugin`, `set`. Flags win.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// An arm: `none`, or `[NAME=]FILE[+FILE...][:KEY=VALUE,...]`; may be repeated.
    #[arg(short, long, value_name = "ARM")]
    pub arm: Vec<String>,
    /// How many seeds (5: 0 to 4), or which (3,7,9). [default: 3]
    #[arg(long, value_name = "N")]
    pub seeds: Option<String>,
    /// The smallest difference that matters, in points (AP of 30.5 is 30.5 points). [default: 0.5]
    #[arg(long, value_name = "POINTS")]
    pub threshold: Option<f64>,
    /// Two-sided error of the first kind of all comparisons together. [default: 0.05]
    #[arg(long, value_name = "SHARE")]
    pub alpha: Option<f64>,
    /// Resamples of the evaluation images; 0: none. [default: 2000]
    #[arg(long, value_name = "N")]
    pub bootstrap: Option<usize>,
    /// Standard deviation of the paired differences in points, where it is known: tells before the
    /// first run which differences the seeds can show.
    #[arg(long, value_name = "POINTS")]
    pub sd: Option<f64>,
    /// Folder of an earlier comparison that tells the standard deviation.
    #[arg(long, value_name = "DIR", conflicts_with = "sd")]
    pub pilot: Option<PathBuf>,
    /// A key that may differ between arms, or a table of keys; may be repeated.
    #[arg(long, value_name = "KEY")]
    pub allow_diff: Vec<String>,
    /// Runs at once; threads are divided among them. [default: 1]
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Folder of the comparison. Without it: one below `output_dir`, named for what is compared.
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The configuration of all arms; its `distill` is set aside.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Check and print what would be run; train nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// What is shown.
    #[command(flatten)]
    pub show: ShowArgs,
}

impl AbArgs {
    fn spec(&self) -> Result<Spec, AbError> {
        let mut spec = match &self.file {
            Some(file) => Spec::load(file)?,
            None => Spec::empty(),
        };
        if !self.arm.is_empty() {
            let arms: Result<Vec<ArmSpec>, AbError> =
                self.arm.iter().map(|text| ArmSpec::parse(text)).collect();
            spec.arms = arms?;
        }
        if let Some(seeds) = &self.seeds {
            spec.seeds = parse_seeds(seeds)?;
        }
        if self.sd.is_some() || self.pilot.is_some() {
            spec.sd = self.sd;
            spec.pilot.clone_from(&self.pilot);
        }
        let source = &self.source;
        spec.config.extend(source.config.iter().cloned());
        spec.set.extend(source.set.iter().cloned());
        spec.allow_diff.extend(self.allow_diff.iter().cloned());
        spec.threshold = self.threshold.unwrap_or(spec.threshold);
        spec.alpha = self.alpha.unwrap_or(spec.alpha);
        spec.bootstrap = self.bootstrap.unwrap_or(spec.bootstrap);
        spec.jobs = self.jobs.unwrap_or(spec.jobs);
        spec.task = source.task.clone().or(spec.task);
        spec.out = self.out.clone().or(spec.out);
        spec.checked()
    }
}

/// Runs a comparison and prints its table.
///
/// # Errors
/// If it cannot start or go on, or arms differ in more than their methods.
pub fn run(args: &AbArgs) -> anyhow::Result<i32> {
    let mut plan = Plan::new(args.spec()?)?;
    if args.dry_run {
        ab::check(&mut plan)?;
        print(&design(&plan))?;
        return Ok(exit_code::OK);
    }
    if !args.show.quiet {
        say(&design(&plan));
    }
    let progress = ProgressMode::detect(args.show.quiet);
    let now = || Utc::of(SystemTime::now()).to_string();
    let finished = ab::run(plan, progress, &Interrupt::install()?, now)?;
    if args.show.json {
        print(&kdhost_ab::json::to_string(&finished.report))?;
    } else {
        let table = kdhost_ab::markdown::table(&finished.report);
        print(&format!(
            "{table}\n{}",
            finished.folder.join("report.html").display()
        ))?;
    }
    match finished.without_result() {
        0 => Ok(exit_code::OK),
        missing => {
            say(&format!(
                "{missing} runs have no result; the same command tries them again"
            ));
            Ok(exit_code::RUN_FAILED)
        }
    }
}

/// What is fixed before the first run.
fn design(plan: &Plan) -> String {
    let fixed = &plan.fixed;
    let names: Vec<&str> = fixed.arms.iter().map(|arm| arm.name.as_str()).collect();
    let runs = names.len() * fixed.seeds.len();
    let mut text = format!(
        "{runs} runs: arms {}; seeds {}; a difference matters from {} points; alpha {} for {} comparisons together",
        names.join(", "),
        list(&fixed.seeds),
        fixed.threshold,
        fixed.alpha,
        names.len() - 1,
    );
    let power = 100.0 * fixed.resolution.power;
    let resolution = &fixed.resolution;
    text.push_str(&match (resolution.in_sd, resolution.sd, resolution.difference) {
        (None, _, _) => "\none seed shows no difference: its spread is unknown".to_owned(),
        (Some(_), Some(sd), Some(difference)) => format!(
            "\nwith these seeds a true difference of {difference:.2} points is found {power:.0} times of 100, if paired differences have a standard deviation of {sd:.2} ({}){}",
            resolution.sd_source.as_deref().unwrap_or("stated"),
            match difference > fixed.threshold && fixed.threshold > 0.0 {
                true => ": more than the threshold, so that a difference of its size may not be told; take more seeds",
                false => "",
            }
        ),
        (Some(in_sd), ..) => format!(
            "\nwith these seeds a true difference of {in_sd:.2} standard deviations of the paired differences is found {power:.0} times of 100; state theirs with --sd, or --pilot an earlier comparison, to have it in points"
        ),
    });
    text.push_str(&format!("\n{}", plan.folder().display()));
    text
}

fn list(seeds: &[u64]) -> String {
    let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
    seeds.join(", ")
}

fn say(text: &str) {
    use std::io::Write as _;
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
