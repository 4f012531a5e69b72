//! The manifest note: JSON inside the file, readable without running it.
//!
//! An ELF note with owner `kdhost` and type [`KD_NOTE_TYPE`]; found by walking `PT_NOTE`, never by
//! section name. At most [`KD_MANIFEST_MAX_BYTES`] of UTF-8 JSON.

/// Note type.
pub const KD_NOTE_TYPE: u32 = 0x4b44_0001;
/// Note owner, NUL included: 7 bytes, padded to 8 in the file.
pub const KD_NOTE_OWNER: [u8; 8] = *b"kdhost\0\0";
/// Section that holds the note.
pub const KD_NOTE_SECTION: &str = ".note.kdhost";
/// Largest manifest that a host reads.
pub const KD_MANIFEST_MAX_BYTES: usize = 64 * 1024;

/// The note as it lies in the file. `PADDED` is the length of the JSON rounded up to 4.
#[repr(C, align(4))]
#[derive(Debug)]
pub struct ManifestNote<const PADDED: usize> {
    /// Length of the owner, NUL included.
    pub namesz: u32,
    /// Length of the JSON.
    pub descsz: u32,
    /// [`KD_NOTE_TYPE`].
    pub kind: u32,
    /// [`KD_NOTE_OWNER`].
    pub owner: [u8; 8],
    /// The JSON, padded with NUL.
    pub json: [u8; PADDED],
}

/// Length of the padded JSON.
#[must_use]
pub const fn padded_len(len: usize) -> usize {
    len.next_multiple_of(4)
}

impl<const PADDED: usize> ManifestNote<PADDED> {
    /// Builds the note at compile time.
    ///
    /// # Panics
    /// If `PADDED` is not `padded_len(json.len())` or the JSON is too long.
    #[must_use]
    pub const fn new(json: &str) -> Self {
        assert!(
            PADDED == padded_len(json.len()),
            "PADDED must be padded_len(json.len())"
        );
        assert!(
            json.len() <= KD_MANIFEST_MAX_BYTES,
            "the manifest is longer than 64 KiB"
        );
        let bytes = json.as_bytes();
        let mut padded = [0u8; PADDED];
        let mut i = 0;
        while i < bytes.len() {
            padded[i] = bytes[i];
            i += 1;
        }
        ManifestNote {
            namesz: 7,
            descsz: bytes.len() as u32,
            kind: KD_NOTE_TYPE,
            owner: KD_NOTE_OWNER,
            json: padded,
        }
    }
}
