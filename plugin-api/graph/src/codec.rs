//! Bytes of a program: a magic word, the format's name, then MessagePack.

use serde::Serialize;

use crate::{FORMAT, Program};

const MAGIC: &[u8; 8] = b"KDGRAPH1";
/// A format's name is a crate and a version.
const MAX_FORMAT_BYTES: usize = 64;
/// Deeper than any value of a program.
const MAX_DEPTH: usize = 24;

/// Why bytes are not a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The first bytes are not a program's.
    #[error("not a program: the first bytes are wrong")]
    Magic,
    /// Written in another format; nothing after its name was looked at.
    #[error("the program is written in `{found}`, this host reads `{FORMAT}`")]
    Format {
        /// Its name.
        found: String,
    },
    /// The rest is broken.
    #[error("the program cannot be decoded: {0}")]
    Body(String),
    /// Something follows the program.
    #[error("the program is followed by {0} bytes that are none of it")]
    Trailing(usize),
}

/// The bytes of `program` in [`FORMAT`]. Equal programs give equal bytes.
///
/// # Panics
/// Never: every part of a program can be written.
#[must_use]
pub fn encode(program: &Program) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4096 + program.data.len());
    bytes.extend_from_slice(MAGIC);
    bytes.push(FORMAT.len() as u8);
    bytes.extend_from_slice(FORMAT.as_bytes());
    program
        .serialize(&mut rmp_serde::Serializer::new(&mut bytes))
        .expect("a program is plain data and memory takes every write");
    bytes
}

/// The name of the format that `bytes` are written in, and what follows it.
///
/// # Errors
/// If this is no program at all.
pub fn format_of(bytes: &[u8]) -> Result<(&str, &[u8]), DecodeError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(DecodeError::Magic)?;
    let (&len, rest) = rest.split_first().ok_or(DecodeError::Magic)?;
    let len = usize::from(len);
    if len > MAX_FORMAT_BYTES || len > rest.len() {
        return Err(DecodeError::Magic);
    }
    let (name, body) = rest.split_at(len);
    let name = std::str::from_utf8(name).map_err(|_| DecodeError::Magic)?;
    Ok((name, body))
}

/// Reads a program. Memory is taken for what the bytes hold, not for what they claim.
///
/// # Errors
/// If it is none, of another format, broken, or followed by something.
pub fn decode(bytes: &[u8]) -> Result<Program, DecodeError> {
    let (found, body) = format_of(bytes)?;
    if found != FORMAT {
        return Err(DecodeError::Format {
            found: found.to_owned(),
        });
    }
    let mut rest = body;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    reader.set_max_depth(MAX_DEPTH);
    let program = serde::Deserialize::deserialize(&mut reader)
        .map_err(|error: rmp_serde::decode::Error| DecodeError::Body(error.to_string()))?;
    match rest.len() {
        0 => Ok(program),
        more => Err(DecodeError::Trailing(more)),
    }
}
