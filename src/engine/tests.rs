//! The engine with a scripted model: scheduling, stopping and failing, without weights.

mod crossing;
mod leaving;
mod news;
mod overflow;
mod reader;
mod scoring;
mod sharing;
mod threads;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::info::{Loaded, ModelInfo};
use super::load::Parts;
use super::scheduler::Scheduler;
use super::sequence::{Sequence, Start};
use super::ticket::Ticket;
use super::*;
use crate::gguf::{Architecture, ModelPlan, RopePlan, RopeScaling};
use crate::model::{Batch, BlockCache, Chore, Device, Factors, LOGIT_ROWS, Logits, available_memory};
use crate::sampling::SamplingParams;

const CONTEXT: usize = 64;
const RUN: usize = 4;
const SOON: Duration = Duration::from_secs(10);

/// What the scripted model does with a pass.
#[derive(Clone, Copy, PartialEq)]
enum Script {
    /// Says the alphabet, from the letter after the last token.
    Alphabet,
    /// Says the alphabet, a millisecond or so per pass.
    Slow,
    /// Gives logits that are not numbers.
    NotANumber,
    /// Fails every pass.
    Failing,
    /// Panics in every pass.
    Panicking,
    /// Says the alphabet, and cannot go back in a sequence.
    OneWay,
    /// Waits in the first pass with several sequences until it is told to stop.
    Stopped,
    /// Says the alphabet, a millisecond or so per pass, and does chores when the next pass begins.
    Late,
    /// The same, and never does a chore.
    Idle,
}

struct Scripted {
    script: Script,
    vocab_size: usize,
    /// The tokens seen in each slot, to check that positions are continuous.
    seen: Vec<Vec<u32>>,
    longest_run: Arc<AtomicUsize>,
    /// Hears when a pass waits to be stopped.
    waits: Option<Sender<()>>,
    chores: news::Chores,
}

impl Forward for Scripted {
    fn limits(&self) -> Limits {
        Limits {
            slots: self.seen.len(),
            run_tokens: RUN,
            layers: 1,
            context_length: CONTEXT,
            kv_tokens: CONTEXT * self.seen.len(),
            vocab_size: self.vocab_size,
            original_context: None,
            kept_tokens: None,
            rewinds: self.script != Script::OneWay,
            shares: false,
        }
    }

    fn forward(&mut self, batch: &Batch, logits: &mut Logits, stop: &dyn Fn() -> bool) -> Result<bool> {
        self.chores.pass();
        logits.reset(self.vocab_size);
        if batch.runs.len() > 1
            && let Some(waits) = self.waits.take()
        {
            waits.send(()).unwrap();
            while !stop() {
                std::thread::yield_now();
            }
            return Ok(false);
        }
        for run in &batch.runs {
            let seen = &mut self.seen[run.slot];
            if run.start == 0 {
                seen.clear();
            }
            assert!(run.start <= seen.len(), "positions are continuous");
            assert!(run.start == seen.len() || self.script != Script::OneWay, "no way back");
            seen.truncate(run.start);
            seen.extend(&run.tokens);
            self.longest_run.fetch_max(run.tokens.len(), Ordering::SeqCst);
            match self.script {
                Script::Failing => return Err(Error::internal("Scripted failure.")),
                Script::Panicking => panic!("scripted panic"),
                Script::Slow | Script::Late | Script::Idle => std::thread::sleep(Duration::from_millis(1)),
                // Until others come: the thread that sends them may be put aside meanwhile.
                Script::Stopped if self.waits.is_some() => std::thread::sleep(Duration::from_millis(50)),
                Script::Alphabet | Script::NotANumber | Script::OneWay | Script::Stopped => {}
            }
            for &token in &run.tokens[run.logits_from..] {
                let last = token as usize;
                let row = logits.push_row();
                if self.script == Script::NotANumber {
                    row.fill(f32::NAN);
                } else {
                    row[(last + 1) % 26] = 10.0;
                }
            }
        }
        Ok(true)
    }

    fn aside(&mut self, chore: Chore) {
        self.chores.put(chore);
    }

    fn release(&mut self, slot: usize) {
        self.seen[slot].clear();
    }

    fn forget(&mut self, _: usize, _: Factors) {}

    fn kv_bytes(&self, slot: usize) -> u64 {
        self.seen[slot].len() as u64
    }

    fn cache(&mut self) -> Option<&mut dyn BlockCache> {
        None
    }
}

/// Tokens 0 to 25 are the letters, then Phi-3's control tokens.
fn tokenizer() -> Tokenizer {
    let letters: String = ('a'..='z').enumerate().map(|(id, letter)| format!("\"{letter}\":{id},")).collect();
    let control = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"];
    let added: Vec<String> = control
        .iter()
        .zip(26..)
        .map(|(text, id)| {
            format!(
                "{{\"id\":{id},\"content\":\"{text}\",\"single_word\":false,\"lstrip\":false,\"rstrip\":true,\"normalized\":false,\"special\":true}}"
            )
        })
        .collect();
    let vocab: String = control.iter().zip(26..).map(|(text, id)| format!("\"{text}\":{id},")).collect();
    let json = format!(
        "{{\"version\":\"1.0\",\"added_tokens\":[{}],\"pre_tokenizer\":{{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}},\"decoder\":{{\"type\":\"ByteLevel\"}},\"model\":{{\"type\":\"BPE\",\"vocab\":{{{letters}{}}},\"merges\":[]}}}}",
        added.join(","),
        vocab.trim_end_matches(','),
    );
    Tokenizer::from_json(json.as_bytes()).unwrap()
}

fn engine_with(script: Script, max_queue: usize) -> (Engine, Arc<AtomicUsize>) {
    let (engine, longest_run, _) = engine_of(script, 1, max_queue);
    (engine, longest_run)
}

/// An engine with `slots` slots, the longest run that it has seen, and word of a pass that waits.
fn engine_of(script: Script, slots: usize, max_queue: usize) -> (Engine, Arc<AtomicUsize>, Receiver<()>) {
    engine_speaking(tokenizer(), ChatTemplate::phi3().unwrap(), script, slots, max_queue)
}

fn engine_speaking(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    script: Script,
    slots: usize,
    max_queue: usize,
) -> (Engine, Arc<AtomicUsize>, Receiver<()>) {
    let (waits, waiting) = channel();
    let tokenizer = Arc::new(tokenizer);
    let longest_run = Arc::<AtomicUsize>::default();
    let vocab_size = tokenizer.vocab_size();
    let plan = ModelPlan {
        architecture: Architecture::Phi3,
        name: Some("scripted".to_owned()),
        n_layer: 1,
        n_embd: 8,
        n_head: 1,
        n_head_kv: 1,
        head_dim: 8,
        n_ff: 8,
        context_length: CONTEXT,
        vocab_size,
        norm_eps: 1e-5,
        rope: RopePlan {
            dimension_count: 8,
            freq_base: 10_000.0,
            scaling: RopeScaling::None,
            frequency_factors: false,
        },
        sliding_window: None,
        tied_embeddings: false,
        biases: false,
        n_expert: 0,
        n_expert_used: 0,
        parameters: 0,
        weight_bytes: 0,
        type_mix: Vec::new(),
        extra_tensors: Vec::new(),
    };
    let memory = MemoryPlan {
        weights_bytes: 0,
        mapped_bytes: 0,
        kv_bytes: 0,
        scratch_bytes: 0,
        available_bytes: available_memory(),
        context_length: CONTEXT,
    };
    let info = ModelInfo::new(
        &plan,
        &Loaded {
            source: "scripted",
            chat_template: template.source(),
            has_chat_template: false,
            device: Device::Cpu,
            backend: Backend::Candle,
            memory,
            load_s: 0.0,
        },
    );
    let parts = Parts {
        model: Box::new(Scripted {
            script,
            vocab_size,
            seen: vec![Vec::new(); slots],
            longest_run: Arc::clone(&longest_run),
            waits: (script == Script::Stopped).then_some(waits),
            chores: news::Chores::of(script),
        }),
        end_of_turn: tokenizer.end_of_turn_ids(Some(template.source())),
        tokenizer,
        template,
        info,
        load: Duration::ZERO,
        identity: saved::Identity::new(
            &LoadOptions::new(ModelSource::Static("scripted", b"scripted")),
            &plan,
        ),
    };
    let policy = Policy { max_queue, shares: true, guesses: true, prefill_tokens: usize::MAX };
    (Engine::start(parts, policy).unwrap(), longest_run, waiting)
}

fn engine(script: Script) -> Engine {
    engine_with(script, DEFAULT_MAX_QUEUE).0
}

fn request(prompt: &str, change: impl FnOnce(&mut SamplingParams)) -> Request {
    let mut params =
        SamplingParams { temperature: 0.0, repeat_penalty: 1.0, seed: Some(1), ..SamplingParams::default() };
    change(&mut params);
    Request { prompt: Prompt::Raw(prompt.to_owned()), params }
}

/// Reads a stream to its end: the text, and the last event.
fn read(stream: &EventStream) -> (String, Event) {
    let mut text = String::new();
    loop {
        match stream.next(SOON) {
            Poll::Event(Event::Chunk(chunk)) => text.push_str(&chunk.text),
            Poll::Event(last) => {
                assert!(matches!(stream.next(SOON), Poll::End));
                return (text, last);
            }
            Poll::Pending => panic!("no event within {SOON:?}"),
            Poll::End => panic!("the stream ended without a last event"),
        }
    }
}

fn finish(event: Event) -> Finish {
    match event {
        Event::Finish(finish) => *finish,
        other => panic!("not a finish: {other:?}"),
    }
}

fn failure(event: Event) -> Error {
    match event {
        Event::Failed(error) => error,
        other => panic!("not a failure: {other:?}"),
    }
}

#[test]
fn an_answer_is_counted_and_cut_at_max_tokens() {
    let (engine, longest_run) = engine_with(Script::Alphabet, 4);
    let stream = engine.submit(request("abcdef", |params| params.max_tokens = Some(3))).unwrap();
    let (text, last) = read(&stream);
    let finish = finish(last);
    assert_eq!(text, "ghi");
    assert_eq!(finish.reason, FinishReason::Length);
    assert_eq!((finish.usage.prompt_tokens, finish.usage.completion_tokens), (6, 3));
    assert_eq!(finish.seed, 1);
    assert_eq!(longest_run.load(Ordering::SeqCst), RUN, "a prompt enters in runs");
    let stats = engine.stats();
    assert_eq!((stats.active, stats.finished), (0, 1));
    assert_eq!((stats.prompt_tokens, stats.completion_tokens, stats.kv_bytes), (6, 3, 0));
}

#[test]
fn the_context_ends_an_answer() {
    let engine = engine(Script::Alphabet);
    let (text, last) = read(&engine.submit(request("a", |params| params.max_tokens = None)).unwrap());
    assert_eq!(finish(last).reason, FinishReason::Length);
    assert_eq!(text.len(), CONTEXT - 1);
}

#[test]
fn stop_strings_and_stop_tokens_stop() {
    let engine = engine(Script::Alphabet);
    let (text, last) =
        read(&engine.submit(request("a", |params| params.stop = vec!["fg".to_owned()])).unwrap());
    assert_eq!(text, "bcde");
    assert_eq!(finish(last).stop_reason, Some(StopReason::Text("fg".to_owned())));
    let (text, last) = read(&engine.submit(request("a", |params| params.stop_token_ids = vec![4])).unwrap());
    assert_eq!(text, "bcd");
    let last = finish(last);
    assert_eq!((last.stop_reason, last.usage.completion_tokens), (Some(StopReason::Token(4)), 4));
}

#[test]
fn min_tokens_holds_every_stop_off() {
    let engine = engine(Script::Alphabet);
    let (text, _) = read(
        &engine
            .submit(request("a", |params| {
                params.stop = vec!["c".to_owned(), "g".to_owned()];
                params.min_tokens = 4;
            }))
            .unwrap(),
    );
    assert_eq!(text, "bcdef");
}

#[test]
fn a_cancelled_stream_keeps_its_text() {
    let engine = engine(Script::Slow);
    let stream = engine.submit(request("a", |params| params.max_tokens = None)).unwrap();
    assert!(matches!(stream.next(SOON), Poll::Event(Event::Chunk(_))));
    stream.cancel();
    let (_, last) = read(&stream);
    assert_eq!(finish(last).reason, FinishReason::Cancelled);
}

#[test]
fn a_dropped_stream_makes_way_for_the_next() {
    let engine = engine(Script::Slow);
    drop(engine.submit(request("a", |params| params.max_tokens = None)).unwrap());
    let (text, _) = read(&engine.submit(request("a", |params| params.max_tokens = Some(2))).unwrap());
    assert_eq!(text, "bc");
}

#[test]
fn a_timeout_counts_the_wait() {
    let engine = engine(Script::Slow);
    let first = engine.submit(request("a", |params| params.max_tokens = None)).unwrap();
    let second =
        engine.submit(request("a", |params| params.timeout = Some(Duration::from_nanos(1)))).unwrap();
    let (text, last) = read(&second);
    assert_eq!((text.as_str(), finish(last).reason), ("", FinishReason::Timeout));
    drop(first);
}

#[test]
fn the_queue_is_bounded() {
    let (engine, _) = engine_with(Script::Slow, 1);
    let streams: Vec<_> = (0..2).map(|_| engine.submit(request("a", |_| {})).unwrap()).collect();
    let refused = engine.submit(request("a", |_| {})).err().unwrap();
    assert!(matches!(refused.kind(), ErrorKind::QueueFull { .. }));
    for stream in &streams {
        read(stream);
    }
    // The places were given back before the last events.
    engine.submit(request("a", |_| {})).unwrap();
}

#[test]
fn logits_that_are_not_numbers_fail_one_request() {
    let engine = engine(Script::NotANumber);
    for _ in 0..2 {
        let (_, last) = read(&engine.submit(request("a", |_| {})).unwrap());
        assert!(matches!(failure(last).kind(), ErrorKind::Numerical));
    }
}

#[test]
fn a_failed_pass_fails_one_request() {
    let engine = engine(Script::Failing);
    for _ in 0..2 {
        let (_, last) = read(&engine.submit(request("a", |_| {})).unwrap());
        assert_eq!(failure(last).message(), "Scripted failure.");
    }
}

#[test]
fn a_panic_is_an_error_for_this_request_and_every_later_one() {
    let engine = engine(Script::Panicking);
    let (_, last) = read(&engine.submit(request("a", |_| {})).unwrap());
    assert!(failure(last).message().contains("scripted panic"));
    let later = engine.submit(request("a", |_| {})).err().unwrap();
    assert!(matches!(later.kind(), ErrorKind::Internal));
    engine.close();
}

#[test]
fn close_ends_everything() {
    let engine = engine(Script::Slow);
    let stream = engine.submit(request("a", |params| params.max_tokens = None)).unwrap();
    engine.close();
    engine.close();
    let (_, last) = read(&stream);
    assert!(matches!(failure(last).kind(), ErrorKind::Closed));
    assert!(matches!(engine.submit(request("a", |_| {})).err().unwrap().kind(), ErrorKind::Closed));
}

#[test]
fn prompts_are_checked() {
    let engine = engine(Script::Alphabet);
    let refused = |prompt: Prompt| {
        let params = SamplingParams::default();
        engine.submit(Request { prompt, params }).err().unwrap()
    };
    for prompt in [
        Prompt::Text(String::new()),
        Prompt::Raw(String::new()),
        Prompt::Messages(Vec::new()),
        Prompt::Tokens(Vec::new()),
        Prompt::Tokens(vec![1_000_000]),
    ] {
        assert!(
            matches!(refused(prompt).kind(), ErrorKind::InvalidParameter { parameter, .. } if parameter == "prompt")
        );
    }
    let long = refused(Prompt::Tokens(vec![0; CONTEXT]));
    assert!(matches!(long.kind(), ErrorKind::ContextOverflow { prompt_tokens: CONTEXT, limit: CONTEXT }));
}

#[test]
fn threads_take_turns_and_read_their_own_text() {
    let engine = engine(Script::Alphabet);
    std::thread::scope(|scope| {
        for letter in 'a'..='h' {
            let engine = engine.clone();
            scope.spawn(move || {
                for _ in 0..20 {
                    let prompt = letter.to_string();
                    let stream =
                        engine.submit(request(&prompt, |params| params.max_tokens = Some(2))).unwrap();
                    let expected: String =
                        [letter as u8 + 1, letter as u8 + 2].map(char::from).iter().collect();
                    assert_eq!(read(&stream).0, expected);
                }
            });
        }
    });
}

#[test]
fn a_pass_that_is_stopped_comes_again_for_the_others() {
    let (engine, _, waiting) = engine_of(Script::Stopped, 2, 4);
    let stays = engine.submit(request("abc", |params| params.max_tokens = Some(20))).unwrap();
    let leaves = engine.submit(request("m", |params| params.max_tokens = None)).unwrap();
    waiting.recv_timeout(SOON).unwrap();
    leaves.cancel();
    assert_eq!(finish(read(&leaves).1).reason, FinishReason::Cancelled);
    let (text, last) = read(&stays);
    assert_eq!((text.as_str(), finish(last).reason), ("defghijklmnopqrstuvw", FinishReason::Length));
}

#[test]
fn a_pass_is_stopped_when_the_engine_closes() {
    let (engine, _, waiting) = engine_of(Script::Stopped, 2, 4);
    let streams =
        ["a", "b"].map(|prompt| engine.submit(request(prompt, |params| params.max_tokens = None)).unwrap());
    waiting.recv_timeout(SOON).unwrap();
    engine.close();
    for stream in streams {
        assert!(matches!(failure(read(&stream).1).kind(), ErrorKind::Closed));
    }
}

#[test]
fn sequences_in_several_slots_do_not_mix() {
    let (engine, longest_run, _) = engine_of(Script::Alphabet, 3, 64);
    // With nobody beside it, a prompt enters in runs that are as long as they may be.
    let alone = engine.submit(request("abcdefghijk", |params| params.max_tokens = Some(9))).unwrap();
    assert_eq!(read(&alone).0, "lmnopqrst");
    let streams: Vec<_> = ('a'..='j')
        .map(|letter| {
            let prompt: String = (letter..='k').collect();
            engine.submit(request(&prompt, |params| params.max_tokens = Some(9))).unwrap()
        })
        .collect();
    for stream in &streams {
        assert_eq!(read(stream).0, "lmnopqrst");
    }
    assert_eq!(longest_run.load(Ordering::SeqCst), RUN);
}

/// A scheduler with a waiting sequence for each prompt length and its parameters, and the ends of their streams.
fn waiting(
    limits: Limits,
    requests: impl IntoIterator<Item = (usize, SamplingParams)>,
) -> (Scheduler, Vec<EventStream>) {
    let mut scheduler = Scheduler::new(limits, true);
    let (tokenizer, taken) = (Arc::new(tokenizer()), Arc::<AtomicUsize>::default());
    let mut streams = Vec::new();
    for (length, params) in requests {
        let (events, stream) = event::channel();
        streams.push(stream);
        scheduler.push(Sequence::new(Start {
            prompt: vec![0; length],
            scores: None,
            guesses: true,
            params,
            seed: 0,
            end_of_turn: BTreeSet::new(),
            tokenizer: Arc::clone(&tokenizer),
            limits,
            load: Duration::ZERO,
            events,
            ticket: Ticket::take(&taken, 100).unwrap(),
        }));
    }
    (scheduler, streams)
}
