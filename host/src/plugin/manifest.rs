//! The manifest: JSON inside the file, read before anything of the plugin runs.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use kd_abi::note::KD_MANIFEST_MAX_BYTES;

use super::error::AbiVersion;

/// Schema that this host reads.
pub const SCHEMA: u32 = 1;
/// Deepest nesting of objects and arrays.
const MAX_DEPTH: usize = 32;

/// What a plugin says of itself. Fields that this host does not know are skipped.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Id of the plugin.
    pub plugin: String,
    /// Version of the plugin.
    pub version: String,
    /// How its table is reached.
    pub door: Door,
    /// ABI it was built against.
    pub abi: ManifestAbi,
    /// Compiler, target and the like, as the plugin gives them.
    #[serde(default)]
    pub build: serde_json::Map<String, Value>,
    /// SPDX expression; empty if not given.
    #[serde(default)]
    pub license: String,
    /// Devices it runs on: `cpu`, `cuda`.
    #[serde(default = "cpu_alone")]
    pub devices: Vec<String>,
    /// Its methods, in the order of its table.
    pub methods: Vec<MethodManifest>,
}

/// How the plugin's table is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Door {
    /// The abi_stable root module, with a layout check.
    #[serde(rename = "abi_stable")]
    AbiStable,
    /// The symbol `kd_plugin_v1`.
    #[serde(rename = "c")]
    C,
}

impl Door {
    /// As the manifest spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Door::AbiStable => "abi_stable",
            Door::C => "c",
        }
    }

    /// The symbol behind it.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Door::AbiStable => abi_stable::library::ROOT_MODULE_LOADER_NAME,
            Door::C => kd_abi::KD_C_ENTRY,
        }
    }
}

/// ABI version in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ManifestAbi {
    /// Must be the host's.
    pub major: u32,
    /// Must not be greater than the host's.
    pub minor: u32,
}

/// One method.
#[derive(Clone, Debug, Deserialize)]
pub struct MethodManifest {
    /// Unique in the plugin.
    pub id: String,
    /// For people.
    #[serde(default)]
    pub title: String,
    /// Where it is described.
    #[serde(default)]
    pub doc: String,
    /// JSON schema of its configuration; without one the method takes none.
    #[serde(default = "no_configuration")]
    pub config_schema: Value,
    /// Taps it asks for.
    #[serde(default)]
    pub taps: Vec<TapPattern>,
    /// Targets it reads, in this order.
    #[serde(default)]
    pub targets: Vec<String>,
    /// Losses it may declare.
    #[serde(default)]
    pub losses: Vec<String>,
    /// Maps it may declare.
    #[serde(default)]
    pub maps: Vec<String>,
    /// Metrics it may report.
    #[serde(default)]
    pub metrics: Vec<String>,
}

/// Taps asked for by pattern.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TapPattern {
    /// `student`, `teacher`, or a further teacher's name.
    pub role: String,
    /// Tap name; `*` stands for any text within one part, and braces list alternatives.
    pub pattern: String,
    /// Whether a gradient is given back; student taps alone.
    #[serde(default)]
    pub grad: bool,
    /// Whether the method does without, if no tap fits.
    #[serde(default)]
    pub optional: bool,
}

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestFault {
    /// Not readable, or contradicting itself.
    Invalid(String),
    /// Another major version of the ABI.
    AbiMajor(AbiVersion),
    /// A later minor version of the ABI.
    AbiMinor(AbiVersion),
}

/// The fields that must be understood before the rest may be judged.
#[derive(Deserialize)]
struct Head {
    schema: u32,
    abi: ManifestAbi,
}

impl Manifest {
    /// Reads the JSON of a note.
    ///
    /// # Errors
    /// Too long, not UTF-8, too deep, not JSON, unknown schema, ABI that this host does not speak,
    /// a field missing or of the wrong type, an id that is empty, malformed or given twice, a
    /// gradient asked for a tap that is not the student's.
    pub fn parse(json: &[u8]) -> Result<Manifest, ManifestFault> {
        let invalid = |problem: String| ManifestFault::Invalid(problem);
        if json.len() > KD_MANIFEST_MAX_BYTES {
            return Err(invalid(format!(
                "it has {} bytes, at most {KD_MANIFEST_MAX_BYTES} are read",
                json.len()
            )));
        }
        let text = std::str::from_utf8(json).map_err(|e| invalid(format!("not UTF-8: {e}")))?;
        if depth(text) > MAX_DEPTH {
            return Err(invalid(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let head: Head = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
        if head.schema != SCHEMA {
            return Err(invalid(format!(
                "schema {} is not known, this host reads schema {SCHEMA}; update kdhost or rebuild the plugin",
                head.schema
            )));
        }
        let wanted = AbiVersion {
            major: head.abi.major,
            minor: head.abi.minor,
        };
        if wanted.major != AbiVersion::HOST.major {
            return Err(ManifestFault::AbiMajor(wanted));
        }
        if wanted.minor > AbiVersion::HOST.minor {
            return Err(ManifestFault::AbiMinor(wanted));
        }
        let manifest: Manifest = serde_json::from_str(text).map_err(|e| invalid(e.to_string()))?;
        manifest.check().map_err(invalid)?;
        Ok(manifest)
    }

    /// The method of that id.
    #[must_use]
    pub fn method(&self, id: &str) -> Option<&MethodManifest> {
        self.methods.iter().find(|method| method.id == id)
    }

    fn check(&self) -> Result<(), String> {
        check_id("plugin id", &self.plugin)?;
        if self.methods.is_empty() {
            return Err("it lists no method".to_owned());
        }
        unique("method id", self.methods.iter().map(|m| &m.id))?;
        for method in &self.methods {
            check_id("method id", &method.id)?;
            let of = format!(" of method `{}`", method.id);
            unique(&format!("loss{of}"), &method.losses)?;
            unique(&format!("map{of}"), &method.maps)?;
            unique(&format!("metric{of}"), &method.metrics)?;
            unique(&format!("target{of}"), &method.targets)?;
            if !method.config_schema.is_object() {
                return Err(format!("config_schema{of} is not a JSON object"));
            }
            for tap in &method.taps {
                if tap.role.is_empty() || tap.pattern.is_empty() {
                    return Err(format!("a tap{of} has an empty role or pattern"));
                }
                if tap.grad && tap.role != "student" {
                    return Err(format!(
                        "tap `{}`{of} asks for a gradient of role `{}`; only student taps have one",
                        tap.pattern, tap.role
                    ));
                }
            }
        }
        Ok(())
    }
}

fn check_id(what: &str, id: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if id.is_empty() || id.len() > 128 || !id.chars().all(legal) {
        return Err(format!(
            "{what} {id:?} is not made of 1 to 128 letters, digits, `_`, `-` and `.`"
        ));
    }
    Ok(())
}

fn unique<'a>(what: &str, names: impl IntoIterator<Item = &'a String>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.is_empty() {
            return Err(format!("an empty {what}"));
        }
        if !seen.insert(name) {
            return Err(format!("{what} `{name}` is given twice"));
        }
    }
    Ok(())
}

/// Deepest nesting of brackets outside strings.
fn depth(text: &str) -> usize {
    let (mut now, mut deepest) = (0usize, 0usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                now += 1;
                deepest = deepest.max(now);
            }
            b'}' | b']' if !in_string => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn cpu_alone() -> Vec<String> {
    vec!["cpu".to_owned()]
}

fn no_configuration() -> Value {
    serde_json::json!({"type": "object", "properties": {}, "additionalProperties": false})
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"schema":1,"plugin":"p","version":"0.1.0","door":"c",
        "abi":{"major":1,"minor":0},"license":"MIT","novelty":{"a":[1]},
        "methods":[{"id":"m","losses":["l"],
            "taps":[{"role":"student","pattern":"neck.*","grad":true},
                    {"role":"teacher","pattern":"neck.*"}]}]}"#;

    fn problem(json: &str) -> String {
        match Manifest::parse(json.as_bytes()) {
            Err(ManifestFault::Invalid(problem)) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unknown_fields_are_skipped_and_defaults_filled() {
        let manifest = Manifest::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(manifest.door, Door::C);
        assert_eq!(manifest.devices, ["cpu"]);
        let method = manifest.method("m").unwrap();
        assert_eq!(method.config_schema, no_configuration());
        assert!(method.taps[0].grad && !method.taps[1].grad);
    }

    #[test]
    fn abi_is_judged_before_the_rest() {
        let future = GOOD
            .replace(r#""major":1"#, r#""major":2"#)
            .replace(r#""door":"c""#, r#""door":"wormhole""#);
        let wanted = AbiVersion { major: 2, minor: 0 };
        assert_eq!(
            Manifest::parse(future.as_bytes()).unwrap_err(),
            ManifestFault::AbiMajor(wanted)
        );
        let newer = GOOD.replace(r#""minor":0"#, r#""minor":7"#);
        let wanted = AbiVersion { major: 1, minor: 7 };
        assert_eq!(
            Manifest::parse(newer.as_bytes()).unwrap_err(),
            ManifestFault::AbiMinor(wanted)
        );
    }

    #[test]
    fn contradictions_are_named() {
        let cases = [
            (GOOD.replace(r#""schema":1"#, r#""schema":9"#), "schema 9"),
            (GOOD.replace(r#""id":"m""#, r#""id":"a b""#), "method id"),
            (GOOD.replace(r#"["l"]"#, r#"["l","l"]"#), "given twice"),
            (GOOD.replace(r#""version":"0.1.0","#, ""), "version"),
            (
                GOOD.replace(r#""door":"c""#, r#""door":"x""#),
                "unknown variant `x`",
            ),
            (
                GOOD.replace(r#""license":"MIT""#, r#""schema":1"#),
                "duplicate field",
            ),
            (
                GOOD.replace(
                    r#""pattern":"neck.*"}"#,
                    r#""pattern":"neck.*","grad":true}"#,
                ),
                "only student taps",
            ),
            ("{".to_owned(), "EOF"),
        ];
        for (json, expected) in cases {
            let problem = problem(&json);
            assert!(problem.contains(expected), "{problem} lacks {expected}");
        }
        let two = GOOD.replace(r#""methods":["#, r#""methods":[{"id":"m"},"#);
        assert!(problem(&two).contains("method id `m` is given twice"));
    }

    #[test]
    fn size_depth_and_encoding_are_bounded() {
        assert!(problem(&" ".repeat(KD_MANIFEST_MAX_BYTES + 1)).contains("bytes"));
        assert!(problem(&"[".repeat(5000)).contains("deeper"));
        // Brackets inside strings do not count.
        let text = GOOD.replace("MIT", &"[".repeat(100));
        assert!(Manifest::parse(text.as_bytes()).is_ok());
        let mut bytes = GOOD.as_bytes().to_vec();
        bytes[12] = 0xff;
        let Err(ManifestFault::Invalid(problem)) = Manifest::parse(&bytes) else {
            panic!("accepted");
        };
        assert!(problem.contains("UTF-8"));
    }
}
