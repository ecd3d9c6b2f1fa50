//! How much memory a model will take, worked out before anything is allocated.

use sysinfo::System;

use crate::error::{Error, ErrorKind, Result};

/// The memory that a model needs with given options, in bytes, against what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights as the backend holds them, copies made for speed included.
    pub weights_bytes: u64,
    /// Weights that stay in the file, in pages which the system shares between processes and takes back when it must. Not
    /// part of the total.
    pub mapped_bytes: u64,
    /// Keys and values of `context_length` tokens; of fewer where a sliding window keeps fewer, of more where the end of a
    /// long-rope model's original context asks for two readings of a sequence.
    pub kv_bytes: u64,
    /// Activations of the widest pass, each thread's own memory, the tokenizer.
    pub scratch_bytes: u64,
    /// Bytes that the model may take: free memory, or what is left of the container's limit or the caller's.
    pub available_bytes: u64,
    /// The context that the plan is for, in tokens.
    pub context_length: usize,
}

impl MemoryPlan {
    /// All that the model needs, in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(self.scratch_bytes)
    }

    /// Whether it fits into what is available.
    pub fn fits(&self) -> bool {
        self.total_bytes() <= self.available_bytes
    }

    /// Refuses a plan that does not fit.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] with both figures.
    pub fn check(&self, model: &str) -> Result<()> {
        if self.fits() {
            return Ok(());
        }
        let (needed, available) = (self.total_bytes(), self.available_bytes);
        Err(Error::new(
            ErrorKind::OutOfMemory { needed, available },
            format!(
                "The model {model} needs {} MiB (weights {}, keys and values {} at a context of {}, scratch {}) and may take {} MiB.",
                mib(needed),
                mib(self.weights_bytes),
                mib(self.kv_bytes),
                self.context_length,
                mib(self.scratch_bytes),
                mib(available),
            ),
            "Use a smaller context_length=, a smaller quantisation, a larger memory=, or a machine with more.",
        ))
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// Bytes that this process may still take: the system's available memory, or less where a container or `ulimit -v` says so.
/// 0 where the system does not say, so that nothing is promised.
pub fn available_memory() -> u64 {
    let Ok(mut system) = System::new() else { return 0 };
    system.refresh_memory();
    // What a container holds in its page cache can be given back, so only its resident memory counts.
    let container =
        system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory.saturating_sub(limits.rss));
    system.available_memory().min(container).min(address_space_left(&mut system))
}

/// What `ulimit -v` leaves to this process, in bytes.
#[cfg(unix)]
fn address_space_left(system: &mut System) -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate};
    let Ok((limit, _)) = getrlimit(Resource::RLIMIT_AS) else { return u64::MAX };
    if limit == nix::libc::RLIM_INFINITY {
        return u64::MAX;
    }
    let Ok(pid) = sysinfo::get_current_pid() else { return limit };
    let kind = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kind);
    limit.saturating_sub(system.process(pid).map_or(0, sysinfo::Process::virtual_memory))
}

/// Only Unix limits the address space of a process.
#[cfg(not(unix))]
fn address_space_left(_: &mut System) -> u64 {
    u64::MAX
}

/// The most memory that this process has held, in bytes; `None` where the system does not say.
#[cfg(unix)]
pub fn peak_rss() -> Option<u64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let peak = u64::try_from(getrusage(UsageWho::RUSAGE_SELF).ok()?.max_rss()).ok()?;
    // Linux and the BSDs count KiB, Apple counts bytes.
    Some(if cfg!(target_vendor = "apple") { peak } else { peak * 1024 })
}

/// The most memory that this process has held, in bytes; `None` where the system does not say.
#[cfg(not(unix))]
pub fn peak_rss() -> Option<u64> {
    None
}

/// The physical memory that a process holds, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resident {
    /// All of it.
    pub total: u64,
    /// What belongs to this process alone and has no file behind it: copies of weights, keys and values, the heap.
    pub anonymous: u64,
    /// The part of `anonymous` in huge pages.
    pub huge: u64,
    /// The most that `total` has been since the process began or since [`forget_peak`].
    pub peak: u64,
}

impl Resident {
    /// Pages of files: the page cache keeps one copy for all processes, and the system can take them back.
    pub fn of_files(&self) -> u64 {
        self.total.saturating_sub(self.anonymous)
    }
}

/// The physical memory that this process holds; `None` where the system does not say so in Linux's way.
pub fn resident() -> Option<Resident> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(Resident {
        total: kib_field(&rollup, "Rss:")?,
        anonymous: kib_field(&rollup, "Anonymous:")?,
        huge: kib_field(&rollup, "AnonHugePages:")?,
        peak: kib_field(&status, "VmHWM:")?,
    })
}

/// Makes the present size the peak, so that what comes next has a peak of its own. False where the system does not allow it.
pub fn forget_peak() -> bool {
    // proc(5): "5" resets the process's high-water mark.
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The bytes of a line such as `Rss:   123 kB`.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: MemoryPlan = MemoryPlan {
        weights_bytes: 3 << 20,
        mapped_bytes: 9 << 20,
        kv_bytes: 2 << 20,
        scratch_bytes: 1 << 20,
        available_bytes: 6 << 20,
        context_length: 64,
    };

    #[test]
    fn a_plan_fits_up_to_the_last_byte() {
        assert!(PLAN.check("m").is_ok());
        let error = MemoryPlan { available_bytes: (6 << 20) - 1, ..PLAN }.check("m").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::OutOfMemory { needed: 6_291_456, available: 6_291_455 }));
    }

    #[test]
    fn a_plan_too_large_for_64_bits_does_not_wrap() {
        assert!(!MemoryPlan { weights_bytes: u64::MAX, ..PLAN }.fits());
    }

    #[test]
    fn this_process_has_memory() {
        assert!(available_memory() > 1 << 20);
        #[cfg(unix)]
        assert!(peak_rss().unwrap() > 1 << 20);
    }

    #[test]
    fn sizes_are_read_from_the_systems_tables() {
        let text = "00400000-7ffd ---p 00000000 00:00 0 [rollup]\nRss:            1234 kB\nAnonHugePages:     2048 kB\nBad: 1 MB\n";
        assert_eq!(kib_field(text, "Rss:"), Some(1234 * 1024));
        assert_eq!(kib_field(text, "AnonHugePages:"), Some(2 << 20));
        assert_eq!((kib_field(text, "Anonymous:"), kib_field(text, "Bad:")), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_is_written_is_anonymous_and_counts_for_the_peak() {
        const SIZE: usize = 64 << 20;
        let bytes = std::hint::black_box(vec![1_u8; SIZE]);
        let held = resident().unwrap();
        drop(bytes);
        // Other tests run beside this one, so only what must hold whatever they do.
        assert!(held.anonymous >= SIZE as u64 && held.total >= held.anonymous);
        assert!(held.peak >= SIZE as u64 && held.huge <= held.anonymous);
    }
}
