//! Energy of the processor packages, where the system lets this process read it.

use std::fs;
use std::path::{Path, PathBuf};

/// Linux's power capping counters, one folder a package.
const POWERCAP: &str = "/sys/class/powercap";

/// Counters of all packages, as they stood at one moment.
#[derive(Clone, Debug)]
pub struct EnergyMeter {
    packages: Vec<Package>,
}

#[derive(Clone, Debug)]
struct Package {
    counter: PathBuf,
    started_uj: u64,
    /// The counter begins anew after so much.
    range_uj: u64,
}

impl EnergyMeter {
    /// Reads the counters; none where there are none or they are not for this user.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::of(Path::new(POWERCAP))
    }

    fn of(folder: &Path) -> Option<Self> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(folder).ok()? {
            let path = entry.ok()?.path();
            let name = fs::read_to_string(path.join("name")).unwrap_or_default();
            // Cores and memory below a package are part of it.
            if !name.starts_with("package") {
                continue;
            }
            let counter = path.join("energy_uj");
            packages.push(Package {
                started_uj: number(&counter)?,
                range_uj: number(&path.join("max_energy_range_uj"))?,
                counter,
            });
        }
        (!packages.is_empty()).then_some(EnergyMeter { packages })
    }

    /// Joules of all packages since the start, by whatever ran on them; none where a counter is gone.
    /// A counter that went round more than once since is not seen.
    #[must_use]
    pub fn joules(&self) -> Option<f64> {
        let mut sum = 0;
        for package in &self.packages {
            let now = number(&package.counter)?;
            sum += match now.checked_sub(package.started_uj) {
                Some(used) => used,
                None => now + package.range_uj.checked_sub(package.started_uj)?,
            };
        }
        Some(sum as f64 * 1e-6)
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_summed_and_a_counter_may_go_round() {
        let folder = tempfile::tempdir().unwrap();
        assert!(EnergyMeter::of(folder.path()).is_none(), "no counter");
        let write = |name: &str, file: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(file), text).unwrap();
        };
        for (name, title) in [("a", "package-0\n"), ("b", "package-1\n"), ("c", "core\n")] {
            write(name, "name", title);
            write(name, "energy_uj", "900\n");
            write(name, "max_energy_range_uj", "1000000\n");
        }
        let meter = EnergyMeter::of(folder.path()).unwrap();
        write("a", "energy_uj", "500900\n");
        write("b", "energy_uj", "400\n");
        write("c", "energy_uj", "7000000\n");
        let expected = (500_000.0 + 999_500.0) * 1e-6;
        assert!((meter.joules().unwrap() - expected).abs() < 1e-12);
        fs::remove_dir_all(folder.path().join("b")).unwrap();
        assert_eq!(meter.joules(), None);
    }
}
