//! The engine against the tutorial's own loop, written out on Candle's crates: the same tokens for the same seed.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::quantized::gguf_file;
use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};
use candle_transformers::models::quantized_phi3::ModelWeights;
use candle_transformers::utils::apply_repeat_penalty;
use phicandle::engine::{Backend, Engine, Event, LoadOptions, ModelSource, Poll, Prompt, Request};
use phicandle::sampling::SamplingParams;

const PROMPT: &str = "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>";

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python/phicandle/demo.gguf")
}

/// The tutorial's loop: the prompt in one pass, then sample, penalise and feed back until a token ends the turn.
fn tutorial(prompt: &[u32], ends: &[u32], params: &SamplingParams, sampling: Sampling) -> Vec<u32> {
    let bytes = std::fs::read(demo()).unwrap();
    let mut reader = Cursor::new(bytes.as_slice());
    let content = gguf_file::Content::read(&mut reader).unwrap();
    let mut model = ModelWeights::from_gguf(false, content, &mut reader, &Device::Cpu).unwrap();
    let mut sampler = LogitsProcessor::from_sampling(params.seed.unwrap(), sampling);
    let mut tokens = Vec::new();
    let mut input = prompt.to_vec();
    let mut position = 0;
    while tokens.len() < params.max_tokens.unwrap() {
        let batch = Tensor::new(input.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let logits = model.forward(&batch, position).unwrap().squeeze(0).unwrap();
        position += input.len();
        let recent = &tokens[tokens.len().saturating_sub(params.repeat_last_n)..];
        let logits = apply_repeat_penalty(&logits, params.repeat_penalty, recent).unwrap();
        let token = sampler.sample(&logits).unwrap();
        tokens.push(token);
        if ends.contains(&token) {
            break;
        }
        input = vec![token];
    }
    tokens
}

fn ours(engine: &Engine, params: &SamplingParams) -> Vec<u32> {
    let prompt = Prompt::Text(PROMPT.to_owned());
    let stream = engine.submit(Request { prompt, params: params.clone() }).unwrap();
    let mut tokens = Vec::new();
    loop {
        match stream.next(Duration::from_secs(60)) {
            Poll::Event(Event::Chunk(chunk)) => tokens.extend(chunk.token_ids),
            Poll::Event(Event::Finish(finish)) => tokens.extend(finish.token_ids),
            Poll::Event(Event::Failed(error)) => panic!("{error}"),
            Poll::Pending => panic!("no token for a minute"),
            Poll::End => return tokens,
        }
    }
}

#[test]
fn the_same_tokens_as_the_tutorial() {
    // Candle's own kernels on both sides: every bit is the same. The native backend rounds in another order.
    let options = LoadOptions { backend: Backend::Candle, ..LoadOptions::new(ModelSource::File(demo())) };
    let engine = Engine::load(&options).unwrap();
    let prompt = engine.prompt_tokens(&Prompt::Text(PROMPT.to_owned())).unwrap();
    let ends: Vec<u32> =
        engine.tokenizer().end_of_turn_ids(Some(engine.template().source())).into_iter().collect();
    let with = |temperature, top_k, top_p| SamplingParams { temperature, top_k, top_p, ..Default::default() };
    let modes = [
        (Sampling::ArgMax, with(0.0, None, None)),
        (Sampling::All { temperature: 1.0 }, SamplingParams::default()),
        (Sampling::TopP { p: 0.9, temperature: 0.8 }, with(0.8, None, Some(0.9))),
        (Sampling::TopKThenTopP { k: 40, p: 0.95, temperature: 1.2 }, with(1.2, Some(40), Some(0.95))),
    ];
    for (sampling, params) in modes {
        for seed in [0, 1, 299_792_458] {
            let params = SamplingParams { seed: Some(seed), ..params.clone() };
            let expected = tutorial(&prompt, &ends, &params, sampling.clone());
            assert!(expected.len() > 5, "the demo says something");
            assert_eq!(ours(&engine, &params), expected, "{sampling:?}, seed {seed}");
        }
    }
}
