//! `kdhost model`.

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use serde_json::json;

use super::print;
use super::source::{RunSourceArgs, SourceArgs};
use crate::config::{DataConfig, ResizeMode, TeacherConfig};
use crate::data::{Split, open};
use crate::engine::EngineError;
use crate::engine::attribution::Attribution;
use crate::engine::pairs::Pairs;
use crate::exit_code;
use crate::model::{Model, TapRow, TapShape, build, tap_table};

/// Longest side of the input on which pairs are tried: what fits is the same on any, and a large one
/// takes minutes.
const TRIED_PIXELS: usize = 128;

/// Commands on models.
#[derive(Clone, Debug, Subcommand)]
pub enum ModelCommand {
    /// List what methods may tap, student and teacher side by side.
    Taps(TapsArgs),
    /// Show which term of the total teaches which part: gradient norms of one batch.
    Gradients(GradientsArgs),
}

/// Arguments of `model gradients`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
Each term is taken alone, on the first batch, with initial weights. `-`: the term does not reach the
part; `0`: it arrives as zero.

Examples:
  kdhost model gradients --plugin libmine.so
  kdhost model gradients --plugin libmine.so --at 0.05   in the phase at 5 % of the run
  kdhost model gradients --plugin P --config F.toml --json")]
pub struct GradientsArgs {
    /// Which configuration.
    #[command(flatten)]
    pub source: RunSourceArgs,
    /// Where in the run, as a share of it: decides the phase.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share)]
    pub at: f64,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

/// Arguments of `model taps`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = "\
With a plugin, every model of the task is tried as student and as teacher of its method: one batch from
initial weights. The second table then says which pairs work, and why the others do not.

Examples:
  kdhost model taps
  kdhost model taps --plugin libmine.so
  kdhost model taps --plugin libmine.so --set distill.config.KEY=VALUE --json")]
pub struct TapsArgs {
    /// Which configuration: `student`, `teacher.model`, `data` and `distill` matter.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Plugin: a file name (searched), or a path with a `/`; may be repeated to try several together.
    #[arg(short, long, value_name = "FILE")]
    pub plugin: Vec<String>,
    /// The teacher whose taps are listed, by its name.
    #[arg(long, value_name = "NAME", default_value = TeacherConfig::UNNAMED)]
    pub teacher: String,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Height and width of the input in pixels; without it: what `data.transform` makes.
    #[arg(long, num_args = 2, value_names = ["HEIGHT", "WIDTH"],
          value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub input_size: Option<Vec<u32>>,
    /// Number of classes; without it: the data set's, which must then be there.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub num_classes: Option<u32>,
}

/// Carries out a command on models.
///
/// # Errors
/// If the configuration is refused, a model cannot be built, or the data set is needed and cannot
/// be read.
pub fn run(command: &ModelCommand) -> anyhow::Result<i32> {
    match command {
        ModelCommand::Taps(args) => taps(args),
        ModelCommand::Gradients(args) => gradients(args),
    }
}

fn gradients(args: &GradientsArgs) -> anyhow::Result<i32> {
    let config = args.source.resolve()?.config;
    let attribution = Attribution::of_config(&config, args.at)?;
    print(&if args.json {
        serde_json::to_string_pretty(&attribution)?
    } else {
        attribution.render()
    })?;
    Ok(exit_code::OK)
}

fn taps(args: &TapsArgs) -> anyhow::Result<i32> {
    let source = RunSourceArgs {
        source: args.source.clone(),
        plugin: args.plugin.clone(),
        ..RunSourceArgs::default()
    };
    let mut config = source.resolve()?.config;
    if let Some(&[height, width]) = args.input_size.as_deref() {
        config.fit_image_sizes_to([height as usize, width as usize]);
    }
    let num_classes = match args.num_classes {
        Some(count) => count as usize,
        None => open(&config.data, config.task, Split::Val)?.classes().len(),
    };
    let student = build(&config.student, config.task, num_classes)?;
    let Some(teacher) = config.teacher_named(&args.teacher) else {
        return Err(EngineError::Choose {
            what: format!("no teacher `{}` is configured", args.teacher),
            option: "--teacher",
            known: config.teacher_names().join(", "),
        }
        .into());
    };
    let teacher = build(&teacher.model, config.task, num_classes)?;
    let input_size = match args.input_size.as_deref() {
        Some(&[height, width]) => [height as usize, width as usize],
        _ => configured_size(&config.data)?,
    };
    let tried_size = input_size.map(|extent| extent.min(TRIED_PIXELS));
    let input_size = padded(input_size, student.as_ref());
    let rows = tap_table(student.as_ref(), Some(teacher.as_ref()), input_size);
    let pairs = Pairs::of_config(&config, num_classes, tried_size)?;
    if args.json {
        let json = json!({"input_size": input_size, "taps": rows, "pairs": pairs});
        print(&format!("{json:#}"))?;
        return Ok(exit_code::OK);
    }
    print(&render(&rows, input_size))?;
    if let Some(pairs) = pairs {
        print(&pairs.render())?;
    }
    Ok(exit_code::OK)
}

fn configured_size(data: &DataConfig) -> anyhow::Result<[usize; 2]> {
    let transform = &data.transform;
    if let [height, width] = transform.crop_size[..] {
        return Ok([height, width]);
    }
    Ok(match transform.resize {
        ResizeMode::Fixed | ResizeMode::CenterCrop => transform.size,
        ResizeMode::KeepRatio => [transform.short_side, transform.long_side],
        ResizeMode::None => anyhow::bail!(
            "images keep their size (`data.transform.resize = \"none\"`): give one by `--input-size`"
        ),
    })
}

/// Inputs are padded before the network sees them.
fn padded(size: [usize; 2], model: &dyn Model) -> [usize; 2] {
    size.map(|extent| extent.next_multiple_of(model.size_divisor()))
}

fn render(rows: &[TapRow], input_size: [usize; 2]) -> String {
    let [height, width] = input_size;
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["tap", "stride", "student [C, H, W]", "teacher [C, H, W]"]);
    let shape = |shape: &Option<TapShape>| match shape {
        Some(TapShape { channels, size, .. }) => format!("[{channels}, {}, {}]", size[0], size[1]),
        None => "-".to_owned(),
    };
    for row in rows {
        // Where the models differ in stride, both are said.
        let mut strides: Vec<String> = [&row.student, &row.teacher]
            .into_iter()
            .flatten()
            .map(|shape| match shape.stride {
                0 => "-".to_owned(),
                stride => stride.to_string(),
            })
            .collect();
        strides.dedup();
        table.add_row([
            row.name.clone(),
            strides.join(" / "),
            shape(&row.student),
            shape(&row.teacher),
        ]);
    }
    let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
    format!("input [3, {height}, {width}]\n{}\n", lines.join("\n"))
}
