//! What the machine is, and what it can do at most.

use serde_json::{Value, json};
use sysinfo::{CpuRefreshKind, RefreshKind, System};

use super::samples::Samples;
use super::work::Peaks;
use crate::error::Result;
use crate::kernels::{CpuInfo, Isa, Rates, measure_rates};
use crate::model::available_memory;

/// Bytes that the read bandwidth is measured on: more than any cache holds.
const READ_BYTES: u64 = 2 << 30;

/// Facts about the machine.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) tier: Isa,
    /// Threads that this process may run at once.
    pub(super) threads: usize,
    cores: Option<usize>,
    memory: u64,
}

impl Machine {
    /// # Errors
    /// Those of [`CpuInfo::detect`].
    pub(super) fn look() -> Result<Self> {
        let info = CpuInfo::detect()?;
        let kinds = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
        let system = System::new_with_specifics(kinds).ok();
        let brand = system.as_ref().and_then(|system| Some(system.cpus().first()?.brand().trim().to_owned()));
        let memory = System::new().map_or(0, |mut system| {
            system.refresh_memory();
            system.total_memory()
        });
        Ok(Self {
            cpu: brand
                .filter(|brand| !brand.is_empty())
                .unwrap_or_else(|| format!("a CPU of the kind {}", info.arch)),
            tier: info.tier,
            threads: info.threads,
            cores: System::physical_core_count().ok(),
            memory,
        })
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "tier": self.tier.name(),
            "threads": self.threads,
            "cores": self.cores,
            "memory_bytes": self.memory,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
        })
    }

    /// Measures the limits with each number of threads.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`](crate::ErrorKind::OutOfMemory) when there is none for the buffer.
    pub(super) fn limits(&self, threads: &[usize], mut say: impl FnMut(String)) -> Result<Limits> {
        let bytes = READ_BYTES.min(available_memory() / 4);
        let measure = |&threads: &usize| {
            say(format!("the machine's limits, {threads} threads"));
            measure_rates(self.tier, threads, bytes as usize).map(Limit::new)
        };
        Ok(Limits(threads.iter().map(measure).collect::<Result<_>>()?))
    }
}

/// What a number of threads can do: some passes of each kind, per second.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    pub(super) threads: usize,
    pub(super) bandwidth: Samples,
    pub(super) int8: Samples,
    pub(super) f32: Samples,
}

impl Limit {
    fn new(rates: Rates) -> Self {
        Self {
            threads: rates.threads,
            bandwidth: rates.bandwidth.into_iter().collect(),
            int8: rates.int8.into_iter().collect(),
            f32: rates.f32.into_iter().collect(),
        }
    }

    /// The best of each.
    pub(super) fn peaks(&self) -> Peaks {
        Peaks { bandwidth: self.bandwidth.longest(), int8: self.int8.longest(), f32: self.f32.longest() }
    }
}

/// Limits by the number of threads.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits(pub(super) Vec<Limit>);

impl Limits {
    /// The best that `threads` threads did, here or in `other`.
    pub(super) fn peaks(&self, other: &Self, threads: usize) -> Option<Peaks> {
        let of = |limits: &Self| limits.0.iter().find(|limit| limit.threads == threads).map(Limit::peaks);
        match (of(self), of(other)) {
            (Some(a), Some(b)) => Some(Peaks {
                bandwidth: a.bandwidth.max(b.bandwidth),
                int8: a.int8.max(b.int8),
                f32: a.f32.max(b.f32),
            }),
            (a, b) => a.or(b),
        }
    }

    pub(super) fn json(&self) -> Value {
        let rates = |samples: &Samples| json!({ "samples": samples.all(), "median": samples.median(), "best": samples.longest() });
        let limits = self.0.iter().map(|limit| {
            json!({
                "threads": limit.threads,
                "read_bytes_per_s": rates(&limit.bandwidth),
                "int8_ops_per_s": rates(&limit.int8),
                "f32_ops_per_s": rates(&limit.f32),
            })
        });
        limits.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_of_two_measurements_is_the_limit() {
        let limits = |bandwidth, int8| {
            let one = |rate: f64| Samples::from_iter([rate, rate / 2.0]);
            Limits(vec![Limit { threads: 2, bandwidth: one(bandwidth), int8: one(int8), f32: one(1.0) }])
        };
        let (before, after) = (limits(30.0, 900.0), limits(40.0, 800.0));
        let peaks = before.peaks(&after, 2).unwrap();
        assert_eq!(peaks, Peaks { bandwidth: 40.0, int8: 900.0, f32: 1.0 });
        assert_eq!(before.peaks(&Limits::default(), 2).unwrap().bandwidth, 30.0);
        assert_eq!(before.peaks(&after, 1), None);
    }
}
