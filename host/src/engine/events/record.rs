//! TensorFlow's `TFRecord` framing: length (u64, little endian), its checksum, the bytes, their
//! checksum. A checksum is CRC-32C, rotated and shifted by a constant, as `tsl/lib/hash/crc32c.h` has it.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read as _};

/// Length and its checksum.
const HEADER: usize = 12;
const CHECKSUM: u64 = 4;

/// `bytes` as a record.
pub(super) fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [
        &length[..],
        &checksum(&length).to_le_bytes(),
        bytes,
        &checksum(bytes).to_le_bytes(),
    ]
    .concat()
}

/// Whether `file`, read from where it stands, consists of whole records up to `end`.
pub(super) fn ends_at(file: &File, end: u64) -> std::io::Result<bool> {
    let length = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let mut at = 0;
    while at < end {
        let mut header = [0; HEADER];
        match reader.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        let (size, sum) = header.split_at(8);
        if checksum(size).to_le_bytes() != sum {
            return Ok(false);
        }
        let size = u64::from_le_bytes(size.try_into().expect("it was split there"));
        let Some(next) = size.checked_add(at + HEADER as u64 + CHECKSUM) else {
            return Ok(false);
        };
        if next > length {
            return Ok(false);
        }
        // Within the file, so that it fits.
        reader.seek_relative((next - at) as i64 - HEADER as i64)?;
        at = next;
    }
    Ok(at == end)
}

/// CRC-32C, masked.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}
