//! Patience: which failures are tried again, how often, and after what wait.

use std::time::Duration;

use super::faults::Fault;
use super::job::Job;
use super::options::Settings;

/// Counts the tries of one request or one download.
pub(super) struct Tries<'a> {
    settings: &'a Settings,
    job: &'a Job,
    limit: u32,
    made: u32,
}

impl<'a> Tries<'a> {
    /// At most `limit` tries.
    pub(super) fn new(settings: &'a Settings, job: &'a Job, limit: u32) -> Self {
        Self { settings, job, limit: limit.max(1), made: 0 }
    }

    /// Tries made so far.
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// Starts counting anew: the last try got somewhere.
    pub(super) fn refresh(&mut self) {
        self.made = 0;
    }

    /// After a failed try: waits for the next one, or gives the fault back when there is none.
    /// `connected`: whether the hub was reached a moment ago, so that an unreachable one may come back.
    pub(super) fn again(&mut self, fault: Fault, connected: bool) -> Result<(), Fault> {
        self.made += 1;
        let asked = match &fault {
            Fault::Passing { after, .. } => *after,
            Fault::Unreachable { .. } if connected => None,
            Fault::Unreachable { .. } | Fault::Missing | Fault::Final(_) => return Err(fault),
        };
        if self.made >= self.limit {
            return Err(fault);
        }
        let wait = asked.unwrap_or_else(|| self.backoff()).min(self.settings.longest_wait);
        log::info!(
            "{}; try {} of {} in {:.1} s.",
            fault.describe(),
            self.made + 1,
            self.limit,
            wait.as_secs_f64()
        );
        self.job.sleep(wait)?;
        Ok(())
    }

    /// Doubles with each try; a random half keeps many clients from returning at the same moment.
    fn backoff(&self) -> Duration {
        let doubled = self.settings.backoff.saturating_mul(1 << self.made.saturating_sub(1).min(16));
        doubled.mul_f64(rand::random_range(0.5..1.0))
    }
}

/// Makes one request until it succeeds, `limit` times at most.
pub(super) fn request<T>(
    settings: &Settings,
    job: &Job,
    limit: u32,
    mut once: impl FnMut() -> Result<T, Fault>,
) -> Result<T, (Fault, u32)> {
    let mut tries = Tries::new(settings, job, limit);
    loop {
        let fault = match job.check() {
            Ok(()) => match once() {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            },
            Err(stopped) => Fault::Final(stopped),
        };
        if let Err(fault) = tries.again(fault, false) {
            return Err((fault, tries.made()));
        }
    }
}
