//! `phicandle chat`: a conversation, line by line.

use std::io::BufRead;

use super::answer::Answer;
use super::args::ChatArgs;
use super::console::{Console, Style};
use super::failure::{Failure, INTERRUPTED};
use super::report::size;
use super::{Demo, Outcome, models};
use crate::chat::Message;
use crate::engine::{Engine, FinishReason, ModelInfo, Prompt, Request};
use crate::error::{Error, ErrorKind};
use crate::sampling::{Overflow, SamplingParams};

/// Longest line or block that is read as one message, in bytes.
const MAX_MESSAGE: usize = 1 << 20;

const HELP: &str = "\
/reset         forget the conversation; the system message stays
/system TEXT   set the system message; without TEXT, show it
/stats         times and token counts of the last answer
/help          this list
/quit          leave (also Ctrl-D)
Text between two lines of \"\"\" is one message. Ctrl-C stops an answer.";

/// Talks until the input ends.
pub(super) fn run(args: &ChatArgs, demo: &Demo, console: &mut Console<'_>) -> Outcome {
    let params = args.sampling.params(Overflow::DropOldestTurns)?;
    let engine = models::load(&args.engine, demo, console)?;
    let mut talk = Talk { engine, params, system: args.system.clone(), turns: Vec::new(), last: None };
    let is_demo = models::is_demo(args.engine.model.as_deref());
    if console.input_terminal {
        greet(talk.engine.info(), is_demo, console)?;
    }
    let interrupts = std::sync::Arc::clone(&console.interrupts);
    let _guard = interrupts.chatting();
    while let Some(line) = read_message(console)? {
        interrupts.forget();
        match talk.enter(&line, console) {
            Ok(Next::Line) => {}
            Ok(Next::Leave) => break,
            // A person may try again; a script must learn of it.
            Err(Failure::Error(error)) if console.input_terminal => {
                super::report_failure(&Failure::Error(error), console);
            }
            Err(failure) => return Err(failure),
        }
        if interrupts.pressed() && !console.input_terminal {
            return Ok(INTERRUPTED);
        }
    }
    if console.input_terminal {
        writeln!(console.err)?;
    }
    Ok(0)
}

/// The first screen.
fn greet(info: &ModelInfo, is_demo: bool, console: &mut Console<'_>) -> Result<(), Failure> {
    let mix = info.quantisation.first().map_or("", |(kind, ..)| kind.as_str());
    let title = console.paint(Style::Bold, &info.name);
    let facts = format!(
        "{} · {mix} · {} · {} on {} · context {}",
        info.architecture,
        size(info.memory.weights_bytes),
        info.backend,
        info.device,
        info.context_length
    );
    let facts = console.paint(Style::Dim, &facts);
    console.note(&format!("{title}  {facts}"))?;
    if is_demo {
        console.note(
            "The demo writes a haiku about a subject, and knows nothing else. Try: a haiku about rain",
        )?;
    }
    let keys = console.paint(
        Style::Dim,
        "Write a message. /help lists the commands, Ctrl-C stops an answer, /quit leaves.",
    );
    Ok(console.note(&keys)?)
}

/// One line, or the lines between two of `"""`; `None` at the end of the input. Prompts only a person.
fn read_message(console: &mut Console<'_>) -> Result<Option<String>, Failure> {
    prompt(console, ">>> ")?;
    let Some(line) = read_line(console)? else { return Ok(None) };
    let Some(first) = line.trim_start().strip_prefix("\"\"\"") else { return Ok(Some(line)) };
    let mut text = first.to_owned();
    while !text.trim_end().ends_with("\"\"\"") {
        prompt(console, "... ")?;
        let Some(line) = read_line(console)? else { return Ok(Some(text)) };
        text.push('\n');
        text.push_str(&line);
        if text.len() > MAX_MESSAGE {
            return Err(too_long().into());
        }
    }
    text.truncate(text.trim_end().len() - 3);
    Ok(Some(text.trim_matches('\n').to_owned()))
}

fn prompt(console: &mut Console<'_>, text: &str) -> Result<(), Failure> {
    if console.input_terminal {
        let text = console.paint(Style::Green, text);
        write!(console.err, "{text}")?;
        console.err.flush()?;
    }
    Ok(())
}

fn read_line(console: &mut Console<'_>) -> Result<Option<String>, Failure> {
    let mut bytes = Vec::new();
    let mut limited = std::io::Read::take(&mut *console.input, MAX_MESSAGE as u64 + 1);
    if limited.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.len() > MAX_MESSAGE {
        return Err(too_long().into());
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Error::invalid("prompt", "A line of the input is not UTF-8 text.", "Give the conversation as UTF-8.")
    })?;
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

fn too_long() -> Error {
    Error::invalid(
        "prompt",
        format!("A message is longer than {} MiB.", MAX_MESSAGE >> 20),
        "Send it in smaller parts: no model's context holds as much.",
    )
}

enum Next {
    Line,
    Leave,
}

struct Talk {
    engine: Engine,
    params: SamplingParams,
    system: Option<String>,
    turns: Vec<Message>,
    last: Option<Answer>,
}

impl Talk {
    fn enter(&mut self, line: &str, console: &mut Console<'_>) -> Result<Next, Failure> {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            return Ok(Next::Line);
        }
        // A path or a fraction is no command: only a slash and letters are.
        let (word, rest) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
        let is_command = word
            .strip_prefix('/')
            .is_some_and(|name| !name.is_empty() && name.chars().all(char::is_alphabetic));
        if is_command { self.command(word, rest.trim(), console) } else { self.ask(line, console) }
    }

    fn command(&mut self, word: &str, rest: &str, console: &mut Console<'_>) -> Result<Next, Failure> {
        match word {
            "/quit" | "/exit" | "/bye" => return Ok(Next::Leave),
            "/help" => writeln!(console.err, "{HELP}")?,
            "/reset" => {
                self.turns.clear();
                console.note("(a new conversation)")?;
            }
            "/system" if rest.is_empty() => {
                let text = self.system.as_deref().unwrap_or("(no system message)");
                writeln!(console.err, "{text}")?;
            }
            "/system" => {
                self.system = Some(rest.to_owned());
                console.note("(system message set)")?;
            }
            "/stats" => self.stats(console)?,
            _ => writeln!(console.err, "There is no command {word}; /help lists them.")?,
        }
        Ok(Next::Line)
    }

    fn stats(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        match &self.last {
            None => writeln!(console.err, "(no answer yet)")?,
            Some(answer) => {
                let used = answer.finish.usage.total_tokens();
                let limit = self.engine.info().context_length;
                let kv = size(answer.finish.metrics.kv_bytes);
                writeln!(
                    console.err,
                    "{}\ncontext {used} of {limit} tokens · keys and values {kv}",
                    answer.stats()
                )?;
            }
        }
        Ok(())
    }

    fn ask(&mut self, text: &str, console: &mut Console<'_>) -> Result<Next, Failure> {
        self.turns.push(Message::new("user", text));
        let system = self.system.as_deref().map(|text| Message::new("system", text));
        let messages = system.into_iter().chain(self.turns.iter().cloned()).collect();
        let request = Request { prompt: Prompt::Messages(messages), params: self.params.clone() };
        let answer = match Answer::of(&self.engine, request, true, console) {
            Ok(answer) => answer,
            Err(failure) => {
                // The conversation stays as it was, so that the next message can do better.
                self.turns.pop();
                return Err(explain_overflow(failure, self.params.overflow));
            }
        };
        answer.explain(console)?;
        if answer.text.is_empty() && answer.finish.reason == FinishReason::Cancelled {
            self.turns.pop();
        } else {
            let mut message = Message::new("assistant", answer.text.as_str());
            message.token_ids.clone_from(&answer.token_ids);
            self.turns.push(message);
        }
        self.last = Some(answer);
        Ok(Next::Line)
    }
}

/// In a chat the way out of a full context is another one than elsewhere.
fn explain_overflow(failure: Failure, policy: Overflow) -> Failure {
    match failure {
        Failure::Error(error) if matches!(error.kind(), ErrorKind::ContextOverflow { .. }) => {
            let (what, way_out) = match policy {
                Overflow::Error => ("The conversation has become", "/reset starts a new one"),
                _ => (
                    "Also without what may be left out, the conversation is",
                    "Send the message in smaller parts",
                ),
            };
            Failure::Error(Error::new(
                error.kind().clone(),
                format!("{what} longer than the model's context."),
                format!("{way_out}; a larger --context-length holds more, where the model allows it."),
            ))
        }
        other => other,
    }
}
