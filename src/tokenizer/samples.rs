//! Small vocabularies for tests, each shaped like a published one: all bytes, some merges learnt from a few words, and
//! the control tokens with the flags of the published `tokenizer_config.json`, written down here a second time.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::Family;
use super::gguf::VocabularySource;
use super::vocabulary::{Alphabet, byte_to_char};
use super::{KnownIds, Tokenizer};

/// An added token: spelling, `lstrip`, `rstrip`, `special`.
type Added = (&'static str, bool, bool, bool);

/// The byte-level families.
pub(crate) const BYTE_LEVEL: [Family; 4] = [Family::Phi2, Family::Phi4, Family::Phi4Mini, Family::ChatMl];

/// Words that the merges are learnt from; the pattern's borders are in them.
const WORDS: &str = "the the there then an and ant in ing tin'll don't don't HTTP Http http 2024 2025 café naïve \
    the the user user system im_start endoftext |> <| \n\n  \n   ice hockey  the 日本 日本語";

fn added(family: Family) -> &'static [Added] {
    match family {
        Family::Phi2 => &[
            ("<|endoftext|>", false, false, true),
            ("        ", false, false, false),
            ("    ", false, false, false),
            ("  ", false, false, false),
            ("\t\t", false, false, false),
        ],
        Family::Phi4 => &[
            ("<|dummy_0|>", true, true, true),
            ("<|endoftext|>", true, true, true),
            ("<|im_start|>", true, true, true),
            ("<|im_end|>", true, true, true),
            ("<|im_sep|>", true, true, true),
        ],
        Family::Phi4Mini => &[
            ("<|endoftext|>", false, false, true),
            ("<|endofprompt|>", false, false, true),
            ("<|assistant|>", false, true, true),
            ("<|end|>", false, true, true),
            ("<|user|>", false, true, true),
            ("<|system|>", false, true, true),
            ("<|tool|>", false, true, false),
            ("<|/tool|>", false, true, false),
            ("<|tool_call|>", false, true, false),
            ("<|/tool_call|>", false, true, false),
        ],
        Family::ChatMl => &[
            ("<|endoftext|>", false, false, true),
            ("<|im_start|>", false, false, true),
            ("<|im_end|>", false, false, true),
        ],
        Family::Phi3 => unreachable!("a SentencePiece vocabulary"),
    }
}

/// The pre-tokenizer's name as llama.cpp's converter writes it, and the pattern of the published `tokenizer.json`.
fn pre(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Phi4 => (
            "dbrx",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        Family::Phi4Mini => (
            "gpt-4o",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        _ => ("phi-2", ""),
    }
}

/// Spellings of the text tokens in the order of their ids, and the merges.
fn learnt() -> (Vec<String>, Vec<(String, String)>) {
    let mut words: Vec<Vec<String>> = WORDS
        .split_inclusive(' ')
        .map(|word| word.bytes().map(|byte| byte_to_char(byte).to_string()).collect())
        .collect();
    let mut tokens: Vec<String> = (0..=255u8).map(|byte| byte_to_char(byte).to_string()).collect();
    let mut merges = Vec::new();
    for _ in 0..120 {
        let mut counts: BTreeMap<(&String, &String), usize> = BTreeMap::new();
        for pair in words.iter().flat_map(|word| word.windows(2)) {
            *counts.entry((&pair[0], &pair[1])).or_default() += 1;
        }
        let Some(((left, right), _)) = counts.into_iter().max_by_key(|&(_, count)| count) else { break };
        let (left, right) = (left.clone(), right.clone());
        let joined = left.clone() + &right;
        for word in &mut words {
            let mut at = 0;
            while at + 1 < word.len() {
                if word[at] == left && word[at + 1] == right {
                    word.splice(at..at + 2, [joined.clone()]);
                }
                at += 1;
            }
        }
        if !tokens.contains(&joined) {
            tokens.push(joined);
        }
        merges.push((left, right));
    }
    (tokens, merges)
}

/// The vocabulary as llama.cpp's converter would put it into a GGUF file.
pub(super) fn gguf(family: Family) -> VocabularySource {
    let (mut tokens, merges) = learnt();
    let mut types = vec![1; tokens.len()];
    let mut eos = None;
    for &(spelling, _, _, special) in added(family) {
        if spelling == "<|endoftext|>" {
            eos = u32::try_from(tokens.len()).ok();
        }
        tokens.push(spelling.to_owned());
        types.push(if special { 3 } else { 4 });
    }
    VocabularySource {
        alphabet: Alphabet::ByteLevel,
        tokens: tokens.into_iter().map(String::into_bytes).collect(),
        scores: Vec::new(),
        types,
        merges: merges.iter().map(|(left, right)| format!("{left} {right}").into_bytes()).collect(),
        pre: Some(pre(family).0.to_owned()),
        ids: KnownIds { bos: eos, eos, ..KnownIds::default() },
        add_bos: Some(false),
        add_space_prefix: None,
    }
}

/// The vocabulary as its repository would publish it.
pub(crate) fn json(family: Family) -> Vec<u8> {
    let (tokens, merges) = learnt();
    let first = tokens.len();
    let vocab: HashMap<String, usize> = tokens.into_iter().zip(0..).collect();
    let added: Vec<Value> = (added(family).iter().zip(first..))
        .map(|(&(content, lstrip, rstrip, special), id)| {
            // Phi-2's runs of spaces are `normalized` there; without a normaliser that changes nothing.
            json!({"id": id, "content": content, "lstrip": lstrip, "rstrip": rstrip, "special": special,
                "single_word": false, "normalized": false})
        })
        .collect();
    let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let pre_tokenizer = match pre(family).1 {
        "" => bytes(true),
        pattern => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": true}, bytes(false)]}),
    };
    let value = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges},
    });
    serde_json::to_vec(&value).unwrap()
}

/// A small tokenizer of the family, from its GGUF form.
pub(crate) fn tokenizer(family: Family) -> Tokenizer {
    Tokenizer::from(gguf(family).build().unwrap())
}
