//! Stop strings: found across chunks, and never given out in part.

/// Watches text for stop strings. Text that may be the beginning of one is held back until that is settled.
#[derive(Debug, Default)]
pub(super) struct StopMatcher {
    stops: Vec<String>,
    include: bool,
    held: String,
}

/// What one piece of text led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// Text that is final now.
    pub(super) text: String,
    /// The stop string that was found, if one was.
    pub(super) stop: Option<String>,
}

impl StopMatcher {
    /// Watches for `stops`; with `include` a stop string found is given out too.
    pub(super) fn new(stops: &[String], include: bool) -> Self {
        Self { stops: stops.to_vec(), include, held: String::new() }
    }

    /// Takes `text` in. Of several stop strings the one that ends first wins, then the longer one: so the answer does not
    /// depend on how the text was cut.
    pub(super) fn push(&mut self, text: &str) -> Passed {
        self.held.push_str(text);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at, stop)))
            .min_by_key(|(at, stop)| (at + stop.len(), *at));
        if let Some((at, stop)) = found {
            let stop = stop.clone();
            self.held.truncate(if self.include { at + stop.len() } else { at });
            return Passed { text: std::mem::take(&mut self.held), stop: Some(stop) };
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Passed { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// Takes `text` in without looking for stop strings, as `min_tokens` asks.
    pub(super) fn pass(&mut self, text: &str) -> String {
        self.held.push_str(text);
        std::mem::take(&mut self.held)
    }

    /// The text that is still held back: no stop string came of it.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length in bytes of the longest end of `text` that is a beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    (1..stop.len())
        .rev()
        .filter(|&length| stop.is_char_boundary(length))
        .find(|&length| text.ends_with(&stop[..length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a reader sees when `pieces` come one by one.
    fn read(pieces: &[&str], stops: &[&str], include: bool) -> (String, Option<String>) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut matcher = StopMatcher::new(&stops, include);
        let mut seen = String::new();
        for piece in pieces {
            let passed = matcher.push(piece);
            seen.push_str(&passed.text);
            if passed.stop.is_some() {
                return (seen, passed.stop);
            }
        }
        seen.push_str(&matcher.finish());
        (seen, None)
    }

    #[test]
    fn a_stop_string_across_pieces_is_cut() {
        assert_eq!(read(&["one ST", "OP two"], &["STOP"], false), ("one ".into(), Some("STOP".into())));
        assert_eq!(read(&["one ST", "OP two"], &["STOP"], true), ("one STOP".into(), Some("STOP".into())));
        assert_eq!(read(&["one ST", "ART"], &["STOP"], false), ("one START".into(), None));
    }

    #[test]
    fn the_first_to_end_and_then_the_longest_wins() {
        assert_eq!(read(&["abcd"], &["cd", "bc"], false), ("a".into(), Some("bc".into())));
        assert_eq!(read(&["abcd"], &["abcd", "bc"], false), ("a".into(), Some("bc".into())));
        assert_eq!(read(&["abcd"], &["bc", "abc"], false), ("".into(), Some("abc".into())));
    }

    #[test]
    fn code_points_stay_whole() {
        assert_eq!(read(&["é", "è"], &["éé"], false), ("éè".into(), None));
        assert_eq!(read(&["xé", "é"], &["éé"], false), ("x".into(), Some("éé".into())));
    }

    proptest! {
        /// Cut anywhere, the text seen is the whole text up to the first stop string, as `str::find` finds it.
        #[test]
        fn cutting_the_text_changes_nothing(
            text in "[ab\u{e9}]{0,24}",
            stops in proptest::collection::vec("[ab\u{e9}]{1,4}", 1..4),
            cuts in proptest::collection::vec(0_usize..24, 0..6),
        ) {
            let mut pieces = Vec::new();
            let mut rest = text.as_str();
            for cut in cuts {
                let at = rest.char_indices().nth(cut).map_or(rest.len(), |(at, _)| at);
                let (piece, after) = rest.split_at(at);
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (seen, stop) = read(&pieces, &stops, false);
            let ends = stops.iter().filter_map(|stop| text.find(stop).map(|at| (at + stop.len(), at)));
            match ends.min() {
                Some((end, at)) => prop_assert_eq!((seen.as_str(), stop.as_deref()), (&text[..at], Some(&text[at..end]))),
                None => prop_assert_eq!((seen, stop), (text, None)),
            }
        }
    }
}
