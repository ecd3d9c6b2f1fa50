//! Texts that outgrow the original context of a long-rope model, pass by pass.

use super::*;
use crate::engine::step::step;
use crate::model::Factors::{Long, Short};

const BORDER: usize = 128;

/// A run: slot, factors, the first position, tokens, rows of logits.
type Seen = (usize, Factors, usize, usize, usize);

/// Says the alphabet, and keeps two readings of each slot.
struct TwoReadings {
    limits: Limits,
    /// By slot: what was read with short factors, and with long ones.
    read: Vec<[Vec<u32>; 2]>,
    /// The runs of each pass.
    passes: Vec<Vec<Seen>>,
    /// The most tokens held at once.
    most: usize,
}

impl TwoReadings {
    fn new(slots: usize) -> Self {
        let limits = Limits {
            slots,
            run_tokens: 64,
            layers: 1,
            context_length: 1024,
            kv_tokens: 1024,
            vocab_size: 30,
            original_context: Some(BORDER),
            kept_tokens: None,
            rewinds: true,
            shares: false,
        };
        Self { limits, read: vec![Default::default(); slots], passes: Vec::new(), most: 0 }
    }
}

impl Forward for TwoReadings {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn forward(&mut self, batch: &Batch, logits: &mut Logits, _: &dyn Fn() -> bool) -> Result<bool> {
        logits.reset(self.limits.vocab_size);
        for run in &batch.runs {
            let read = &mut self.read[run.slot][usize::from(run.factors == Long)];
            assert!(run.start <= read.len(), "{run:?} leaves a gap");
            read.truncate(run.start);
            read.extend(&run.tokens);
            if run.logit_rows() > 0 {
                assert_eq!(run.logit_rows(), 1);
                assert_eq!(run.factors, if read.len() > BORDER { Long } else { Short });
                let letter = *read.last().unwrap() as usize;
                logits.push_row()[(letter + 1) % 26] = 10.0;
            }
        }
        let runs = batch.runs.iter();
        self.passes.push(
            runs.map(|run| (run.slot, run.factors, run.start, run.tokens.len(), run.logit_rows())).collect(),
        );
        let held = self.read.iter().flatten().map(|read| read.len().next_multiple_of(64)).sum();
        self.most = self.most.max(held);
        Ok(true)
    }

    fn release(&mut self, slot: usize) {
        self.read[slot] = Default::default();
    }

    fn forget(&mut self, slot: usize, factors: Factors) {
        self.read[slot][usize::from(factors == Long)].clear();
    }

    fn kv_bytes(&self, _: usize) -> u64 {
        0
    }

    fn cache(&mut self) -> Option<&mut dyn BlockCache> {
        None
    }
}

/// A sequence that reads `prompt` tokens and writes `answer`.
fn sequence(limits: Limits, prompt: usize, answer: usize) -> (Sequence, EventStream) {
    let (events, stream) = event::channel();
    let start = Start {
        prompt: (0..prompt).map(|position| (position % 26) as u32).collect(),
        params: SamplingParams {
            temperature: 0.0,
            repeat_penalty: 1.0,
            max_tokens: Some(answer),
            ..SamplingParams::default()
        },
        scores: None,
        guesses: true,
        seed: 0,
        end_of_turn: BTreeSet::new(),
        tokenizer: Arc::new(tokenizer()),
        limits,
        load: Duration::ZERO,
        events,
        ticket: Ticket::take(&Arc::default(), 1).unwrap(),
    };
    (Sequence::new(start), stream)
}

/// Runs sequences of so many tokens of prompt and answer, all at once, and checks that each says the alphabet on.
fn run(sequences: &[(usize, usize)]) -> TwoReadings {
    let mut model = TwoReadings::new(sequences.len());
    let mut scheduler = Scheduler::new(model.limits, true);
    let mut streams = Vec::new();
    for &(prompt, answer) in sequences {
        let (sequence, stream) = sequence(model.limits, prompt, answer);
        scheduler.push(sequence);
        streams.push(stream);
    }
    let mut logits = Logits::default();
    while !scheduler.is_idle() {
        let progress = step(&mut scheduler, &mut model, &mut logits, &|_| false);
        progress.ended.into_iter().for_each(super::super::step::Ended::tell);
    }
    for (stream, &(prompt, answer)) in streams.iter().zip(sequences) {
        let expected: String =
            (prompt..prompt + answer).map(|position| char::from(b'a' + (position % 26) as u8)).collect();
        assert_eq!(read(stream).0, expected);
    }
    model
}

/// Tokens of a pass.
fn tokens(pass: &[Seen]) -> usize {
    pass.iter().map(|&(_, _, _, tokens, _)| tokens).sum()
}

#[test]
fn a_text_is_read_again_in_time_and_the_pass_that_crosses_has_one_token() {
    let model = run(&[(10, 300)]);
    // The prompt, then one token more in each pass.
    assert_eq!(model.passes.len(), 300);
    let crossing = model.passes.iter().position(|pass| pass.contains(&(0, Long, BORDER, 1, 1))).unwrap();
    assert_eq!(crossing, BORDER + 1 - 10);
    assert!(model.passes[crossing..].iter().all(|pass| tokens(pass) == 1 && pass[0].1 == Long));
    // As late as four tokens a pass allow.
    let first = model.passes.iter().position(|pass| pass.len() > 1).unwrap();
    assert_eq!(crossing - first, BORDER / 4);
    assert!(model.passes[first..crossing].iter().all(|pass| tokens(pass) == 5));
}

#[test]
fn a_text_that_ends_within_its_original_context_is_read_once() {
    for (prompt, answer) in [(10, BORDER - 9), (BORDER, 1), (1, 1), (BORDER - 1, 2)] {
        let model = run(&[(prompt, answer)]);
        assert!(model.passes.iter().flatten().all(|&(_, factors, ..)| factors == Short));
    }
}

#[test]
fn a_prompt_beyond_it_is_read_with_long_factors_from_the_first_position() {
    let model = run(&[(BORDER + 1, 3)]);
    assert!(model.passes.iter().flatten().all(|&(_, factors, ..)| factors == Long));
    assert_eq!(model.passes.iter().map(|pass| tokens(pass)).collect::<Vec<_>>(), [64, 64, 1, 1, 1]);
}

#[test]
fn a_prompt_that_ends_at_the_border_is_read_again_at_once_when_alone() {
    let model = run(&[(BORDER, 3)]);
    let sizes: Vec<_> = model.passes.iter().map(|pass| (pass[0].1, tokens(pass))).collect();
    assert_eq!(sizes, [(Short, 64), (Short, 64), (Long, 64), (Long, 64), (Long, 1), (Long, 1)]);
}

#[test]
fn neighbours_write_in_every_pass_of_one_that_reads_again() {
    let model = run(&[(5, 100), (BORDER, 20)]);
    let again: Vec<_> =
        model.passes.iter().filter(|pass| pass.iter().any(|run| run.0 == 1 && run.1 == Long)).collect();
    assert!(again.len() > BORDER / 8);
    let beside: Vec<_> = again.iter().filter(|pass| pass.len() > 1).collect();
    assert!(beside.iter().all(|pass| pass[0].0 == 0 && pass[0].4 == 1 && tokens(pass) <= 1 + 8));
}

#[test]
fn many_texts_that_cross_together_hold_no_pass_up() {
    for slots in 2..=4 {
        let model = run(&vec![(20, 130); slots]);
        let steady = model.passes.iter().filter(|pass| pass.iter().all(|run| run.2 > 20));
        assert!(steady.clone().count() > 100);
        assert!(steady.map(|pass| tokens(pass)).all(|tokens| tokens <= 3 * slots));
    }
}

/// Tokens that a sequence holds at most.
fn most_tokens(sequence: &Sequence) -> usize {
    sequence.held(sequence.most_text())
}

#[test]
fn what_every_length_takes_is_what_was_counted_for_it() {
    for prompt in (1..=BORDER + 70).step_by(9) {
        for answer in [1, 2, 64, 65, 128, 130, 260] {
            let (sequence, _stream) = sequence(TwoReadings::new(1).limits, prompt, answer);
            let model = run(&[(prompt, answer)]);
            assert!(model.most <= most_tokens(&sequence), "{prompt} and {answer}: {}", model.most);
        }
    }
    // Both readings in full, before the first one goes.
    let limits = TwoReadings::new(1).limits;
    assert_eq!(most_tokens(&sequence(limits, 10, 119).0), 192);
    assert_eq!(most_tokens(&sequence(limits, 10, 120).0), 2 * BORDER);
    assert_eq!(most_tokens(&sequence(limits, 129, 1).0), 192);
    assert_eq!(most_tokens(&sequence(Limits { kept_tokens: Some(64), ..limits }, 10, 300).0), 128);
}

#[test]
fn one_that_leaves_while_it_reads_again_takes_nothing_with_it() {
    for passes in [3, 60, 100, 115, 119, 121] {
        let mut model = TwoReadings::new(2);
        let mut scheduler = Scheduler::new(model.limits, true);
        let (leaves, leaving) = sequence(model.limits, 10, 300);
        let (stays, staying) = sequence(model.limits, 12, 140);
        scheduler.push(leaves);
        scheduler.push(stays);
        let mut logits = Logits::default();
        for pass in 0.. {
            if pass == passes {
                leaving.cancel();
            }
            let progress = step(&mut scheduler, &mut model, &mut logits, &|_| false);
            progress.ended.into_iter().for_each(super::super::step::Ended::tell);
            if pass == passes {
                assert!(model.read[0].iter().all(Vec::is_empty));
            }
            if scheduler.is_idle() {
                break;
            }
        }
        assert_eq!(finish(read(&leaving).1).reason, FinishReason::Cancelled);
        let expected: String = (12..152).map(|position| char::from(b'a' + (position % 26) as u8)).collect();
        assert_eq!(read(&staying).0, expected);
        assert!(model.read.iter().flatten().all(Vec::is_empty));
    }
}
