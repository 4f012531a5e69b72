//! What a run ran on: the facts of `environment.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data::RESIZE_FILTER;
use crate::device::ComputeDevice;

/// What a run ran on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of kdhost.
    pub kdhost: String,
    /// Commit it was built from; the build sets `KDHOST_COMMIT`.
    pub commit: Option<String>,
    /// Compiler it was built with; the build sets `KDHOST_RUSTC`.
    pub rustc: Option<String>,
    /// Operating system and architecture.
    pub platform: String,
    /// Name of the processor; bits can differ between processors of different vector width.
    pub cpu: Option<String>,
    /// Processors this process may use.
    pub cores: usize,
    /// Where it computed; `cpu` in files from before there was a choice.
    #[serde(default)]
    pub device: ComputeDevice,
    /// Threads that compute.
    pub threads: usize,
    /// How images were resized; empty in files from before it was recorded.
    #[serde(default)]
    pub resize_filter: String,
    /// The plugin of each method, by the method's label; none in plain training.
    pub plugins: BTreeMap<String, PluginFacts>,
}

/// Which plugin file was loaded for a method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginFacts {
    /// Where it lay.
    pub path: PathBuf,
    /// SHA-256 of the file, lowercase hex.
    pub sha256: String,
    /// Id of the method that was chosen.
    pub method: String,
    /// The manifest inside the file.
    pub manifest: serde_json::Value,
}

impl Environment {
    /// This process on this machine, on the processor.
    #[must_use]
    pub fn current(plugins: BTreeMap<String, PluginFacts>) -> Self {
        Environment {
            kdhost: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("KDHOST_COMMIT").map(Into::into),
            rustc: option_env!("KDHOST_RUSTC").map(Into::into),
            platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            cpu: fs::read_to_string("/proc/cpuinfo")
                .ok()
                .and_then(|text| cpu_model(&text)),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            device: ComputeDevice::Cpu,
            threads: rayon::current_num_threads(),
            resize_filter: RESIZE_FILTER.into(),
            plugins,
        }
    }
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t: fpu\n";
        assert_eq!(cpu_model(text).unwrap(), "Some CPU @ 2.0GHz");
        assert_eq!(cpu_model("processor : 0\n"), None);
    }

    #[test]
    fn facts_go_through_json() {
        let facts = PluginFacts {
            path: "plugins/libkd_x.so".into(),
            sha256: "00ff".into(),
            method: "x".into(),
            manifest: serde_json::json!({"id": "x"}),
        };
        let environment = Environment::current([("label".to_owned(), facts)].into());
        assert!(environment.cores > 0 && environment.threads > 0);
        let json = serde_json::to_string(&environment).unwrap();
        assert_eq!(
            serde_json::from_str::<Environment>(&json).unwrap(),
            environment
        );
    }
}
