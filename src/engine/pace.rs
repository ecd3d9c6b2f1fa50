//! How long passes take, so that a prompt enters beside answers that are being written without holding them up.
//!
//! The sizes it chooses depend on the clock; the numbers that come out of a pass do not depend on sizes.

use std::time::Duration;

/// Tokens of a prompt in its first pass beside answers, before anything is known.
const FIRST: f64 = 4.0;
/// What each prompt in a pass may add to it, as a share of a pass without them: beside one that enters, a stream's gap stays well
/// under two steps, and many that wait do not wait for few that write.
const SHARE: f64 = 0.4;
/// What the tokens of each may add in any case. What a prompt adds whatever its tokens, as its keys and values are read in each
/// pass, grows with it; it has to come to its end all the same.
const LEAST: f64 = 0.25;
/// By how much a slice may be larger than the one before: that one may have seemed cheap by chance.
const GROWTH: f64 = 2.0;
/// One slice of so many is half as large, for what tokens cost shows in the difference.
const HALVED: u32 = 8;
/// The weight of the newest measurement.
const NEWEST: f64 = 0.3;
/// What is left of the weight of a difference with the next one.
const KEPT: f64 = 0.95;
/// Most answers that are told apart by their number.
const MOST_WRITERS: usize = 32;

/// What goes through the model in one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Tokens of answers, guesses included.
    pub(super) written: usize,
    /// Tokens of prompts.
    pub(super) read: usize,
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Seconds of a pass that only writes, by its tokens; index 0 is not used.
    steps: Vec<Option<f64>>,
    /// Seconds of a token of a prompt beside nothing else, in the sizes that there were.
    alone: Option<f64>,
    beside: Beside,
    /// Passes that wrote.
    turn: u32,
    last: Option<(Load, f64)>,
}

/// What prompts add to passes that write.
#[derive(Debug, Default)]
struct Beside {
    /// Differences from one pass to the next with as many answers, squares and products, the newest of which weigh most.
    tokens_squared: f64,
    tokens_seconds: f64,
    /// Seconds that were added whatever the tokens.
    fixed: f64,
}

impl Pace {
    /// Seconds of a pass in which `written` answers get a token, or fewer do; or more, where that is all that is known.
    fn step(&self, written: usize) -> Option<f64> {
        let (less, more) = self.steps.split_at(self.steps.len().min(written.min(MOST_WRITERS) + 1));
        less.iter().rev().chain(more).find_map(|step| *step)
    }

    /// Tokens of `readers` prompts together for a pass in which `writers` answers get a token each, at most `most`. Now and then
    /// there are none: where one is all that there may be, half of it.
    pub(super) fn slice(&self, writers: usize, readers: usize, most: usize) -> usize {
        let share = readers as f64;
        let tokens = match (self.step(writers), self.beside.token().or(self.alone)) {
            (Some(step), Some(token)) if token > 0.0 => {
                let left = (SHARE * share * step - self.beside.fixed).max(LEAST * share * step);
                let before = self.last.map_or(0.0, |(load, _)| load.read as f64);
                let tokens = (left / token).min(GROWTH * before.max(FIRST * share));
                // Rounding costs no token.
                let tokens = (1.001 * tokens).max(1.0).floor();
                if self.turn % HALVED == HALVED - 1 { (tokens / 2.0).floor() } else { tokens }
            }
            _ => FIRST * share,
        };
        (tokens as usize).min(most.max(1))
    }

    /// How long a pass takes, as far as that is known.
    pub(super) fn expected(&self, Load { written, read }: Load) -> Option<Duration> {
        let seconds = match (written, read) {
            (0, _) => self.alone.or(self.beside.token())? * read as f64,
            (_, 0) => self.step(written)?,
            _ => self.step(written)? + self.beside.fixed + self.beside.token()? * read as f64,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Takes note of a pass.
    pub(super) fn note(&mut self, load: Load, took: Duration) {
        let took = took.as_secs_f64();
        let Load { written, read } = load;
        if written == 0 {
            self.alone = Some(mixed(self.alone, took / read.max(1) as f64));
        } else {
            self.turn = self.turn.wrapping_add(1);
            if let Some((before, seconds)) = self.last.filter(|(before, _)| before.written == written) {
                self.beside.differ(read as f64 - before.read as f64, took - seconds);
            }
            if read == 0 {
                let written = written.min(MOST_WRITERS);
                self.steps.resize(self.steps.len().max(written + 1), None);
                self.steps[written] = Some(mixed(self.steps[written], took));
            } else {
                let tokens = self.beside.token().zip(self.step(written));
                if let Some((token, step)) = tokens {
                    let fixed = (took - step - token * read as f64).max(0.0);
                    self.beside.fixed = mixed(Some(self.beside.fixed), fixed);
                }
            }
        }
        self.last = Some((load, took));
    }
}

impl Beside {
    /// Takes note of a pass with so many tokens more than the one before, which took so many seconds more.
    fn differ(&mut self, tokens: f64, seconds: f64) {
        if tokens != 0.0 {
            self.tokens_squared = KEPT * self.tokens_squared + tokens * tokens;
            self.tokens_seconds = KEPT * self.tokens_seconds + tokens * seconds;
        }
    }

    /// Seconds that a token adds, if that is known.
    fn token(&self) -> Option<f64> {
        (self.tokens_squared > 0.0).then(|| (self.tokens_seconds / self.tokens_squared).max(0.0))
    }
}

fn mixed(known: Option<f64>, newest: f64) -> f64 {
    known.map_or(newest, |known| known + NEWEST * (newest - known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(written: usize, read: usize) -> Load {
        Load { written, read }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_slice_adds_less_than_a_step() {
        let mut pace = Pace::default();
        assert_eq!((pace.slice(1, 1, 512), pace.slice(1, 1, 3)), (4, 3));
        assert_eq!(pace.expected(load(1, 0)), None);
        pace.note(load(1, 0), ms(100));
        assert_eq!(pace.slice(1, 1, 512), 4);
        for _ in 0..50 {
            let slice = pace.slice(1, 1, 512);
            // Ten milliseconds for each token.
            pace.note(load(1, slice), ms(100 + 10 * slice as u64));
        }
        assert!((3..=4).contains(&pace.slice(1, 1, 512)), "{}", pace.slice(1, 1, 512));
        assert!((3..=4).contains(&pace.slice(5, 1, 512)), "more answers take no less");
        assert!((55..=60).contains(&pace.slice(1, 15, 512)), "many that wait get more together");
        assert_eq!(pace.slice(1, 15, 32), 32);
        pace.note(load(4, 0), ms(200));
        assert!((8..=8).contains(&pace.slice(4, 1, 512)));
        assert!((3..=4).contains(&pace.slice(3, 1, 512)));
        let expected = pace.expected(load(1, 100)).unwrap();
        assert!((ms(1050)..ms(1150)).contains(&expected), "{expected:?}");
    }

    #[test]
    fn a_token_that_costs_nothing_is_no_division_by_it() {
        let mut pace = Pace::default();
        pace.note(load(1, 0), ms(100));
        pace.note(load(1, 8), ms(90));
        assert_eq!(pace.slice(1, 1, 512), 4);
        assert_eq!(pace.expected(load(0, 8)), Some(ms(0)));
    }

    /// Slices of a prompt of `tokens` tokens beside one answer: 100 ms for a step, and so many microseconds more for each token of
    /// the slice and each that is there. The machine may be slower than when the step was measured.
    fn slices(tokens: usize, token: u64, key: u64, slower: u64) -> (Vec<usize>, Vec<u64>) {
        let mut pace = Pace::default();
        pace.note(load(1, 0), ms(100));
        let (mut there, mut sizes, mut times) = (0, Vec::new(), Vec::new());
        while there < tokens {
            let slice = pace.slice(1, 1, 128).min(tokens - there);
            let took = 100_000 + 1000 * slower + token * slice as u64 + key * there as u64;
            pace.note(load(1, slice), Duration::from_micros(took));
            there += slice;
            sizes.push(slice);
            times.push(took / 1000);
        }
        (sizes, times)
    }

    #[test]
    fn what_is_there_of_a_prompt_takes_time_too() {
        let (sizes, times) = slices(2000, 5000, 15, 0);
        assert!(times.iter().all(|&took| took < 165), "{times:?}");
        // 40 ms at first, and 25 ms at the end.
        assert!(sizes.len() < 400, "{} passes", sizes.len());
        let last = sizes[sizes.len() - 20];
        assert!((4..=6).contains(&last), "{sizes:?}");
    }

    #[test]
    fn a_long_prompt_comes_to_its_end() {
        // At its end, what is there takes twice as long as a step.
        let (sizes, _) = slices(10_000, 5000, 20, 0);
        assert!(sizes.len() < 2800, "{} passes", sizes.len());
    }

    #[test]
    fn a_slower_machine_is_no_reason_to_read_one_by_one() {
        let (sizes, _) = slices(2000, 5000, 15, 50);
        assert!(sizes.len() < 700, "{} passes", sizes.len());
    }

    #[test]
    fn one_cheap_slice_is_not_followed_by_a_huge_one() {
        let mut pace = Pace::default();
        pace.note(load(1, 0), ms(100));
        pace.note(load(1, 4), ms(101));
        assert_eq!(pace.slice(1, 1, 512), 8);
    }

    #[test]
    fn guesses_make_no_step_longer() {
        let mut pace = Pace::default();
        pace.note(load(5, 0), ms(150));
        assert_eq!(pace.expected(load(1, 0)), Some(ms(150)), "nothing else is known");
        pace.note(load(1, 0), ms(100));
        pace.note(load(4, 0), ms(140));
        assert_eq!(pace.expected(load(1, 0)), Some(ms(100)));
    }
}
