//! A tokenizer from a `tokenizer.json`, as Hugging Face's tokenizers write it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::Value;

use super::encoder::{MergeTable, TextEncoder};
use super::family::Family;
use super::special::{AddedToken, ends_turn, is_sentence_mark, looks_like_control};
use super::stages::{self, flatten};
use super::vocabulary::{
    Alphabet, MAX_TOKENS, Pieces, TokenKind, broken, byte_of, id_at, unescape_bytes, unescape_spaces,
};
use super::{KnownIds, Parts};
use crate::error::Result;

/// Largest file that is read. Phi-4-mini's has 16 MB.
pub(crate) const MAX_FILE: u64 = 128 << 20;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    ignore_merges: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Joined(String),
    Pair(String, String),
}

/// Reads the file's bytes.
pub(super) fn parse(bytes: &[u8]) -> Result<Parts> {
    if bytes.len() as u64 > MAX_FILE {
        return Err(broken(format!(
            "The tokenizer.json has {} bytes, over the limit of {MAX_FILE}.",
            bytes.len()
        )));
    }
    let file: File = serde_json::from_slice(bytes).map_err(|error| {
        broken(format!(
            "The tokenizer.json is not one of byte pairs (fault at line {}, column {}).",
            error.line(),
            error.column()
        ))
    })?;
    file.build()
}

impl File {
    fn build(self) -> Result<Parts> {
        let model = &self.model;
        if model.kind.as_deref().is_some_and(|kind| kind != "BPE") {
            return Err(broken("The tokenizer.json's model is not BPE, the only kind that Phi models use."));
        }
        let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
        if affixes.into_iter().flatten().any(|affix| !affix.is_empty()) {
            return Err(broken(
                "The tokenizer.json's model marks parts of words with affixes, which is not supported.",
            ));
        }
        let decoder = Decoder::of(self.decoder.as_ref(), self.pre_tokenizer.as_ref())?;
        let added = self.added()?;
        let pieces = self.pieces(&added, decoder.alphabet)?;
        let family = Family::of(decoder.alphabet, |wanted| {
            added.iter().any(|token| token.spelling == wanted) || self.model.vocab.contains_key(wanted)
        });
        let ids = self.ids(&added, family)?;
        let turn_ends = (added.iter())
            .filter(|token| token.control)
            .filter(|token| Some(token.id) == ids.eos || ends_turn(&token.spelling, family))
            .map(|token| token.id)
            .collect::<BTreeSet<_>>();
        let add_bos = self.first_special().is_some();
        let spelling = stages::spelling(self.normalizer.as_ref(), self.pre_tokenizer)?;
        // Merging must not produce a control token out of plain text.
        let control: BTreeSet<u32> =
            added.iter().filter(|token| token.control).map(|token| token.id).collect();
        let unknown = (self.model.unk_token).filter(|unknown| {
            decoder.alphabet == Alphabet::SentencePiece && self.model.vocab.contains_key(unknown)
        });
        let mut vocab = self.model.vocab;
        vocab.retain(|spelling, id| !control.contains(id) || Some(spelling) == unknown.as_ref());
        let mut merges = Vec::with_capacity(self.model.merges.len());
        for merge in self.model.merges {
            let (left, right) = match merge {
                Merge::Pair(left, right) => (left, right),
                Merge::Joined(text) => text
                    .split_once(' ')
                    .map(|(left, right)| (left.to_owned(), right.to_owned()))
                    .ok_or_else(|| broken("A merge of the tokenizer.json is not two pieces of text."))?,
            };
            merges.push((left, right));
        }
        let table = MergeTable {
            vocab,
            merges,
            unknown,
            byte_fallback: self.model.byte_fallback,
            fuse_unknown: self.model.fuse_unk,
            whole_words: self.model.ignore_merges,
        };
        let encoder = TextEncoder::new(table, spelling)?;
        Ok(Parts {
            pieces,
            encoder,
            added,
            ids,
            add_bos,
            strips_space: decoder.strips_space,
            turn_ends,
            family,
        })
    }

    fn added(&self) -> Result<Vec<AddedToken>> {
        let one = |token: &Added| AddedToken {
            spelling: token.content.clone(),
            id: token.id,
            control: token.special || looks_like_control(&token.content) || is_sentence_mark(&token.content),
            lstrip: token.lstrip,
            rstrip: token.rstrip,
        };
        id_at(self.added_tokens.len())?;
        Ok(self.added_tokens.iter().map(one).collect())
    }

    /// Every token by id. Ids without a token are unused places.
    fn pieces(&self, added: &[AddedToken], alphabet: Alphabet) -> Result<Pieces> {
        let mut table: BTreeMap<u32, (TokenKind, &str)> = BTreeMap::new();
        for (spelling, &id) in &self.model.vocab {
            let byte = byte_of(spelling.as_bytes()).filter(|_| self.model.byte_fallback);
            table.insert(id, (byte.map_or(TokenKind::Normal, TokenKind::Byte), spelling));
        }
        for token in added {
            let kind = if token.control { TokenKind::Control } else { TokenKind::UserDefined };
            table.insert(token.id, (kind, &token.spelling));
        }
        let count = table.last_key_value().map_or(0, |(&id, _)| id as usize + 1);
        if count == 0 || count > MAX_TOKENS {
            return Err(broken(format!(
                "The tokenizer.json's ids go up to {count}; from 1 to {MAX_TOKENS} tokens are supported."
            )));
        }
        let mut pieces = Pieces::default();
        for (id, (kind, spelling)) in table {
            while pieces.len() < id as usize {
                pieces.push(TokenKind::Unused, b"");
            }
            match (kind, alphabet) {
                (TokenKind::Byte(byte), _) => pieces.push(kind, &[byte]),
                (TokenKind::Normal, Alphabet::SentencePiece) => {
                    pieces.push(kind, &unescape_spaces(spelling.as_bytes()))
                }
                (TokenKind::Normal, Alphabet::ByteLevel) => {
                    pieces.push(kind, &unescape_bytes(spelling.as_bytes()))
                }
                _ => pieces.push(kind, spelling.as_bytes()),
            }
        }
        Ok(pieces)
    }

    /// The ids with a role. The file names none but the one its post-processor puts first, so the rest go by spelling.
    fn ids(&self, added: &[AddedToken], family: Option<Family>) -> Result<KnownIds> {
        let by_spelling = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| added.iter().find(|token| token.spelling == *name).map(|token| token.id))
        };
        let bos =
            self.first_special().or_else(|| by_spelling(&["<s>", "<|begin_of_text|>", "<|startoftext|>"]));
        Ok(KnownIds {
            bos,
            eos: by_spelling(&["<|endoftext|>", "<|end_of_text|>", "</s>", "<|im_end|>"]),
            eot: family
                .and_then(Family::end_of_turn)
                .and_then(|end| by_spelling(&[end]))
                .or_else(|| by_spelling(&["<|end|>", "<|im_end|>", "<|eot_id|>"])),
            eom: by_spelling(&["<|eom_id|>"]),
            unk: by_spelling(&["<unk>"]),
            pad: None,
        })
    }

    /// The token that the post-processor puts before every text.
    fn first_special(&self) -> Option<u32> {
        fn of(processor: &Value) -> Option<u32> {
            if let Some(parts) = processor.get("processors") {
                return parts.as_array()?.iter().find_map(of);
            }
            let name = processor.pointer("/single/0/SpecialToken/id")?.as_str()?;
            let id = processor.get("special_tokens")?.get(name)?.pointer("/ids/0")?.as_u64()?;
            u32::try_from(id).ok()
        }
        self.post_processor.as_ref().and_then(of)
    }
}

/// How ids become text.
struct Decoder {
    alphabet: Alphabet,
    strips_space: bool,
}

impl Decoder {
    /// Reads it off the `decoder`, or off the pre-tokenizer of files without one.
    fn of(decoder: Option<&Value>, pre_tokenizer: Option<&Value>) -> Result<Self> {
        let mut parts = Vec::new();
        flatten(decoder.or(pre_tokenizer), "decoders", &mut parts);
        let kind =
            |name: &str| parts.iter().find(|part| part.get("type").and_then(Value::as_str) == Some(name));
        if kind("ByteLevel").is_some() {
            return Ok(Self { alphabet: Alphabet::ByteLevel, strips_space: false });
        }
        let strip = kind("Strip").is_some_and(|strip| strip.get("start").and_then(Value::as_u64) >= Some(1));
        let metaspace = kind("Metaspace").map(|part| {
            let never = part.get("prepend_scheme").and_then(Value::as_str) == Some("never");
            !(never || part.get("add_prefix_space").and_then(Value::as_bool) == Some(false))
        });
        if metaspace.is_some() || kind("Replace").is_some() || kind("ByteFallback").is_some() {
            return Ok(Self {
                alphabet: Alphabet::SentencePiece,
                strips_space: strip || metaspace == Some(true),
            });
        }
        Err(broken("The tokenizer.json has neither a ByteLevel nor a SentencePiece-style decoder."))
    }
}
