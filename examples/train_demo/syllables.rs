//! The dictionary of syllables: words written by hand with a hyphen between syllables.

use std::collections::BTreeMap;

/// Words and their syllables, in lower case. It knows nothing of the tokenizer, so the report can count by it.
#[derive(Debug, Default)]
pub(crate) struct Dictionary {
    words: BTreeMap<String, Vec<String>>,
}

impl Dictionary {
    /// Takes in every hyphenated word of `text`; lines that begin with `#` or `[` are left out.
    pub(crate) fn read(&mut self, text: &str) {
        let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
        for word in lines.flat_map(|line| line.split([' ', ',', '*'])).filter(|word| !word.is_empty()) {
            let syllables: Vec<String> = word.to_lowercase().split('-').map(str::to_owned).collect();
            self.words.insert(syllables.concat(), syllables);
        }
    }

    /// The words with their syllables, in alphabetical order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.words.iter().map(|(word, syllables)| (word.as_str(), syllables.as_slice()))
    }

    /// How many syllables a phrase has, or the word that is not in the dictionary. A plural in `s` counts as its singular.
    pub(crate) fn count(&self, phrase: &str) -> Result<usize, String> {
        phrase
            .split_whitespace()
            .map(|word| {
                let plain: String =
                    word.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
                let singular = plain.strip_suffix('s').and_then(|singular| self.words.get(singular));
                self.words.get(&plain).or(singular).map(Vec::len).ok_or(plain)
            })
            .sum()
    }
}

/// How many syllables a word that is in no dictionary most likely has: its groups of vowels, without a silent `e`.
pub(crate) fn guess(word: &str) -> usize {
    let vowel = |c: char| "aeiouy".contains(c);
    let letters: Vec<char> = word.chars().collect();
    let groups =
        (0..letters.len()).filter(|&at| vowel(letters[at]) && (at == 0 || !vowel(letters[at - 1]))).count();
    let silent = match letters.as_slice() {
        [.., before, 'l', 'e'] => vowel(*before),
        [.., before, 'e'] => !vowel(*before),
        _ => false,
    };
    (groups - usize::from(silent && groups > 1)).max(1)
}
