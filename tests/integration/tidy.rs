//! The rules of `ARCHITECTURE.md` that a machine can keep.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kdhost_tests::artifacts::workspace_root;
use serde_json::Value;

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, extension, found);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&workspace_root().join(folder), extension, &mut found);
    assert!(!found.is_empty(), "no .{extension} in {folder}");
    found
}

fn plugin_ids() -> Vec<String> {
    fs::read_dir(workspace_root().join("plugins"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Direct dependencies of a crate, those for tests left out.
fn dependencies(of: &str) -> Vec<String> {
    let workspaces = [
        workspace_root().to_owned(),
        workspace_root().join("plugins"),
    ];
    let found = workspaces.iter().find_map(|root| dependencies_in(root, of));
    found.unwrap_or_else(|| panic!("no package `{of}`"))
}

fn dependencies_in(workspace: &Path, of: &str) -> Option<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(workspace)
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|p| p["name"] == of)?;
    let direct = package["dependencies"].as_array().unwrap().iter();
    let direct = direct.filter(|d| d["kind"] != "dev");
    Some(
        direct
            .map(|d| d["name"].as_str().unwrap().to_owned())
            .collect(),
    )
}

#[test]
fn dependencies_flow_one_way() {
    assert_eq!(dependencies("kd-abi"), ["abi_stable"]);
    let plugins: Vec<String> = plugin_ids().iter().map(|id| format!("kd-{id}")).collect();
    let host = dependencies("kdhost");
    assert!(
        !host.contains(&"kd-plugin".to_owned()),
        "the host depends on the SDK"
    );
    for plugin in &plugins {
        assert!(!host.contains(plugin), "the host depends on {plugin}");
        for other in dependencies(plugin) {
            assert!(
                other != "kdhost" && other != "kd-abi",
                "{plugin} depends on {other}"
            );
            assert!(!plugins.contains(&other), "{plugin} depends on {other}");
        }
    }
}

#[test]
fn no_method_is_named_in_the_host() {
    let ids: Vec<String> = plugin_ids()
        .into_iter()
        .filter(|id| id != "null" && id != "template")
        .collect();
    for file in files("host/src", "rs") {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for id in &ids {
                let named = code
                    .split(|c: char| !c.is_ascii_alphanumeric())
                    .any(|word| word == id || word == format!("kd_{id}"));
                // `hint` is also a word of error reports, `logits` what every head gives, and images have
                // a `pixel`; help texts show commands.
                let is_word = ["hint", "logits", "pixel"].contains(&id.as_str());
                let spared = is_word || code.contains("libkd_");
                assert!(
                    !named || spared,
                    "{}:{}: {line}",
                    file.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn unsafe_code_stays_at_the_edge_and_in_kernels() {
    for folder in ["host/src", "plugins"] {
        for file in files(folder, "rs") {
            let path = file.strip_prefix(workspace_root()).unwrap();
            let allowed =
                path.starts_with("host/src/plugin") || path.starts_with("host/src/kernels");
            let text = fs::read_to_string(&file).unwrap();
            let unsafe_line = text
                .lines()
                .find(|line| line.split("//").next().unwrap().contains("unsafe {"));
            assert!(
                allowed || unsafe_line.is_none(),
                "{}: {unsafe_line:?}",
                path.display()
            );
        }
    }
}

#[test]
fn files_hold_one_concept() {
    for folder in ["host/src", "plugin-api", "plugins", "tests"] {
        for file in files(folder, "rs") {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 600, "{}: {lines} lines", file.display());
            let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(!["utils", "util", "misc", "common", "helpers"].contains(&stem.as_str()));
        }
    }
}

#[test]
fn every_plugin_has_its_page() {
    for id in plugin_ids() {
        let page = workspace_root().join("plugins").join(&id).join("README.md");
        assert!(page.is_file(), "{} is missing", page.display());
    }
}
