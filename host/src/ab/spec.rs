//! What is asked for: arms, seeds, a threshold. From the command line, or from a TOML file of the same
//! words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Value;

use super::AbError;
use crate::config::MethodConfig;

/// Differences below it do not matter, where nobody says which do: points.
pub const DEFAULT_THRESHOLD: f64 = 0.5;
/// Resamples of the images where nobody says how many.
pub const DEFAULT_BOOTSTRAP: usize = 2000;
/// Name of the control.
pub const CONTROL: &str = MethodConfig::NO_PLUGIN;

/// A comparison as it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The task, where it is not the configuration's.
    pub task: Option<String>,
    /// Files of the configuration, later ones win.
    pub config: Vec<PathBuf>,
    /// Values over them, `key=value`.
    pub set: Vec<String>,
    /// The arms; the control is put first, and added where it was not named.
    pub arms: Vec<ArmSpec>,
    /// Seeds of every arm.
    pub seeds: Vec<u64>,
    /// The smallest difference that matters, points.
    pub threshold: f64,
    /// Error of the first kind of all comparisons together.
    pub alpha: f64,
    /// Resamples of the images.
    pub bootstrap: usize,
    /// Standard deviation of the paired differences, points, where it is known.
    pub sd: Option<f64>,
    /// An earlier comparison that tells it.
    pub pilot: Option<PathBuf>,
    /// Keys that may differ.
    pub allow_diff: Vec<String>,
    /// Runs at once.
    pub jobs: usize,
    /// Its folder; none: one below `output_dir`, named for what is compared.
    pub out: Option<PathBuf>,
}

/// An arm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmSpec {
    /// In tables and names of folders.
    pub name: String,
    /// Plugin files; none: plain training.
    pub plugins: Vec<String>,
    /// Settings, `key=value` with whole keys.
    pub set: Vec<String>,
}

/// Tables at the top of a configuration: a key that begins with one is a whole key.
const TOP: [&str; 13] = [
    "task",
    "seed",
    "output_dir",
    "cache_dir",
    "device",
    "data",
    "student",
    "teacher",
    "teachers",
    "train",
    "distill",
    "stage",
    "eval",
];
/// Keys of an entry of `distill`; any other is the method's own.
const OF_ENTRY: [&str; 11] = [
    "method",
    "methods",
    "weight",
    "loss_weights",
    "loss_schedules",
    "taps",
    "execution",
    "pretrain",
    "gate",
    "config",
    "plugin",
];

impl ArmSpec {
    /// Plain training.
    #[must_use]
    pub fn control() -> Self {
        ArmSpec {
            name: CONTROL.into(),
            plugins: Vec::new(),
            set: Vec::new(),
        }
    }

    /// Reads `[NAME=]FILE[+FILE…][:KEY=VALUE,…]`, or `none`. A key is one of an entry of
    /// `distill` (`weight`, `loss_weights.NAME`), of the method's own configuration (`k`), or a
    /// whole one (`train.lr`).
    ///
    /// # Errors
    /// If it has another form.
    pub fn parse(text: &str) -> Result<Self, AbError> {
        let refuse = |reason: &str| AbError::Spec {
            what: format!("`--arm {text}`"),
            reason: format!("{reason}; it is [NAME=]FILE[:KEY=VALUE,...], or {CONTROL}"),
        };
        let (head, settings) = match text.split_once(':') {
            Some((head, settings)) => (head, Some(settings)),
            None => (text, None),
        };
        let (name, files) = match head.split_once('=') {
            Some((name, files)) => (Some(name.trim()), files),
            None => (None, head),
        };
        if name.is_some_and(str::is_empty) || files.trim().is_empty() {
            return Err(refuse("a name or a file is missing"));
        }
        let plugins: Vec<String> = files
            .split('+')
            .map(|file| file.trim().to_owned())
            .collect();
        let plain = plugins.iter().filter(|plugin| *plugin == CONTROL).count();
        if plain > 0 && plugins.len() > 1 {
            return Err(refuse("plain training stands beside no plugin"));
        }
        if plugins.iter().any(String::is_empty) {
            return Err(refuse("a file is missing beside `+`"));
        }
        let plugins = if plain > 0 { Vec::new() } else { plugins };
        let mut set = Vec::new();
        for part in settings.iter().flat_map(|settings| parts(settings)) {
            let (key, value) = part
                .split_once('=')
                .filter(|(key, _)| !key.trim().is_empty())
                .ok_or_else(|| refuse(&format!("`{part}` is no KEY=VALUE")))?;
            set.push(format!("{}={}", whole_key(key.trim()), value.trim()));
        }
        let name = match (name, settings) {
            (Some(name), _) => name.to_owned(),
            (None, None) => bare(&plugins),
            (None, Some(settings)) => format!("{}:{settings}", bare(&plugins)),
        };
        Ok(ArmSpec { name, plugins, set })
    }

    /// Its name as a folder's.
    #[must_use]
    pub fn folder(&self) -> String {
        let legal = |c: char| match c {
            c if c.is_ascii_alphanumeric() || "._-".contains(c) => c,
            _ => '-',
        };
        let name: String = self.name.chars().map(legal).collect();
        name.trim_start_matches('.').to_owned()
    }
}

/// Where a key of an arm stands in a configuration.
fn whole_key(key: &str) -> String {
    let first = key.split('.').next().unwrap_or(key);
    if TOP.contains(&first) {
        key.to_owned()
    } else if OF_ENTRY.contains(&first) {
        format!("distill.{key}")
    } else {
        format!("distill.config.{key}")
    }
}

/// `a=1,b=[1,2]` at the commas that are in no bracket and no quotes.
fn parts(settings: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut depth, mut quote) = (0_usize, None);
    for c in settings.chars() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('[' | '{', None) => depth += 1,
            (']' | '}', None) => depth = depth.saturating_sub(1),
            (',', None) if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("begun with one").push(c);
    }
    parts
}

/// What plugins are called: `ssim`, `ssim+hint`.
fn bare(plugins: &[String]) -> String {
    if plugins.is_empty() {
        return CONTROL.into();
    }
    let bare = |plugin: &String| {
        let stem = Path::new(plugin).file_stem().unwrap_or_default();
        let stem = stem.to_string_lossy();
        let stem = stem.strip_prefix("lib").unwrap_or(&stem);
        stem.strip_prefix("kd_").unwrap_or(stem).to_owned()
    };
    plugins.iter().map(bare).collect::<Vec<String>>().join("+")
}

/// `5`: seeds 0 to 4; `3,7,9`: these.
///
/// # Errors
/// If it is neither.
pub fn parse_seeds(text: &str) -> Result<Vec<u64>, AbError> {
    let refuse = || AbError::Spec {
        what: format!("`--seeds {text}`"),
        reason: "it is a number of seeds (5: seeds 0 to 4), or a list of distinct ones (3,7,9)"
            .into(),
    };
    let numbers: Result<Vec<u64>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    let numbers = numbers.map_err(|_| refuse())?;
    match (numbers.as_slice(), text.contains(',')) {
        ([count @ 1..=1000], false) => Ok((0..*count).collect()),
        (_, true) if distinct(&numbers) => Ok(numbers),
        _ => Err(refuse()),
    }
}

fn distinct(numbers: &[u64]) -> bool {
    let set: std::collections::BTreeSet<&u64> = numbers.iter().collect();
    set.len() == numbers.len()
}

/// A comparison as a TOML file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    task: Option<String>,
    #[serde(default)]
    config: OneOrMany,
    #[serde(default)]
    set: BTreeMap<String, Value>,
    seeds: Option<Seeds>,
    threshold: Option<f64>,
    alpha: Option<f64>,
    bootstrap: Option<usize>,
    sd: Option<f64>,
    pilot: Option<PathBuf>,
    #[serde(default)]
    allow_diff: Vec<String>,
    jobs: Option<usize>,
    out: Option<PathBuf>,
    arms: Vec<FileArm>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    #[default]
    None,
    One(PathBuf),
    Many(Vec<PathBuf>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Seeds {
    Count(u64),
    List(Vec<u64>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileArm {
    name: Option<String>,
    plugin: OnePluginOrMany,
    #[serde(default)]
    set: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OnePluginOrMany {
    One(String),
    Many(Vec<String>),
}

impl Spec {
    /// Nothing but the control, and every default.
    #[must_use]
    pub fn empty() -> Self {
        Spec {
            task: None,
            config: Vec::new(),
            set: Vec::new(),
            arms: Vec::new(),
            seeds: vec![0, 1, 2],
            threshold: DEFAULT_THRESHOLD,
            alpha: 0.05,
            bootstrap: DEFAULT_BOOTSTRAP,
            sd: None,
            pilot: None,
            allow_diff: Vec::new(),
            jobs: 1,
            out: None,
        }
    }

    /// Reads a file; paths in it are relative to its folder, but for `out`.
    ///
    /// # Errors
    /// If it cannot be read, or has other keys or types.
    pub fn load(path: &Path) -> Result<Self, AbError> {
        let text = std::fs::read_to_string(path).map_err(|e| AbError::file(path, e))?;
        let file: File = toml::from_str(&text).map_err(|e| AbError::file(path, e))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let inside = |given: PathBuf| folder.join(given);
        let defaults = Spec::empty();
        let config = match file.config {
            OneOrMany::None => Vec::new(),
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        };
        let arms: Result<Vec<ArmSpec>, AbError> = file
            .arms
            .into_iter()
            .map(|arm| arm_of_file(arm, folder))
            .collect();
        let seeds = match file.seeds {
            None => defaults.seeds,
            Some(Seeds::Count(count)) => parse_seeds(&count.to_string())?,
            Some(Seeds::List(list)) if distinct(&list) && !list.is_empty() => list,
            Some(Seeds::List(_)) => {
                return Err(AbError::file(path, "`seeds` are to be distinct numbers"));
            }
        };
        Ok(Spec {
            task: file.task,
            config: config.into_iter().map(inside).collect(),
            set: file.set.iter().map(|(k, v)| format!("{k}={v}")).collect(),
            arms: arms?,
            seeds,
            threshold: file.threshold.unwrap_or(defaults.threshold),
            alpha: file.alpha.unwrap_or(defaults.alpha),
            bootstrap: file.bootstrap.unwrap_or(defaults.bootstrap),
            sd: file.sd,
            pilot: file.pilot.map(inside),
            allow_diff: file.allow_diff,
            jobs: file.jobs.unwrap_or(defaults.jobs),
            out: file.out,
        })
    }

    /// Puts the control first and checks what can be checked by itself.
    ///
    /// # Errors
    /// If two arms have one name, there is nothing to compare, or a number makes no sense.
    pub fn checked(mut self) -> Result<Self, AbError> {
        let refuse = |what: &str, reason: String| {
            Err(AbError::Spec {
                what: what.to_owned(),
                reason,
            })
        };
        let control = self.arms.iter().position(|arm| arm.name == CONTROL);
        let control = match control {
            Some(at) => self.arms.remove(at),
            None => ArmSpec::control(),
        };
        if control != ArmSpec::control() {
            let reason = "the control is plain training without settings of its own; settings for all arms go to `--set`";
            return refuse(&format!("arm `{CONTROL}`"), reason.into());
        }
        self.arms.insert(0, control);
        let mut folders = BTreeMap::new();
        for arm in &self.arms {
            if let Some(other) = folders.insert(arm.folder().to_lowercase(), &arm.name) {
                let reason =
                    format!("arm `{other}` has the same name or folder; name one: `NAME=FILE`");
                return refuse(&format!("arm `{}`", arm.name), reason);
            }
        }
        if self.arms.len() < 2 {
            let reason =
                "there is nothing to compare plain training with; add `--arm libkd_NAME.so`";
            return refuse("`--arm`", reason.into());
        }
        let legal = self.threshold.is_finite() && self.threshold >= 0.0;
        if !legal {
            return refuse(
                "`threshold`",
                format!("{} is no number of points from 0", self.threshold),
            );
        }
        if !(self.alpha > 0.0 && self.alpha < 0.5) {
            return refuse(
                "`alpha`",
                format!("{} is not between 0 and 0.5", self.alpha),
            );
        }
        if self.bootstrap < DEFAULT_BOOTSTRAP && self.bootstrap != 0 {
            let reason = format!(
                "{} resamples are too few for an interval; {DEFAULT_BOOTSTRAP} or more, or 0 for none",
                self.bootstrap
            );
            return refuse("`bootstrap`", reason);
        }
        if self.sd.is_some_and(|sd| !(sd.is_finite() && sd > 0.0)) {
            return refuse("`sd`", "it is a number of points above 0".into());
        }
        if self.sd.is_some() && self.pilot.is_some() {
            return refuse(
                "`sd`",
                "it is stated, or taken from `pilot`, not both".into(),
            );
        }
        if self.jobs == 0 {
            return refuse("`jobs`", "at least one run goes on at a time".into());
        }
        Ok(self)
    }
}

fn arm_of_file(arm: FileArm, folder: &Path) -> Result<ArmSpec, AbError> {
    let plugins = match arm.plugin {
        OnePluginOrMany::One(one) => vec![one],
        OnePluginOrMany::Many(many) => many,
    };
    let named = arm.name.unwrap_or_else(|| {
        let own: Vec<String> = plugins.iter().filter(|p| *p != CONTROL).cloned().collect();
        bare(&own)
    });
    let mut parsed = ArmSpec::parse(&plugins.join("+"))?;
    // As in configurations: what holds a `/` is a path, relative to the file.
    for plugin in &mut parsed.plugins {
        if plugin.contains('/') {
            *plugin = folder.join(&plugin).to_string_lossy().into_owned();
        }
    }
    parsed.name = named;
    let settings = arm.set.iter();
    parsed.set = settings
        .map(|(key, value)| format!("{}={value}", whole_key(key)))
        .collect();
    Ok(parsed)
}

#[cfg(test)]
mod tests;
