//! How long passes take, so that a prompt enters beside answers that are being written without holding them up.
//!
//! The sizes it chooses depend on the clock; the numbers that come out of a pass do not depend on sizes.

use std::time::Duration;

/// Tokens of a prompt in its first pass beside answers, before anything is known. Here and below: tokens through the whole model;
/// more of them through some of the layers count as so many fewer.
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Tokens of answers, guesses included.
    pub(super) written: usize,
    /// Tokens of prompts, in tokens through the whole model.
    pub(super) read: f64,
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

    /// What a pass in which `writers` answers get a token each may compute of `readers` prompts together, at most `most`: in tokens
    /// through the whole model.
    pub(super) fn work(&self, writers: usize, readers: usize, most: f64) -> f64 {
        let share = readers as f64;
        let work = match (self.step(writers), self.beside.token().or(self.alone)) {
            (Some(step), Some(token)) if token > 0.0 => {
                let left = (SHARE * share * step - self.beside.fixed).max(LEAST * share * step);
                let before = self.last.map_or(0.0, |(load, _)| load.read);
                let work = (left / token).min(GROWTH * before.max(FIRST * share)).max(1.0);
                if self.turn % HALVED == HALVED - 1 { work / 2.0 } else { work }
            }
            _ => FIRST * share,
        };
        work.min(most)
    }

    /// How long a pass takes, as far as that is known.
    pub(super) fn expected(&self, Load { written, read }: Load) -> Option<Duration> {
        let seconds = match (written, read) {
            (0, _) => self.alone.or(self.beside.token())? * read,
            _ if read == 0.0 => self.step(written)?,
            _ => self.step(written)? + self.beside.fixed + self.beside.token()? * read,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Takes note of a pass.
    pub(super) fn note(&mut self, load: Load, took: Duration) {
        let took = took.as_secs_f64();
        let Load { written, read } = load;
        if written == 0 {
            self.alone = Some(mixed(self.alone, took / read.max(1.0)));
        } else {
            self.turn = self.turn.wrapping_add(1);
            if let Some((before, seconds)) = self.last.filter(|(before, _)| before.written == written) {
                self.beside.differ(read - before.read, took - seconds);
            }
            if read == 0.0 {
                let written = written.min(MOST_WRITERS);
                self.steps.resize(self.steps.len().max(written + 1), None);
                self.steps[written] = Some(mixed(self.steps[written], took));
            } else {
                let tokens = self.beside.token().zip(self.step(written));
                if let Some((token, step)) = tokens {
                    let fixed = (took - step - token * read).max(0.0);
                    self.beside.fixed = mixed(Some(self.beside.fixed), fixed);
                }
            }
        }
        self.last = Some((load, took));
    }
}

impl Beside {
    /// Takes note of a pass with so many tokens more than the one before, which took so many seconds more. One that says something
    /// else altogether than those before is half believed: the machine became slower or faster between the two.
    fn differ(&mut self, tokens: f64, seconds: f64) {
        if tokens == 0.0 {
            return;
        }
        let mut token = seconds / tokens;
        if let Some(known) = self.token().filter(|&known| known > 0.0) {
            token = token.clamp(known / 2.0, known * 2.0);
        }
        self.tokens_squared = KEPT * self.tokens_squared + tokens * tokens;
        self.tokens_seconds = KEPT * self.tokens_seconds + token * tokens * tokens;
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

    fn load(written: usize, read: f64) -> Load {
        Load { written, read }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn prompts_add_less_than_a_step() {
        let mut pace = Pace::default();
        assert_eq!((pace.work(1, 1, 512.0), pace.work(1, 1, 3.0)), (4.0, 3.0));
        assert_eq!(pace.expected(load(1, 0.0)), None);
        pace.note(load(1, 0.0), ms(100));
        assert_eq!(pace.work(1, 1, 512.0), 4.0);
        for _ in 0..50 {
            let work = pace.work(1, 1, 512.0);
            // Ten milliseconds for each token.
            pace.note(load(1, work), Duration::from_secs_f64(0.1 + 0.01 * work));
        }
        assert!((3.9..4.1).contains(&pace.work(1, 1, 512.0)), "{}", pace.work(1, 1, 512.0));
        assert!((3.9..4.1).contains(&pace.work(5, 1, 512.0)), "more answers take no less");
        assert!((59.0..61.0).contains(&pace.work(1, 15, 512.0)), "many that wait get more together");
        assert_eq!(pace.work(1, 15, 32.0), 32.0);
        pace.note(load(4, 0.0), ms(200));
        assert!((7.9..8.1).contains(&pace.work(4, 1, 512.0)));
        assert!((3.9..4.1).contains(&pace.work(3, 1, 512.0)));
        let expected = pace.expected(load(1, 100.0)).unwrap();
        assert!((ms(1050)..ms(1150)).contains(&expected), "{expected:?}");
    }

    #[test]
    fn a_token_that_costs_nothing_is_no_division_by_it() {
        let mut pace = Pace::default();
        pace.note(load(1, 0.0), ms(100));
        pace.note(load(1, 8.0), ms(90));
        assert_eq!(pace.work(1, 1, 512.0), 4.0);
        assert_eq!(pace.expected(load(0, 8.0)), Some(ms(0)));
    }

    /// What passes compute of a prompt of `tokens` tokens beside one answer, and the milliseconds that they take: 100 for a step, and
    /// so many microseconds more for each token of the prompt and each that is there. The machine may be slower than when the
    /// step was measured.
    fn passes(tokens: f64, token: f64, key: f64, slower: f64) -> (Vec<f64>, Vec<f64>) {
        let mut pace = Pace::default();
        pace.note(load(1, 0.0), ms(100));
        let (mut there, mut works, mut times) = (0.0, Vec::new(), Vec::new());
        while there < tokens {
            let work = pace.work(1, 1, 128.0).min(tokens - there);
            let took = 100.0 + slower + (token * work + key * there) / 1000.0;
            pace.note(load(1, work), Duration::from_secs_f64(took / 1000.0));
            there += work;
            works.push(work);
            times.push(took);
        }
        (works, times)
    }

    #[test]
    fn what_is_there_of_a_prompt_takes_time_too() {
        let (works, times) = passes(2000.0, 5000.0, 15.0, 0.0);
        assert!(times.iter().all(|&took| took < 165.0), "{times:?}");
        // 40 ms at first, and 25 ms at the end.
        assert!(works.len() < 400, "{} passes", works.len());
        let last = works[works.len() - 20];
        assert!((4.0..=6.0).contains(&last), "{works:?}");
    }

    #[test]
    fn a_long_prompt_comes_to_its_end() {
        // At its end, what is there takes twice as long as a step.
        let (works, _) = passes(10_000.0, 5000.0, 20.0, 0.0);
        assert!(works.len() < 2800, "{} passes", works.len());
    }

    #[test]
    fn a_slower_machine_is_no_reason_to_read_one_by_one() {
        let (works, _) = passes(2000.0, 5000.0, 15.0, 50.0);
        assert!(works.len() < 700, "{} passes", works.len());
    }

    #[test]
    fn a_machine_that_becomes_slower_says_little_of_tokens() {
        let mut pace = Pace::default();
        for pass in 0..200 {
            let work = if pass == 0 { 0.0 } else { pace.work(1, 1, 128.0) };
            let slower = if pass % 40 < 20 { 1.0 } else { 1.6 };
            let took = slower * (0.1 + 0.01 * work);
            pace.note(load(1, work), Duration::from_secs_f64(took));
            let token = pace.beside.token().unwrap_or(0.01);
            assert!((0.004..0.025).contains(&token), "{token} in pass {pass}");
        }
    }

    #[test]
    fn one_cheap_pass_is_not_followed_by_a_huge_one() {
        let mut pace = Pace::default();
        pace.note(load(1, 0.0), ms(100));
        pace.note(load(1, 4.0), ms(101));
        assert_eq!(pace.work(1, 1, 512.0), 8.0);
    }

    #[test]
    fn guesses_make_no_step_longer() {
        let mut pace = Pace::default();
        pace.note(load(5, 0.0), ms(150));
        assert_eq!(pace.expected(load(1, 0.0)), Some(ms(150)), "nothing else is known");
        pace.note(load(1, 0.0), ms(100));
        pace.note(load(4, 0.0), ms(140));
        assert_eq!(pace.expected(load(1, 0.0)), Some(ms(100)));
    }
}
