//! What a haiku can be about.

/// A kind of subject and the subjects of it, as `data/subjects.txt` lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The words, without hyphens: `ice hockey`.
    pub(crate) words: String,
    /// The pool of lines that fits it, such as `sport`.
    pub(crate) kind: String,
    /// Whether it takes an article: `a candle`, but `rain`.
    pub(crate) countable: bool,
}

impl Subject {
    /// Reads a list of subjects: headings in brackets, entries parted by commas, `*` before countable ones.
    pub(crate) fn read(text: &str) -> Vec<Self> {
        let mut kind = String::new();
        let mut subjects = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(heading) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                heading.clone_into(&mut kind);
                continue;
            }
            for entry in line.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                let plain = entry.trim_start_matches('*');
                subjects.push(Self {
                    words: plain.replace('-', ""),
                    kind: kind.clone(),
                    countable: entry.starts_with('*'),
                });
            }
        }
        subjects
    }
}

/// `a`, or `an` before a written vowel; words said with another sound than they are written with are told apart.
pub(crate) fn article(words: &str) -> &'static str {
    let sounds_like_consonant = ["uni", "u-", "euro", "one"].iter().any(|start| words.starts_with(start));
    if words.starts_with(['a', 'e', 'i', 'o', 'u']) && !sounds_like_consonant { "an" } else { "a" }
}
