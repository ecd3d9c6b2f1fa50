//! `phicandle tokenize`: the tokens of a text.

use serde_json::json;

use super::args::TokenizeArgs;
use super::console::Console;
use super::report::plain;
use super::{Demo, Failure, Outcome, models};
use crate::engine::ModelSource;
use crate::tokenizer::Tokenizer;

/// Writes one line for each token: its id and its text.
pub(super) fn run(args: &TokenizeArgs, demo: &Demo, console: &mut Console<'_>) -> Outcome {
    let text = console.text_or_input(&args.text, "text")?;
    let tokenizer = open(args, demo, console)?;
    let bos = args.no_bos.then_some(false);
    let ids = if args.raw { tokenizer.encode_prompt(&text, bos)? } else { tokenizer.encode(&text, bos)? };
    let pieces: Vec<String> = ids.iter().map(|id| tokenizer.token_text(*id).unwrap_or_default()).collect();
    if args.json {
        writeln!(console.out, "{}", json!({ "count": ids.len(), "ids": ids, "pieces": pieces }))?;
        return Ok(0);
    }
    let width = ids.iter().max().map_or(1, |id| id.to_string().len());
    for (id, piece) in ids.iter().zip(&pieces) {
        writeln!(console.out, "{id:>width$}  \"{}\"", plain(piece))?;
    }
    let plural = if ids.len() == 1 { "" } else { "s" };
    console.note(&format!("{} token{plural}", ids.len()))?;
    Ok(0)
}

fn open(args: &TokenizeArgs, demo: &Demo, console: &Console<'_>) -> Result<Tokenizer, Failure> {
    let located = models::locate_tokenizer(args.model.as_deref(), &args.hub, demo, console)?;
    Ok(match (located.tokenizer, located.source) {
        (Some(path), _) | (None, ModelSource::File(path)) => Tokenizer::from_file(&path)?,
        (None, source) => Tokenizer::from_gguf(&source.open()?.header().metadata)?,
    })
}
