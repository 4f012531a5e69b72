//! Numbers of other implementations, from `tests/golden/ab/`.

use std::path::Path;

use serde::de::DeserializeOwned;

/// One section of a file.
pub(crate) fn read<T: DeserializeOwned>(file: &str, section: &str) -> T {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ab");
    let text = std::fs::read_to_string(folder.join(file)).expect("the file is committed");
    let mut whole: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    serde_json::from_value(whole[section].take()).expect("it has the section")
}

/// Whether `ours` is within the relative `tolerance` of `theirs`.
pub(crate) fn close(ours: f64, theirs: f64, tolerance: f64) -> bool {
    (ours - theirs).abs() <= tolerance * theirs.abs()
}
