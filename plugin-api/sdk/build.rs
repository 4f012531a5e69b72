//! Hands the compiler's facts to the crate, for the `build` part of every plugin's manifest.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = env::var("TARGET").expect("cargo sets TARGET for build scripts");
    let rustc = env::var("RUSTC").expect("cargo sets RUSTC for build scripts");
    // `rustc 1.95.0 (hash date)`: the second word is the version.
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|text| text.split_whitespace().nth(1).map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=KD_BUILD_TARGET={target}");
    println!("cargo:rustc-env=KD_BUILD_RUSTC={version}");
}
