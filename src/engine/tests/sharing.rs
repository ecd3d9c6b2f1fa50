//! Beginnings that are shared, guesses, slots that are given back: none of it changes a text.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::reader::{LETTERS, Reader, next_letter};
use super::*;
use crate::engine::step::step;
use crate::kernels::KV_BLOCK;

const LIMITS: Limits = Limits {
    slots: 4,
    run_tokens: 64,
    layers: 1,
    context_length: 512,
    kv_tokens: 2048,
    vocab_size: 30,
    original_context: None,
    kept_tokens: None,
    rewinds: true,
    shares: true,
};

/// A request, and when it comes and goes.
#[derive(Debug, Clone)]
struct Visit {
    prompt: Vec<u32>,
    params: SamplingParams,
    /// The step before which it comes.
    comes: usize,
    /// The step before which it is cancelled.
    leaves: Option<usize>,
}

impl Visit {
    fn new(prompt: Vec<u32>, answer: usize) -> Self {
        let params = SamplingParams {
            temperature: 0.0,
            repeat_penalty: 1.0,
            max_tokens: Some(answer),
            ignore_eos: true,
            ..SamplingParams::default()
        };
        Self { prompt, params, comes: 0, leaves: None }
    }
}

struct World {
    model: Reader,
    scheduler: Scheduler,
    guesses: bool,
    tokenizer: Arc<Tokenizer>,
}

impl World {
    fn new(limits: Limits, shares: bool, guesses: bool) -> Self {
        let scheduler = Scheduler::new(limits, shares);
        Self { model: Reader::new(limits), scheduler, guesses, tokenizer: Arc::new(tokenizer()) }
    }

    fn submit(&mut self, visit: &Visit) -> EventStream {
        let (events, stream) = event::channel();
        self.scheduler.push(Sequence::new(Start {
            prompt: visit.prompt.clone(),
            scores: None,
            guesses: self.guesses,
            seed: visit.params.seed.unwrap_or(0),
            params: visit.params.clone(),
            end_of_turn: BTreeSet::new(),
            tokenizer: Arc::clone(&self.tokenizer),
            limits: self.model.limits,
            load: Duration::ZERO,
            events,
            ticket: Ticket::take(&Arc::default(), 1).unwrap(),
        }));
        stream
    }

    /// Answers `visits`, which come and go step by step. The text and the last event of each.
    fn run(&mut self, visits: &[Visit]) -> Vec<(String, Event)> {
        let mut logits = Logits::default();
        let mut streams: Vec<Option<EventStream>> = visits.iter().map(|_| None).collect();
        for now in 0.. {
            for (visit, stream) in visits.iter().zip(&mut streams) {
                if visit.comes == now {
                    *stream = Some(self.submit(visit));
                }
                if let (true, Some(stream)) = (visit.leaves == Some(now), &stream) {
                    stream.cancel();
                }
            }
            let progress = step(&mut self.scheduler, &mut self.model, &mut logits, &|_| false);
            progress.ended.into_iter().for_each(super::super::step::Ended::tell);
            if self.scheduler.is_idle() && streams.iter().all(Option::is_some) {
                break;
            }
            assert!(now < 100_000, "it does not end");
        }
        streams.iter().map(|stream| read(stream.as_ref().unwrap())).collect()
    }

    /// One request alone; its usage and metrics.
    fn answer(&mut self, visit: &Visit) -> (String, Finish) {
        let (text, last) = self.run(std::slice::from_ref(visit)).remove(0);
        (text, finish(last))
    }

    fn computed(&self) -> usize {
        let layers = self.model.limits.layers;
        let through = self.model.passes.iter().flatten().filter(|run| run.depth(layers).end == layers);
        through.map(|run| run.tokens.len()).sum()
    }
}

/// What `visit` gets alone, with nothing shared and nothing guessed.
fn alone(limits: Limits, visit: &Visit) -> String {
    let visit = Visit { comes: 0, leaves: None, ..visit.clone() };
    World::new(Limits { slots: 1, run_tokens: 64, ..limits }, false, false).run(&[visit]).remove(0).0
}

fn letters(rng: &mut StdRng, count: usize) -> Vec<u32> {
    (0..count).map(|_| rng.random_range(0..LETTERS)).collect()
}

/// Requests of which many begin alike, and many repeat themselves.
fn visits(rng: &mut StdRng) -> Vec<Visit> {
    let stems: Vec<Vec<u32>> = (0..3)
        .map(|_| {
            let length = rng.random_range(1..200);
            letters(rng, length)
        })
        .collect();
    (0..rng.random_range(1..9))
        .map(|_| {
            let stem = &stems[rng.random_range(0..stems.len())];
            let mut prompt = stem[..rng.random_range(1..=stem.len())].to_vec();
            let own = rng.random_range(0..70);
            prompt.extend(letters(rng, own));
            let mut visit = Visit::new(prompt, rng.random_range(1..120));
            if rng.random_bool(0.5) {
                // Another letter than the likeliest comes once in a while.
                visit.params.temperature = 3.0;
                visit.params.seed = Some(rng.random());
            }
            visit.params.priority = rng.random_range(-1..2);
            visit.comes = rng.random_range(0..60);
            visit.leaves = rng.random_bool(0.2).then(|| visit.comes + rng.random_range(0..60));
            visit
        })
        .collect()
}

#[test]
fn a_thousand_random_schedules_give_every_request_the_text_that_it_has_alone() {
    let (mut cancelled, mut preempted, mut cached, mut guessed, mut crossed) = (0, 0, 0, 0, 0);
    let mut layered = 0;
    for seed in 0..1000 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let crosses = rng.random_bool(0.4);
        let limits = Limits {
            slots: rng.random_range(1..6),
            run_tokens: [1, 3, 7, 64, 200][rng.random_range(0..5)],
            kv_tokens: [512, 512, 768, 4096][rng.random_range(0..4)],
            layers: [1, 2, 5, 32][rng.random_range(0..4)],
            original_context: crosses.then(|| rng.random_range(20..250)),
            ..LIMITS
        };
        let visits = visits(rng);
        let (shares, guesses) = (rng.random_bool(0.8), rng.random_bool(0.8));
        let mut world = World::new(limits, shares, guesses);
        let found = world.run(&visits);
        for (number, (visit, (text, last))) in visits.iter().zip(found).enumerate() {
            let expected = alone(limits, visit);
            let last = finish(last);
            cached += last.usage.cached_tokens;
            guessed += last.metrics.accepted_guesses;
            crossed += usize::from(crosses && last.usage.total_tokens() > limits.original_context.unwrap());
            if last.reason == FinishReason::Cancelled {
                cancelled += 1;
                assert!(expected.starts_with(&text), "schedule {seed}, request {number}");
            } else {
                assert_eq!(text, expected, "schedule {seed}, request {number}: {visit:?}");
            }
        }
        preempted += world.scheduler.preempted();
        layered += world.model.passes.iter().flatten().filter(|run| run.layers.is_some()).count();
        let most = limits.kv_tokens / KV_BLOCK;
        assert!(world.model.most <= most, "schedule {seed}: {} blocks of {most}", world.model.most);
        // All that is left is kept for later, and goes when it is told to.
        if let Some(prefixes) = world.scheduler.prefixes() {
            assert_eq!(prefixes.free(), world.model.blocks());
            prefixes.clear();
        }
        assert_eq!(world.model.blocks(), 0, "schedule {seed} leaks");
    }
    // Each of these has happened often, or nothing was tested.
    let counts = [cancelled, preempted as usize, cached, guessed, crossed, layered];
    assert!(counts.iter().all(|&count| count > 300), "{counts:?}");
}

#[test]
fn a_second_prompt_is_computed_from_where_it_differs() {
    let rng = &mut StdRng::seed_from_u64(1);
    let mut world = World::new(LIMITS, true, false);
    let first = Visit::new(letters(rng, 200), 10);
    let (text, finish) = world.answer(&first);
    assert_eq!(finish.usage.cached_tokens, 0);
    // The next turn: the first prompt, its answer, and more.
    let answer = text.bytes().map(|letter| u32::from(letter - b'a'));
    let mut prompt: Vec<u32> = first.prompt.iter().copied().chain(answer).collect();
    prompt.extend(letters(rng, 20));
    let computed = world.computed();
    let (_, finish) = world.answer(&Visit::new(prompt, 1));
    assert_eq!(finish.usage.cached_tokens, 209, "all but the last token of the answer, which was not read");
    assert_eq!(world.computed() - computed, 21);
    // The very same prompt: all but its last token.
    let (_, finish) = world.answer(&first);
    assert_eq!(finish.usage.cached_tokens, 199);
    // One that parts within a block.
    let mut prompt = first.prompt[..100].to_vec();
    prompt.push((first.prompt[100] + 1) % LETTERS);
    let (_, finish) = world.answer(&Visit::new(prompt, 1));
    assert_eq!(finish.usage.cached_tokens, 100);
}

#[test]
fn a_beginning_that_several_have_is_computed_once() {
    let rng = &mut StdRng::seed_from_u64(2);
    let stem = letters(rng, 150);
    let visits: Vec<_> =
        (0..4).map(|own| Visit::new(stem.iter().copied().chain([own, own]).collect(), 5)).collect();
    let mut world = World::new(LIMITS, true, false);
    for (visit, (text, _)) in visits.iter().zip(world.run(&visits)) {
        assert_eq!(text, alone(LIMITS, visit));
    }
    // The stem once, then two tokens and four of the answer each; the tail of the stem is read from a block that goes on otherwise.
    assert_eq!(world.computed(), 150 + 4 * (2 + 4));
    // The same prompt for all.
    let same = Visit::new(letters(rng, 100), 5);
    let computed = world.computed();
    world.run(&vec![same; 4]);
    assert_eq!(world.computed() - computed, 99 + 4 * (1 + 4));
}

#[test]
fn nothing_is_shared_where_that_is_not_wanted_or_every_row_is() {
    let rng = &mut StdRng::seed_from_u64(3);
    let visit = Visit::new(letters(rng, 100), 2);
    let mut world = World::new(LIMITS, false, false);
    world.answer(&visit);
    assert_eq!(world.answer(&visit).1.usage.cached_tokens, 0);
    assert_eq!((world.scheduler.kept_bytes(), world.model.blocks()), (0, 0));
    let mut world = World::new(LIMITS, true, false);
    world.answer(&visit);
    let mut wants_rows = visit;
    wants_rows.params.prompt_logprobs = Some(0);
    let (_, finish) = world.answer(&wants_rows);
    assert_eq!((finish.usage.cached_tokens, finish.prompt_logprobs.unwrap().len()), (0, 99));
}

#[test]
fn guesses_save_passes_where_a_text_repeats_itself() {
    // Each letter depends on the two before it: after a while they come in the same order.
    let visit = Visit::new(vec![2, 4], 300);
    let mut plain = World::new(LIMITS, true, false);
    let (expected, _) = plain.answer(&visit);
    let mut world = World::new(LIMITS, true, true);
    let (text, finish) = world.answer(&visit);
    assert_eq!(text, expected);
    assert_eq!(plain.model.passes.len(), 300);
    assert_eq!(world.model.passes.len() + finish.metrics.accepted_guesses, 300);
    assert!(world.model.passes.len() < 150, "{}", world.model.passes.len());
}

#[test]
fn a_guess_does_not_lead_past_the_end_of_an_answer_or_of_the_context() {
    let limits = Limits { context_length: 120, ..LIMITS };
    for answer in [1, 2, 3, 57, 118, 200] {
        let visit = Visit::new(vec![2, 4], answer);
        let mut world = World::new(limits, true, true);
        let (text, finish) = world.answer(&visit);
        assert_eq!((text.len(), finish.usage.completion_tokens), (answer.min(118), answer.min(118)));
        let ends = world.model.passes.iter().flatten().map(|run| run.start + run.tokens.len());
        assert!(ends.max().unwrap() < 2 + answer.min(118) + 1);
    }
}

#[test]
fn when_memory_runs_out_the_last_to_come_waits_and_begins_anew() {
    let limits = Limits { kv_tokens: 256, ..LIMITS };
    let rng = &mut StdRng::seed_from_u64(4);
    let visits: Vec<_> = (0..3).map(|_| Visit::new(letters(rng, 60), 150)).collect();
    let mut world = World::new(limits, true, false);
    let found = world.run(&visits);
    for (visit, (text, last)) in visits.iter().zip(found) {
        assert_eq!((text, finish(last).reason), (alone(limits, visit), FinishReason::Length));
    }
    assert!(world.scheduler.preempted() > 0);
    assert_eq!(world.model.most, 4);
    // The first one never had to: its runs follow each other.
    let first = world
        .model
        .passes
        .iter()
        .flatten()
        .filter(|run| run.start == 0 && run.tokens[..9] == visits[0].prompt[..9]);
    assert_eq!(first.count(), 1);
}

#[test]
fn when_the_system_refuses_memory_there_is_less_at_once() {
    let rng = &mut StdRng::seed_from_u64(5);
    let visits: Vec<_> = (0..4).map(|_| Visit::new(letters(rng, 100), 30)).collect();
    let mut world = World::new(LIMITS, true, true);
    world.model.system = 5;
    for (visit, (text, _)) in visits.iter().zip(world.run(&visits)) {
        assert_eq!(text, alone(LIMITS, visit));
    }
    // One that needs more than there is, alone, is told.
    let (_, last) = world.run(&[Visit::new(letters(rng, 400), 1)]).remove(0);
    assert!(matches!(failure(last).kind(), ErrorKind::OutOfMemory { .. }));
    let (text, _) = world.answer(&visits[0]);
    assert_eq!(text, alone(LIMITS, &visits[0]), "and the next one is answered");
}

#[test]
fn higher_priority_goes_first_and_takes_a_slot() {
    let limits = Limits { slots: 1, ..LIMITS };
    let mut slow = Visit::new(vec![1; 70], 40);
    slow.params.priority = -1;
    let mut urgent = Visit { comes: 10, ..Visit::new(vec![3; 70], 5) };
    urgent.params.priority = 7;
    let normal = Visit { comes: 10, ..Visit::new(vec![5; 70], 5) };
    let visits = [slow, normal, urgent];
    let mut world = World::new(limits, true, false);
    for (visit, (text, _)) in visits.iter().zip(world.run(&visits)) {
        assert_eq!(text, alone(limits, visit));
    }
    assert_eq!(world.scheduler.preempted(), 1);
    let begun: Vec<u32> =
        world.model.passes.iter().filter(|runs| runs[0].start == 0).map(|runs| runs[0].tokens[0]).collect();
    assert_eq!(begun, [1, 3, 5], "and the first goes on from what was kept");
}

#[test]
fn a_prompt_enters_beside_answers_in_slices() {
    let writes = Visit::new(vec![1, 2], 100);
    let enters = Visit { comes: 5, ..Visit::new(vec![7; 400], 1) };
    let mut world = World::new(LIMITS, true, false);
    world.run(&[writes, enters]);
    let beside = world.model.passes.iter().filter(|runs| runs.len() == 2);
    // Every pass gives the answer a token, whatever the prompt gets.
    assert!(beside.clone().all(|runs| runs[0].tokens.len() == 1 && runs[0].logit_rows() == 1));
    assert!(beside.count() > 2);
}

#[test]
fn prompts_of_equal_priority_share_what_there_is_evenly() {
    let rng = &mut StdRng::seed_from_u64(6);
    let visits: Vec<_> = [20, 60, 100].map(|length| Visit::new(letters(rng, length), 1)).to_vec();
    let mut world = World::new(Limits { run_tokens: 30, ..LIMITS }, true, false);
    world.run(&visits);
    let sizes: Vec<Vec<usize>> =
        world.model.passes.iter().map(|runs| runs.iter().map(|run| run.tokens.len()).collect()).collect();
    assert_eq!(sizes[..4], [vec![10, 10, 10], vec![10, 10, 10], vec![15, 15], vec![15, 15]]);
}

#[test]
fn the_scripted_model_depends_on_every_token() {
    let text: Vec<u32> = (1..40).map(|position| position * 7 % LETTERS).collect();
    assert!((0..39).any(|at| {
        let mut other = text.clone();
        other[at] = (other[at] + 2) % LETTERS;
        next_letter(&other) != next_letter(&text)
    }));
}

#[test]
fn a_prompt_in_company_leaves_room_for_whoever_comes() {
    let letters: Vec<u32> = (0..400).map(|at| at % LETTERS).collect();
    let passes = |visits: &[Visit]| {
        let mut world = World::new(Limits { run_tokens: 192, ..LIMITS }, false, false);
        world.run(visits);
        let passes = world.model.passes.iter();
        passes.map(|runs| runs.iter().map(|run| run.tokens.len()).sum()).collect::<Vec<usize>>()
    };
    let visit = Visit::new(letters, 1);
    assert_eq!(passes(std::slice::from_ref(&visit)), [192, 192, 16]);
    assert_eq!(passes(&[visit.clone(), visit])[..8], [96; 8]);
}
