//! The cores of a machine as Linux describes them under `/sys/devices` and `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A core counts as fast from this share of the capacity of the fastest one (Linux's `cpu_capacity`, Arm).
const FAST_SHARE: (u32, u32) = (1, 2);

/// The CPUs of `Cpus_allowed_list` in the text of `/proc/…/status`.
pub(super) fn allowed_cpus(status: &str) -> Option<BTreeSet<usize>> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    cpu_list(list)
}

/// Reads a list as the kernel writes it: `0-3,8,10-11`. None for anything else, and for an empty one.
fn cpu_list(text: &str) -> Option<BTreeSet<usize>> {
    /// Beyond any kernel's limit: a longer list is not one of CPUs.
    const MOST: usize = 1 << 16;
    let mut cpus = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Fast physical cores among the CPUs `allowed`; `devices` is `/sys/devices`. None where the system does not tell.
pub(super) fn cores_of(devices: &Path, allowed: &BTreeSet<usize>) -> Option<usize> {
    let cpus = fast_cpus(devices, allowed);
    let mut cores = BTreeSet::new();
    for cpu in cpus {
        let topology = devices.join(format!("system/cpu/cpu{cpu}/topology"));
        // The older name is the one that every kernel has.
        let list = ["core_cpus_list", "thread_siblings_list"]
            .iter()
            .find_map(|name| cpu_list(&fs::read_to_string(topology.join(name)).ok()?))?;
        cores.insert(list);
    }
    Some(cores.len()).filter(|&cores| cores > 0)
}

/// The CPUs `allowed` that belong to fast cores; all of them where they are alike, or none of them is fast.
fn fast_cpus(devices: &Path, allowed: &BTreeSet<usize>) -> BTreeSet<usize> {
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
    // Intel's hybrid CPUs list their performance cores.
    if let Some(fast) =
        fs::read_to_string(devices.join("cpu_core/cpus")).ok().and_then(|text| cpu_list(&text))
    {
        let fast: BTreeSet<usize> = fast.intersection(allowed).copied().collect();
        return if fast.is_empty() { allowed.clone() } else { fast };
    }
    let capacity = |cpu: usize| number(&devices.join(format!("system/cpu/cpu{cpu}/cpu_capacity")));
    let capacities: Vec<(usize, u32)> =
        allowed.iter().filter_map(|&cpu| Some((cpu, capacity(cpu)?))).collect();
    let Some(most) = capacities.iter().map(|&(_, capacity)| capacity).max() else { return allowed.clone() };
    if capacities.len() < allowed.len() {
        return allowed.clone();
    }
    let (share, whole) = FAST_SHARE;
    let is_fast =
        |capacity: u32| u64::from(capacity) * u64::from(whole) >= u64::from(most) * u64::from(share);
    capacities.into_iter().filter(|&(_, capacity)| is_fast(capacity)).map(|(cpu, _)| cpu).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder like `/sys/devices`, with the given files.
    fn devices(files: &[(String, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn siblings(cpu: usize, list: &'static str) -> (String, &'static str) {
        (format!("system/cpu/cpu{cpu}/topology/thread_siblings_list"), list)
    }

    fn cpus(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        numbers.into_iter().collect()
    }

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(cpu_list("0-1\n"), Some(cpus(0..2)));
        assert_eq!(cpu_list("0,2-4,9"), Some(cpus([0, 2, 3, 4, 9])));
        assert_eq!(cpu_list("7"), Some(cpus([7])));
        for bad in ["", "\n", "a", "3-1", "0-", "-2", "1,,2", "0-99999999999"] {
            assert_eq!(cpu_list(bad), None, "{bad:?}");
        }
        let status = "Name:\tx\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3\nMems_allowed_list:\t0\n";
        assert_eq!(allowed_cpus(status), Some(cpus(0..4)));
        assert_eq!(allowed_cpus("Name:\tx\n"), None);
    }

    #[test]
    fn hardware_threads_of_one_core_count_once() {
        // Four cores of two threads each, numbered as Intel does: 0 and 4 share a core.
        let lists = ["0,4\n", "1,5\n", "2,6\n", "3,7\n"];
        let files: Vec<_> = (0..8).map(|cpu| siblings(cpu, lists[cpu % 4])).collect();
        let folder = devices(&files);
        assert_eq!(cores_of(folder.path(), &cpus(0..8)), Some(4));
        assert_eq!(cores_of(folder.path(), &cpus([0, 4])), Some(1), "one core by affinity");
        assert_eq!(cores_of(folder.path(), &cpus([0, 1, 5])), Some(2));
        assert_eq!(cores_of(folder.path(), &cpus([9])), None, "not described");
        assert_eq!(cores_of(folder.path(), &cpus([])), None);
    }

    #[test]
    fn the_newer_name_is_read_first() {
        let folder = devices(&[
            siblings(0, "0"),
            siblings(1, "1"),
            ("system/cpu/cpu0/topology/core_cpus_list".to_owned(), "0-1"),
            ("system/cpu/cpu1/topology/core_cpus_list".to_owned(), "0-1"),
        ]);
        assert_eq!(cores_of(folder.path(), &cpus(0..2)), Some(1));
    }

    #[test]
    fn of_an_intel_hybrid_the_performance_cores_count() {
        // Two performance cores of two threads (0-3), four efficiency cores (4-7).
        let mut files = vec![("cpu_core/cpus".to_owned(), "0-3\n"), ("cpu_atom/cpus".to_owned(), "4-7\n")];
        files.extend(
            ["0-1", "0-1", "2-3", "2-3", "4", "5", "6", "7"]
                .iter()
                .enumerate()
                .map(|(cpu, l)| siblings(cpu, l)),
        );
        let folder = devices(&files);
        assert_eq!(cores_of(folder.path(), &cpus(0..8)), Some(2));
        assert_eq!(cores_of(folder.path(), &cpus(3..8)), Some(1));
        assert_eq!(cores_of(folder.path(), &cpus(4..7)), Some(3), "bound to efficiency cores");
    }

    #[test]
    fn of_an_arm_hybrid_the_cores_of_high_capacity_count() {
        let capacities = ["1024", "1024", "870", "870", "870", "280", "280", "280"];
        let lists = ["0", "1", "2", "3", "4", "5", "6", "7"];
        let mut files: Vec<_> = lists.iter().enumerate().map(|(cpu, list)| siblings(cpu, list)).collect();
        files.extend(
            capacities
                .iter()
                .enumerate()
                .map(|(cpu, text)| (format!("system/cpu/cpu{cpu}/cpu_capacity"), *text)),
        );
        let folder = devices(&files);
        assert_eq!(cores_of(folder.path(), &cpus(0..8)), Some(5));
        assert_eq!(cores_of(folder.path(), &cpus(5..8)), Some(3), "bound to slow cores");
    }
}
