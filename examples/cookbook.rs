//! The Phi cookbook's "Cross-platform inference with Rust", on this crate.
//!
//! ```text
//! cargo run --release --example cookbook                     # Phi-3-mini-4k-instruct from the hub, 2.4 GB
//! cargo run --release --example cookbook -- path/to/file.gguf
//! ```

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use phicandle::engine::{Backend, Engine, Event, LoadOptions, ModelSource, Poll, Prompt, Request};
use phicandle::hub::{Hub, HubOptions, ModelSpec};
use phicandle::sampling::SamplingParams;

/// What the tutorial sets, in the tutorial's words.
const TEMPERATURE: f64 = 1.0;
const SAMPLE_LEN: usize = 100;
const TOP_P: Option<f64> = None;
const REPEAT_LAST_N: usize = 64;
const REPEAT_PENALTY: f32 = 1.2;
const PROMPT: &str = "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut options = match arguments.next() {
        Some(path) => LoadOptions::new(ModelSource::File(PathBuf::from(path))),
        None => {
            let local = Hub::new(HubOptions::default())?.resolve(&ModelSpec::default())?;
            let mut options = LoadOptions::new(ModelSource::File(local.model));
            options.tokenizer = local.tokenizer;
            options
        }
    };
    // The tutorial's own model, for its own tokens; without this line, phicandle's faster kernels.
    options.backend = Backend::Candle;
    // A second argument is the prompt, a third one the seed; without a seed each run differs.
    let prompt = arguments.next().unwrap_or_else(|| PROMPT.to_owned());
    let seed = arguments.next().map(|seed| seed.parse()).transpose()?;
    let params = SamplingParams {
        temperature: TEMPERATURE,
        max_tokens: Some(SAMPLE_LEN),
        top_p: TOP_P,
        repeat_last_n: REPEAT_LAST_N,
        repeat_penalty: REPEAT_PENALTY,
        seed,
        ..SamplingParams::default()
    };

    let engine = Engine::load(&options)?;
    let answer = engine.submit(Request { prompt: Prompt::Text(prompt), params })?;
    let mut out = std::io::stdout().lock();
    loop {
        match answer.next(Duration::from_secs(1)) {
            Poll::Event(Event::Chunk(chunk)) => {
                write!(out, "{}", chunk.text)?;
                out.flush()?;
            }
            Poll::Event(Event::Finish(_)) => writeln!(out)?,
            Poll::Event(Event::Failed(error)) => return Err(error.into()),
            Poll::Pending => {}
            Poll::End => return Ok(()),
        }
    }
}
