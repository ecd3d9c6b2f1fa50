//! Several engines in one process: one budget of threads, and a fault that stays where it is.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::kernels::FAULT;
use crate::model::Around;

pub(super) const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/phicandle/demo.gguf");
const PROMPTS: [&str; 3] =
    ["Write a haiku about ice hockey", "Write a haiku about the moon", "Write a haiku about rain"];

/// The demo model on two threads. Once the flag is set, the next pass has an operation that panics on a thread of the pool.
fn demo() -> (Engine, Arc<AtomicBool>) {
    let mut options = LoadOptions::new(ModelSource::File(Path::new(DEMO).to_owned()));
    options.threads = Some(2);
    options.max_batch = 2;
    let faulty = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&faulty);
    let model = LoadedModel::load(&options).unwrap().wrap(|model| {
        Box::new(Around::new(model, move |model, batch, logits, stop| {
            FAULT.set(seen.swap(false, Ordering::SeqCst));
            model.forward(batch, logits, stop)
        }))
    });
    (model.into_engine().unwrap(), faulty)
}

fn ask(engine: &Engine, prompt: &str, seed: u64) -> EventStream {
    let params = SamplingParams { seed: Some(seed), max_tokens: Some(40), ..SamplingParams::default() };
    engine.submit(Request { prompt: Prompt::Text(prompt.to_owned()), params }).unwrap()
}

/// The texts of all prompts, each with ten seeds, two at a time.
fn texts(engine: &Engine) -> Vec<String> {
    let asked = PROMPTS.iter().flat_map(|prompt| (0..10).map(move |seed| (*prompt, seed)));
    let streams: Vec<_> = asked.map(|(prompt, seed)| ask(engine, prompt, seed)).collect();
    streams
        .iter()
        .map(|stream| {
            let (text, last) = read(stream);
            finish(last);
            text
        })
        .collect()
}

#[test]
fn engines_at_once_say_what_each_says_alone() {
    let alone = texts(&demo().0);
    assert!(alone.iter().all(|text| !text.is_empty()));
    let engines: Vec<_> = (0..3).map(|_| demo().0).collect();
    std::thread::scope(|scope| {
        let running: Vec<_> = engines.iter().map(|engine| scope.spawn(|| texts(engine))).collect();
        for texts in running {
            assert_eq!(texts.join().unwrap(), alone);
        }
    });
}

#[test]
fn a_panic_on_a_thread_of_the_pool_breaks_its_engine_and_no_other() {
    let (good, _) = demo();
    let alone = texts(&good);
    let (bad, faulty) = demo();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| texts(&good));
        // Two have a slot, the others wait.
        let streams: Vec<_> = (0..6).map(|seed| ask(&bad, PROMPTS[0], seed)).collect();
        faulty.store(true, Ordering::SeqCst);
        let mut failed = 0;
        for stream in &streams {
            match read(stream).1 {
                // It came before the fault.
                Event::Finish(_) => {}
                last => {
                    let error = failure(last);
                    assert!(matches!(error.kind(), ErrorKind::Internal), "{error:?}");
                    assert!(error.message().contains("injected"), "{error}");
                    failed += 1;
                }
            }
        }
        assert!(failed > 0 || faulty.load(Ordering::SeqCst), "the fault was lost");
        if failed == 0 {
            // All were through before it: the next one meets it.
            assert!(matches!(failure(read(&ask(&bad, PROMPTS[0], 0)).1).kind(), ErrorKind::Internal));
        }
        let params = SamplingParams::default();
        let later = bad.submit(Request { prompt: Prompt::Text("a".to_owned()), params }).err().unwrap();
        assert!(
            matches!(later.kind(), ErrorKind::Internal) && later.message().contains("injected"),
            "{later}"
        );
        bad.close();
        assert_eq!(running.join().unwrap(), alone, "the other engine goes on");
    });
    assert_eq!(texts(&good), alone, "and has its threads");
}
