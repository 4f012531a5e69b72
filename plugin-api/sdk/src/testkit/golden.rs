//! Reference numbers from a safetensors file.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// Named f64 arrays with their shapes, and the file's metadata.
#[derive(Clone, Debug)]
pub struct Golden {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    metadata: BTreeMap<String, String>,
}

impl Golden {
    /// Reads a file with `F32` and `F64` tensors.
    ///
    /// # Panics
    /// If the file is missing or of another kind: a test cannot go on without it.
    #[must_use]
    pub fn read(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let metadata = header
            .metadata()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        let file =
            SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let tensors = file
            .iter()
            .map(|(name, view)| {
                let values = match view.dtype() {
                    Dtype::F64 => (view.data().as_chunks::<8>().0.iter())
                        .map(|bytes| f64::from_le_bytes(*bytes))
                        .collect(),
                    Dtype::F32 => (view.data().as_chunks::<4>().0.iter())
                        .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
                        .collect(),
                    other => panic!("{}: `{name}` is {other:?}", path.display()),
                };
                (name.to_owned(), (view.shape().to_vec(), values))
            })
            .collect();
        Golden { tensors, metadata }
    }

    /// Names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Values of a tensor.
    ///
    /// # Panics
    /// If there is none of this name.
    #[must_use]
    pub fn values(&self, name: &str) -> &[f64] {
        &self.get(name).1
    }

    /// Values of a tensor, rounded to f32.
    ///
    /// # Panics
    /// If there is none of this name.
    #[must_use]
    pub fn f32s(&self, name: &str) -> Vec<f32> {
        self.values(name)
            .iter()
            .map(|&value| value as f32)
            .collect()
    }

    /// Extents of a tensor.
    ///
    /// # Panics
    /// If there is none of this name.
    #[must_use]
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.get(name).0
    }

    /// Whether there is a tensor of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// An entry of the file's metadata.
    ///
    /// # Panics
    /// If there is none of this name.
    #[must_use]
    pub fn metadata(&self, key: &str) -> &str {
        self.metadata
            .get(key)
            .unwrap_or_else(|| panic!("no metadata `{key}`"))
    }

    fn get(&self, name: &str) -> &(Vec<usize>, Vec<f64>) {
        self.tensors.get(name).unwrap_or_else(|| {
            panic!(
                "no tensor `{name}`; there are {:?}",
                self.tensors.keys().collect::<Vec<_>>()
            )
        })
    }
}
