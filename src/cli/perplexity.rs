//! `phicandle perplexity`: how well a model predicts a text.

use std::path::Path;

use serde_json::json;

use super::answer::TICK;
use super::args::PerplexityArgs;
use super::console::Console;
use super::failure::Failure;
use super::log_lines::Drawn;
use super::{Demo, Outcome, models};
use crate::engine::{Engine, Event, FinishReason, Poll, Prompt, ScoreRequest, Window, stride_windows};
use crate::error::Error;
use crate::hub::count_bar;

/// Scores a text window by window.
pub(super) fn run(args: &PerplexityArgs, demo: &Demo, console: &mut Console<'_>) -> Outcome {
    let text = read(&args.file, console)?;
    let engine = models::load(&args.engine, demo, console)?;
    let longest = engine.info().context_length;
    let window = within("window", args.window.unwrap_or(longest), 2, longest)?;
    let stride = within("stride", args.stride.unwrap_or((window / 2).max(1)), 1, window - 1)?;
    let ids = engine.tokenizer().encode(&text, args.no_bos.then_some(false))?;
    if ids.len() < 2 {
        return Err(Error::invalid(
            "text",
            format!("The text has {} tokens, and the first one follows nothing.", ids.len()),
            "Give a text of at least two tokens.",
        )
        .into());
    }
    let bar = count_bar("scoring", "tokens", Some(ids.len() as u64));
    let drawn = (console.err_terminal && !console.quiet).then(|| Drawn::new(bar.clone()));
    let (mut sum, mut count, mut windows) = (0.0, 0_usize, 0_usize);
    for cut in stride_windows(ids.len(), window, stride) {
        sum += score(&engine, &ids, cut, console)?;
        count += cut.end - cut.scored;
        windows += 1;
        if drawn.is_some() {
            bar.set_position(cut.end as u64);
        }
    }
    drop(drawn);
    let mean = sum / count as f64;
    let perplexity = (-mean).exp();
    if args.json {
        let found = json!({
            "model": engine.info().name,
            "perplexity": perplexity,
            "mean_logprob": mean,
            "scored_tokens": count,
            "windows": windows,
            "window": window,
            "stride": stride,
        });
        writeln!(console.out, "{found}")?;
    } else {
        writeln!(console.out, "{perplexity:.4}")?;
        console.note(&format!(
            "{count} tokens scored, in {windows} windows of {window} tokens, {stride} apart; mean logprob {mean:.5}"
        ))?;
    }
    Ok(0)
}

/// The sum of the logprobs of what `cut` scores.
fn score(engine: &Engine, ids: &[u32], cut: Window, console: &Console<'_>) -> Result<f64, Failure> {
    let _guard = console.interrupts.answering();
    let stream = engine.score(ScoreRequest {
        prompt: Prompt::Tokens(ids[cut.begin..cut.scored].to_vec()),
        continuations: vec![ids[cut.scored..cut.end].to_vec()],
        top: 0,
        timeout: None,
    })?;
    loop {
        if console.interrupts.pressed() {
            return Err(Failure::Interrupted);
        }
        match stream.next(TICK) {
            Poll::Pending | Poll::Event(Event::Chunk(_)) => {}
            Poll::Event(Event::Finish(finish)) if finish.reason == FinishReason::Stop => {
                return Ok(finish.scores.iter().flatten().map(|found| found.logprob).sum());
            }
            Poll::Event(Event::Failed(error)) => return Err(error.into()),
            Poll::Event(Event::Finish(_)) | Poll::End => {
                return Err(Error::internal("A text was not scored to its end.").into());
            }
        }
    }
}

/// The text of a file, or all of standard input for `-`.
fn read(file: &Path, console: &mut Console<'_>) -> Result<String, Failure> {
    if file.as_os_str() == "-" {
        return console.text_or_input(&[], "text");
    }
    std::fs::read_to_string(file).map_err(|error| {
        Error::invalid(
            "file",
            format!("The text {} could not be read: {error}.", file.display()),
            "Give the path of a UTF-8 text file, or - for standard input.",
        )
        .into()
    })
}

fn within(name: &str, value: usize, low: usize, high: usize) -> Result<usize, Failure> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    Err(Error::invalid(
        name,
        format!("--{name} is {value}, and must be from {low} to {high} here."),
        "A stride is less than the window, and a window no more than the context.",
    )
    .into())
}
