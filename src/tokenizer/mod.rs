//! Text to token ids and back.
//!
//! A [`Tokenizer`] comes from a GGUF file's metadata or from a `tokenizer.json`. It has three doors for text:
//!
//! * [`Tokenizer::encode`]: plain text. A control token's spelling in it stays text.
//! * [`Tokenizer::encode_prompt`]: a raw prompt, in which control tokens count.
//! * [`Tokenizer::encode_rendered`]: a chat template's output, in which the template's control tokens count and those
//!   inside messages stay text.

mod encoder;
mod family;
mod gguf;
mod joints;
mod json;
mod presplit;
mod prompt;
#[cfg(test)]
pub(crate) mod samples;
mod special;
mod spm;
mod stages;
mod stream;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use self::encoder::{TextEncoder, WordCache};
pub use self::family::Family;
pub use self::prompt::RenderedPrompt;
pub(crate) use self::prompt::{Guard, unused};
use self::special::{AddedToken, Matcher};
use self::stream::Progress;
pub use self::stream::TokenStream;
use self::vocabulary::{Pieces, TokenKind};
use crate::error::{Error, ErrorKind, Result};
use crate::gguf::{GgufFile, Metadata};

/// Ids with a role, each as the file names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KnownIds {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) eot: Option<u32>,
    pub(crate) eom: Option<u32>,
    pub(crate) unk: Option<u32>,
    pub(crate) pad: Option<u32>,
}

impl KnownIds {
    fn all(&self) -> impl Iterator<Item = u32> {
        [self.bos, self.eos, self.eot, self.eom, self.unk, self.pad].into_iter().flatten()
    }
}

/// What a source of vocabularies hands over.
struct Parts {
    pieces: Pieces,
    encoder: TextEncoder,
    added: Vec<AddedToken>,
    ids: KnownIds,
    add_bos: bool,
    strips_space: bool,
    turn_ends: BTreeSet<u32>,
    family: Option<Family>,
}

/// A model's vocabulary: text to ids and back. Cheap to share ([`Sync`]); nothing in it changes after loading.
#[derive(Debug)]
pub struct Tokenizer {
    pieces: Pieces,
    encoder: TextEncoder,
    matcher: Matcher,
    control: BTreeMap<String, u32>,
    ids: KnownIds,
    add_bos: bool,
    strips_space: bool,
    turn_ends: BTreeSet<u32>,
    family: Option<Family>,
}

impl From<Parts> for Tokenizer {
    fn from(parts: Parts) -> Self {
        let Parts { pieces, encoder, added, ids, add_bos, strips_space, turn_ends, family } = parts;
        let mut control = BTreeMap::new();
        for token in added.iter().filter(|token| token.control) {
            control.entry(token.spelling.clone()).or_insert(token.id);
        }
        let matcher = Matcher::new(added);
        Self { pieces, encoder, matcher, control, ids, add_bos, strips_space, turn_ends, family }
    }
}

impl Tokenizer {
    /// A tokenizer from a GGUF file's metadata: `tokenizer.ggml.model` is `llama` (SentencePiece-style) or `gpt2`
    /// (byte-level, cut as `tokenizer.ggml.pre` says).
    ///
    /// Errors: [`CorruptModel`](crate::ErrorKind::CorruptModel) names the key at fault,
    /// [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) lists the known names, and
    /// [`Tokenizer`](crate::ErrorKind::Tokenizer) is for a vocabulary that cannot spell text.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        gguf::VocabularySource::read(metadata)?.build().map(Self::from)
    }

    /// A tokenizer from a file: a `.gguf` model, or a `tokenizer.json`. The content decides, not the name.
    ///
    /// Errors: those of [`from_gguf`](Self::from_gguf) and [`from_json`](Self::from_json),
    /// [`ModelNotFound`](crate::ErrorKind::ModelNotFound) and [`ModelRead`](crate::ErrorKind::ModelRead).
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut magic = [0; 4];
        let json =
            std::fs::File::open(path).ok().filter(|file| file.metadata().is_ok_and(|data| data.is_file()));
        match json.map(|mut file| (file.read_exact(&mut magic), file)) {
            Some((Ok(()), mut file)) if &magic != b"GGUF" => {
                let mut bytes = magic.to_vec();
                file.by_ref().take(json::MAX_FILE).read_to_end(&mut bytes).map_err(|error| {
                    Error::new(
                        ErrorKind::ModelRead,
                        format!("The tokenizer file could not be read: {error}."),
                        "Check the disk and the path, then try again.",
                    )
                })?;
                Self::from_json(&bytes)
            }
            // Missing files, folders and the like have their errors there.
            _ => Self::from_gguf(&GgufFile::open(path)?.header().metadata),
        }
    }

    /// A tokenizer from the bytes of a `tokenizer.json`: byte pairs, SentencePiece-style or byte-level.
    ///
    /// Such a file names no end-of-text token, so these go by their well-known spellings.
    ///
    /// Errors: [`Tokenizer`](crate::ErrorKind::Tokenizer).
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        json::parse(bytes).map(Self::from)
    }

    /// The ids of plain text: the spelling of a control token in it stays text. `bos`: whether begin-of-text goes
    /// first; `None` is what the file says.
    ///
    /// Errors: [`InvalidParameter`](crate::ErrorKind::InvalidParameter) when `bos` is asked of a vocabulary without one.
    pub fn encode(&self, text: &str, bos: Option<bool>) -> Result<Vec<u32>> {
        self.run(&[(text, &[])], None, false, bos)
    }

    /// The ids of a raw prompt: control tokens in it count. Begin-of-text is not doubled when the prompt spells it.
    ///
    /// Errors: as [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str, bos: Option<bool>) -> Result<Vec<u32>> {
        self.run(&[(text, &[])], None, true, bos)
    }

    /// The ids of a chat template's output: control tokens of the template count, those inside messages stay text.
    /// Begin-of-text is not doubled when the template writes it.
    ///
    /// Errors: as [`encode`](Self::encode).
    pub fn encode_rendered(&self, prompt: &RenderedPrompt, bos: Option<bool>) -> Result<Vec<u32>> {
        let (marked, mark) = prompt.parts();
        let (mut parts, mut from) = (Vec::new(), 0);
        for (range, ids) in prompt.known() {
            parts.push((marked.get(from..range.start).unwrap_or_default(), &**ids));
            from = range.end;
        }
        parts.push((marked.get(from..).unwrap_or_default(), &[]));
        self.run(&parts, Some(mark), true, bos)
    }

    /// The ids of texts that follow each other, each with ids that come after it.
    fn run(
        &self,
        parts: &[(&str, &[u32])],
        mark: Option<char>,
        control: bool,
        bos: Option<bool>,
    ) -> Result<Vec<u32>> {
        let mut ids =
            Vec::with_capacity(parts.iter().map(|(text, ids)| text.len() / 3 + 1 + ids.len()).sum());
        let mut cache = WordCache::default();
        for (at, (text, after)) in parts.iter().enumerate() {
            let mut from = 0;
            loop {
                let found = self.matcher.find(text, from, control);
                let until = found.as_ref().map_or(text.len(), |found| found.start);
                let plain = text.get(from..until).unwrap_or_default();
                let first = at == 0 && from == 0;
                match mark.filter(|&mark| plain.contains(mark)) {
                    Some(mark) => self.unmarked(&prompt::unmark(plain, mark), first, &mut cache, &mut ids)?,
                    None => self.encoder.encode(plain, first, &mut cache, &mut ids)?,
                }
                let Some(found) = found else { break };
                ids.push(found.token.id);
                from = found.end;
            }
            ids.extend_from_slice(after);
        }
        if bos.unwrap_or(self.add_bos && self.ids.bos.is_some()) {
            let bos = self.ids.bos.ok_or_else(|| {
                Error::invalid(
                    "bos",
                    "This vocabulary has no begin-of-text token.",
                    "Leave `bos` out or pass False.",
                )
            })?;
            if !(control && ids.first() == Some(&bos)) {
                ids.insert(0, bos);
            }
        }
        Ok(ids)
    }

    /// Text out of which marks were taken: user-defined tokens may have come together again.
    fn unmarked(&self, text: &str, first: bool, cache: &mut WordCache, ids: &mut Vec<u32>) -> Result<()> {
        let mut from = 0;
        while let Some(found) = self.matcher.find(text, from, false) {
            self.encoder.encode(
                text.get(from..found.start).unwrap_or_default(),
                first && from == 0,
                cache,
                ids,
            )?;
            ids.push(found.token.id);
            from = found.end;
        }
        self.encoder.encode(text.get(from..).unwrap_or_default(), first && from == 0, cache, ids)
    }

    /// The text of `ids`. Control tokens are left out with `skip_special`, else written as spelled. Bytes that are no
    /// UTF-8 become U+FFFD as in `String::from_utf8_lossy`. In a SentencePiece vocabulary the space that encoding puts
    /// before the text is taken off.
    ///
    /// Errors: [`Tokenizer`](crate::ErrorKind::Tokenizer) for an id outside the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let (mut progress, mut text) = (Progress::default(), String::with_capacity(ids.len() * 4));
        for &id in ids {
            self.decode_one(id, skip_special, &mut progress, &mut text)?;
        }
        progress.finish(&mut text);
        Ok(text)
    }

    fn decode_one(
        &self,
        id: u32,
        skip_special: bool,
        progress: &mut Progress,
        text: &mut String,
    ) -> Result<()> {
        let (Some(kind), Some(bytes)) = (self.pieces.kind(id), self.pieces.bytes(id)) else {
            return Err(vocabulary::broken(format!(
                "Token {id} is outside the vocabulary of {} tokens.",
                self.pieces.len()
            )));
        };
        if !(skip_special && kind.is_control()) {
            progress.push(bytes, self.strips_space && !kind.is_control(), text);
        }
        Ok(())
    }

    /// The bytes of text that token `id` stands for: none for a control token. Bytes, because a token may end inside
    /// a character. `None` outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let kind = self.pieces.kind(id)?;
        let bytes = self.pieces.bytes(id)?;
        Some(if kind.is_control() { Vec::new() } else { bytes.to_vec() })
    }

    /// Token `id` for display: its text with U+FFFD for partial characters, or a control token's spelling.
    pub fn token_text(&self, id: u32) -> Option<String> {
        Some(String::from_utf8_lossy(self.pieces.bytes(id)?).into_owned())
    }

    /// Tokens in the vocabulary. A model may have more rows than this: the rest have no text.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The begin-of-text token.
    pub fn bos_id(&self) -> Option<u32> {
        self.ids.bos
    }

    /// The end-of-text token that the file names; see [`end_of_turn_ids`](Self::end_of_turn_ids) for all that stop.
    pub fn eos_id(&self) -> Option<u32> {
        self.ids.eos
    }

    /// The token that closes a turn of a conversation: as the file names it, else as its family has it.
    pub fn eot_id(&self) -> Option<u32> {
        self.ids.eot
    }

    /// The token for text that nothing else spells, as the file names it.
    pub fn unk_id(&self) -> Option<u32> {
        self.ids.unk
    }

    /// The token that fills up batches, as the file names it. Nothing here uses it.
    pub fn pad_id(&self) -> Option<u32> {
        self.ids.pad
    }

    /// Which of the published vocabularies this is, where its control tokens tell.
    pub fn family(&self) -> Option<Family> {
        self.family
    }

    /// Whether begin-of-text goes first when the caller does not say.
    pub fn adds_bos(&self) -> bool {
        self.add_bos && self.ids.bos.is_some()
    }

    /// The control tokens by spelling.
    pub fn special_tokens(&self) -> &BTreeMap<String, u32> {
        &self.control
    }

    /// Whether `id` never becomes text: a control token, or an unused place in the table.
    pub fn is_control(&self, id: u32) -> bool {
        self.pieces.kind(id).is_some_and(TokenKind::is_control)
    }

    /// Whether `text` is a raw prompt: it begins with a control token of a conversation, such as `<|user|>`, after
    /// begin-of-text or not. `<s>`, `</s>` and `<unk>` alone do not count: they are also HTML and ordinary text.
    pub fn begins_with_control(&self, text: &str) -> bool {
        let opener = |at: usize| self.matcher.at(text, at, true).filter(|token| token.control);
        let first = match opener(0) {
            Some(token) if Some(token.id) == self.ids.bos => opener(token.spelling.len()).or(Some(token)),
            first => first,
        };
        first.is_some_and(|token| {
            special::looks_like_control(&token.spelling)
                || !(self.ids.all().any(|id| id == token.id) || special::is_sentence_mark(&token.spelling))
        })
    }

    /// Every token that ends a turn: end-of-text, end-of-turn and end-of-message as the file names them, the closing
    /// control tokens of the known families (so that a file with wrong metadata still stops), and what the chat
    /// template writes straight after a message's content.
    pub fn end_of_turn_ids(&self, template_source: Option<&str>) -> BTreeSet<u32> {
        let mut ids = self.turn_ends.clone();
        ids.extend(
            template_source
                .into_iter()
                .flat_map(|source| special::closers_in_template(source, &self.matcher)),
        );
        ids
    }
}
