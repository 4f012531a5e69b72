//! Points in time as text, in UTC.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A second of UTC; it prints as `2026-11-28T08:41:50Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Utc {
    year: u64,
    month: u64,
    day: u64,
    second_of_day: u64,
}

impl Utc {
    /// The second that `time` falls into; that of 1970 if it is earlier.
    pub(super) fn of(time: SystemTime) -> Utc {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        // Civil date from days since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
        let z = seconds / 86_400 + 719_468;
        let (era, day_of_era) = (z / 146_097, z % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        Utc {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            second_of_day: seconds % 86_400,
        }
    }

    fn time(self) -> [u64; 3] {
        let second = self.second_of_day;
        [second / 3_600, second / 60 % 60, second % 60]
    }

    /// For the name of a folder: `20261128-084150`.
    pub(super) fn stamp(self) -> String {
        let [hour, minute, second] = self.time();
        let Utc {
            year, month, day, ..
        } = self;
        format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
    }

    /// For a table: `2026-11-28 08:41`.
    pub(super) fn to_the_minute(self) -> String {
        let [hour, minute, _] = self.time();
        let Utc {
            year, month, day, ..
        } = self;
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [hour, minute, second] = self.time();
        let Utc {
            year, month, day, ..
        } = self;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn seconds_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            let utc = Utc::of(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(utc.to_string(), text);
        }
        let utc = Utc::of(UNIX_EPOCH + Duration::from_secs(951_782_399));
        assert_eq!(utc.stamp(), "20000228-235959");
        assert_eq!(utc.to_the_minute(), "2000-02-28 23:59");
    }
}
