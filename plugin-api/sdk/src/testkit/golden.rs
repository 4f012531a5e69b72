//! Reference numbers from a safetensors file.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::{Bench, EntryError, TapShape, relative_error};

/// Named arrays with their shapes, and the file's metadata.
#[derive(Clone, Debug)]
pub struct Golden {
    tensors: BTreeMap<String, Array>,
    metadata: BTreeMap<String, String>,
}

/// One array; integers stand as floats, which hold every one that a test has.
#[derive(Clone, Debug)]
struct Array {
    shape: Vec<usize>,
    values: Vec<f64>,
    is_integer: bool,
}

impl Golden {
    /// Reads a file with `F32`, `F64` and `I64` tensors.
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
                    Dtype::I64 => (view.data().as_chunks::<8>().0.iter())
                        .map(|bytes| i64::from_le_bytes(*bytes) as f64)
                        .collect(),
                    other => panic!("{}: `{name}` is {other:?}", path.display()),
                };
                let array = Array {
                    shape: view.shape().to_vec(),
                    values,
                    is_integer: view.dtype() == Dtype::I64,
                };
                (name.to_owned(), array)
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
        &self.get(name).values
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
        &self.get(name).shape
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

    fn get(&self, name: &str) -> &Array {
        self.tensors.get(name).unwrap_or_else(|| {
            panic!(
                "no tensor `{name}`; there are {:?}",
                self.tensors.keys().collect::<Vec<_>>()
            )
        })
    }
}

/// Runs one case of a golden file through a method and returns the relative error of every loss,
/// metric and gradient, by name.
///
/// | tensor | |
/// |---|---|
/// | `<case>/student/<tap>`, `<case>/teacher/<tap>` | inputs, `[N, C, H, W]` |
/// | `<case>/target/<name>` | a target; integers where the tensor is `I64` |
/// | `<case>/param/<path>` | a parameter |
/// | `<case>/buffer/<path>` | a buffer before the step |
/// | `<case>/loss`, or `<case>/loss/<name>` where there are several | expected |
/// | `<case>/d_loss/<name>` | upstream gradient of a loss; 1 without it |
/// | `<case>/metric/<name>` | expected; those that a file does not have are not compared |
/// | `<case>/new_buffer/<path>` | expected after the step |
/// | `<case>/d_student/<tap>`, `<case>/d_param/<path>` | expected gradients of `Σ d_loss·loss` |
///
/// The configuration of a case is in the metadata `cases`, a JSON object by case; strides of taps other
/// than 8 are in `strides`, by case and then `<role>/<tap>`. Taps and targets that
/// the plan does not read are passed over.
///
/// A method over Burn tensors must also equal its program (`traced`), to the bit.
///
/// # Errors
/// If the method refuses, or the file has a parameter that the method does not.
///
/// # Panics
/// If method and program differ, or something expected is not there.
pub fn replay(
    golden: &Golden,
    case: &str,
    new: impl Fn(&Value, &[TapShape]) -> Result<Bench, EntryError>,
) -> Result<Vec<(String, f64)>, EntryError> {
    let cases: Value = serde_json::from_str(golden.metadata("cases")).expect("JSON metadata");
    let taps: Vec<TapShape> = ["student", "teacher"]
        .into_iter()
        .flat_map(|role| tap_shapes(golden, case, role))
        .collect();
    let mut bench = new(&cases[case], &taps)?;
    let used = |bench: &Bench| -> Vec<(usize, &TapShape)> {
        let all = taps.iter().enumerate();
        all.filter(|(slot, _)| bench.uses_tap(*slot)).collect()
    };
    for (slot, tap) in used(&bench) {
        let values = golden.f32s(&format!("{case}/{}/{}", tap.role, tap.name));
        bench.tap_mut(slot).copy_from_slice(&values);
    }
    set_targets(&mut bench, golden, case);
    for (path, key) in entries(golden, case, "param") {
        bench.param_mut(&path).copy_from_slice(&golden.f32s(&key));
    }
    for (path, key) in entries(golden, case, "buffer") {
        bench.buffer_mut(&path).copy_from_slice(&golden.f32s(&key));
    }
    let upstream = upstream(&bench, golden, case);
    #[cfg(feature = "cpu")]
    if bench.has_program() {
        super::traced::check(&mut bench, &upstream, &[])
            .unwrap_or_else(|difference| panic!("{case}: {difference}"));
    }
    let logged = bench.log().metrics.len();
    let out = bench.forward()?;
    let gradients = bench.backward(&out, &upstream, &[])?;

    let mut errors = Vec::new();
    let mut compare = |key: String, got: &[f32]| {
        let error = relative_error(got, golden.values(&key));
        errors.push((key, error));
    };
    match out.losses.as_slice() {
        [loss] if golden.has(&format!("{case}/loss")) => compare(format!("{case}/loss"), &[*loss]),
        losses => {
            for ((name, _), loss) in bench.losses().iter().zip(losses) {
                compare(format!("{case}/loss/{name}"), &[*loss]);
            }
        }
    }
    let metrics = &bench.log().metrics[logged..];
    for (name, key) in entries(golden, case, "metric") {
        let found = metrics.iter().find(|(known, _)| *known == name);
        let (_, value) = found.unwrap_or_else(|| panic!("{case}: no metric `{name}`"));
        compare(key, &[*value as f32]);
    }
    for (slot, tap) in (used(&bench).into_iter()).filter(|(_, tap)| tap.role == "student") {
        compare(
            format!("{case}/d_student/{}", tap.name),
            &gradients.taps[slot],
        );
    }
    for (path, key) in entries(golden, case, "new_buffer") {
        compare(key, bench.buffer_mut(&path));
    }
    for (slot, (path, ..)) in bench.params().iter().enumerate() {
        compare(format!("{case}/d_param/{path}"), &gradients.params[slot]);
    }
    Ok(errors)
}

/// Tensors `<case>/<kind>/<name>`: names and whole keys.
fn entries(golden: &Golden, case: &str, kind: &str) -> Vec<(String, String)> {
    let prefix = format!("{case}/{kind}/");
    let strip = |key: &str| Some((key.strip_prefix(&prefix)?.to_owned(), key.to_owned()));
    golden.names().filter_map(strip).collect()
}

fn tap_shapes(golden: &Golden, case: &str, role: &'static str) -> Vec<TapShape> {
    let strides = golden.metadata.get("strides").map(String::as_str);
    let strides: Value = serde_json::from_str(strides.unwrap_or("{}")).expect("JSON metadata");
    let shape = |(name, key): (String, String)| TapShape {
        role,
        shape: golden.shape(&key).try_into().expect("four extents"),
        stride: strides[case][format!("{role}/{name}")]
            .as_u64()
            .map_or(8, |stride| stride as u32),
        name,
    };
    entries(golden, case, role).into_iter().map(shape).collect()
}

fn set_targets(bench: &mut Bench, golden: &Golden, case: &str) {
    for (name, key) in entries(golden, case, "target") {
        let array = golden.get(&key);
        let shape: Vec<i64> = array.shape.iter().map(|&extent| extent as i64).collect();
        if array.is_integer {
            let values = array.values.iter().map(|&value| value as i64).collect();
            bench.set_target_ints(&name, &shape, values);
        } else {
            bench.set_target(&name, &shape, golden.f32s(&key));
        }
    }
}

fn upstream(bench: &Bench, golden: &Golden, case: &str) -> Vec<f32> {
    let of_loss = |(name, _): &(String, f64)| {
        let key = format!("{case}/d_loss/{name}");
        match golden.has(&key) {
            true => golden.values(&key)[0] as f32,
            false => 1.0,
        }
    };
    bench.losses().iter().map(of_loss).collect()
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
