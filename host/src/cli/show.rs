//! `kdhost show`: what a job will do, before anything runs.

use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets};

use super::print;
use super::source::RunSourceArgs;
use crate::engine::stages::{self, Plan, Summary};
use crate::exit_code;

/// Columns of the table; long cells wrap.
const WIDTH: u16 = 120;

/// What to show.
#[derive(Clone, Debug, Subcommand)]
pub enum ShowCommand {
    /// The runs that a method makes of a job: who learns from whom, on which images, from which weights.
    Plan(PlanArgs),
}

/// Arguments of `show plan`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Models are built and methods bound to them, so that what would be refused is refused here; nothing is
trained.

Examples:
  kdhost show plan --plugin libmine.so
  kdhost show plan --plugin libmine.so --stage NAME > stage.toml   the settings of one stage's run
  kdhost model gradients --config stage.toml                       which commands take")]
pub struct PlanArgs {
    /// Which configuration.
    #[command(flatten)]
    pub source: RunSourceArgs,
    /// Print the settings of this stage's run as TOML. Files that earlier stages are yet to write are
    /// left out.
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    pub stage: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Carries out a command.
///
/// # Errors
/// If the configuration, a plugin or a stage is refused.
pub fn run(command: &ShowCommand) -> anyhow::Result<i32> {
    match command {
        ShowCommand::Plan(args) => plan(args),
    }
}

fn plan(args: &PlanArgs) -> anyhow::Result<i32> {
    let config = args.source.resolve()?.config;
    let plan = stages::plan(&config)?;
    if let Some(name) = &args.stage {
        let none = || {
            anyhow::anyhow!(
                "the job is one run without stages: its settings are `kdhost config show`'s"
            )
        };
        let plan = plan.filter(|plan| !plan.is_one_run).ok_or_else(none)?;
        print(&plan.named(name)?.config.to_toml())?;
        return Ok(exit_code::OK);
    }
    let summaries = plan.as_ref().map_or_else(Vec::new, Plan::summaries);
    print(&match (args.json, &plan) {
        (true, _) => serde_json::to_string_pretty(&summaries)?,
        (false, None) => {
            "one run, in which everything learns from its first step to its last".to_owned()
        }
        (false, Some(plan)) => render(plan, &summaries),
    })?;
    Ok(exit_code::OK)
}

fn render(plan: &Plan, stages: &[Summary]) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .set_header([
            "#",
            "stage",
            "learns",
            "images",
            "starts from",
            "teacher",
            "its images",
            "phases",
            "epochs",
        ]);
    for stage in stages {
        let learns = format!("{}: {}", stage.student, stage.architecture);
        let learns = match stage.pyramid_scale {
            1.0 => learns,
            scale => format!("{learns}, pyramid upsampled {scale} times"),
        };
        let none = || "-".to_owned();
        table.add_row([
            stage.number.to_string(),
            stage.name.clone(),
            learns,
            stage.images.clone(),
            stage.init_from.clone(),
            stage.teacher.clone().unwrap_or_else(none),
            stage.teacher_images.clone().unwrap_or_else(none),
            match stage.phases.is_empty() {
                true => "everything learns".to_owned(),
                false => stage.phases.join("; "),
            },
            stage.epochs.to_string(),
        ]);
    }
    let mut text = table.to_string();
    for stage in stages {
        if let Some(gate) = &stage.gate {
            text.push_str(&format!(
                "\nafter `{}`: the job goes on if the result is {gate}",
                stage.name
            ));
        }
    }
    let runs = match (plan.is_one_run, stages.len()) {
        (true, _) => "one run".to_owned(),
        (false, count) => {
            format!("{count} runs in one directory, each with checkpoints of its own")
        }
    };
    format!("{}: {runs}\n{text}", plan.method)
}
