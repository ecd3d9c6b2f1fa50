//! Tokens that are matched as a whole: control tokens, and the user-defined pieces of text that come before merging.

use std::collections::HashMap;

use super::family::Family;

/// Longest spelling that is matched. Real ones have at most a few dozen bytes.
const MAX_SPELLING: usize = 256;

/// A token matched by its spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddedToken {
    /// How the token is written.
    pub(crate) spelling: String,
    /// Its id.
    pub(crate) id: u32,
    /// Matched in raw prompts only.
    pub(crate) control: bool,
    /// Takes the whitespace before it along.
    pub(crate) lstrip: bool,
    /// Takes the whitespace after it along.
    pub(crate) rstrip: bool,
}

/// Finds added tokens in text: leftmost first, then longest, as Hugging Face's tokenizers do.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    tokens: Vec<AddedToken>,
    // A trie over bytes: (node, byte) -> node, and the token that ends at each node.
    edges: HashMap<(u32, u8), u32>,
    ends: Vec<Option<usize>>,
}

/// One found token: `text[start..end]`, whitespace that it takes along included.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found<'m> {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) token: &'m AddedToken,
}

impl Matcher {
    /// A matcher for `tokens`. Of two with one spelling the first counts; spellings of one character are not matched,
    /// because nothing could break them apart inside a message.
    pub(crate) fn new(tokens: Vec<AddedToken>) -> Self {
        let mut matcher = Self { ends: vec![None], ..Self::default() };
        for token in tokens {
            if token.spelling.len() <= MAX_SPELLING && token.spelling.chars().nth(1).is_some() {
                matcher.insert(token);
            }
        }
        matcher
    }

    fn insert(&mut self, token: AddedToken) {
        let mut node = 0;
        for &byte in token.spelling.as_bytes() {
            let Ok(fresh) = u32::try_from(self.ends.len()) else { return };
            node = *self.edges.entry((node, byte)).or_insert(fresh);
            if node == fresh {
                self.ends.push(None);
            }
        }
        if let Some(end) = self.ends.get_mut(node as usize).filter(|end| end.is_none()) {
            *end = Some(self.tokens.len());
            self.tokens.push(token);
        }
    }

    /// The longest token whose spelling begins exactly at `start`.
    pub(crate) fn at(&self, text: &str, start: usize, control: bool) -> Option<&AddedToken> {
        let mut node = 0;
        let mut best = None;
        for &byte in text.as_bytes().get(start..)? {
            let Some(&next) = self.edges.get(&(node, byte)) else { break };
            node = next;
            let token = self.ends.get(node as usize).copied().flatten().and_then(|i| self.tokens.get(i));
            best = token.filter(|token| control || !token.control).or(best);
        }
        best
    }

    /// The first token in `text[from..]`. Control tokens are looked for only where `control` says so.
    pub(crate) fn find(&self, text: &str, from: usize, control: bool) -> Option<Found<'_>> {
        let bytes = text.as_bytes();
        (from..bytes.len()).find_map(|at| {
            let token = self.at(text, at, control)?;
            let end = at + token.spelling.len();
            let start = if token.lstrip { text.get(from..at)?.trim_end().len() + from } else { at };
            let after = text.get(end..)?;
            let end = if token.rstrip { text.len() - after.trim_start().len() } else { end };
            Some(Found { start, end, token })
        })
    }
}

/// Whether a spelling is that of a control token whatever type the file gives it: `<|word|>`. Some converters mark
/// these as normal or user-defined text, and then a message could forge them.
pub(crate) fn looks_like_control(spelling: &str) -> bool {
    let inner = spelling.strip_prefix("<|").and_then(|s| s.strip_suffix("|>"));
    inner.is_some_and(|s| {
        !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./ ".contains(&b))
    })
}

/// Whether a user-defined token is one of the sentence marks, which converters have written with either type.
pub(crate) fn is_sentence_mark(spelling: &str) -> bool {
    matches!(spelling, "<s>" | "</s>" | "<unk>" | "<pad>" | "<mask>")
}

/// Control tokens that close a turn in the Phi family and in the families that its files borrow from.
pub(crate) const TURN_CLOSERS: [&str; 10] = [
    "<|end|>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<|end_of_turn|>",
    "<|return|>",
    "<end_of_turn>",
    "</s>",
];

/// Whether a control token ends a turn in vocabularies of this family.
pub(crate) fn ends_turn(spelling: &str, family: Option<Family>) -> bool {
    TURN_CLOSERS.contains(&spelling) || family.is_some_and(|family| family.opener_ends(spelling))
}

/// Control tokens that a template's source writes straight after a message's content, such as `<|end|>` in
/// `message['content'] + '<|end|>'`: these close a turn even when no list knows them.
pub(crate) fn closers_in_template(source: &str, matcher: &Matcher) -> Vec<u32> {
    let mut closers = Vec::new();
    for (at, word) in source.match_indices("content") {
        let mut from = at + word.len();
        // Only the rest of an expression may stand between: a tag such as `%}` ends the search.
        while let Some(c) = source.get(from..).and_then(|rest| rest.chars().next()) {
            // Runs of spaces are tokens of Phi-2, and the indentation of its template.
            if let Some(token) = matcher.at(source, from, true).filter(|token| token.control) {
                closers.push(token.id);
                break;
            }
            if c == '%' || !(c.is_ascii_punctuation() || c.is_whitespace() || c.is_ascii_alphabetic()) {
                break;
            }
            // A filter name such as `trim` may follow a bar; other words begin another expression.
            if c.is_ascii_alphabetic() {
                let rest = source.get(from..).unwrap_or_default();
                let Some(known) = ["trim()", "trim", "strip()", "rstrip()", "lstrip()", "n"]
                    .iter()
                    .find(|w| rest.starts_with(**w))
                else {
                    break;
                };
                from += known.len();
            } else {
                from += c.len_utf8();
            }
        }
    }
    closers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(spelling: &str, id: u32) -> AddedToken {
        AddedToken { spelling: spelling.into(), id, control: true, lstrip: false, rstrip: false }
    }

    #[test]
    fn the_leftmost_then_longest_token_wins() {
        let matcher =
            Matcher::new(vec![token("<|a|>", 1), token("<|a|>b", 2), token("a|>b", 3), token("x", 4)]);
        let found = matcher.find("x <|a|>b", 0, true).unwrap();
        assert_eq!((found.start, found.end, found.token.id), (2, 8, 2));
        assert_eq!(matcher.find("x <|a|>b", 3, true).unwrap().token.id, 3);
        assert_eq!(matcher.find("x <|a|>b", 0, false), None);
        assert_eq!(matcher.find("x", 0, true), None);
    }

    #[test]
    fn stripping_takes_unicode_whitespace_along() {
        let both = AddedToken { lstrip: true, rstrip: true, ..token("<|a|>", 1) };
        let matcher = Matcher::new(vec![both]);
        let found = matcher.find("a \u{2003}<|a|>\u{a0}\n b", 0, true).unwrap();
        assert_eq!((found.start, &"a \u{2003}<|a|>\u{a0}\n b"[found.end..]), (1, "b"));
    }

    #[test]
    fn a_template_names_its_closers() {
        let matcher = Matcher::new(vec![token("<|sys|>", 1), token("<|over|>", 2), token("<|next|>", 3)]);
        let source = "{% if m['content'] %}{{ '<|sys|>' + m['content'] | trim + '<|over|>\\n' + '<|next|>' }}{% endif %}";
        assert_eq!(closers_in_template(source, &matcher), [2]);
        assert_eq!(closers_in_template("{{ m.content }}<|over|>", &matcher), [2]);
        let spaces = AddedToken { control: false, ..token("    ", 4) };
        let matcher = Matcher::new(vec![spaces, token("<|over|>", 2)]);
        assert_eq!(closers_in_template("{{ m.content }}\n    {% endfor %}", &matcher), [0; 0]);
        assert_eq!(closers_in_template("{{ m.content }}    <|over|>", &matcher), [2]);
        assert_eq!(closers_in_template("{{ content and '<|sys|>' }}", &matcher), [0; 0]);
    }

    #[test]
    fn control_spellings_are_told_from_text() {
        for spelling in ["<|end|>", "<|im_start|>", "<|reserved_special_token_1|>", "<|/tool_call|>"] {
            assert!(looks_like_control(spelling), "{spelling}");
        }
        for spelling in ["<||>", "<|>", "<|a", "<|a|b|>", "<think>", "|end|"] {
            assert!(!looks_like_control(spelling), "{spelling}");
        }
    }
}
