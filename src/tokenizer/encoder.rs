//! Text between added tokens to ids: normalise, split, merge.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::joints::Joints;
use super::presplit::Splitter;
use super::vocabulary::{broken, byte_to_char};
use crate::error::{Error, Result};

/// Words remembered within one call, and the longest one in bytes: text repeats its words.
const MAX_WORDS: usize = 1 << 14;
const MAX_WORD: usize = 64;

/// How text is spelled before it is merged.
pub(crate) enum Spelling {
    /// Spaces become `▁`; with `prefix`, one more goes first.
    SpaceMarks { prefix: bool },
    /// The text is split, then each byte becomes its GPT-2 character.
    Bytes { split: Splitter },
    /// As a `tokenizer.json` says.
    Pipeline(Box<Pipeline>),
}

/// The stages before merging in a `tokenizer.json`.
pub(crate) struct Pipeline {
    pub(crate) normalizer: Option<NormalizerWrapper>,
    /// For text that begins the prompt.
    pub(crate) first: Option<PreTokenizerWrapper>,
    /// For text that does not.
    pub(crate) later: Option<PreTokenizerWrapper>,
}

/// The parts of a byte-pair model.
pub(crate) struct MergeTable {
    /// Spelling to id.
    pub(crate) vocab: HashMap<String, u32>,
    /// Pairs to join, the first first.
    pub(crate) merges: Vec<(String, String)>,
    /// The token for what nothing else spells.
    pub(crate) unknown: Option<String>,
    /// Whether a missing character is spelled by `<0x00>` tokens.
    pub(crate) byte_fallback: bool,
    /// Whether unknown characters in a row give one token.
    pub(crate) fuse_unknown: bool,
    /// Whether a word that is a token stays whole, whatever the merges.
    pub(crate) whole_words: bool,
}

/// Encodes text that holds no added tokens.
pub(crate) struct TextEncoder {
    model: BPE,
    spelling: Spelling,
    /// Where text without words of its own is cut. None where an unknown token may run over several characters.
    joints: Option<Joints>,
}

/// What one call remembers between its pieces of text.
#[derive(Default)]
pub(crate) struct WordCache(HashMap<String, Box<[u32]>>);

impl TextEncoder {
    /// An encoder over `table`, whose merges must all join tokens to a token.
    pub(crate) fn new(table: MergeTable, spelling: Spelling) -> Result<Self> {
        let MergeTable { vocab, mut merges, unknown, byte_fallback, fuse_unknown, whole_words } = table;
        let count = merges.len();
        let mut joined = String::new();
        // The crate slices by the longest token before it looks a merge up, so a bad one must not reach it.
        merges.retain(|(left, right)| {
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            [left, right, &joined].into_iter().all(|part| vocab.contains_key(part.as_str()))
        });
        if merges.len() < count {
            log::warn!(
                "{} of {count} merges name tokens that the vocabulary lacks; they are left out",
                count - merges.len()
            );
        }
        let all_bytes = || (0..=255u8).all(|byte| vocab.contains_key(&format!("<0x{byte:02X}>")));
        let never_unknown = unknown.is_none() || (byte_fallback && all_bytes());
        let joints = (matches!(spelling, Spelling::SpaceMarks { .. }) && never_unknown)
            .then(|| Joints::of(vocab.keys().map(String::as_str)));
        // No cache in the model: it is per thread and outlives the model.
        let mut builder = BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<Vocab>(), merges)
            .cache_capacity(0)
            .byte_fallback(byte_fallback)
            .fuse_unk(fuse_unknown)
            .ignore_merges(whole_words);
        if let Some(unknown) = unknown {
            builder = builder.unk_token(unknown);
        }
        let model = builder
            .build()
            .map_err(|error| broken(format!("The merges do not fit the vocabulary: {error}.")))?;
        Ok(Self { model, spelling, joints })
    }

    /// Appends the ids of `text`. `first`: whether it begins the prompt.
    pub(crate) fn encode(
        &self,
        text: &str,
        first: bool,
        cache: &mut WordCache,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        match &self.spelling {
            Spelling::SpaceMarks { prefix } => {
                let mut spelled = String::with_capacity(text.len() + text.len() / 4 + 3);
                spelled.extend(prefix.then_some('▁'));
                spelled.extend(text.chars().map(|c| if c == ' ' { '▁' } else { c }));
                match &self.joints {
                    Some(joints) => joints.words(&spelled).try_for_each(|word| self.word(word, cache, ids)),
                    None => self.merge(&spelled, ids),
                }
            }
            Spelling::Bytes { split } => {
                let mut spelled = String::new();
                split.split(text, &mut |word| {
                    spelled.clear();
                    spelled.extend(word.bytes().map(byte_to_char));
                    self.word(&spelled, cache, ids)
                })
            }
            Spelling::Pipeline(stages) => {
                let mut normalised = NormalizedString::from(text);
                if let Some(normalizer) = &stages.normalizer {
                    normalizer.normalize(&mut normalised).map_err(failed)?;
                }
                let mut words = PreTokenizedString::from(normalised);
                if let Some(split) = if first { &stages.first } else { &stages.later } {
                    split.pre_tokenize(&mut words).map_err(failed)?;
                }
                for (word, ..) in words.get_splits(OffsetReferential::Normalized, OffsetType::None) {
                    self.word(word, cache, ids)?;
                }
                Ok(())
            }
        }
    }

    fn word(&self, word: &str, cache: &mut WordCache, ids: &mut Vec<u32>) -> Result<()> {
        if word.len() > MAX_WORD {
            return self.merge(word, ids);
        }
        if let Some(known) = cache.0.get(word) {
            ids.extend_from_slice(known);
            return Ok(());
        }
        let before = ids.len();
        self.merge(word, ids)?;
        if cache.0.len() < MAX_WORDS {
            cache.0.insert(word.to_owned(), ids.get(before..).unwrap_or_default().into());
        }
        Ok(())
    }

    fn merge(&self, spelled: &str, ids: &mut Vec<u32>) -> Result<()> {
        let tokens = self.model.tokenize(spelled).map_err(failed)?;
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }
}

impl std::fmt::Debug for TextEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextEncoder").finish_non_exhaustive()
    }
}

#[cold]
fn failed(error: tokenizers::Error) -> Error {
    broken(format!("The text could not be split into tokens: {error}."))
}
