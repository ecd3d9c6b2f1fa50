//! An answer as it comes: from the engine's events to a writer.

use std::time::Duration;

use super::console::{Console, Style};
use super::failure::Failure;
use crate::engine::{Dropped, Engine, Event, Finish, FinishReason, Poll, Request, StopReason};
use crate::error::Error;
use serde_json::{Value, json};

/// How long Ctrl-C may go unheard.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// A whole answer.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) token_ids: Vec<u32>,
    pub(super) dropped: Dropped,
    pub(super) finish: Finish,
}

impl Answer {
    /// Asks `engine` and waits for the end. With `echo`, text goes to standard output as it comes, flushed each time.
    ///
    /// Ctrl-C ends the answer early; what there is of it is returned with [`FinishReason::Cancelled`].
    pub(super) fn of(
        engine: &Engine,
        request: Request,
        echo: bool,
        console: &mut Console<'_>,
    ) -> Result<Self, Failure> {
        let _guard = console.interrupts.answering();
        let stream = engine.submit(request)?;
        let dropped = stream.dropped();
        let (mut text, mut token_ids) = (String::new(), Vec::new());
        loop {
            // Asked again and again, since the engine may be busy with a part of the prompt when the key is pressed.
            if console.interrupts.pressed() {
                stream.cancel();
            }
            match stream.next(TICK) {
                Poll::Event(Event::Chunk(chunk)) => {
                    text.push_str(&chunk.text);
                    token_ids.extend(chunk.token_ids);
                    if echo {
                        console.emit(&chunk.text)?;
                    }
                }
                Poll::Event(Event::Finish(finish)) => {
                    if echo && !text.ends_with('\n') {
                        console.emit("\n")?;
                    }
                    token_ids.extend(&finish.token_ids);
                    return Ok(Self { text, token_ids, dropped, finish: *finish });
                }
                Poll::Event(Event::Failed(error)) => {
                    // The message starts on a line of its own.
                    if echo && !text.is_empty() && !text.ends_with('\n') {
                        console.emit("\n")?;
                    }
                    return Err(error.into());
                }
                Poll::Pending => {}
                Poll::End => return Err(Error::internal("An answer ended without an end.").into()),
            }
        }
    }

    /// The answer as `run --json` writes it.
    pub(super) fn json(&self, model: &str) -> Value {
        let Finish { reason, stop_reason, usage, metrics, seed, .. } = &self.finish;
        json!({
            "model": model,
            "text": self.text,
            "finish_reason": reason.name(),
            "stop_reason": stop_reason.as_ref().map(|reason| match reason {
                StopReason::Token(id) => json!(id),
                StopReason::Text(text) => json!(text),
            }),
            "seed": seed,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens(),
                "cached_tokens": usage.cached_tokens,
            },
            "dropped": { "turns": self.dropped.turns, "tokens": self.dropped.tokens },
            "metrics": {
                "queue_s": metrics.queue_s,
                "load_s": metrics.load_s,
                "ttft_s": metrics.ttft_s,
                "prefill_s": metrics.prefill_s,
                "decode_s": metrics.decode_s,
                "total_s": metrics.total_s,
                "prefill_tps": metrics.prefill_tps,
                "decode_tps": metrics.decode_tps,
                "accepted_guesses": metrics.accepted_guesses,
                "kv_bytes": metrics.kv_bytes,
                "peak_rss": metrics.peak_rss,
            },
        })
    }

    /// Times and counts in one line.
    pub(super) fn stats(&self) -> String {
        let Finish { reason, usage, metrics, seed, .. } = &self.finish;
        format!(
            "prompt {} tokens in {:.2} s ({:.1}/s) · answer {} tokens in {:.2} s ({:.1}/s) · first after {:.2} s · {} · seed {seed}",
            usage.prompt_tokens,
            metrics.prefill_s,
            metrics.prefill_tps,
            usage.completion_tokens,
            metrics.decode_s,
            metrics.decode_tps,
            metrics.ttft_s,
            reason.name(),
        )
    }

    /// Says on standard error what of the prompt was left out, and why an answer is shorter than it might be.
    pub(super) fn explain(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        if self.dropped != Dropped::default() {
            let Dropped { turns, tokens } = self.dropped;
            let what = match turns {
                0 => String::new(),
                1 => "the oldest turn, ".to_owned(),
                _ => format!("the {turns} oldest turns, "),
            };
            let line = format!("(the context is full: {what}{tokens} tokens, went unread)");
            console.note(&console.paint(Style::Dim, &line))?;
        }
        let why = match self.finish.reason {
            FinishReason::Stop => return Ok(()),
            FinishReason::Length => "cut at the length limit",
            FinishReason::Cancelled => "stopped",
            FinishReason::Timeout => "time ran out",
        };
        let line = console.paint(Style::Dim, &format!("({why})"));
        Ok(console.note(&line)?)
    }
}
