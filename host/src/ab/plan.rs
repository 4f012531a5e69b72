//! The runs of a comparison: what each is configured with, and what was fixed before the first.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use kdhost_ab::report::{Plugin, Resolution, SettingDifference};
use kdhost_ab::stats;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml::Value;
use tracing::info;

use super::AbError;
use super::equal;
use super::spec::{ArmSpec, CONTROL, Spec};
use crate::config::{Config, Flag, Sources};
use crate::distill::DistillError;
use crate::engine::EngineError;
use crate::engine::fingerprint::Facts;
use crate::plugin::SearchPath;
use crate::state::hex;

/// Names the form of [`Fixed`].
const SCHEMA: &str = "kdhost.ab-plan/1";
/// The file of [`Fixed`].
pub const PLAN_FILE: &str = "ab.json";

/// The runs of a comparison.
#[derive(Clone, Debug)]
pub struct Plan {
    /// As it was asked for.
    pub spec: Spec,
    /// The control first.
    pub arms: Vec<PlannedArm>,
    /// Differences of settings that are allowed.
    pub differences: Vec<SettingDifference>,
    /// What is fixed before the first run.
    pub fixed: Fixed,
}

/// The runs of an arm.
#[derive(Clone, Debug)]
pub struct PlannedArm {
    /// As it was asked for.
    pub spec: ArmSpec,
    /// One a seed.
    pub configs: Vec<Config>,
}

/// What is fixed before the first run, and written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    schema: String,
    /// Arms by name.
    pub arms: Vec<FixedArm>,
    /// Seeds of every arm.
    pub seeds: Vec<u64>,
    /// The smallest difference that matters, points.
    pub threshold: f64,
    /// Error of the first kind.
    pub alpha: f64,
    /// Resamples of the images.
    pub bootstrap: usize,
    /// What the seeds can show.
    pub resolution: Resolution,
    /// Settings that all arms share, by dotted key.
    pub settings: BTreeMap<String, String>,
    /// Threads of every run.
    pub threads: usize,
}

/// An arm that is fixed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedArm {
    /// Its name.
    pub name: String,
    /// Name and SHA-256 of each plugin file.
    pub plugins: Vec<[String; 2]>,
    /// Its settings, `key=value`.
    pub set: Vec<String>,
}

impl Plan {
    /// Lays the runs out and compares their settings.
    ///
    /// # Errors
    /// If a configuration is refused, a plugin is not found, or arms differ in more than their
    /// methods.
    pub fn new(spec: Spec) -> Result<Self, AbError> {
        let base = base(&spec)?;
        let arms: Result<Vec<PlannedArm>, AbError> = spec
            .arms
            .iter()
            .map(|arm| planned(arm, &base, &spec.seeds))
            .collect();
        let arms = arms?;
        let control = &arms[0].configs[0];
        let mut found = Vec::new();
        for arm in &arms[1..] {
            found.extend(equal::of_settings(&arm.spec.name, control, &arm.configs[0]));
        }
        let differences = equal::all_allowed(found, &spec.allow_diff)?;
        let fixed_arms: Result<Vec<FixedArm>, AbError> = spec.arms.iter().map(fixed_arm).collect();
        let fixed = Fixed {
            schema: SCHEMA.into(),
            arms: fixed_arms?,
            seeds: spec.seeds.clone(),
            threshold: spec.threshold,
            alpha: spec.alpha,
            bootstrap: spec.bootstrap,
            resolution: resolution(&spec)?,
            settings: equal::shared(control),
            threads: (rayon::current_num_threads() / spec.jobs).max(1),
        };
        Ok(Plan {
            spec,
            arms,
            differences,
            fixed,
        })
    }

    /// Its folder: as asked for, or named for what is compared, so that the same command finds it
    /// again.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        if let Some(out) = &self.spec.out {
            return out.clone();
        }
        let json = serde_json::to_string(&self.fixed.asked()).expect("plain data");
        let hash = hex(&Sha256::digest(json));
        let output_dir = &self.arms[0].configs[0].output_dir;
        output_dir.join(format!("ab-{}", &hash[..12]))
    }

    /// Takes over what was fixed when the comparison in `folder` began, if it is this one.
    ///
    /// # Errors
    /// If it is another one.
    pub fn go_on(&mut self, begun: &str, folder: &Path) -> Result<(), AbError> {
        let path = folder.join(PLAN_FILE);
        let begun: Fixed = serde_json::from_str(begun).map_err(|e| AbError::file(&path, e))?;
        let (now, then) = (self.fixed.asked(), begun.asked());
        if let Some(what) = difference(&then, &now) {
            return Err(AbError::Other {
                folder: folder.into(),
                what,
            });
        }
        // Numbers of threads change last digits; the runs that are done had so many.
        self.fixed.threads = begun.threads;
        Ok(())
    }
}

impl Fixed {
    /// As JSON, but for what the machine decides.
    fn asked(&self) -> serde_json::Map<String, serde_json::Value> {
        let json = serde_json::to_value(self).expect("plain data");
        let serde_json::Value::Object(mut object) = json else {
            unreachable!("a struct is an object")
        };
        object.remove("threads");
        object
    }
}

/// Where two plans differ first, in words.
fn difference(
    then: &serde_json::Map<String, serde_json::Value>,
    now: &serde_json::Map<String, serde_json::Value>,
) -> Option<String> {
    let (key, value) = now
        .iter()
        .find(|(key, value)| then.get(*key) != Some(*value))?;
    let before = then.get(key)?;
    // One setting of many says more than all of them.
    if let (Some(then), Some(now)) = (before.as_object(), value.as_object()) {
        let inner = now
            .iter()
            .find(|(key, value)| then.get(*key) != Some(*value));
        let inner = inner.map(|(name, value)| {
            let before = then
                .get(name)
                .map_or_else(|| "nothing".into(), ToString::to_string);
            format!("`{key}.{name}` was {before} and is now {value}")
        });
        return inner.or_else(|| Some(format!("`{key}` has fewer entries than it had")));
    }
    Some(format!("`{key}` was {before} and is now {value}"))
}

/// The configuration without methods.
fn base(spec: &Spec) -> Result<Config, AbError> {
    let task = spec.task.iter().map(|task| Flag {
        name: "--task",
        key: "task",
        value: Value::String(task.clone()),
    });
    let sources = Sources {
        files: spec.config.clone(),
        set: spec.set.clone(),
        flags: task.collect(),
        ..Sources::default()
    };
    let mut config = sources.resolve()?.config;
    let plain = Config::base();
    if config.distill != plain.distill {
        info!("`distill` of the configuration is set aside: arms say what is distilled");
    }
    config.distill = plain.distill;
    config.stage = plain.stage;
    Ok(config)
}

fn planned(arm: &ArmSpec, base: &Config, seeds: &[u64]) -> Result<PlannedArm, AbError> {
    let mut file = tempfile::Builder::new()
        .prefix("kdhost-ab-")
        .suffix(".toml")
        .tempfile()
        .map_err(|e| AbError::file(std::env::temp_dir(), e))?;
    file.write_all(base.to_toml().as_bytes())
        .map_err(|e| AbError::file(file.path(), e))?;
    let plugins = match arm.plugins.is_empty() {
        true => vec![CONTROL.to_owned()],
        false => arm.plugins.clone(),
    };
    let of_seed = |seed: &u64| {
        let sources = Sources {
            files: vec![file.path().into()],
            set: arm.set.clone(),
            flags: vec![Flag {
                name: "--seeds",
                key: "seed",
                value: Value::Integer(seed.cast_signed()),
            }],
            plugins: plugins.clone(),
        };
        let resolved = sources.resolve().map_err(|source| AbError::Arm {
            arm: arm.name.clone(),
            source,
        })?;
        Ok(resolved.config)
    };
    let configs: Result<Vec<Config>, AbError> = seeds.iter().map(of_seed).collect();
    Ok(PlannedArm {
        spec: arm.clone(),
        configs: configs?,
    })
}

fn fixed_arm(arm: &ArmSpec) -> Result<FixedArm, AbError> {
    let search = SearchPath::from_env();
    let hashed = |plugin: &String| {
        let path = search.find(plugin).map_err(DistillError::from);
        let path = path.map_err(EngineError::from)?;
        let bytes = std::fs::read(&path).map_err(|e| AbError::file(&path, e))?;
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        Ok([name, hex(&Sha256::digest(bytes))])
    };
    let plugins: Result<Vec<[String; 2]>, AbError> = arm.plugins.iter().map(hashed).collect();
    Ok(FixedArm {
        name: arm.name.clone(),
        plugins: plugins?,
        set: arm.set.clone(),
    })
}

/// What differences the seeds can show, by the standard deviation that is stated or of the pilot.
fn resolution(spec: &Spec) -> Result<Resolution, AbError> {
    let comparisons = spec.arms.len() - 1;
    let alpha = spec.alpha / comparisons as f64;
    let in_sd = stats::resolvable_in_sd(spec.seeds.len(), alpha, stats::POWER);
    let (sd, sd_source) = match (spec.sd, &spec.pilot) {
        (Some(sd), _) => (Some(sd), Some("stated".to_owned())),
        (None, Some(pilot)) => {
            let sd = sd_of_pilot(pilot)?;
            (Some(sd), Some(format!("pilot {}", pilot.display())))
        }
        (None, None) => (None, None),
    };
    Ok(Resolution {
        power: stats::POWER,
        in_sd,
        sd,
        sd_source,
        difference: in_sd.zip(sd).map(|(in_sd, sd)| in_sd * sd),
    })
}

/// The standard deviation of paired differences in an earlier comparison: pooled over its arms, by
/// their degrees of freedom.
fn sd_of_pilot(folder: &Path) -> Result<f64, AbError> {
    let path = match folder.is_dir() {
        true => folder.join("report.json"),
        false => folder.into(),
    };
    let text = std::fs::read_to_string(&path).map_err(|e| AbError::file(&path, e))?;
    let report = kdhost_ab::json::from_str(&text).map_err(|e| AbError::file(&path, e))?;
    let (mut squares, mut freedom) = (0.0, 0.0);
    for comparison in &report.comparisons {
        if let Some(sd) = comparison.sd {
            let n = comparison.pairs.len() as f64 - 1.0;
            squares += n * sd * sd;
            freedom += n;
        }
    }
    if freedom == 0.0 || squares == 0.0 {
        let reason = "no arm has two pairs that differ: it tells no standard deviation; state one with `--sd`";
        return Err(AbError::file(&path, reason));
    }
    Ok((squares / freedom).sqrt())
}

impl Plan {
    /// Compares the settings of the last stage of an arm with the control's, and adds what may differ
    /// to the differences, in place of what the job of the stages was asked for.
    ///
    /// # Errors
    /// If they differ in more than was allowed.
    pub fn add_last_stage(&mut self, arm: usize, stage: &Config) -> Result<(), AbError> {
        let name = &self.spec.arms[arm].name;
        let found = equal::of_last_stage(name, &self.arms[0].configs[0], stage);
        let allowed = equal::all_allowed(found, &self.spec.allow_diff)?;
        self.differences.retain(|known| {
            let is_same =
                |new: &SettingDifference| (&new.arm, &new.key) == (&known.arm, &known.key);
            !allowed.iter().any(is_same)
        });
        self.differences.extend(allowed);
        Ok(())
    }

    /// Where what was fed into a run differs from what was fed into the control of its seed: what may
    /// be, and the rest.
    #[must_use]
    pub fn unequal(
        &self,
        arm: usize,
        seed: u64,
        control: &Facts,
        facts: &Facts,
    ) -> (Vec<SettingDifference>, Vec<SettingDifference>) {
        let mut found = equal::of_facts(&self.spec.arms[arm].name, seed, control, facts);
        // Settings that may differ are listed key by key.
        found.retain(|found| found.key != "settings" || self.differences.is_empty());
        equal::split(found, &self.spec.allow_diff)
    }

    /// The plugin files of an arm, with the ids of their methods where a run says them.
    #[must_use]
    pub fn plugins(&self, arm: usize, methods: &BTreeMap<String, String>) -> Vec<Plugin> {
        let plugins = self.fixed.arms[arm].plugins.iter();
        plugins
            .map(|[file, sha256]| Plugin {
                file: file.clone(),
                method: methods.get(sha256).cloned().unwrap_or_default(),
                sha256: sha256.clone(),
            })
            .collect()
    }
}
