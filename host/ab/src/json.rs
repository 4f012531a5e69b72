//! `report.json`.

use serde::Deserialize;
use thiserror::Error;

use crate::report::{Report, SCHEMA};

/// Why a text is no report.
#[derive(Debug, Error)]
pub enum JsonError {
    /// Not JSON, or without a `schema`.
    #[error("not the JSON of a report: {0}; give the `report.json` that a comparison has written")]
    NotAReport(#[source] serde_json::Error),
    /// Of another version.
    #[error(
        "`schema` is \"{found}\" and this version reads \"{SCHEMA}\"; make the report again, or read it with the kdhost that wrote it"
    )]
    OtherSchema {
        /// What it says it is.
        found: String,
    },
    /// Of this version by its name, but not by its keys.
    #[error("not a report of \"{SCHEMA}\": {0}; make the report again")]
    Form(#[source] serde_json::Error),
}

/// The report as indented JSON that ends with a line feed: the same text for equal reports.
///
/// Every number of a report is finite; JSON has no other.
pub fn to_string(report: &Report) -> String {
    let mut text = serde_json::to_string_pretty(report)
        .expect("a report has text keys and no type that refuses to be written");
    text.push('\n');
    text
}

/// Reads what [`to_string`] wrote, to the same bits.
///
/// # Errors
///
/// Where the text is not JSON, is of another [`SCHEMA`], or has a missing or unknown key, which is named
/// with its line.
pub fn from_str(text: &str) -> Result<Report, JsonError> {
    #[derive(Deserialize)]
    struct Named {
        schema: String,
    }
    let named: Named = serde_json::from_str(text).map_err(JsonError::NotAReport)?;
    if named.schema != SCHEMA {
        return Err(JsonError::OtherSchema {
            found: named.schema,
        });
    }
    serde_json::from_str(text).map_err(JsonError::Form)
}
