use clap::{CommandFactory as _, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn no_command_is_the_main_job() {
    let cli = parse(
        "kdhost --plugin libm.so --config a.toml --set a.b=1 --set c=2 --seed 3 --output o --quiet",
    )
    .unwrap();
    assert!(cli.command.is_none() && cli.is_quiet());
    let source = &cli.job.source;
    assert_eq!(source.plugin, ["libm.so"]);
    assert_eq!(source.source.set, ["a.b=1", "c=2"]);
    assert_eq!(source.seed, Some(3));
    assert!(parse("kdhost").unwrap().job.source.is_empty());
}

#[test]
fn flags_reach_the_configuration() {
    let cli = parse("kdhost --plugin libm.so --seed 3 --output o --set seed=9").unwrap();
    assert_eq!(
        cli.job.source.output.as_deref(),
        Some(std::path::Path::new("o"))
    );
    let config = cli.job.source.resolve().unwrap().config;
    assert_eq!(
        (config.seed, config.distill.single.plugin.as_str()),
        (3, "libm.so")
    );
    let cli = parse("kdhost --plugin sub/libm.so").unwrap();
    let plugin = cli
        .job
        .source
        .resolve()
        .unwrap()
        .config
        .distill
        .single
        .plugin;
    assert_eq!(
        std::path::PathBuf::from(plugin),
        std::env::current_dir().unwrap().join("sub/libm.so")
    );
}

#[test]
fn wrong_lines_are_refused() {
    for (line, kind) in [
        ("kdhost --seed -1", ErrorKind::UnknownArgument),
        ("kdhost --seed x", ErrorKind::ValueValidation),
        ("kdhost --seed 3 train", ErrorKind::ArgumentConflict),
        (
            "kdhost train --resume d --seed 3",
            ErrorKind::ArgumentConflict,
        ),
        ("kdhost eval --config f", ErrorKind::MissingRequiredArgument),
        (
            "kdhost predict --checkpoint c --out o",
            ErrorKind::MissingRequiredArgument,
        ),
        (
            "kdhost predict i --checkpoint c --out o --score-threshold 2",
            ErrorKind::ValueValidation,
        ),
        (
            "kdhost model taps --input-size 3",
            ErrorKind::WrongNumberOfValues,
        ),
        (
            "kdhost visualize --out o",
            ErrorKind::MissingRequiredArgument,
        ),
        (
            "kdhost visualize a.jpg --images 3 --run r --out o",
            ErrorKind::ArgumentConflict,
        ),
        (
            "kdhost visualize --run r --out o --split test",
            ErrorKind::ValueValidation,
        ),
        (
            "kdhost visualize --run r --out o --checkpoint newest",
            ErrorKind::ValueValidation,
        ),
        ("kdhost plugin inspect", ErrorKind::MissingRequiredArgument),
        ("kdhost runs show", ErrorKind::MissingRequiredArgument),
        ("kdhost runs diff a", ErrorKind::MissingRequiredArgument),
        ("kdhost runs list a b", ErrorKind::UnknownArgument),
        ("kdhost trian", ErrorKind::InvalidSubcommand),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.kind(), kind, "{line}: {error}");
        assert_eq!(error.exit_code(), crate::exit_code::USAGE);
    }
}

#[test]
fn data_sets_that_are_registered_are_those_that_the_schema_accepts() {
    let schema = schemars::schema_for!(crate::config::DataConfig).to_value();
    let mut accepted: Vec<&str> = schema["properties"]["dataset"]["enum"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    accepted.sort_unstable();
    let mut registered: Vec<&str> = inventory::iter::<crate::data::DatasetEntry>
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    registered.sort_unstable();
    assert_eq!(accepted, registered);
}
