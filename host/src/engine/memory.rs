//! Memory of this process, from `/proc/self/status`.

use std::fs;

/// Resident memory of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Now, in bytes.
    pub resident_bytes: u64,
    /// The most so far, in bytes.
    pub peak_bytes: u64,
}

impl MemoryUsage {
    /// Reads it; `None` where the system has no `/proc`.
    #[must_use]
    pub fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key))?;
            // `VmRSS:     1720 kB`; the kernel's kB are 1024 bytes.
            let number = line[key.len()..].trim().strip_suffix("kB")?;
            Some(number.trim().parse::<u64>().ok()? * 1024)
        };
        Some(MemoryUsage {
            resident_bytes: bytes("VmRSS:")?,
            peak_bytes: bytes("VmHWM:")?,
        })
    }
}

/// Starts the peak anew, so that the next one belongs to what runs from here on. False where the
/// system cannot.
#[must_use]
pub fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_in_bytes() {
        let status = "Name:\tkdhost\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t3\n";
        let expected = MemoryUsage {
            resident_bytes: 1 << 20,
            peak_bytes: 2 << 20,
        };
        assert_eq!(MemoryUsage::parse(status), Some(expected));
        assert_eq!(MemoryUsage::parse("VmRSS: 1 kB\n"), None, "no peak given");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_large_allocation_is_seen() {
        let before = MemoryUsage::now().unwrap();
        let bytes = 64 << 20;
        let block = vec![1u8; bytes];
        let after = MemoryUsage::now().unwrap();
        assert!(block.iter().any(|&b| b == 1));
        // Other tests of this process free memory meanwhile; the peak only grows.
        assert!(
            after.peak_bytes >= before.resident_bytes + bytes as u64 / 2,
            "{before:?} {after:?}"
        );
    }
}
