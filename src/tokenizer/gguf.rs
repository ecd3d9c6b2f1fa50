//! A tokenizer from a GGUF file's metadata.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::encoder::{MergeTable, Spelling, TextEncoder};
use super::family::Family;
use super::special::{AddedToken, TURN_CLOSERS, ends_turn, is_sentence_mark, looks_like_control};
use super::vocabulary::{
    Alphabet, Pieces, TokenKind, broken, byte_of, byte_to_char, id_at, unescape_bytes, unescape_spaces,
};
use super::{KnownIds, Parts, presplit, spm};
use crate::error::{Error, ErrorKind, Result};
use crate::gguf::Metadata;

/// Token types of `tokenizer.ggml.token_type` (llama.cpp's `llama_token_type`).
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// What the metadata says about the vocabulary.
pub(crate) struct VocabularySource {
    pub(crate) alphabet: Alphabet,
    /// Spellings by id.
    pub(crate) tokens: Vec<Vec<u8>>,
    /// One score per token (SentencePiece only).
    pub(crate) scores: Vec<f32>,
    /// One type per token, or none at all.
    pub(crate) types: Vec<i32>,
    /// `left right`, the first first (byte-level only).
    pub(crate) merges: Vec<Vec<u8>>,
    /// The pre-tokenizer's name (byte-level only).
    pub(crate) pre: Option<String>,
    pub(crate) ids: KnownIds,
    pub(crate) add_bos: Option<bool>,
    pub(crate) add_space_prefix: Option<bool>,
}

/// What both alphabets have been found to have.
struct Known {
    pieces: Pieces,
    added: Vec<AddedToken>,
    ids: KnownIds,
    turn_ends: BTreeSet<u32>,
    family: Option<Family>,
}

impl VocabularySource {
    /// Reads the `tokenizer.ggml.*` keys, which must agree with each other.
    pub(crate) fn read(metadata: &Metadata) -> Result<Self> {
        metadata.check_vocabulary()?;
        let alphabet = match metadata.str("tokenizer.ggml.model")? {
            Some("llama") => Alphabet::SentencePiece,
            Some("gpt2") => Alphabet::ByteLevel,
            other => return Err(unknown_model(other)),
        };
        let strings = |key| -> Result<Vec<Vec<u8>>> {
            Ok(metadata
                .strings(key)?
                .map(|array| array.iter().map(<[u8]>::to_vec).collect())
                .unwrap_or_default())
        };
        let id = |name: &str| -> Result<Option<u32>> {
            let id = metadata.u64(&format!("tokenizer.ggml.{name}_token_id"))?;
            Ok(id.and_then(|id| u32::try_from(id).ok()))
        };
        let tokens = strings("tokenizer.ggml.tokens")?;
        if tokens.is_empty() {
            return Err(Error::corrupt("tokenizer.ggml.tokens", None, "The file has no vocabulary."));
        }
        Ok(Self {
            alphabet,
            tokens,
            scores: metadata.f32s("tokenizer.ggml.scores")?.unwrap_or_default(),
            types: metadata.i32s("tokenizer.ggml.token_type")?.unwrap_or_default(),
            merges: strings("tokenizer.ggml.merges")?,
            pre: metadata.str("tokenizer.ggml.pre")?.map(str::to_owned),
            ids: KnownIds {
                bos: id("bos")?,
                eos: id("eos")?,
                eot: id("eot")?,
                eom: id("eom")?,
                unk: id("unknown")?,
                pad: id("padding")?,
            },
            add_bos: metadata.bool("tokenizer.ggml.add_bos_token")?,
            add_space_prefix: metadata.bool("tokenizer.ggml.add_space_prefix")?,
        })
    }

    /// Builds the tokenizer's parts.
    pub(crate) fn build(self) -> Result<Parts> {
        let family = self.family();
        let kinds = self.kinds(&self.ids);
        let mut ids = self.ids;
        ids.eot = ids.eot.or_else(|| self.position(family?.end_of_turn()?));
        let added = self.added(&kinds, family);
        let mut pieces = Pieces::default();
        for (spelling, &kind) in self.tokens.iter().zip(&kinds) {
            match (kind, self.alphabet) {
                (TokenKind::Byte(byte), _) => pieces.push(kind, &[byte]),
                (TokenKind::Normal, Alphabet::SentencePiece) => pieces.push(kind, &unescape_spaces(spelling)),
                (TokenKind::Normal, Alphabet::ByteLevel) => pieces.push(kind, &unescape_bytes(spelling)),
                _ => pieces.push(kind, spelling),
            }
        }
        let turn_ends = self.turn_ends(&kinds, &ids, family)?;
        let known = Known { pieces, added, ids, turn_ends, family };
        match self.alphabet {
            Alphabet::SentencePiece => self.sentence_piece(known, &kinds),
            Alphabet::ByteLevel => self.byte_level(known, &kinds),
        }
    }

    fn family(&self) -> Option<Family> {
        Family::of(self.alphabet, |wanted| self.position(wanted).is_some())
    }

    /// The first token with a spelling.
    fn position(&self, wanted: &str) -> Option<u32> {
        let index = self.tokens.iter().position(|token| token == wanted.as_bytes())?;
        u32::try_from(index).ok()
    }

    /// The part of every token. Types are believed except where they would let text forge a control token.
    fn kinds(&self, ids: &KnownIds) -> Vec<TokenKind> {
        let named: HashSet<u32> = ids.all().collect();
        let one = |(index, spelling): (usize, &Vec<u8>)| {
            let id = u32::try_from(index).unwrap_or(u32::MAX);
            let text = std::str::from_utf8(spelling).unwrap_or_default();
            let kind = match self.types.get(index).copied() {
                Some(CONTROL | UNKNOWN) => TokenKind::Control,
                Some(UNUSED) => TokenKind::Unused,
                _ if looks_like_control(text) => TokenKind::Control,
                Some(USER_DEFINED)
                    if is_sentence_mark(text) || TURN_CLOSERS.contains(&text) || named.contains(&id) =>
                {
                    TokenKind::Control
                }
                Some(USER_DEFINED) => TokenKind::UserDefined,
                None if is_sentence_mark(text) => TokenKind::Control,
                Some(BYTE) | None => byte_of(spelling).map_or(TokenKind::Normal, TokenKind::Byte),
                Some(_) => TokenKind::Normal,
            };
            // The byte tokens of byte-level vocabularies are their one-character tokens.
            match (kind, self.alphabet) {
                (TokenKind::Byte(_), Alphabet::ByteLevel) => TokenKind::Normal,
                (kind, _) => kind,
            }
        };
        self.tokens.iter().enumerate().map(one).collect()
    }

    fn added(&self, kinds: &[TokenKind], family: Option<Family>) -> Vec<AddedToken> {
        let mut added = Vec::new();
        for (id, (spelling, kind)) in (0u32..).zip(self.tokens.iter().zip(kinds)) {
            let Ok(spelling) = std::str::from_utf8(spelling) else { continue };
            let control = match kind {
                TokenKind::Control => true,
                TokenKind::UserDefined => false,
                TokenKind::Normal | TokenKind::Byte(_) | TokenKind::Unused => continue,
            };
            let strips = family.filter(|_| control).map(|family| family.strips(spelling));
            let (lstrip, rstrip) = strips.unwrap_or_default();
            added.push(AddedToken { spelling: spelling.to_owned(), id, control, lstrip, rstrip });
        }
        added
    }

    fn turn_ends(
        &self,
        kinds: &[TokenKind],
        ids: &KnownIds,
        family: Option<Family>,
    ) -> Result<BTreeSet<u32>> {
        let mut ends: BTreeSet<u32> = [ids.eos, ids.eot, ids.eom].into_iter().flatten().collect();
        for (index, (spelling, kind)) in self.tokens.iter().zip(kinds).enumerate() {
            if *kind == TokenKind::Control
                && let Ok(spelling) = std::str::from_utf8(spelling)
                && ends_turn(spelling, family)
            {
                ends.insert(id_at(index)?);
            }
        }
        Ok(ends)
    }

    /// Spelling to id of the tokens that merging may produce. Of two with one spelling the first counts.
    fn mergeable(&self, kinds: &[TokenKind], wanted: impl Fn(TokenKind) -> bool) -> HashMap<String, u32> {
        let mut vocab = HashMap::with_capacity(self.tokens.len());
        for (id, (spelling, kind)) in (0u32..).zip(self.tokens.iter().zip(kinds)) {
            if let Ok(spelling) = std::str::from_utf8(spelling)
                && wanted(*kind)
                && !spelling.is_empty()
            {
                vocab.entry(spelling.to_owned()).or_insert(id);
            }
        }
        vocab
    }

    fn sentence_piece(self, known: Known, kinds: &[TokenKind]) -> Result<Parts> {
        let Known { pieces, added, ids, turn_ends, family } = known;
        if self.scores.len() != self.tokens.len() {
            return Err(wrong_length("tokenizer.ggml.scores", self.scores.len(), self.tokens.len()));
        }
        let mut vocab = self.mergeable(kinds, |kind| kind == TokenKind::Normal);
        let merges = spm::merges(&vocab, &self.scores)?;
        let bytes = self.mergeable(kinds, |kind| matches!(kind, TokenKind::Byte(_)));
        let all_bytes = (0..=255u8).all(|byte| bytes.contains_key(&format!("<0x{byte:02X}>")));
        vocab.extend(bytes);
        let unknown = ids.unk.filter(|_| !all_bytes).and_then(|id| Some((self.spelling(id)?, id)));
        if let Some((spelling, id)) = &unknown {
            vocab.entry(spelling.clone()).or_insert(*id);
        } else if !all_bytes {
            return Err(broken(
                "The vocabulary has neither a token for every byte nor an unknown token, so some text has no ids.",
            ));
        }
        let prefix = self.add_space_prefix.unwrap_or(true);
        let table = MergeTable {
            vocab,
            merges,
            unknown: unknown.map(|(spelling, _)| spelling),
            byte_fallback: true,
            fuse_unknown: true,
            whole_words: false,
        };
        let encoder = TextEncoder::new(table, Spelling::SpaceMarks { prefix })?;
        let add_bos = self.add_bos.unwrap_or(true);
        Ok(Parts { pieces, encoder, added, ids, add_bos, strips_space: prefix, turn_ends, family })
    }

    fn byte_level(self, known: Known, kinds: &[TokenKind]) -> Result<Parts> {
        let Known { pieces, added, ids, turn_ends, family } = known;
        let rule = presplit::named(self.pre.as_deref())?;
        if self.merges.is_empty() {
            // As in llama.cpp: without them every text would become single bytes, which no model was trained on.
            return Err(broken(
                "The file's vocabulary is a byte-level BPE, and `tokenizer.ggml.merges` is absent.",
            ));
        }
        let vocab = self.mergeable(kinds, |kind| kind == TokenKind::Normal);
        let missing =
            (0..=255u8).filter(|&byte| !vocab.contains_key(byte_to_char(byte).to_string().as_str())).count();
        if missing > 0 {
            // As in transformers and llama.cpp. Their unknown token may be a control token, so it is no way out.
            log::debug!(
                "the vocabulary has no token for {missing} of the 256 bytes; text with them loses them"
            );
        }
        let table = MergeTable {
            merges: self.merges.iter().map(|merge| split_merge(merge)).collect::<Result<_>>()?,
            vocab,
            unknown: None,
            byte_fallback: false,
            fuse_unknown: false,
            whole_words: rule.whole_words,
        };
        let encoder = TextEncoder::new(table, Spelling::Bytes { split: rule.splitter })?;
        let add_bos = self.add_bos.unwrap_or(rule.bos);
        Ok(Parts { pieces, encoder, added, ids, add_bos, strips_space: false, turn_ends, family })
    }

    fn spelling(&self, id: u32) -> Option<String> {
        String::from_utf8(self.tokens.get(id as usize)?.clone()).ok()
    }
}

/// The two parts of a merge, `left right`. The left part has at least one byte, which may itself be a space.
fn split_merge(merge: &[u8]) -> Result<(String, String)> {
    let fault = || {
        Error::corrupt(
            "tokenizer.ggml.merges",
            None,
            "A merge is not two pieces of text with a space between them.",
        )
    };
    let merge = std::str::from_utf8(merge).map_err(|_| fault())?;
    let after_first = merge.chars().next().map_or(0, char::len_utf8);
    let space = merge.get(after_first..).and_then(|rest| rest.find(' ')).ok_or_else(fault)? + after_first;
    let (left, right) = merge.split_at(space);
    Ok((left.to_owned(), right.get(1..).unwrap_or_default().to_owned()))
}

#[cold]
fn wrong_length(key: &str, found: usize, tokens: usize) -> Error {
    Error::corrupt(key, None, format!("`{key}` has {found} entries for a vocabulary of {tokens} tokens."))
}

#[cold]
fn unknown_model(name: Option<&str>) -> Error {
    let name: String = name.unwrap_or("(none)").chars().take(64).collect();
    Error::new(
        ErrorKind::UnsupportedModel { arch: None, tensor: None, quant: None },
        format!("The file's tokenizer (tokenizer.ggml.model) is `{name}`; known are `llama` and `gpt2`."),
        "Give the model's own tokenizer.json as `tokenizer=`, or choose a Phi file.",
    )
}
