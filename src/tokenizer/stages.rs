//! The stages before merging in a `tokenizer.json`: normaliser and pre-tokenizer.

use serde_json::Value;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

use super::encoder::{Pipeline, Spelling};
use super::presplit::{self, Splitter};
use super::vocabulary::broken;
use crate::error::Result;

/// Parts whose meaning here is the crate's own. Others are refused rather than half understood.
const NORMALIZERS: [&str; 10] =
    ["Sequence", "Prepend", "Replace", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents"];
const PRE_TOKENIZERS: [&str; 8] =
    ["Sequence", "ByteLevel", "Split", "Digits", "Metaspace", "Whitespace", "WhitespaceSplit", "Punctuation"];

/// How text is spelled. Stages that the models of the family have go our own way, which gives the same and takes no
/// longer for a long run of one character; others are left to the crate `tokenizers`.
pub(super) fn spelling(normalizer: Option<&Value>, pre_tokenizer: Option<Value>) -> Result<Spelling> {
    match (normalizer, &pre_tokenizer) {
        (None, Some(stage)) => {
            if let Some(split) = splitter(stage)? {
                return Ok(Spelling::Bytes { split });
            }
        }
        (Some(stage), None) if is_space_marks(stage) => return Ok(Spelling::SpaceMarks { prefix: true }),
        _ => {}
    }
    Ok(Spelling::Pipeline(Box::new(Pipeline {
        normalizer: normalizer.map(self::normalizer).transpose()?,
        first: pre_tokenizer.as_ref().map(self::pre_tokenizer).transpose()?,
        later: pre_tokenizer.map(never_first).as_ref().map(self::pre_tokenizer).transpose()?,
    })))
}

/// The cuts of a known byte-level pre-tokenizer: digits apart or not, a published pattern, then bytes.
fn splitter(stage: &Value) -> Result<Option<Splitter>> {
    let mut parts = Vec::new();
    flatten(Some(stage), "pretokenizers", &mut parts);
    let is = |part: &Value, kind: &str| part.get("type").and_then(Value::as_str) == Some(kind);
    let flag =
        |part: &Value, name: &str, default: bool| part.get(name).map_or(default, |v| v == &Value::Bool(true));
    let digits =
        parts.first().is_some_and(|part| is(part, "Digits") && flag(part, "individual_digits", false));
    let bytes = |part: &Value, regex: bool| {
        is(part, "ByteLevel")
            && !flag(part, "add_prefix_space", true)
            && flag(part, "use_regex", true) == regex
    };
    match parts.get(usize::from(digits)..) {
        Some([last]) if bytes(last, true) => presplit::gpt_2(digits).map(Some),
        Some([split, last]) if is(split, "Split") && bytes(last, false) => {
            let behavior = split.get("behavior").and_then(Value::as_str);
            // The patterns match all text, so words are the matches either way.
            let whole = match flag(split, "invert", false) {
                false => behavior == Some("Isolated"),
                true => matches!(behavior, Some("Isolated" | "Removed")),
            };
            match split.pointer("/pattern/Regex").and_then(Value::as_str) {
                Some(pattern) if whole => presplit::published(pattern, digits),
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

/// Whether a normaliser puts `▁` first and in place of every space, and does no more.
fn is_space_marks(stage: &Value) -> bool {
    let mut parts = Vec::new();
    flatten(Some(stage), "normalizers", &mut parts);
    let text = |part: &Value, at: &str| part.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let [prepend, replace] = parts.as_slice() else { return false };
    let mark = || Some("▁".to_owned());
    text(prepend, "/type").as_deref() == Some("Prepend")
        && text(prepend, "/prepend") == mark()
        && text(replace, "/type").as_deref() == Some("Replace")
        && text(replace, "/pattern/String").as_deref() == Some(" ")
        && text(replace, "/content") == mark()
}

/// The parts of a `Sequence`, nested ones too.
pub(super) fn flatten<'v>(part: Option<&'v Value>, list: &str, parts: &mut Vec<&'v Value>) {
    let Some(part) = part else { return };
    match part.get(list).or_else(|| part.get("pretokenizers")).or_else(|| part.get("normalizers")) {
        Some(Value::Array(inner)) => inner.iter().for_each(|part| flatten(Some(part), list, parts)),
        _ => parts.push(part),
    }
}

fn checked<T: serde::de::DeserializeOwned>(
    part: &Value,
    list: &str,
    known: &[&str],
    what: &str,
) -> Result<T> {
    let mut parts = Vec::new();
    flatten(Some(part), list, &mut parts);
    for part in parts {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("(none)");
        if !known.contains(&kind) {
            let kind: String = kind.chars().take(64).collect();
            return Err(broken(format!(
                "The tokenizer.json's {what} `{kind}` is not supported; known are {}.",
                known.join(", ")
            )));
        }
    }
    serde_json::from_value(part.clone())
        .map_err(|_| broken(format!("The tokenizer.json's {what} has wrong fields.")))
}

fn normalizer(part: &Value) -> Result<NormalizerWrapper> {
    checked(part, "normalizers", &NORMALIZERS, "normalizer")
}

fn pre_tokenizer(part: &Value) -> Result<PreTokenizerWrapper> {
    checked(part, "pretokenizers", &PRE_TOKENIZERS, "pre-tokenizer")
}

/// The pre-tokenizer for text after an added token: what goes before the first word only, goes nowhere.
fn never_first(mut part: Value) -> Value {
    fn change(part: &mut Value) {
        if let Some(Value::Array(inner)) = part.get_mut("pretokenizers") {
            inner.iter_mut().for_each(change);
        }
        if let Some(scheme) = part.get_mut("prepend_scheme").filter(|scheme| scheme.as_str() == Some("first"))
        {
            *scheme = Value::from("never");
        }
    }
    change(&mut part);
    part
}
