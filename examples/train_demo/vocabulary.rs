//! The tokens: Phi-3's control tokens, the bytes, and pieces of words about one syllable long.
//!
//! Every beginning of a piece is a token too, and a longer token always scores better than a shorter one. Merging the
//! best-scored pair then walks a word from its start and takes the longest piece each time, so nearly every piece
//! comes out as one syllable, and the network can count.

use std::collections::{BTreeSet, HashMap};

use crate::grammar::Grammar;
use crate::syllables::Dictionary;

/// SentencePiece's mark for a space.
pub(crate) const SPACE: char = '\u{2581}';

/// A token's kind, numbered as GGUF numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A piece of text.
    Normal = 1,
    /// What cannot be written otherwise.
    Unknown = 2,
    /// Never part of the text.
    Control = 3,
    /// One byte of a character that has no token.
    Byte = 6,
}

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) score: f32,
    pub(crate) kind: Kind,
}

/// The tokens in the order of their ids.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    tokens: Vec<Token>,
    ids: HashMap<String, u32>,
}

/// The control tokens after the pieces, in Phi-3's order.
const CONTROLS: [&str; 11] = [
    "<|endoftext|>",
    "<|assistant|>",
    "<|placeholder1|>",
    "<|placeholder2|>",
    "<|placeholder3|>",
    "<|placeholder4|>",
    "<|system|>",
    "<|end|>",
    "<|placeholder5|>",
    "<|placeholder6|>",
    "<|user|>",
];

impl Vocabulary {
    /// The tokens for the words of `dictionary`, of `sentences` (requests), and of the beginnings of the lines.
    pub(crate) fn build(dictionary: &Dictionary, grammar: &Grammar, sentences: &str, extra: &str) -> Self {
        let mut pieces: BTreeSet<String> = BTreeSet::new();
        let mut add = |piece: &str| {
            let chars: Vec<char> = piece.chars().collect();
            for end in 1..=chars.len() {
                pieces.insert(chars[..end].iter().collect());
            }
        };
        for (_, syllables) in dictionary.iter() {
            for (i, syllable) in syllables.iter().enumerate() {
                add(&if i == 0 { format!("{SPACE}{syllable}") } else { syllable.clone() });
            }
        }
        for word in grammar.openers() {
            if let Some((_, syllables)) = dictionary.iter().find(|(known, _)| *known == word) {
                add(&syllables[0]);
            }
        }
        let words = sentences.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| word.len() > 1);
        for word in words.filter(|word| word.len() <= 8) {
            add(&format!("{SPACE}{word}"));
        }
        for piece in extra.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace) {
            add(&piece.replace('_', &SPACE.to_string()));
        }
        for c in (' '..='~').filter(|c| *c != ' ') {
            add(&c.to_string());
        }
        for c in 'A'..='Z' {
            add(&format!("{SPACE}{c}"));
            add(&format!("{SPACE}{}", c.to_ascii_lowercase()));
        }
        Self::number(pieces)
    }

    /// Gives ids and scores: longer before shorter, the beginning of a word before the middle of one.
    fn number(pieces: BTreeSet<String>) -> Self {
        let vowel = |c: Option<char>| c.is_some_and(|c| "aeiouy".contains(c));
        let mut pieces: Vec<String> = pieces.into_iter().collect();
        pieces.sort_by_key(|piece| {
            let mut chars = piece.chars();
            let (first, second) = (chars.next(), chars.next());
            let middle = match (first == Some(SPACE), vowel(first), vowel(second)) {
                (true, ..) => 0,
                (_, false, true) => 1,
                (_, true, false) => 2,
                _ => 3,
            };
            (std::cmp::Reverse(piece.chars().count()), middle, piece.clone())
        });
        let special = |text: &str, kind| Token { text: text.to_owned(), score: -1000.0, kind };
        let mut tokens = vec![
            special("<unk>", Kind::Unknown),
            special("<s>", Kind::Control),
            special("</s>", Kind::Control),
        ];
        tokens.extend((0..=255).map(|byte| Token {
            text: format!("<0x{byte:02X}>"),
            score: 0.0,
            kind: Kind::Byte,
        }));
        tokens.extend(pieces.into_iter().enumerate().map(|(rank, text)| Token {
            text,
            score: -1.0 - rank as f32,
            kind: Kind::Normal,
        }));
        tokens.extend(CONTROLS.iter().map(|text| special(text, Kind::Control)));
        let ids = tokens.iter().enumerate().map(|(id, token)| (token.text.clone(), id as u32)).collect();
        Self { tokens, ids }
    }

    /// The tokens in the order of their ids.
    pub(crate) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The ids of the pieces of text.
    pub(crate) fn pieces(&self) -> std::ops::Range<u32> {
        // <unk>, <s>, </s> and the bytes come first.
        259..(self.tokens.len() - CONTROLS.len()) as u32
    }

    /// The pieces that begin a word, without their mark, and the other pieces of letters.
    pub(crate) fn word_parts(&self) -> (Vec<String>, Vec<String>) {
        let pieces =
            self.tokens.iter().filter(|token| token.kind == Kind::Normal).map(|token| token.text.as_str());
        let letters = |text: &str| text.chars().all(|c| c.is_ascii_lowercase());
        let first = pieces
            .clone()
            .filter_map(|text| text.strip_prefix(SPACE))
            .filter(|text| text.len() > 1 && letters(text));
        let later = pieces.filter(|text| text.len() > 1 && letters(text));
        (first.map(str::to_owned).collect(), later.map(str::to_owned).collect())
    }

    /// The id of a token by its exact text.
    pub(crate) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// A control token's id. The names are constants of this program, so an unknown one is token 0.
    pub(crate) fn control(&self, text: &str) -> u32 {
        self.id(text).unwrap_or(0)
    }

    /// SentencePiece's byte-pair encoding: the best-scored neighbours are merged, the leftmost first among equals.
    /// With `prefix` the text is encoded as if a space stood before it.
    pub(crate) fn encode(&self, text: &str, prefix: bool) -> Vec<u32> {
        if text.is_empty() {
            return Vec::new();
        }
        let spaced = text.replace(' ', &SPACE.to_string());
        let spaced = if prefix { format!("{SPACE}{spaced}") } else { spaced };
        // No piece has a space inside, so words can be merged one by one.
        let mut starts: Vec<usize> =
            spaced.match_indices(SPACE).map(|(at, _)| at).filter(|at| *at > 0).collect();
        starts.insert(0, 0);
        starts.push(spaced.len());
        starts.windows(2).flat_map(|ends| self.encode_word(&spaced[ends[0]..ends[1]])).collect()
    }

    fn encode_word(&self, word: &str) -> Vec<u32> {
        let mut symbols: Vec<String> = word.chars().map(String::from).collect();
        loop {
            let mut best: Option<(f32, usize)> = None;
            for at in 0..symbols.len().saturating_sub(1) {
                let joined = format!("{}{}", symbols[at], symbols[at + 1]);
                let token = self.id(&joined).map(|id| &self.tokens[id as usize]);
                let better = |token: &&Token| best.is_none_or(|(score, _)| token.score > score);
                if let Some(token) = token.filter(|token| token.kind == Kind::Normal).filter(better) {
                    best = Some((token.score, at));
                }
            }
            let Some((_, at)) = best else { break };
            let right = symbols.remove(at + 1);
            symbols[at].push_str(&right);
        }
        let byte = |b: u8| self.id(&format!("<0x{b:02X}>")).unwrap_or(0);
        symbols
            .iter()
            .flat_map(|symbol| match self.id(symbol) {
                Some(id) => vec![id],
                None => symbol.bytes().map(byte).collect(),
            })
            .collect()
    }

    /// The text of tokens; control tokens give none.
    pub(crate) fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for token in ids.iter().filter_map(|&id| self.tokens.get(id as usize)) {
            match token.kind {
                Kind::Normal => bytes.extend(token.text.replace(SPACE, " ").bytes()),
                Kind::Byte => {
                    bytes.extend(token.text.get(3..5).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
                }
                Kind::Unknown | Kind::Control => {}
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
