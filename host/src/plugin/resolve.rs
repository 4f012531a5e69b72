//! From what the user wrote to one file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::PluginLoadError;

/// Environment variable with folders to search first, separated by `:`.
pub const PATH_VARIABLE: &str = "KDHOST_PLUGIN_PATH";

/// Folders in which a bare file name is looked up, in order.
///
/// Neither the system's library search nor the working directory takes part: an empty entry of
/// the variable is skipped, not read as `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath {
    folders: Vec<PathBuf>,
}

impl SearchPath {
    /// Searches `folders` alone.
    #[must_use]
    pub fn new(folders: Vec<PathBuf>) -> Self {
        SearchPath { folders }
    }

    /// [`PATH_VARIABLE`], then the folder of the executable, then its `plugins/` folder.
    #[must_use]
    pub fn from_env() -> Self {
        // A process without a known executable still has the variable and explicit paths.
        let executable_folder = std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_path_buf));
        Self::from_parts(std::env::var_os(PATH_VARIABLE), executable_folder)
    }

    fn from_parts(variable: Option<OsString>, executable_folder: Option<PathBuf>) -> Self {
        let mut folders: Vec<PathBuf> = variable
            .iter()
            .flat_map(std::env::split_paths)
            .filter(|folder| !folder.as_os_str().is_empty())
            .collect();
        if let Some(folder) = executable_folder {
            folders.push(folder.clone());
            folders.push(folder.join("plugins"));
        }
        SearchPath { folders }
    }

    /// The folders in order.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Finds the file meant by `name`: a path if it contains `/`, else a file name in the folders.
    ///
    /// # Errors
    /// [`PluginLoadError::NotFound`] with every folder searched and, where one exists, the file
    /// probably meant.
    pub fn find(&self, name: &str) -> Result<PathBuf, PluginLoadError> {
        if name.contains('/') {
            let path = PathBuf::from(name);
            return if path.exists() {
                Ok(path)
            } else {
                Err(PluginLoadError::NotFound {
                    name: name.to_owned(),
                    searched: vec![path],
                    suggestion: None,
                })
            };
        }
        let names_a_file = !matches!(name, "" | "." | "..");
        if let Some(found) = self
            .folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| names_a_file && path.exists())
        {
            return Ok(found);
        }
        Err(PluginLoadError::NotFound {
            name: name.to_owned(),
            searched: self.folders.clone(),
            suggestion: self.suggest(name),
        })
    }

    /// Every `*.so` in the folders, in order of folder and then of name.
    #[must_use]
    pub fn shared_libraries(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for folder in &self.folders {
            // A folder that does not exist holds no plugins; the search path may name several.
            let Ok(entries) = std::fs::read_dir(folder) else {
                continue;
            };
            let mut here: Vec<PathBuf> = entries
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|e| e == "so") && path.is_file())
                .collect();
            here.sort();
            for path in here {
                if !found.contains(&path) {
                    found.push(path);
                }
            }
        }
        found
    }

    fn suggest(&self, name: &str) -> Option<String> {
        let present: Vec<String> = self
            .shared_libraries()
            .iter()
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect();
        let stem = name.strip_suffix(".so").unwrap_or(name).replace('-', "_");
        let full = format!("lib{}.so", stem.strip_prefix("lib").unwrap_or(&stem));
        if present.contains(&full) {
            return Some(full);
        }
        present
            .into_iter()
            .map(|candidate| (strsim::damerau_levenshtein(&candidate, &full), candidate))
            .filter(|(distance, _)| *distance <= 3)
            .min()
            .map(|(_, candidate)| candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(dir.path().join(file), b"x").unwrap();
        }
        dir
    }

    #[test]
    fn order_is_variable_then_executable_then_plugins() {
        let search = SearchPath::from_parts(Some("/a::/b".into()), Some("/exe".into()));
        let expected: Vec<PathBuf> = ["/a", "/b", "/exe", "/exe/plugins"]
            .iter()
            .map(PathBuf::from)
            .collect();
        assert_eq!(search.folders(), expected);
    }

    #[test]
    fn first_folder_wins() {
        let (a, b) = (folder_with(&["libx.so"]), folder_with(&["libx.so"]));
        let search = SearchPath::new(vec![a.path().into(), b.path().into()]);
        assert_eq!(search.find("libx.so").unwrap(), a.path().join("libx.so"));
    }

    #[test]
    fn working_directory_is_not_searched() {
        // Cargo runs tests in the package's folder, where Cargo.toml lies.
        assert!(Path::new("Cargo.toml").exists());
        let err = SearchPath::from_parts(Some("::".into()), None)
            .find("Cargo.toml")
            .unwrap_err();
        assert!(err.to_string().contains("none is searched"), "{err}");
    }

    #[test]
    fn missing_lib_prefix_is_suggested() {
        let dir = folder_with(&["libkd_first.so"]);
        let search = SearchPath::new(vec![dir.path().into()]);
        for name in ["kd_first", "kd-first", "kd_first.so", "libkd_frist.so"] {
            let err = search.find(name).unwrap_err();
            let PluginLoadError::NotFound {
                suggestion,
                searched,
                ..
            } = &err
            else {
                panic!("{err}");
            };
            assert_eq!(suggestion.as_deref(), Some("libkd_first.so"), "{name}");
            assert_eq!(searched, &[dir.path().to_path_buf()]);
            assert!(err.to_string().contains("did you mean `libkd_first.so`"));
        }
    }

    #[test]
    fn path_with_slash_is_taken_as_it_is() {
        let dir = folder_with(&["liby.so"]);
        let path = dir.path().join("liby.so");
        let search = SearchPath::new(vec![]);
        assert_eq!(search.find(path.to_str().unwrap()).unwrap(), path);
        let err = search.find("./nowhere/libz.so").unwrap_err();
        assert_eq!(err.code(), "E_NOT_FOUND");
    }

    #[test]
    fn dots_are_no_file_names() {
        let dir = folder_with(&[]);
        let search = SearchPath::new(vec![dir.path().into()]);
        for name in ["", ".", ".."] {
            assert_eq!(search.find(name).unwrap_err().code(), "E_NOT_FOUND");
        }
    }
}
