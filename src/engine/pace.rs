//! How long passes take, so that a prompt enters beside answers that are being written without holding them up.
//!
//! The sizes it chooses depend on the clock; the numbers that come out of a pass do not depend on sizes.

use std::time::Duration;

/// Tokens of prompts in the first pass beside answers, before anything is known.
const FIRST: f64 = 4.0;
/// What each prompt in a pass may add to it, as a share of a pass without them: beside one that enters, a stream's gap stays well
/// under two steps, and many that wait do not wait for few that write.
const SHARE: f64 = 0.4;
/// The weight of the newest measurement.
const NEWEST: f64 = 0.3;
/// Most answers that are told apart by their number.
const MOST_WRITERS: usize = 32;

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Seconds of a pass that only writes, by the number of answers; index 0 is not used.
    steps: Vec<Option<f64>>,
    /// Seconds that a token of a prompt adds to a pass, in the sizes that there were.
    token: Option<f64>,
}

impl Pace {
    /// Seconds of a pass in which `writers` answers get a token, or fewer do.
    fn step(&self, writers: usize) -> Option<f64> {
        let known = self.steps.iter().take(writers.min(MOST_WRITERS) + 1);
        known.rev().find_map(|step| *step)
    }

    /// Tokens of `readers` prompts together for a pass in which `writers` answers get a token each, at most `most`.
    pub(super) fn slice(&self, writers: usize, readers: usize, most: usize) -> usize {
        let each = match (self.step(writers), self.token) {
            (Some(step), Some(token)) if token > 0.0 => SHARE * step / token,
            _ => FIRST,
        };
        ((each * readers as f64) as usize).clamp(1, most.max(1))
    }

    /// How long a pass of so many answers and tokens of prompts takes, as far as that is known.
    pub(super) fn expected(&self, writers: usize, tokens: usize) -> Option<Duration> {
        let step = if writers > 0 { self.step(writers)? } else { 0.0 };
        let prompts = if tokens > 0 { self.token? * tokens as f64 } else { 0.0 };
        Duration::try_from_secs_f64(step + prompts).ok()
    }

    /// Takes note of a pass.
    pub(super) fn note(&mut self, writers: usize, tokens: usize, took: Duration) {
        let took = took.as_secs_f64();
        if tokens == 0 {
            let writers = writers.min(MOST_WRITERS);
            self.steps.resize(self.steps.len().max(writers + 1), None);
            let step = &mut self.steps[writers];
            *step = Some(mixed(*step, took));
        } else if let Some(step) = if writers > 0 { self.step(writers) } else { Some(0.0) } {
            self.token = Some(mixed(self.token, (took - step).max(0.0) / tokens as f64));
        }
    }
}

fn mixed(known: Option<f64>, newest: f64) -> f64 {
    known.map_or(newest, |known| known + NEWEST * (newest - known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_slice_adds_less_than_a_step() {
        let mut pace = Pace::default();
        assert_eq!((pace.slice(1, 1, 512), pace.slice(1, 1, 3), pace.expected(1, 0)), (4, 3, None));
        pace.note(1, 0, ms(100));
        assert_eq!(pace.slice(1, 1, 512), 4);
        for _ in 0..50 {
            let slice = pace.slice(1, 1, 512);
            // Ten milliseconds for each token.
            pace.note(1, slice, ms(100 + 10 * slice as u64));
        }
        assert!((3..=4).contains(&pace.slice(1, 1, 512)), "{}", pace.slice(1, 1, 512));
        assert!((3..=4).contains(&pace.slice(5, 1, 512)), "more answers take no less");
        assert!((55..=60).contains(&pace.slice(1, 15, 512)), "many that wait get more together");
        assert_eq!(pace.slice(1, 15, 32), 32);
        pace.note(4, 0, ms(200));
        assert!((8..=8).contains(&pace.slice(4, 1, 512)));
        assert!((3..=4).contains(&pace.slice(3, 1, 512)));
        let expected = pace.expected(1, 100).unwrap();
        assert!((ms(1050)..ms(1150)).contains(&expected), "{expected:?}");
    }

    #[test]
    fn a_token_that_costs_nothing_is_no_division_by_it() {
        let mut pace = Pace::default();
        pace.note(1, 0, ms(100));
        pace.note(1, 8, ms(90));
        assert_eq!(pace.slice(1, 1, 512), 4);
        assert_eq!(pace.expected(0, 8), Some(ms(0)));
    }
}
