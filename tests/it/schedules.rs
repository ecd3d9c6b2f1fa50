//! Whatever else an engine does, a request gets the tokens that it has alone.
//!
//! A *schedule* is requests that come in some order, some of which are cancelled, on an engine with some number of threads, some
//! size of prefill pieces, with and without shared beginnings and guesses. The tokens of every request in every schedule are
//! those of the same request alone, token by token, on one thread.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use phicandle::engine::{
    Engine, Event, EventStream, Finish, FinishReason, LoadOptions, ModelSource, Poll, Prompt, Request,
};
use phicandle::gguf::GgmlType;
use phicandle::model::KvDtype;
use phicandle::sampling::SamplingParams;

use crate::tiny_models::{Numbers, Shape, VOCABULARY};

const THREADS: [usize; 2] = [1, 2];
const PIECES: [usize; 3] = [5, 64, 512];
/// Requests beside the one that is looked at, as they come.
const MATES: [usize; 4] = [0, 1, 7, 15];
/// Schedules of each engine.
const SCHEDULES: usize = 14;
/// Original context of the long-rope model, and window of the other one, in tokens.
const BORDER: u32 = 90;
const WINDOW: u32 = 37;

/// What to ask a model.
struct Question {
    request: Request,
    expected: Vec<u32>,
}

/// 97 characters and Phi-3's control tokens: as many tokens as the small models have rows.
fn write_tokenizer(path: &Path) {
    let characters: String = ('!'..='~').chain(['Ġ', 'Ċ', 'ĉ']).collect();
    let control = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"];
    let mut vocabulary = serde_json::Map::new();
    let names = characters.chars().map(String::from).chain(control.map(String::from));
    for (id, name) in names.enumerate() {
        vocabulary.insert(name, id.into());
    }
    assert_eq!(vocabulary.len(), VOCABULARY);
    let added = control.map(|text| {
        serde_json::json!({
            "id": vocabulary[text], "content": text, "single_word": false, "lstrip": false, "rstrip": true,
            "normalized": false, "special": true,
        })
    });
    let json = serde_json::json!({
        "version": "1.0", "added_tokens": added,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    });
    std::fs::write(path, json.to_string()).unwrap();
}

/// Ten questions: many begin alike, some repeat themselves, half are drawn.
fn requests(rows: u64) -> Vec<Request> {
    let mut numbers = Numbers(rows);
    let stem: Vec<u32> = numbers.tokens(100);
    (0..10_u32)
        .map(|number| {
            let own = numbers.tokens(1 + number as usize * 5 % 23);
            let mut prompt = match number % 5 {
                0 => own.clone(),
                1 | 2 => stem[..100 - number as usize].to_vec(),
                3 => stem[..40].to_vec(),
                // What repeats itself.
                _ => own.iter().copied().cycle().take(60).collect(),
            };
            prompt.extend(own);
            prompt.iter_mut().for_each(|token| *token %= 97);
            let mut params = SamplingParams {
                max_tokens: Some(8 + number as usize * 7 % 30),
                temperature: 0.0,
                repeat_penalty: 1.0,
                ignore_eos: true,
                ..SamplingParams::default()
            };
            if number % 2 == 1 {
                (params.temperature, params.seed) = (0.7, Some(u64::from(number)));
                (params.repeat_penalty, params.top_p) = (1.1, Some(0.9));
            }
            Request { prompt: Prompt::Tokens(prompt), params }
        })
        .collect()
}

/// The tokens of an answer, and how it ended.
fn read(stream: &EventStream) -> (Vec<u32>, Finish) {
    let mut tokens = Vec::new();
    loop {
        match stream.next(Duration::from_secs(60)) {
            Poll::Event(Event::Chunk(chunk)) => tokens.extend(chunk.token_ids),
            Poll::Event(Event::Finish(finish)) => {
                tokens.extend(&finish.token_ids);
                return (tokens, *finish);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn hash<'a>(answers: impl Iterator<Item = &'a Vec<u32>>) -> u64 {
    let mut hasher = DefaultHasher::new();
    answers.for_each(|answer| answer.hash(&mut hasher));
    hasher.finish()
}

/// What happened in the schedules of a model.
#[derive(Debug, Default)]
struct Counts {
    schedules: usize,
    answers: usize,
    cancelled: usize,
    cached_tokens: usize,
    accepted_guesses: usize,
}

/// One schedule; every request that is not cancelled has the tokens that it has alone, and one that is has their beginning.
fn schedule(engine: &Engine, questions: &[Question], numbers: &mut Numbers, counts: &mut Counts) {
    let mates = MATES[counts.schedules % MATES.len()];
    let mut asked = Vec::new();
    for _ in 0..=mates {
        let question = &questions[numbers.tokens(1)[0] as usize % questions.len()];
        let mut request = question.request.clone();
        request.params.priority = (numbers.tokens(1)[0] % 3) as i32;
        asked.push((question, engine.submit(request).unwrap(), numbers.tokens(1)[0]));
        // Some come while others are computed.
        if asked.len().is_multiple_of(4) {
            std::thread::sleep(Duration::from_micros(u64::from(numbers.tokens(1)[0]) * 40));
        }
    }
    for (_, stream, _) in asked.iter().filter(|(.., chance)| chance % 8 == 0) {
        stream.cancel();
    }
    for (question, stream, _) in asked {
        let (tokens, finish) = read(&stream);
        if finish.reason == FinishReason::Cancelled {
            counts.cancelled += 1;
            assert!(question.expected.starts_with(&tokens));
        } else {
            assert_eq!(tokens, question.expected);
            counts.answers += 1;
        }
        counts.cached_tokens += finish.usage.cached_tokens;
        counts.accepted_guesses += finish.metrics.accepted_guesses;
    }
    counts.schedules += 1;
}

/// All schedules of a model; one hash of the answers for every engine.
fn schedules(name: &str, options: &LoadOptions) -> Counts {
    let engine = |threads, pieces, prefix_cache, speculation| {
        let (threads, prefill_tokens) = (Some(threads), Some(pieces));
        Engine::load(&LoadOptions { threads, prefill_tokens, prefix_cache, speculation, ..options.clone() })
            .unwrap()
    };
    let alone = engine(1, 1, false, false);
    let questions: Vec<Question> = requests(VOCABULARY as u64)
        .into_iter()
        .map(|request| {
            let (expected, finish) = read(&alone.submit(request.clone()).unwrap());
            assert_eq!(Some(expected.len()), request.params.max_tokens);
            assert_eq!((finish.usage.cached_tokens, finish.metrics.accepted_guesses), (0, 0));
            Question { request, expected }
        })
        .collect();
    let expected = hash(questions.iter().map(|question| &question.expected));
    let (mut counts, mut numbers) = (Counts::default(), Numbers(7));
    for threads in THREADS {
        for pieces in PIECES {
            for (prefix_cache, speculation) in [(true, true), (true, false), (false, true), (false, false)] {
                let engine = engine(threads, pieces, prefix_cache, speculation);
                for _ in 0..SCHEDULES {
                    schedule(&engine, &questions, &mut numbers, &mut counts);
                }
                // All at once, with beginnings that are warm by now.
                let streams: Vec<_> = questions
                    .iter()
                    .map(|question| engine.submit(question.request.clone()).unwrap())
                    .collect();
                let answers: Vec<_> = streams.iter().map(|stream| read(stream).0).collect();
                assert_eq!(hash(answers.iter()), expected, "{name}: {threads} threads, pieces of {pieces}");
                let stats = engine.stats();
                assert_eq!(stats.active, 0);
                assert_eq!(stats.kv_bytes, 0, "what is left is kept for prompts to come");
                assert_eq!(stats.cache_bytes > 0, prefix_cache);
            }
        }
    }
    println!("{name}: {counts:?}, one hash: {expected:016x}");
    assert!(counts.cancelled > 20 && counts.cached_tokens > 1000, "{counts:?}");
    counts
}

#[test]
fn what_was_saved_gives_another_engine_the_same_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/phicandle/demo.gguf");
    let options = LoadOptions::new(ModelSource::File(demo));
    let path = folder.path().join("kv");
    let request = requests(VOCABULARY as u64).remove(2);
    let Prompt::Tokens(prompt) = &request.prompt else { panic!() };
    let first = Engine::load(&options).unwrap();
    assert_eq!(first.save_prefix(prompt, &path).unwrap(), 0, "nothing is known");
    assert!(!path.exists());
    let (expected, finish) = read(&first.submit(request.clone()).unwrap());
    assert_eq!(finish.usage.cached_tokens, 0);
    let text: Vec<u32> = prompt.iter().chain(&expected).copied().collect();
    let known = text.len() - 1;
    assert_eq!(first.save_prefix(&text, &path).unwrap(), known, "the last token was not read");
    first.close();
    let second = Engine::load(&options).unwrap();
    assert_eq!(second.load_prefix(&path).unwrap(), known);
    let (tokens, finish) = read(&second.submit(request.clone()).unwrap());
    assert_eq!((tokens, finish.usage.cached_tokens), (expected, prompt.len() - 1));
    // Other settings, other keys and values; and where nothing is shared there is no room for any.
    let other = Engine::load(&LoadOptions { kv_dtype: KvDtype::Q8, ..options.clone() }).unwrap();
    let error = other.load_prefix(&path).unwrap_err();
    assert!(error.message().contains("other settings"), "{error}");
    let alone = Engine::load(&LoadOptions { prefix_cache: false, ..options }).unwrap();
    assert_eq!(alone.load_prefix(&path).unwrap(), 0);
}

#[test]
fn every_request_of_every_schedule_has_the_tokens_that_it_has_alone() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = folder.path().join("tokenizer.json");
    write_tokenizer(&tokenizer);
    let tiny = |name: &str, shape: Shape| {
        let folder = folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let source = ModelSource::File(shape.write(&folder));
        LoadOptions { tokenizer: Some(tokenizer.clone()), ..LoadOptions::new(source) }
    };
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/phicandle/demo.gguf");
    let worlds = [
        ("demo", LoadOptions::new(ModelSource::File(demo))),
        ("window", tiny("window", Shape { window: Some(WINDOW), ..Shape::of(GgmlType::Q8_0) })),
        ("long rope", tiny("long", Shape { original: Some(BORDER), ..Shape::of(GgmlType::Q4_K) })),
        // Memory for three of them at most: others wait, or begin anew.
        (
            "little memory",
            LoadOptions { context_length: Some(192), ..tiny("little", Shape::of(GgmlType::Q4_0)) },
        ),
    ];
    let mut total = 0;
    for (name, options) in &worlds {
        total += schedules(name, options).schedules;
    }
    assert!(total >= 1000, "{total}");
    println!("{total} schedules");
}
