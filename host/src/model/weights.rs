//! Weights from files: torchvision's names, its older names and bare backbones, with a report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use burn::tensor::{Device, Tensor, TensorData};

use super::{Model, ModelError, ParamKind};
use crate::state::{Array, StateDict};

mod positions;

/// Where a file's header says which model its weights are, as JSON of [`crate::config::ModelConfig`].
pub const MODEL_ENTRY: &str = "kdhost.model";

/// Names that [`LoadReport`] prints of each kind before it only counts.
const NAMES_SHOWN: usize = 5;

/// A parameter whose extents differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Its name in the architecture.
    pub name: String,
    /// Extents in the architecture.
    pub expected: Vec<usize>,
    /// Extents in the file.
    pub got: Vec<usize>,
}

/// What became of a weight file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Parameters and buffers taken from the file.
    pub matched: usize,
    /// In the architecture, not in the file: left as they were.
    pub missing: Vec<String>,
    /// In the file, not in the architecture, under the file's names: ignored.
    pub unexpected: Vec<String>,
    /// In both with different extents: left as they were.
    pub mismatched: Vec<Mismatch>,
    /// Position embeddings of another grid, taken from the file and resized to the model's.
    pub resized: Vec<Mismatch>,
}

impl LoadReport {
    /// Whether file and architecture agree entry by entry.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
            && self.unexpected.is_empty()
            && self.mismatched.is_empty()
            && self.resized.is_empty()
    }

    /// Passes the report on if it is complete.
    ///
    /// # Errors
    /// If anything is missing, unexpected, mismatched or resized.
    pub fn strict(self) -> Result<Self, ModelError> {
        if self.is_complete() {
            Ok(self)
        } else {
            Err(ModelError::Weights {
                report: self.to_string(),
            })
        }
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = self.missing.len() + self.mismatched.len() + self.resized.len();
        let total = self.matched + others;
        write!(f, "{} of {total} arrays matched", self.matched)?;
        list(f, "missing from the file", &self.missing)?;
        list(f, "unexpected in the file", &self.unexpected)?;
        let shapes = |all: &[Mismatch]| -> Vec<String> {
            let shapes =
                |m: &Mismatch| format!("{} (model {:?}, file {:?})", m.name, m.expected, m.got);
            all.iter().map(shapes).collect()
        };
        list(f, "of another shape", &shapes(&self.mismatched))?;
        list(f, "resized to the model's grid", &shapes(&self.resized))
    }
}

fn list(f: &mut fmt::Formatter<'_>, what: &str, names: &[String]) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    let shown = names.len().min(NAMES_SHOWN);
    write!(f, "; {} {what}: {}", names.len(), names[..shown].join(", "))?;
    if names.len() > shown {
        write!(f, " and {} more", names.len() - shown)?;
    }
    Ok(())
}

/// Copies what fits from `file` into `state`, which holds every entry of the architecture.
///
/// Understood are torchvision's detector names, those of its checkpoints from before 0.14
/// (`fpn.inner_blocks.0.weight`, `conv.2.weight`), those of its segmenters, and a bare classifier's
/// (`layer1.0.conv1.weight`, `features.1.conv.0.0.weight`), which fills the backbone. torchvision runs one file, its RetinaNet `COCO_V1`, with a normalisation
/// epsilon of 0 in place of [`super::ops::NORM_EPS`]; that is not reproduced here.
///
/// A position embedding of another grid is resized to the model's, the class token's row kept: bilinear,
/// centres aligned, without a filter where it shrinks (PyTorch's `interpolate(mode = "bilinear",
/// align_corners = False)`). The file's grid is what its header says, or else a square; what is neither
/// has another shape.
///
/// # Errors
/// If not a single entry fits: the file belongs to something else.
pub fn load_into(
    state: &mut StateDict,
    model: &dyn Model,
    file: &StateDict,
) -> Result<LoadReport, ModelError> {
    let mut offered: BTreeMap<String, (&str, &Array)> = BTreeMap::new();
    let mut report = LoadReport::default();
    let known: BTreeSet<&str> = model
        .specs()
        .iter()
        .map(|spec| spec.name.as_str())
        .collect();
    // Where this model keeps the backbone that a bare classifier fills.
    let bare = file.entries.contains_key("conv1.weight").then(|| {
        if known.contains("backbone.conv1.weight") {
            "backbone"
        } else {
            "backbone.body"
        }
    });
    for (name, array) in &file.entries {
        // One detector's older name is another's name of today.
        let current = if known.contains(name.as_str()) {
            name.clone()
        } else {
            current_name(name, bare)
        };
        if let Some((earlier, _)) = offered.insert(current, (name, array)) {
            // Two spellings of one parameter: the later one in name order stands.
            report.unexpected.push(earlier.to_owned());
        }
    }
    for spec in model.specs() {
        match offered.remove(&spec.name) {
            None => report.missing.push(spec.name.clone()),
            Some((_, array)) => {
                let mismatch = || Mismatch {
                    name: spec.name.clone(),
                    expected: spec.shape.clone(),
                    got: array.shape.clone(),
                };
                let resized = match spec.kind {
                    ParamKind::Positions { grid } => positions::resized(file, array, grid),
                    _ => None,
                };
                let fitting = match resized {
                    Some(resized) if resized.shape == spec.shape => {
                        report.resized.push(mismatch());
                        resized
                    }
                    _ if array.shape == spec.shape => {
                        report.matched += 1;
                        array.clone()
                    }
                    _ => {
                        report.mismatched.push(mismatch());
                        continue;
                    }
                };
                state.entries.insert(spec.name.clone(), fitting);
            }
        }
    }
    report
        .unexpected
        .extend(offered.into_values().map(|(name, _)| name.to_owned()));
    report.unexpected.sort_unstable();
    if report.matched == 0 {
        return Err(ModelError::Weights {
            report: report.to_string(),
        });
    }
    Ok(report)
}

/// Weights on `device` in the order of [`Model::specs`], flat and without gradient.
///
/// # Errors
/// If `state` lacks an entry or holds one of another shape.
pub fn tensors(
    model: &dyn Model,
    state: &StateDict,
    device: &Device,
) -> Result<Vec<Tensor<1>>, ModelError> {
    let mut report = LoadReport::default();
    let mut weights = Vec::with_capacity(model.specs().len());
    for spec in model.specs() {
        match state.entries.get(&spec.name) {
            None => report.missing.push(spec.name.clone()),
            Some(array) if array.shape != spec.shape => report.mismatched.push(Mismatch {
                name: spec.name.clone(),
                expected: spec.shape.clone(),
                got: array.shape.clone(),
            }),
            Some(array) => {
                let data = TensorData::new(array.data.clone(), [array.data.len()]);
                weights.push(Tensor::from_data(data, device));
                report.matched += 1;
            }
        }
    }
    report.strict()?;
    Ok(weights)
}

/// The name that today's torchvision model gives to the parameter `name`; `bare` is where it keeps the
/// backbone that the file is.
fn current_name(name: &str, bare: Option<&str>) -> String {
    if let Some(backbone) = bare {
        return format!("{backbone}.{name}");
    }
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        // MobileNetV2's classifier has its layers in a sequence of that name.
        ["features", rest @ ..] => format!("backbone.{}", rest.join(".")),
        // A pyramid block was a convolution, and is now a sequence that begins with one.
        [
            "backbone",
            "fpn",
            block @ ("inner_blocks" | "layer_blocks"),
            i,
            kind,
        ] => {
            format!("backbone.fpn.{block}.{i}.0.{kind}")
        }
        // RetinaNet's tower was convolutions and ReLUs in turn, and is now a sequence of pairs.
        ["head", branch, "conv", i, kind] => match i.parse::<usize>() {
            Ok(position) => format!("head.{branch}.conv.{}.0.{kind}", position / 2),
            Err(_) => name.to_owned(),
        },
        _ => name.to_owned(),
    }
}
