//! Reference numbers from a safetensors file.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::{Bench, EntryError, TapShape, relative_error};

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

/// Runs one case of a golden file through a method and returns the relative error of the loss and of
/// every gradient, by name.
///
/// Tensors of a case are called `<case>/student/<tap>`, `<case>/teacher/<tap>`,
/// `<case>/param/<path>`, `<case>/loss`, `<case>/d_student/<tap>`, `<case>/d_param/<path>`; its
/// configuration is in the metadata `cases`, a JSON object by case.
///
/// A method over Burn tensors must also equal its program (`traced`), to the bit.
///
/// # Errors
/// If the method refuses, or the file has a parameter that the method does not.
///
/// # Panics
/// If method and program differ.
pub fn replay(
    golden: &Golden,
    case: &str,
    new: impl Fn(&Value, &[TapShape]) -> Result<Bench, EntryError>,
) -> Result<Vec<(String, f64)>, EntryError> {
    let cases: Value = serde_json::from_str(golden.metadata("cases")).expect("JSON metadata");
    let of = |kind: &str| -> Vec<(String, String)> {
        let prefix = format!("{case}/{kind}/");
        let strip = |name: &str| Some((name.strip_prefix(&prefix)?.to_owned(), name.to_owned()));
        golden.names().filter_map(strip).collect()
    };
    let shapes = |role: &'static str| {
        of(role).into_iter().map(move |(name, key)| {
            let shape = <[usize; 4]>::try_from(golden.shape(&key)).expect("four extents");
            TapShape {
                role,
                name,
                shape,
                stride: 8,
            }
        })
    };
    let taps: Vec<TapShape> = shapes("student").chain(shapes("teacher")).collect();
    let mut bench = new(&cases[case], &taps)?;
    for (slot, tap) in taps.iter().enumerate() {
        let values = golden.f32s(&format!("{case}/{}/{}", tap.role, tap.name));
        bench.tap_mut(slot).copy_from_slice(&values);
    }
    for (path, key) in of("param") {
        bench.param_mut(&path).copy_from_slice(&golden.f32s(&key));
    }
    #[cfg(feature = "cpu")]
    if bench.has_program() {
        super::traced::check(&mut bench, &[1.0], &[])
            .unwrap_or_else(|difference| panic!("{case}: {difference}"));
    }
    let out = bench.forward()?;
    let gradients = bench.backward(&out, &[1.0], &[])?;
    let key = format!("{case}/loss");
    let mut errors = vec![(
        key.clone(),
        relative_error(&out.losses, golden.values(&key)),
    )];
    for (slot, tap) in taps
        .iter()
        .enumerate()
        .filter(|(_, tap)| tap.role == "student")
    {
        let key = format!("{case}/d_student/{}", tap.name);
        errors.push((
            key.clone(),
            relative_error(&gradients.taps[slot], golden.values(&key)),
        ));
    }
    for (slot, (path, ..)) in bench.params().iter().enumerate() {
        let key = format!("{case}/d_param/{path}");
        errors.push((
            key.clone(),
            relative_error(&gradients.params[slot], golden.values(&key)),
        ));
    }
    Ok(errors)
}

/// Names of the cases of a golden file.
///
/// # Panics
/// If the metadata has no `cases`.
#[must_use]
pub fn cases(golden: &Golden) -> Vec<String> {
    let cases: Value = serde_json::from_str(golden.metadata("cases")).expect("JSON metadata");
    cases
        .as_object()
        .expect("an object by case")
        .keys()
        .cloned()
        .collect()
}
