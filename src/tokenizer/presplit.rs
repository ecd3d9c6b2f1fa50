//! How byte-level vocabularies cut text before merging, by the name in `tokenizer.ggml.pre`.
//!
//! The patterns are those of the models' published `tokenizer.json` files; llama.cpp gives the same cuts under the
//! same names.

use tokenizers::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use super::vocabulary::broken;
use crate::error::{Error, ErrorKind, Result};

const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Tiktoken's `cl100k_base`, also used by Llama 3.
const GPT_4: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Tiktoken's `o200k_base`.
const GPT_4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// A named way to cut.
struct Rule {
    names: &'static [&'static str],
    // Each pattern cuts what the ones before it left, matches and gaps alike.
    patterns: &'static [&'static str],
    whole_words: bool,
    bos: bool,
}

const RULES: [Rule; 6] = [
    // llama.cpp's fallback for byte-level files of no known origin.
    Rule {
        names: &["default"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", "[0-9][0-9][0-9]"],
        whole_words: false,
        bos: false,
    },
    Rule { names: &["gpt-2", "gpt2", "phi-2"], patterns: &[GPT_2], whole_words: false, bos: false },
    Rule { names: &["smollm"], patterns: &[r"\p{N}", GPT_2], whole_words: false, bos: false },
    Rule {
        names: &["dbrx", "gpt-4", "phi-4", "smaug-bpe"],
        patterns: &[GPT_4],
        whole_words: false,
        bos: false,
    },
    Rule { names: &["gpt-4o"], patterns: &[GPT_4O], whole_words: false, bos: false },
    Rule { names: &["llama-bpe", "llama3", "llama-v3"], patterns: &[GPT_4], whole_words: true, bos: true },
];

/// What a name in `tokenizer.ggml.pre` stands for.
pub(crate) struct PreSplit {
    /// Cuts the text.
    pub(crate) split: PreTokenizerWrapper,
    /// Whether a word that is a token stays whole.
    pub(crate) whole_words: bool,
    /// Whether begin-of-text goes first when the file does not say.
    pub(crate) bos: bool,
}

/// The rule called `name`; no name means `default`, as in llama.cpp.
pub(crate) fn named(name: Option<&str>) -> Result<PreSplit> {
    if name.is_none() {
        log::warn!(
            "the file names no pre-tokenizer (tokenizer.ggml.pre); its text is cut by the rule `default`"
        );
    }
    let name = name.unwrap_or("default");
    let rule = RULES.iter().find(|rule| rule.names.contains(&name)).ok_or_else(|| unknown(name))?;
    let split = |pattern: &&str| {
        Split::new(SplitPattern::Regex((*pattern).to_owned()), SplitDelimiterBehavior::Isolated, false)
            .map(PreTokenizerWrapper::Split)
            .map_err(|error| broken(format!("The pre-tokenizer `{name}` does not compile: {error}.")))
    };
    let mut splits = rule.patterns.iter().map(split).collect::<Result<Vec<_>>>()?;
    let split = match splits.pop() {
        Some(only) if splits.is_empty() => only,
        last => PreTokenizerWrapper::Sequence(Sequence::new(splits.into_iter().chain(last).collect())),
    };
    Ok(PreSplit { split, whole_words: rule.whole_words, bos: rule.bos })
}

#[cold]
fn unknown(name: &str) -> Error {
    let known: Vec<&str> = RULES.iter().flat_map(|rule| rule.names.iter().copied()).collect();
    let name: String = name.chars().take(64).collect();
    Error::new(
        ErrorKind::UnsupportedModel { arch: None, tensor: None, quant: None },
        format!("The file's pre-tokenizer (tokenizer.ggml.pre) is `{name}`; known are {}.", known.join(", ")),
        "Give the model's own tokenizer.json as `tokenizer=`.",
    )
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::named;

    fn cuts(name: &str, text: &str) -> String {
        let mut words = PreTokenizedString::from(text);
        named(Some(name)).unwrap().split.pre_tokenize(&mut words).unwrap();
        let words = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
        words.iter().map(|(word, ..)| *word).collect::<Vec<_>>().join("¦")
    }

    #[test]
    fn each_rule_cuts_as_its_pattern_reads() {
        let text = "I'LL don't 12345 a1b  c\n\n x_y!!\n/";
        let rows = [
            ("gpt-2", "I¦'¦LL¦ don¦'t¦ 12345¦ a¦1¦b¦ ¦ c¦\n\n¦ x¦_¦y¦!!¦\n¦/"),
            ("smollm", "I¦'¦LL¦ don¦'t¦ ¦1¦2¦3¦4¦5¦ a¦1¦b¦ ¦ c¦\n\n¦ x¦_¦y¦!!¦\n¦/"),
            ("dbrx", "I¦'LL¦ don¦'t¦ ¦123¦45¦ a¦1¦b¦ ¦ c¦\n\n¦ x¦_y¦!!\n¦/"),
            ("llama-bpe", "I¦'LL¦ don¦'t¦ ¦123¦45¦ a¦1¦b¦ ¦ c¦\n\n¦ x¦_y¦!!\n¦/"),
            ("gpt-4o", "I'LL¦ don't¦ ¦123¦45¦ a¦1¦b¦ ¦ c¦\n\n¦ x¦_y¦!!\n/"),
        ];
        for (name, expected) in rows {
            assert_eq!(cuts(name, text), expected, "{name}");
        }
        assert_eq!(cuts("gpt-4o", "camelCaseHTTPServer Éa"), "camel¦Case¦HTTPServer¦ Éa");
        assert_eq!(cuts("default", "a+b 12345"), "a¦+¦b¦ ¦123¦45");
    }
}
