//! `phicandle run`: one prompt, one answer.

use super::answer::Answer;
use super::args::RunArgs;
use super::console::{Console, Style};
use super::failure::{INTERRUPTED, TIMED_OUT};
use super::{Demo, Outcome, models};
use crate::chat::Message;
use crate::engine::{FinishReason, Prompt, Request};
use crate::sampling::Overflow;

/// Answers one prompt.
pub(super) fn run(args: &RunArgs, demo: &Demo, console: &mut Console<'_>) -> Outcome {
    let params = args.sampling.params(Overflow::Error)?;
    let prompt = console.text_or_input(&args.prompt, "prompt")?;
    let engine = models::load(&args.engine, demo, console)?;
    let prompt = match &args.system {
        Some(system) => Prompt::Messages(vec![Message::new("system", system), Message::new("user", prompt)]),
        None if args.raw => Prompt::Raw(prompt),
        None => Prompt::Text(prompt),
    };
    let answer = Answer::of(&engine, Request { prompt, params }, !args.json, console)?;
    if args.json {
        writeln!(console.out, "{}", answer.json(&engine.info().name))?;
    } else {
        answer.explain(console)?;
    }
    if args.stats {
        let line = console.paint(Style::Dim, &answer.stats());
        writeln!(console.err, "{line}")?;
    }
    Ok(match answer.finish.reason {
        FinishReason::Stop | FinishReason::Length => 0,
        FinishReason::Cancelled => INTERRUPTED,
        FinishReason::Timeout => TIMED_OUT,
    })
}
