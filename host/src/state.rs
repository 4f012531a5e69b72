//! State dicts: named f32 arrays, their safetensors files and their hash.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

/// A dense f32 array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extents.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values.
    pub data: Vec<f32>,
}

/// Named arrays, as PyTorch's `state_dict`; ordered by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateDict {
    /// The entries.
    pub entries: BTreeMap<String, Array>,
    /// Free text stored in the file's header.
    pub metadata: BTreeMap<String, String>,
}

/// A safetensors file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system said no.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("`{}` is not a readable safetensors file: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A tensor is not f32.
    #[error("`{}`: tensor `{name}` is {dtype}, expected F32; convert it before loading", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
}

impl StateDict {
    /// Reads a safetensors file. Integer tensors (`num_batches_tracked`) are left out.
    ///
    /// # Errors
    /// If the file cannot be read, is not safetensors, or holds floats that are not f32.
    pub fn load(path: &Path) -> Result<Self, StateError> {
        let bytes = fs::read(path).map_err(|source| StateError::Io {
            path: path.into(),
            source,
        })?;
        Self::from_bytes(&bytes, path)
    }

    /// As [`StateDict::load`], from bytes; `path` serves messages.
    ///
    /// # Errors
    /// See [`StateDict::load`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, StateError> {
        let format = |e: safetensors::SafeTensorError| StateError::Format {
            path: path.into(),
            reason: e.to_string(),
        };
        let file = SafeTensors::deserialize(bytes).map_err(format)?;
        let mut state = StateDict::default();
        for (name, view) in file.tensors() {
            match view.dtype() {
                Dtype::F32 => {}
                Dtype::I64 | Dtype::I32 | Dtype::U8 | Dtype::BOOL => continue,
                other => {
                    return Err(StateError::Dtype {
                        path: path.into(),
                        name,
                        dtype: format!("{other:?}"),
                    });
                }
            }
            let data = view
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            state.entries.insert(
                name,
                Array {
                    shape: view.shape().to_vec(),
                    data,
                },
            );
        }
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(format)?;
        if let Some(metadata) = header.metadata() {
            state.metadata = metadata
                .iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
        }
        Ok(state)
    }

    /// The bytes of the safetensors file; equal states give equal bytes.
    ///
    /// # Panics
    /// If an entry's shape and length disagree, which is a bug of the caller.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let raw: Vec<(&String, &Array, Vec<u8>)> = self
            .entries
            .iter()
            .map(|(name, array)| {
                (
                    name,
                    array,
                    array.data.iter().flat_map(|v| v.to_le_bytes()).collect(),
                )
            })
            .collect();
        let views: Vec<(String, TensorView<'_>)> = raw
            .iter()
            .map(|(name, array, bytes)| {
                let view = TensorView::new(Dtype::F32, array.shape.clone(), bytes)
                    .expect("an array's shape matches its length");
                ((*name).clone(), view)
            })
            .collect();
        let body = safetensors::serialize(views, None).expect("views are valid safetensors");
        with_sorted_metadata(body, &self.metadata)
    }

    /// Writes a safetensors file: to a temporary name, synced, then renamed.
    ///
    /// # Errors
    /// If the file system says no.
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        write_atomically(path, &self.to_bytes()).map_err(|source| StateError::Io {
            path: path.into(),
            source,
        })
    }

    /// SHA-256 over names, shapes and bits, as lowercase hex.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        for (name, array) in &self.entries {
            hasher.update(name.as_bytes());
            hasher.update([0]);
            for &extent in &array.shape {
                hasher.update((extent as u64).to_le_bytes());
            }
            for value in &array.data {
                hasher.update(value.to_bits().to_le_bytes());
            }
        }
        hex(&hasher.finalize())
    }
}

/// Lowercase hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes `bytes` to a temporary file beside `path`, syncs, and renames: a reader sees the old
/// file or the new one, never a part.
///
/// # Errors
/// If the file system says no.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    // Readable to others as any file is; temporary ones are not by default.
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    // The rename itself must survive a power cut.
    fs::File::open(folder)?.sync_all()
}

/// Makes the folder `path` by `fill`, which writes into an empty one beside it that is then renamed: a
/// reader sees the whole folder or none. What is there already stays: whoever was faster wrote the same.
///
/// # Errors
/// If the file system says no, or `fill` does.
pub fn publish_folder(
    path: &Path,
    fill: impl FnOnce(&Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent)?;
    let partial = tempfile::Builder::new()
        .prefix(".partial-")
        .tempdir_in(parent)?;
    fill(partial.path())?;
    match fs::rename(partial.path(), path) {
        Ok(()) => drop(partial.keep()),
        Err(_) if path.is_dir() => {}
        Err(error) => return Err(error),
    }
    fs::File::open(parent)?.sync_all()
}

/// Puts `metadata` into the header in sorted order. The safetensors crate takes a `HashMap`, whose
/// order differs between runs, and equal states must give equal bytes.
fn with_sorted_metadata(body: Vec<u8>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    if metadata.is_empty() {
        return body;
    }
    let length = u64::from_le_bytes(body[..8].try_into().expect("eight bytes")) as usize;
    let tensors = std::str::from_utf8(&body[8..8 + length]).expect("the header is UTF-8");
    let metadata = serde_json::to_string(metadata).expect("strings are valid JSON");
    let rest = tensors.trim_end().trim_start_matches('{');
    let comma = if rest == "}" { "" } else { "," };
    let mut header = format!("{{\"__metadata__\":{metadata}{comma}{rest}").into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(&header);
    out.extend_from_slice(&body[8 + length..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> StateDict {
        let mut state = StateDict::default();
        state.entries.insert(
            "b.weight".into(),
            Array {
                shape: vec![2, 2],
                data: vec![1.0, -2.5, 3.0, 0.1],
            },
        );
        state.entries.insert(
            "a".into(),
            Array {
                shape: vec![],
                data: vec![4.0],
            },
        );
        state.metadata.insert("z".into(), "last \"quoted\"".into());
        state.metadata.insert("a".into(), "first".into());
        state
    }

    #[test]
    fn a_file_gives_back_what_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/state.safetensors");
        sample().save(&path).unwrap();
        assert_eq!(StateDict::load(&path).unwrap(), sample());
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "no temporary left"
        );
    }

    #[test]
    fn hash_sees_names_shapes_and_bits() {
        let base = sample().hash();
        let mut other = sample();
        other.entries.get_mut("a").unwrap().data[0] = 4.000_000_5;
        assert_ne!(base, other.hash());
        let mut other = sample();
        other.entries.get_mut("b.weight").unwrap().shape = vec![4];
        assert_ne!(base, other.hash());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.safetensors");
        fs::write(&path, b"not a tensor file").unwrap();
        let message = StateDict::load(&path).unwrap_err().to_string();
        assert!(message.contains("broken.safetensors"), "{message}");
    }
}
