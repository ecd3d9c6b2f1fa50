//! A chat template: parsed once, rendered for each prompt, sandboxed.

use std::collections::BTreeMap;
use std::io;

use minijinja::{Environment, ErrorKind as Cause};
use serde_json::{Map, Value};

use super::environment::{self, Refusal};
use super::message::Message;
use super::sums::pay_for_sums;
use super::tools::{self, ToolSlot};
use crate::error::{Error, ErrorKind, Result};
use crate::tokenizer::{Guard, RenderedPrompt};

/// Longest template source, in bytes. The longest published ones have 20 KB.
const MAX_SOURCE: usize = 64 << 10;

/// Fuel of every rendering, and what each message, tool and byte of them adds. One unit is an instruction or 64 bytes
/// made or read, so a template that has nothing to render can make at most 1.3 MB.
const BASE_FUEL: u64 = 20_000;
const FUEL_PER_MESSAGE: u64 = 2_000;
const FUEL_PER_BYTE: u64 = 1;

/// Output of every rendering, in bytes, and what each byte of the messages adds.
const BASE_OUTPUT: usize = 1 << 20;
const OUTPUT_PER_BYTE: usize = 8;

/// Stack of the thread that parses and renders. A caller's own may be as small as 512 KB.
const STACK: usize = 16 << 20;

/// The name that the one template has in its environment.
const NAME: &str = "chat_template";

/// A model's chat template, ready to render.
///
/// The template may come from a hostile file: it sees the messages and nothing else, and time, memory, nesting and
/// output are bounded.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
    tool_slot: ToolSlot,
}

impl ChatTemplate {
    /// Parses a template in Jinja's language, as `tokenizer.chat_template` of a GGUF file or `chat_template` of a
    /// `tokenizer_config.json` holds it. `bos`, `eos`: the spellings that the template gets as `bos_token`, `eos_token`.
    ///
    /// Errors: [`Template`](crate::ErrorKind::Template) with the line of the fault; sources over 64 KiB.
    pub fn parse(source: &str, bos: &str, eos: &str) -> Result<Self> {
        if source.len() > MAX_SOURCE {
            return Err(unusable(
                None,
                format!("The chat template has {} bytes, over the limit of {MAX_SOURCE}.", source.len()),
            ));
        }
        // A name that the source does not know, so it cannot give the function another meaning.
        let mut paid = "paid".to_owned();
        while source.contains(&paid) {
            paid.push('_');
        }
        let bounded = pay_for_sums(source, &paid).map_err(|(line, why)| {
            unusable(Some(line), format!("The chat template does not parse: {why}."))
        })?;
        let parsed = on_own_stack(|| {
            let mut environment = environment::new(&paid)?;
            environment.add_template_owned(NAME, bounded)?;
            let tool_slot = ToolSlot::of(&environment.get_template(NAME)?, source);
            Ok((environment, tool_slot))
        })?;
        let (environment, tool_slot) = parsed.map_err(|error: minijinja::Error| {
            unusable(error.line(), format!("The chat template does not parse: {}.", reason(&error)))
        })?;
        let [source, bos, eos] = [source, bos, eos].map(str::to_owned);
        Ok(Self { environment, source, bos, eos, tool_slot })
    }

    /// The template's source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for `messages`, up to where the assistant's answer begins with `add_generation_prompt`.
    /// `control_tokens`: the tokenizer's [`special_tokens`](crate::tokenizer::Tokenizer::special_tokens), none of which
    /// can come out of a message.
    ///
    /// Errors: [`Template`](crate::ErrorKind::Template) when the template refuses the messages, fails, or does not end.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        control_tokens: &BTreeMap<String, u32>,
    ) -> Result<RenderedPrompt> {
        self.render_with_tools(messages, &[], add_generation_prompt, control_tokens)
    }

    /// As [`render`](Self::render), with `tools`: JSON schemas of functions. A template gets them as its variable
    /// `tools`, or, where it looks for them there as Phi-4-mini's does, as a text in the system message.
    ///
    /// Errors: as [`render`](Self::render), and [`Template`](crate::ErrorKind::Template) when there are tools and the
    /// template looks for them nowhere.
    pub fn render_with_tools(
        &self,
        messages: &[Message],
        tools: &[Value],
        add_generation_prompt: bool,
        control_tokens: &BTreeMap<String, u32>,
    ) -> Result<RenderedPrompt> {
        let moved = match self.tool_slot {
            _ if tools.is_empty() => None,
            ToolSlot::Variable => None,
            ToolSlot::SystemMessage => Some(tools::in_system_message(messages, tools)),
            ToolSlot::Nowhere => return Err(no_tools()),
        };
        let (messages, tools) = match &moved {
            Some(messages) => (messages.as_slice(), [].as_slice()),
            None => (messages, tools),
        };
        let texts = self.texts(messages, tools);
        let size: usize = texts.iter().map(|text| text.len()).sum::<usize>() - self.source.len();
        let guard = Guard::new(control_tokens, texts.into_iter())?;

        let mut context = Map::new();
        context
            .insert("messages".into(), messages.iter().map(|message| protected(&guard, message)).collect());
        if !tools.is_empty() {
            context.insert("tools".into(), tools.iter().map(|tool| protect(&guard, tool)).collect());
        } else {
            context.insert("tools".into(), Value::Null);
        }
        context.insert("documents".into(), Value::Null);
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        context.insert("bos_token".into(), self.bos.as_str().into());
        context.insert("eos_token".into(), self.eos.as_str().into());

        let limit = BASE_OUTPUT + size * OUTPUT_PER_BYTE;
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(
            BASE_FUEL
                + (messages.len() + tools.len()) as u64 * FUEL_PER_MESSAGE
                + size as u64 * FUEL_PER_BYTE,
        ));
        let mut out = Capped { bytes: Vec::new(), limit };
        let rendered = on_own_stack(|| {
            let context = minijinja::Value::from(minijinja::value::Serde(&context));
            environment.get_template(NAME)?.render_captured_to(context, &mut out).map(drop)
        })?;
        rendered.map_err(|error| failed(&error, limit))?;
        let text = String::from_utf8(out.bytes)
            .map_err(|_| unusable(None, "The chat template's output is not UTF-8.".to_owned()))?;
        Ok(guard.finish(text))
    }

    /// Every text that can come into a prompt.
    pub(super) fn texts<'v>(&'v self, messages: &'v [Message], tools: &'v [Value]) -> Vec<&'v str> {
        let mut texts: Vec<&str> = vec![&self.source, &self.bos, &self.eos];
        for message in messages {
            texts.extend([message.role.as_str(), message.content.as_str()]);
            message.extra.iter().for_each(|(key, value)| strings(key, value, &mut texts));
        }
        tools.iter().for_each(|tool| strings("", tool, &mut texts));
        texts
    }
}

/// Runs `work` on a thread whose stack holds the deepest template that the limits allow.
fn on_own_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("phicandle-template".into()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work).map_err(|error| {
            Error::internal(format!("No thread could be started for the chat template: {error}."))
        })?;
        thread.join().map_err(|_| Error::internal("The template engine panicked."))
    })
}

/// A message as the template sees it.
fn protected(guard: &Guard, message: &Message) -> Value {
    let mut fields = Map::new();
    fields.insert("role".into(), guard.protect(&message.role, false).into());
    fields.insert("content".into(), guard.protect(&message.content, true).into());
    for (key, value) in &message.extra {
        fields.insert(key.clone(), protect(guard, value));
    }
    Value::Object(fields)
}

/// `value` with every string in it protected. Serde reads JSON at most 128 deep, so this recursion is shallow.
fn protect(guard: &Guard, value: &Value) -> Value {
    match value {
        Value::String(text) => guard.protect(text, true).into(),
        Value::Array(items) => items.iter().map(|item| protect(guard, item)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (guard.protect(key, false), protect(guard, value))).collect()
        }
        other => other.clone(),
    }
}

/// All strings in `value`, and `key`.
fn strings<'v>(key: &'v str, value: &'v Value, texts: &mut Vec<&'v str>) {
    texts.push(key);
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| strings("", item, texts)),
        Value::Object(fields) => fields.iter().for_each(|(key, value)| strings(key, value, texts)),
        _ => {}
    }
}

/// Output that ends at a limit.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Capped {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if part.len() > self.limit - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cold]
fn unusable(line: Option<usize>, message: String) -> Error {
    Error::new(ErrorKind::Template { line }, message, "Give a working template as `chat_template=`.")
}

#[cold]
fn no_tools() -> Error {
    Error::new(
        ErrorKind::Template { line: None },
        "The chat template writes no tools: the model was not trained to call any.",
        "Describe the tools in the system message, or give a template that writes them as `chat_template=`.",
    )
}

#[cold]
fn failed(error: &minijinja::Error, limit: usize) -> Error {
    let source = || std::error::Error::source(error);
    if source().is_some_and(|source| source.is::<Refusal>()) {
        return Error::new(
            ErrorKind::Template { line: error.line() },
            format!("The chat template refuses these messages: {}.", reason(error)),
            "Change the messages to what the model expects, or give another template as `chat_template=`.",
        );
    }
    let message = match error.kind() {
        Cause::OutOfFuel => {
            "The chat template does too much work for these messages; it may not end.".to_owned()
        }
        Cause::WriteFailure => {
            format!("The chat template writes more than {limit} bytes for these messages.")
        }
        _ => format!("The chat template fails on these messages: {}.", reason(error)),
    };
    unusable(error.line(), message)
}

/// The engine's words, without a final dot and short enough for a log.
fn reason(error: &minijinja::Error) -> String {
    let text = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let text: String = text.chars().take(200).collect();
    text.trim_end_matches('.').to_owned()
}
