//! How byte-level vocabularies cut text before merging, by the name in `tokenizer.ggml.pre`.
//!
//! The patterns are those of the models' published `tokenizer.json` files; llama.cpp gives the same cuts under the
//! same names. They all end in `\s+(?!\S)|\s+`, which needs an engine that looks ahead, and such engines go back over
//! long runs again and again. So the end is written as `\s+` here, for an engine whose time is linear in the text, and
//! the one character that the longer form would leave to the next word is left to it afterwards.

use regex::Regex;

use super::vocabulary::broken;
use crate::error::{Error, ErrorKind, Result};

const GPT_2: Pattern = Pattern {
    source: r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+",
    spaces: Spaces::LeaveOne,
};

/// Tiktoken's `cl100k_base` as Hugging Face files spell it, also used by Llama 3.
const GPT_4: Pattern = Pattern {
    source: concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    ),
    spaces: Spaces::LeaveOneButLines,
};

/// Tiktoken's `o200k_base`.
const GPT_4O: Pattern = Pattern {
    source: concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
    ),
    spaces: Spaces::LeaveOneButLines,
};

const DIGIT: Pattern = plain(r"\p{N}");

/// One pass over the text.
#[derive(Clone, Copy)]
struct Pattern {
    source: &'static str,
    spaces: Spaces,
}

/// What becomes of a run of whitespace that the pattern's last alternative matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spaces {
    /// There is no such alternative.
    Whole,
    /// Its last character goes to the word after it, when it has more than one.
    LeaveOne,
    /// The same, but a run that ends with a line break was matched by the alternative before, and stays whole.
    LeaveOneButLines,
}

const fn plain(source: &'static str) -> Pattern {
    Pattern { source, spaces: Spaces::Whole }
}

/// A named way to cut.
struct Rule {
    names: &'static [&'static str],
    // Each pattern cuts what the ones before it left, matches and gaps alike.
    patterns: &'static [Pattern],
    whole_words: bool,
    bos: bool,
}

const RULES: [Rule; 6] = [
    // llama.cpp's fallback for byte-level files of no known origin.
    Rule {
        names: &["default"],
        patterns: &[plain(r"[\p{P}\$\+<=>\^~\|]+"), GPT_2, plain(r"\p{N}+"), plain("[0-9][0-9][0-9]")],
        whole_words: false,
        bos: false,
    },
    Rule { names: &["gpt-2", "gpt2", "phi-2"], patterns: &[GPT_2], whole_words: false, bos: false },
    Rule {
        names: &["smollm", "starcoder", "refact"],
        patterns: &[DIGIT, GPT_2],
        whole_words: false,
        bos: false,
    },
    // `dbrx` is what llama.cpp's converter writes for Phi-4.
    Rule {
        names: &["dbrx", "gpt-4", "phi-4", "smaug-bpe"],
        patterns: &[GPT_4],
        whole_words: false,
        bos: false,
    },
    // `gpt-4o` is what it writes for Phi-4-mini.
    Rule { names: &["gpt-4o", "llama4"], patterns: &[GPT_4O], whole_words: false, bos: false },
    Rule { names: &["llama-bpe", "llama3", "llama-v3"], patterns: &[GPT_4], whole_words: true, bos: true },
];

/// What a name in `tokenizer.ggml.pre` stands for.
#[derive(Debug)]
pub(crate) struct PreSplit {
    /// Cuts the text.
    pub(crate) splitter: Splitter,
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
    Ok(PreSplit { splitter: Splitter::new(rule.patterns)?, whole_words: rule.whole_words, bos: rule.bos })
}

/// The cuts of a pattern as a `tokenizer.json` spells it, if it is one of those above. `digits`: whether digits are
/// cut apart first.
pub(crate) fn published(pattern: &str, digits: bool) -> Result<Option<Splitter>> {
    let Some(head) = pattern.strip_suffix(r"\s+(?!\S)|\s+") else { return Ok(None) };
    let known =
        [GPT_2, GPT_4, GPT_4O].into_iter().find(|known| known.source.strip_suffix(r"\s+") == Some(head));
    known
        .map(|known| if digits { Splitter::new(&[DIGIT, known]) } else { Splitter::new(&[known]) })
        .transpose()
}

/// GPT-2's cuts, which the `ByteLevel` of a `tokenizer.json` makes by itself.
pub(crate) fn gpt_2(digits: bool) -> Result<Splitter> {
    if digits { Splitter::new(&[DIGIT, GPT_2]) } else { Splitter::new(&[GPT_2]) }
}

/// Cuts text into the words that are merged one by one, in time linear in the text.
#[derive(Debug)]
pub(crate) struct Splitter(Vec<(Regex, Spaces)>);

impl Splitter {
    fn new(patterns: &[Pattern]) -> Result<Self> {
        let compile = |pattern: &Pattern| {
            Regex::new(pattern.source)
                .map(|regex| (regex, pattern.spaces))
                .map_err(|error| broken(format!("A pre-tokenizer's pattern does not compile: {error}.")))
        };
        patterns.iter().map(compile).collect::<Result<_>>().map(Self)
    }

    /// Gives `word` every word of `text`, in order; joined they are the text.
    ///
    /// # Errors
    /// The first one of `word`.
    pub(crate) fn split<'t>(&self, text: &'t str, word: &mut dyn FnMut(&'t str) -> Result<()>) -> Result<()> {
        cut(&self.0, text, word)
    }
}

fn cut<'t>(
    passes: &[(Regex, Spaces)],
    text: &'t str,
    word: &mut dyn FnMut(&'t str) -> Result<()>,
) -> Result<()> {
    let Some(((regex, spaces), later)) = passes.split_first() else {
        return if text.is_empty() { Ok(()) } else { word(text) };
    };
    let mut from = 0;
    while let Some(found) = regex.find_at(text, from).filter(|found| !found.is_empty()) {
        cut(later, text.get(from..found.start()).unwrap_or_default(), word)?;
        let mut end = found.end();
        if end < text.len() {
            end -= left_over(found.as_str(), *spaces);
        }
        cut(later, text.get(found.start()..end).unwrap_or_default(), word)?;
        from = end;
    }
    cut(later, text.get(from..).unwrap_or_default(), word)
}

/// Bytes at the end of a match, which text follows, that belong to the next word.
fn left_over(found: &str, spaces: Spaces) -> usize {
    let ends_line = found.ends_with(['\r', '\n']);
    let whole = spaces == Spaces::Whole || (spaces == Spaces::LeaveOneButLines && ends_line);
    match found.chars().next_back() {
        Some(last) if !whole && last.len_utf8() < found.len() && found.chars().all(char::is_whitespace) => {
            last.len_utf8()
        }
        _ => 0,
    }
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
    use std::sync::OnceLock;

    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers::{
        OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
    };

    use super::*;

    /// The patterns as OpenAI and the models' repositories publish them.
    const PUBLISHED_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    const PUBLISHED_4: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const PUBLISHED_4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    fn words(splitter: &Splitter, text: &str) -> Vec<String> {
        let mut all = Vec::new();
        let mut word = |word: &str| {
            all.push(word.to_owned());
            Ok(())
        };
        splitter.split(text, &mut word).unwrap();
        all
    }

    fn cuts(name: &str, text: &str) -> String {
        words(&named(Some(name)).unwrap().splitter, text).join("¦")
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
        assert_eq!(cuts("gpt-2", "a\n\nb  \u{2003}c   "), "a¦\n¦\n¦b¦  ¦\u{2003}¦c¦   ");
        assert_eq!(cuts("dbrx", "a \n \n b\n  "), "a¦ \n \n¦ b¦\n¦  ");
    }

    /// Text in which every class of the patterns, and every border between two, comes up often.
    fn texts() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            3 => "[ \\t\\n\\r\u{a0}\u{2003}\u{85}]{1,4}",
            2 => "['\u{2019}](s|T|re|VE|m|Ll|d|\u{17f}|x)",
            2 => "[A-Za-z]{1,5}",
            2 => "[\\p{Lu}\\p{Lt}\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]{1,5}",
            2 => "[\\p{N}]{1,5}",
            2 => "[\\p{P}\\p{S}/]{1,4}",
            1 => "[\u{4e00}-\u{9fff}\u{3040}-\u{30ff}]{1,4}",
            1 => "[\\p{C}\u{1F300}-\u{1FAFF}\u{200d}\u{fe0f}]{1,3}",
            1 => any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat())
    }

    type Published = (&'static str, Splitter, Vec<Split>);

    fn rules() -> &'static [Published] {
        static RULES: OnceLock<Vec<Published>> = OnceLock::new();
        RULES.get_or_init(|| {
            let split = |pattern: &&str| {
                let pattern = SplitPattern::Regex((*pattern).to_owned());
                Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap()
            };
            let rows: [(_, &[&str]); 5] = [
                ("phi-2", &[PUBLISHED_2]),
                ("dbrx", &[PUBLISHED_4]),
                ("gpt-4o", &[PUBLISHED_4O]),
                ("smollm", &[r"\p{N}", PUBLISHED_2]),
                ("default", &[r"[\p{P}\$\+<=>\^~\|]+", PUBLISHED_2, r"\p{N}+", "[0-9][0-9][0-9]"]),
            ];
            let one = |(name, patterns): (&'static str, &[&str])| {
                (name, named(Some(name)).unwrap().splitter, patterns.iter().map(split).collect())
            };
            rows.map(one).into()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Against an engine that does look ahead, given the published patterns.
        #[test]
        fn the_cuts_are_those_of_the_published_patterns(text in texts()) {
            for (name, splitter, patterns) in rules() {
                let mut expected = PreTokenizedString::from(text.as_str());
                for split in patterns {
                    split.pre_tokenize(&mut expected).unwrap();
                }
                let expected = expected.get_splits(OffsetReferential::Original, OffsetType::Byte);
                let found = words(splitter, &text);
                prop_assert!(expected.iter().map(|(word, ..)| *word).eq(found.iter().map(String::as_str)), "{name}: {found:?}");
            }
        }
    }

    #[test]
    fn a_tokenizer_jsons_pattern_is_known_by_its_text() {
        for (pattern, name) in [(PUBLISHED_2, "gpt-2"), (PUBLISHED_4, "dbrx"), (PUBLISHED_4O, "gpt-4o")] {
            let text = "We'LL  see 1234\n\n ümläut!?\n/ ";
            let known = published(pattern, false).unwrap().unwrap();
            assert_eq!(words(&known, text).join("¦"), cuts(name, text));
        }
        assert_eq!(
            words(&published(PUBLISHED_2, true).unwrap().unwrap(), "a 12").join("¦"),
            cuts("smollm", "a 12")
        );
        assert!(published(r"\s+|.", false).unwrap().is_none());
        assert!(published(r"\d+|\s+(?!\S)|\s+", false).unwrap().is_none());
    }

    #[test]
    fn long_runs_stay_whole() {
        for name in ["default", "gpt-2", "smollm", "dbrx", "gpt-4o"] {
            let splitter = named(Some(name)).unwrap().splitter;
            for unit in [" ", "A", "\n", "é", "語", "\u{301}"] {
                let text = unit.repeat(400_000) + "x y z";
                let words = words(&splitter, &text);
                assert_eq!(words.concat(), text);
                assert_eq!(words[words.len() - 2..], [" y", " z"], "{name} {unit:?}");
                assert!(words[0].len() >= 399_999 * unit.len(), "{name} {unit:?}");
            }
        }
    }
}
