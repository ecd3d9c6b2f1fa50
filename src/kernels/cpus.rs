//! How many threads are worth starting: the physical cores that this process may use, fast ones only.
//!
//! Two hardware threads of a core share its arithmetic and its path to memory, and both are what a model needs.

#[cfg(any(target_os = "linux", test))]
mod topology;

/// Threads to use when the caller names no number: physical cores within this process's affinity and container quota;
/// on hybrid CPUs the performance cores among them. At least 1.
pub fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    physical_cores().map_or(allowed, |cores| cores.min(allowed)).max(1)
}

/// Physical cores that this thread may run on, where the system tells.
#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    topology::cores_of("/sys/devices".as_ref(), &topology::allowed_cpus(&status)?)
}

/// Performance cores, or all physical cores where there is one kind only.
#[cfg(target_os = "macos")]
fn physical_cores() -> Option<usize> {
    sysctl(c"hw.perflevel0.physicalcpu").or_else(|| sysctl(c"hw.physicalcpu"))
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn physical_cores() -> Option<usize> {
    None
}

/// A whole number that macOS knows by a name.
#[cfg(target_os = "macos")]
fn sysctl(name: &std::ffi::CStr) -> Option<usize> {
    let mut value: i32 = 0;
    let mut size = size_of::<i32>();
    // SAFETY: the name ends with a zero, `value` has room for the `size` bytes that may be written, and nothing is set.
    let status = unsafe {
        nix::libc::sysctlbyname(
            name.as_ptr(),
            (&raw mut value).cast(),
            &raw mut size,
            std::ptr::null_mut(),
            0,
        )
    };
    if status != 0 || size != size_of::<i32>() {
        return None;
    }
    usize::try_from(value).ok().filter(|&cores| cores > 0)
}

#[cfg(test)]
mod tests {
    use std::thread::available_parallelism;

    use super::*;

    #[test]
    fn this_machine_has_at_least_one_core_and_no_more_than_it_may_use() {
        let threads = default_threads();
        assert!(threads >= 1 && threads <= available_parallelism().map_or(1, usize::from));
    }
}
