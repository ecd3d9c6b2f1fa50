//! Which of the published vocabularies a vocabulary is: what a file does not say follows from that.

use super::vocabulary::Alphabet;

/// A published vocabulary, told by its control tokens, which fine-tunes and converted files keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Phi-1, Phi-1.5 and Phi-2: GPT-2's byte pairs, and CodeGen's runs of spaces and tabs. No control token but
    /// `<|endoftext|>`.
    Phi2,
    /// Phi-3 and Phi-3.5, all sizes: Llama 2's vocabulary with `<|user|>`, `<|assistant|>`, `<|end|>`.
    Phi3,
    /// Phi-4 (14B): GPT-4's vocabulary with `<|im_start|>`, `<|im_sep|>`, `<|im_end|>`.
    Phi4,
    /// Phi-4-mini: GPT-4o's vocabulary with Phi-3's control tokens, and some for tools.
    Phi4Mini,
    /// Any vocabulary with ChatML's `<|im_start|>` and `<|im_end|>`.
    ChatMl,
}

impl Family {
    /// The family of a vocabulary; `has` says whether it holds a token, by spelling.
    pub(super) fn of(alphabet: Alphabet, has: impl Fn(&str) -> bool) -> Option<Self> {
        let all = |spellings: &[&str]| spellings.iter().all(|spelling| has(spelling));
        if all(&["<|im_start|>", "<|im_end|>"]) {
            return Some(if has("<|im_sep|>") { Self::Phi4 } else { Self::ChatMl });
        }
        if all(&["<|user|>", "<|assistant|>", "<|end|>"]) {
            return Some(match alphabet {
                Alphabet::SentencePiece => Self::Phi3,
                Alphabet::ByteLevel => Self::Phi4Mini,
            });
        }
        // As they stand: inside the byte alphabet no token has a space or a tab.
        (alphabet == Alphabet::ByteLevel && all(&["  ", "\t\t", "<|endoftext|>"])).then_some(Self::Phi2)
    }

    /// Whether a control token takes the whitespace before and after it along: `lstrip` and `rstrip` of the published
    /// `tokenizer_config.json`. GGUF has no field for that. llama.cpp goes by the model's name, which misses Phi-3.5
    /// and renamed files, and knows no rule for Phi-4.
    pub(super) fn strips(self, spelling: &str) -> (bool, bool) {
        match self {
            Self::Phi3 => (false, !matches!(spelling, "<unk>" | "<s>" | "<|endoftext|>")),
            Self::Phi4 => {
                let marked = spelling.starts_with("<|");
                (marked, marked)
            }
            Self::Phi4Mini => {
                let plain = matches!(spelling, "<|endoftext|>" | "<|endofprompt|>");
                (false, spelling.starts_with("<|") && !plain)
            }
            Self::Phi2 | Self::ChatMl => (false, false),
        }
    }

    /// Whether a control token that opens a turn also ends one: the published `generation_config.json` of Phi-3 and
    /// Phi-3.5 lists `<|assistant|>` with the tokens that end an answer.
    pub(super) fn opener_ends(self, spelling: &str) -> bool {
        self == Self::Phi3 && spelling == "<|assistant|>"
    }

    /// The token that closes a turn.
    pub(super) fn end_of_turn(self) -> Option<&'static str> {
        match self {
            Self::Phi2 => None,
            Self::Phi3 | Self::Phi4Mini => Some("<|end|>"),
            Self::Phi4 | Self::ChatMl => Some("<|im_end|>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_published_vocabulary_is_known_by_its_control_tokens() {
        let of = |alphabet, tokens: &[&str]| Family::of(alphabet, |wanted| tokens.contains(&wanted));
        let turns = ["<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"];
        assert_eq!(of(Alphabet::SentencePiece, &turns), Some(Family::Phi3));
        assert_eq!(of(Alphabet::ByteLevel, &turns), Some(Family::Phi4Mini));
        assert_eq!(
            of(Alphabet::ByteLevel, &["<|im_start|>", "<|im_sep|>", "<|im_end|>"]),
            Some(Family::Phi4)
        );
        assert_eq!(of(Alphabet::ByteLevel, &["<|im_start|>", "<|im_end|>"]), Some(Family::ChatMl));
        assert_eq!(of(Alphabet::ByteLevel, &["  ", "\t\t", "<|endoftext|>"]), Some(Family::Phi2));
        assert_eq!(of(Alphabet::ByteLevel, &["<|endoftext|>"]), None);
        assert_eq!(of(Alphabet::SentencePiece, &["<s>", "</s>"]), None);
    }

    /// Rows of the published `tokenizer_config.json` files.
    #[test]
    fn stripping_is_that_of_the_published_files() {
        for (family, spelling, expected) in [
            (Family::Phi3, "<s>", (false, false)),
            (Family::Phi3, "</s>", (false, true)),
            (Family::Phi3, "<|endoftext|>", (false, false)),
            (Family::Phi3, "<|placeholder1|>", (false, true)),
            (Family::Phi4, "<|endoftext|>", (true, true)),
            (Family::Phi4, "<|dummy_0|>", (true, true)),
            (Family::Phi4, "\u{ef}\u{bf}\u{bd}", (false, false)),
            (Family::Phi4Mini, "<|endoftext|>", (false, false)),
            (Family::Phi4Mini, "<|endofprompt|>", (false, false)),
            (Family::Phi4Mini, "<|/tool_call|>", (false, true)),
            (Family::Phi4Mini, "<|end|>", (false, true)),
            (Family::ChatMl, "<|im_end|>", (false, false)),
        ] {
            assert_eq!(family.strips(spelling), expected, "{family:?} {spelling}");
        }
    }
}
