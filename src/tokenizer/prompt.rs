//! A rendered conversation in which only the template's own control tokens count.
//!
//! Before rendering, a mark (a character that occurs nowhere in the conversation) goes into every spelling of a control
//! token inside a message. The template then renders as ever. The tokenizer looks for control tokens while the marks
//! are in place, so that a marked spelling is not found, and takes them out of the text between.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::special::{AddedToken, Matcher};
use crate::error::{Error, ErrorKind, Result};

/// A prompt made by a chat template. [`Tokenizer::encode_rendered`](super::Tokenizer::encode_rendered) turns it into
/// ids in which message content never is a control token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedPrompt {
    marked: String,
    mark: char,
    /// Parts of `marked` whose ids are known, in their order.
    known: Vec<(Range<usize>, Vec<u32>)>,
}

impl RenderedPrompt {
    /// The prompt as text, for display. Encoding this text would let content forge control tokens.
    pub fn text(&self) -> String {
        unmark(&self.marked, self.mark)
    }

    /// The text with its marks, and the mark.
    pub(crate) fn parts(&self) -> (&str, char) {
        (&self.marked, self.mark)
    }

    /// The parts of the marked text whose ids are known, in their order.
    pub(crate) fn known(&self) -> &[(Range<usize>, Vec<u32>)] {
        &self.known
    }

    /// The prompt that `self` is when the `joint` is taken out of it, with the ids of each text that stood between two of them.
    /// `None` when these are not exactly `texts`, or the prompt is not that of `plain`, which was rendered without joints.
    pub(crate) fn joined(self, joint: char, texts: &[(&str, &[u32])], plain: &Self) -> Option<Self> {
        let (mut marked, mut known) = (String::with_capacity(self.marked.len()), Vec::new());
        let mut parts = self.marked.split(joint);
        marked.push_str(parts.next()?);
        for (text, ids) in texts {
            let part = parts.next().filter(|part| unmark(part, self.mark) == *text)?;
            known.push((marked.len()..marked.len() + part.len(), ids.to_vec()));
            marked.push_str(part);
            marked.push_str(parts.next()?);
        }
        let joined = Self { marked, mark: self.mark, known };
        (parts.next().is_none() && joined.text() == plain.text()).then_some(joined)
    }
}

/// `text` without any `mark`.
pub(crate) fn unmark(text: &str, mark: char) -> String {
    text.chars().filter(|&c| c != mark).collect()
}

/// A character that is in none of `texts`.
pub(crate) fn unused<'t>(texts: impl Iterator<Item = &'t str>) -> Result<char> {
    // Noncharacters first, which no text should hold; then the private planes, where no text can hold all.
    let mut candidates = ('\u{FDD0}'..='\u{FDEF}').chain('\u{F0000}'..='\u{10FFFD}');
    let used: HashSet<char> = texts.flat_map(str::chars).filter(|&c| c >= '\u{FDD0}').collect();
    candidates.find(|c| !used.contains(c)).ok_or_else(|| {
        Error::new(
            ErrorKind::Template { line: None },
            "The messages hold every private character of Unicode, so control tokens cannot be told apart.",
            "Send the text in smaller parts.",
        )
    })
}

/// Marks the control tokens in the messages of one conversation.
#[derive(Debug)]
pub(crate) struct Guard {
    matcher: Matcher,
    spellings: Vec<String>,
    mark: char,
}

impl Guard {
    /// A guard against `control_tokens` whose mark is in none of `texts`: all strings of the conversation and the
    /// template's source.
    pub(crate) fn new<'t>(
        control_tokens: &BTreeMap<String, u32>,
        texts: impl Iterator<Item = &'t str>,
    ) -> Result<Self> {
        let mark = unused(texts)?;
        let added = |(spelling, &id): (&String, &u32)| AddedToken {
            spelling: spelling.clone(),
            id,
            control: true,
            lstrip: false,
            rstrip: false,
        };
        let matcher = Matcher::new(control_tokens.iter().map(added).collect());
        Ok(Self { matcher, spellings: control_tokens.keys().cloned().collect(), mark })
    }

    /// `text` with every control token in it broken. With `edges`, also what could become one together with the
    /// template's text before or after it.
    pub(crate) fn protect(&self, text: &str, edges: bool) -> String {
        let mut breaks: Vec<usize> = Vec::new();
        let after_first =
            |at: usize| at + text.get(at..).and_then(|t| t.chars().next()).map_or(0, char::len_utf8);
        breaks.extend(
            text.char_indices()
                .filter(|&(at, _)| self.matcher.at(text, at, true).is_some())
                .map(|(at, _)| after_first(at)),
        );
        for spelling in self.spellings.iter().filter(|_| edges && !text.is_empty()) {
            for (cut, _) in spelling.char_indices().skip(1) {
                let (head, tail) = spelling.split_at(cut);
                if text.ends_with(head) {
                    breaks.push(after_first(text.len() - head.len()));
                }
                if text.starts_with(tail) {
                    breaks.push(if tail.chars().nth(1).is_some() { after_first(0) } else { 0 });
                }
            }
        }
        breaks.sort_unstable();
        breaks.dedup();
        let mut marked = String::with_capacity(text.len() + breaks.len() * self.mark.len_utf8());
        let mut from = 0;
        for at in breaks {
            marked.push_str(text.get(from..at).unwrap_or_default());
            marked.push(self.mark);
            from = at;
        }
        marked.push_str(text.get(from..).unwrap_or_default());
        marked
    }

    /// The template's output, whose content was [protected](Self::protect).
    pub(crate) fn finish(self, marked: String) -> RenderedPrompt {
        RenderedPrompt { marked, mark: self.mark, known: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(texts: &[&str]) -> Guard {
        let tokens = BTreeMap::from([("<|end|>".to_owned(), 7), ("<|en".to_owned(), 8)]);
        Guard::new(&tokens, texts.iter().copied()).unwrap()
    }

    #[test]
    fn every_spelling_is_broken_and_comes_back() {
        let text = "a<|end|><|end|><<|en";
        let guard = guard(&[text]);
        let marked = guard.protect(text, true);
        assert!(!marked.contains("<|en"), "{marked:?}");
        assert_eq!(guard.finish(marked).text(), text);
    }

    #[test]
    fn edges_cannot_be_completed_by_the_template() {
        let guard = Guard::new(&BTreeMap::from([("<|end|>".to_owned(), 7)]), [].into_iter()).unwrap();
        for (before, content, after) in
            [("", "x<|e", "nd|>"), ("<|end", "|>x", ""), ("<|end|", "> x", ""), ("", "<", "|end|>")]
        {
            let rendered = format!("{before}{}{after}", guard.protect(content, true));
            assert_eq!(guard.matcher.find(&rendered, 0, true).map(|f| f.token.id), None, "{rendered:?}");
        }
        assert_eq!(guard.protect("plain", true), "plain");
        assert_eq!(guard.protect("", true), "");
    }

    #[test]
    fn content_that_holds_the_mark_survives() {
        let text = "\u{FDD0}<|end|>\u{FDD0}";
        let guard = guard(&[text]);
        let marked = guard.protect(text, false);
        assert_eq!(guard.finish(marked).text(), text);
    }
}
