//! Reads the reference values under `tests/golden/detection` and `tests/golden/fcos` (their generators
//! lie beside them).

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use super::HeadOutput;
use crate::boxes::BoxXyxy;
use crate::data::ImageTargets;
use crate::maps::Maps;
use crate::state::{Array, StateDict};

pub(super) struct Golden(StateDict);

/// The head's outputs level by level, `[N, C, H, W]` as the reference stores them; gradients are
/// compared with the reference on these.
#[derive(Clone)]
pub(super) struct HeadMaps {
    pub(super) cls_logits: Vec<Tensor<4>>,
    pub(super) box_deltas: Vec<Tensor<4>>,
    /// Empty for a detector without it.
    pub(super) centerness: Vec<Tensor<4>>,
}

impl HeadMaps {
    /// As the detector packs them.
    pub(super) fn output(&self) -> HeadOutput {
        let centerness = &self.centerness;
        HeadOutput {
            cls_logits: Maps::pack_nchw(&self.cls_logits),
            box_deltas: Maps::pack_nchw(&self.box_deltas),
            centerness: (!centerness.is_empty()).then(|| Maps::pack_nchw(centerness)),
        }
    }
}

impl Golden {
    /// RetinaNet's.
    pub(super) fn load() -> Self {
        Self::file("detection")
    }

    /// FCOS's.
    pub(super) fn fcos() -> Self {
        Self::file("fcos")
    }

    fn file(area: &str) -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
        Self(StateDict::load(&golden.join(area).join("detection.safetensors")).unwrap())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.entries.contains_key(name)
    }

    pub(super) fn array(&self, name: &str) -> &Array {
        let missing = || panic!("no golden entry `{name}`");
        self.0.entries.get(name).unwrap_or_else(missing)
    }

    pub(super) fn values(&self, name: &str) -> &[f32] {
        &self.array(name).data
    }

    pub(super) fn integers(&self, name: &str) -> Vec<i32> {
        self.values(name).iter().map(|&v| v as i32).collect()
    }

    pub(super) fn indices(&self, name: &str) -> Vec<usize> {
        self.values(name).iter().map(|&v| v as usize).collect()
    }

    pub(super) fn sizes(&self, name: &str) -> Vec<[usize; 2]> {
        let flat = self.indices(name);
        flat.chunks(2).map(|pair| [pair[0], pair[1]]).collect()
    }

    pub(super) fn boxes(&self, name: &str) -> Vec<BoxXyxy> {
        self.values(name)
            .chunks(4)
            .map(|b| b.try_into().unwrap())
            .collect()
    }

    /// Objects of image `i` of `area`; none if the image has no entry.
    pub(super) fn targets(&self, area: &str, i: usize) -> ImageTargets {
        if !self.has(&format!("{area}.{i}.boxes")) {
            return ImageTargets::default();
        }
        ImageTargets {
            boxes_xyxy: self.boxes(&format!("{area}.{i}.boxes")),
            labels: self.indices(&format!("{area}.{i}.labels")),
            ..ImageTargets::default()
        }
    }

    pub(super) fn map(&self, name: &str, device: &Device) -> Tensor<4> {
        let array = self.array(name);
        let data = TensorData::new(array.data.clone(), array.shape.clone());
        Tensor::from_data(data, device)
    }

    /// The head's outputs stored under `area`, as leaves where `device` has autodiff.
    pub(super) fn head(&self, area: &str, num_levels: usize, device: &Device) -> HeadMaps {
        let maps = |kind: &str| {
            (0..num_levels)
                .filter(|level| self.has(&format!("{area}.{kind}.{level}")))
                .map(|level| {
                    let map = self.map(&format!("{area}.{kind}.{level}"), device);
                    if device.is_autodiff() {
                        map.require_grad()
                    } else {
                        map
                    }
                })
                .collect()
        };
        HeadMaps {
            cls_logits: maps("logits"),
            box_deltas: maps("deltas"),
            centerness: maps("centerness"),
        }
    }
}

/// `‖got − want‖ / ‖want‖`.
pub(super) fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len(), "as many values as the reference");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(
        &mut got
            .iter()
            .zip(want)
            .map(|(&g, &w)| f64::from(g) - f64::from(w)),
    );
    difference / norm(&mut want.iter().map(|&w| f64::from(w)))
}
