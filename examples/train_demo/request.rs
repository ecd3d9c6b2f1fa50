//! Requests as people word them, and what they are about.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::grammar::{LONGEST, MOODS, SEASONS, Theme};
use crate::subject::{Subject, article};
use crate::syllables::{Dictionary, guess};

/// A request, and what a good answer to it would be about.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// What the user says.
    pub(crate) text: String,
    /// What it asks for.
    pub(crate) wish: Wish,
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    /// A haiku, perhaps on a topic, perhaps of a season or mood (a pool's name).
    Haiku { topic: Option<Topic>, quality: Option<&'static str> },
    /// Something else, of which the model knows nothing.
    Talk,
}

impl Wish {
    /// The subject asked for, if any.
    pub(crate) fn topic(&self) -> Option<&Topic> {
        match self {
            Self::Haiku { topic, .. } => topic.as_ref(),
            Self::Talk => None,
        }
    }
}

/// A subject as a request names it.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    /// With its article and its capitals: `a candle`.
    pub(crate) words: String,
    /// Without them: `candle`.
    pub(crate) bare: String,
    /// The pool that fits, if any is known to.
    pub(crate) kind: Option<String>,
    /// How many syllables `words` has.
    pub(crate) syllables: usize,
}

impl Topic {
    /// The same for the grammar.
    pub(crate) fn theme(&self) -> Theme<'_> {
        Theme { words: &self.words, syllables: self.syllables, kind: self.kind.as_deref(), bare: &self.bare }
    }
}

/// Everything that requests are made of.
pub(crate) struct Requests<'a> {
    sections: BTreeMap<String, Vec<String>>,
    adjectives: Vec<String>,
    known: Vec<String>,
    parts: (Vec<String>, Vec<String>),
    dictionary: &'a Dictionary,
    subjects: Vec<Subject>,
    favourites: Vec<Subject>,
}

impl<'a> Requests<'a> {
    /// Reads the wordings; `favourites` are the subjects with lines of their own, which come up more often.
    pub(crate) fn read(
        wordings: &str,
        subjects: Vec<Subject>,
        favourite: impl Fn(&str) -> bool,
        dictionary: &'a Dictionary,
        parts: (Vec<String>, Vec<String>),
    ) -> Self {
        let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut name = String::new();
        for line in wordings.lines().filter(|line| !line.starts_with('#')) {
            match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                Some(heading) => heading.clone_into(&mut name),
                None if line.is_empty() && name != "end" => {}
                None => sections.entry(name.clone()).or_default().push(line.to_owned()),
            }
        }
        let adjectives = sections.remove("adjective").unwrap_or_default();
        let adjectives = adjectives.iter().flat_map(|line| line.split(' ')).map(str::to_owned).collect();
        let favourites = subjects.iter().filter(|subject| favourite(&subject.words)).cloned().collect();
        let known = dictionary.iter().map(|(word, _)| word.to_owned()).collect();
        Self { sections, adjectives, known, parts, dictionary, subjects, favourites }
    }

    /// A line of a section of the wordings.
    pub(crate) fn pick(&self, section: &str, rng: &mut StdRng) -> &str {
        self.sections.get(section).and_then(|lines| lines.choose(rng)).map_or("", String::as_str)
    }

    /// A random request; a plain one with the chance `ease`.
    pub(crate) fn draw(&self, ease: f64, rng: &mut StdRng) -> Request {
        if rng.random_bool(ease) {
            return self.fill("Write a haiku about {x}", Some(self.topic(rng)), false, rng);
        }
        let roll: f64 = rng.random();
        let mut request = if roll < 0.08 {
            let text = if rng.random_bool(0.6) {
                self.pick("talk", rng).replace("{x}", &self.topic(rng).words)
            } else {
                let count = rng.random_range(1..6);
                format!("{} {}", self.pick("talk start", rng), self.filler(count, rng).join(" "))
            };
            Request { text: text + ["", "", "?", "."].choose(rng).copied().unwrap_or(""), wish: Wish::Talk }
        } else {
            let topic = (roll > 0.11).then(|| self.topic(rng));
            let wording = self.wording(topic.is_some(), true, rng);
            self.fill(&wording, topic, true, rng)
        };
        if rng.random_bool(0.10) {
            request.text = format!("{} {}", self.opening(rng), request.text);
        }
        request
    }

    /// Puts a topic, and with `free` perhaps a season or mood, into a wording.
    pub(crate) fn fill(&self, wording: &str, topic: Option<Topic>, free: bool, rng: &mut StdRng) -> Request {
        let (quality, word) = if free && wording.contains("{q}") { quality(rng) } else { (None, "") };
        let mut text = if word.is_empty() {
            wording.replace("{q} ", "")
        } else {
            wording.replace("a {q}", &format!("{} {word}", article(word))).replace("{q}", word)
        };
        let mut topic = topic;
        if free && rng.random_bool(0.2) {
            text = text.to_lowercase();
        } else if let Some(topic) = topic.as_mut().filter(|_| free && rng.random_bool(0.12)) {
            topic.words = title_case(&topic.words);
        }
        let words = topic.as_ref().map_or("", |topic| topic.words.as_str());
        Request { text: text.replace("{x}", words), wish: Wish::Haiku { topic, quality } }
    }

    /// A wording with `{x}` in it, or without one; with `noise` it may be partly random.
    pub(crate) fn wording(&self, about: bool, noise: bool, rng: &mut StdRng) -> String {
        let roll: f64 = rng.random();
        if about && noise && roll < 0.25 {
            return self.wild(rng);
        }
        if about && noise && roll < 0.32 {
            let count = rng.random_range(1..4);
            let clause = format!("{} {}", self.pick("clause", rng), self.filler(count, rng).join(" "));
            return format!("{clause}, {}", self.wording(true, false, rng).to_lowercase());
        }
        if about && roll < 0.6 {
            return self.jolt(self.pick("whole", rng), noise, rng);
        }
        let question = rng.random_bool(0.35);
        let ask = self.pick(if question { "question" } else { "ask" }, rng);
        let mut text = format!("{ask} {}", self.pick("poem", rng));
        if about {
            text = format!("{text} {} {{x}}", self.pick("about", rng));
        }
        let mut text = self.jolt(&text, noise, rng);
        if question && rng.random_bool(0.8) {
            text.push('?');
        } else {
            text.push_str(self.pick("end", rng));
        }
        text
    }

    /// A wording of mostly random words around what gives a request away, for the wordings that nobody thought of.
    fn wild(&self, rng: &mut StdRng) -> String {
        let mut words = Vec::new();
        let form: f64 = rng.random();
        if form < 0.6 {
            let count = rng.random_range(0..6);
            words.extend(self.filler(count, rng));
            words.push(self.pick("cue", rng).to_owned());
            if rng.random_bool(0.2) {
                words.extend(self.filler(1, rng));
            }
            let about = self.pick("about", rng).to_owned();
            words.push(if rng.random_bool(0.15) { self.filler(1, rng).join(" ") } else { about });
            words.push("{x}".to_owned());
        } else if form < 0.75 {
            words.extend(self.filler(1, rng));
            words.extend(["{x}".to_owned(), self.pick("means", rng).to_owned()]);
        } else {
            let count = rng.random_range(1..6);
            words.extend(self.filler(count, rng));
            words.extend([self.pick("naming", rng).to_owned(), "{x}".to_owned()]);
        }
        let mut text = words.join(" ");
        match rng.random_range(0..10) {
            0 => text = format!("{text} {}", self.pick("later", rng)),
            1 => text = format!("{text}, {}", self.pick("later", rng)),
            2 => {
                let count = rng.random_range(1..5);
                text = format!("{text}, {}", self.filler(count, rng).join(" "));
            }
            3 => text = format!("{text} {} {}", self.pick("later", rng), self.filler(1, rng).join(" ")),
            _ => {}
        }
        text.push_str(["", "", ".", "?", "?", "!", " please"].choose(rng).copied().unwrap_or(""));
        if let Some(first) = text.get_mut(0..1).filter(|_| rng.random_bool(0.7)) {
            first.make_ascii_uppercase();
        }
        text
    }

    /// Words that say nothing: known ones and invented ones.
    fn filler(&self, count: usize, rng: &mut StdRng) -> Vec<String> {
        let mut words = Vec::new();
        for _ in 0..count {
            let word = match rng.random_range(0..4) {
                0 => (0..rng.random_range(1..4)).map(|_| sound(rng)).collect(),
                1 => {
                    let section =
                        ["ask", "question", "opening", "talk", "end"].choose(rng).copied().unwrap_or("ask");
                    let line: Vec<&str> = self.pick(section, rng).split_whitespace().collect();
                    line.choose(rng)
                        .map_or("", |word| word.trim_matches(['.', ',', '{', '}', '?']))
                        .to_lowercase()
                }
                _ => self.known.choose(rng).cloned().unwrap_or_default(),
            };
            if !word.is_empty() && word != "x" {
                words.push(word);
            }
        }
        words
    }

    /// Now and then another word for one of the wording's, so that no single word is needed to understand it.
    fn jolt(&self, wording: &str, noise: bool, rng: &mut StdRng) -> String {
        let mut words: Vec<&str> = wording.split(' ').collect();
        let at = rng.random_range(0..words.len());
        let other = self.subjects.choose(rng).map_or("", |subject| subject.words.as_str());
        if rng.random_bool(0.06) && noise && !words[at].contains('{') {
            words[at] = other.split(' ').next().unwrap_or("");
        }
        words.join(" ")
    }

    /// A sentence before the request.
    fn opening(&self, rng: &mut StdRng) -> String {
        if rng.random_bool(0.4) {
            return self.pick("opening", rng).to_owned();
        }
        let count = rng.random_range(2..7);
        let mut sentence = self.filler(count, rng).join(" ");
        if let Some(first) = sentence.get_mut(0..1) {
            first.make_ascii_uppercase();
        }
        sentence + [".", ".", "!", ","].choose(rng).copied().unwrap_or(".")
    }

    /// A subject: known, or with an adjective, or of invented words.
    pub(crate) fn topic(&self, rng: &mut StdRng) -> Topic {
        loop {
            let roll: f64 = rng.random();
            let drawn = if roll < 0.4 {
                Some(self.invented(rng))
            } else {
                let from = if roll < 0.53 { &self.favourites } else { &self.subjects };
                from.choose(rng).and_then(|subject| {
                    let adjective = rng.random_bool(0.15).then(|| self.adjectives.choose(rng)).flatten();
                    self.worded(subject, adjective.map(String::as_str), rng)
                })
            };
            if let Some(topic) = drawn.filter(|topic| topic.syllables <= LONGEST) {
                return topic;
            }
        }
    }

    /// A subject as somebody would write it: with an article, in the plural, or bare. None if it has no known length.
    pub(crate) fn worded(
        &self,
        subject: &Subject,
        adjective: Option<&str>,
        rng: &mut StdRng,
    ) -> Option<Topic> {
        let bare = &subject.words;
        let proper = bare.starts_with(|c: char| c.is_uppercase());
        let fixed = proper || bare.starts_with("the ") || bare.starts_with("my ") || bare.starts_with("a ");
        let adjective = adjective.filter(|_| !fixed);
        let mut words = adjective.map_or_else(|| bare.clone(), |adjective| format!("{adjective} {bare}"));
        let roll: f64 = rng.random();
        if subject.countable {
            let plural = !bare.ends_with(['s', 'x', 'z', 'h', 'y', 'f'])
                && !["ce", "ge", "se", "ze", "fe"].iter().any(|end| bare.ends_with(end));
            if roll < 0.35 {
                words = format!("{} {words}", article(&words));
            } else if roll < 0.5 {
                words = format!("the {words}");
            } else if roll < 0.58 {
                words = format!("my {words}");
            } else if roll < 0.7 && plural {
                let syllables = self.dictionary.count(&words).ok()?;
                return Some(Topic {
                    words: words + "s",
                    bare: bare.clone(),
                    kind: Some(subject.kind.clone()),
                    syllables,
                });
            }
        } else if !fixed && roll < 0.12 && !bare.ends_with("ing") {
            words = format!("the {words}");
        }
        let syllables = self.dictionary.count(&words).ok()?;
        Some(Topic { words, bare: bare.clone(), kind: Some(subject.kind.clone()), syllables })
    }

    /// One to three words that do not exist, put together from the syllables of words that do.
    fn invented(&self, rng: &mut StdRng) -> Topic {
        let known: Vec<&[String]> = self.dictionary.iter().map(|(_, syllables)| syllables).collect();
        let (mut words, mut syllables) = (Vec::new(), 0);
        let count = *[1, 1, 1, 1, 2, 2, 3].choose(rng).unwrap_or(&1);
        for _ in 0..count {
            let length = *[1, 2, 2, 2, 3, 3, 4].choose(rng).unwrap_or(&1);
            if syllables > 0 && syllables + length > 5 {
                break;
            }
            if rng.random_bool(0.45) {
                let (word, count) = self.patchwork(length, rng);
                words.push(word);
                syllables += count;
                continue;
            }
            let mut word = String::new();
            for at in 0..length {
                if rng.random_bool(0.15) {
                    word.push_str(&sound(rng));
                    continue;
                }
                let fits = |source: &[String]| at < source.len() && (at == 0 || source.len() > 1);
                for _ in 0..50 {
                    if let Some(source) = known.choose(rng).filter(|source| fits(source)) {
                        // The last syllable comes from the end of a word, the others from where they stand.
                        let from = if at > 0 && at + 1 == length { source.len() - 1 } else { at };
                        word.push_str(&source[from]);
                        break;
                    }
                }
            }
            words.push(word);
            syllables += length;
        }
        let mut phrase = words.join(" ");
        if rng.random_bool(0.25) {
            let article = ["a", "the", "my"].choose(rng).copied().unwrap_or("the");
            phrase = format!("{article} {phrase}");
            syllables += 1;
        }
        Topic { bare: phrase.clone(), words: phrase, kind: None, syllables }
    }
}

impl Requests<'_> {
    /// A word of any pieces of the vocabulary, so that none is left unlearnt, and its likely count of syllables.
    fn patchwork(&self, length: usize, rng: &mut StdRng) -> (String, usize) {
        let (first, later) = &self.parts;
        let mut word = first.choose(rng).cloned().unwrap_or_default();
        for _ in 1..length.min(3) {
            word.push_str(later.choose(rng).map_or("", String::as_str));
        }
        let count = guess(&word);
        (word, count)
    }
}

/// A season's or mood's pool and a word that asks for it; mostly none.
fn quality(rng: &mut StdRng) -> (Option<&'static str>, &'static str) {
    let roll: f64 = rng.random();
    let pool = if roll < 0.15 {
        SEASONS.choose(rng).copied()
    } else if roll < 0.27 {
        MOODS.choose(rng).copied()
    } else {
        None
    };
    let words: &[&'static str] = match pool {
        Some("autumn") => &["autumn", "fall"],
        Some("sad") => &["sad", "gloomy"],
        Some("happy") => &["happy", "cheerful"],
        Some("calm") => &["calm", "peaceful", "quiet"],
        Some("funny") => &["funny", "silly"],
        Some("love") => &["romantic", "love"],
        Some("dark") => &["dark", "spooky"],
        Some(season) => return (pool, season),
        None => &[""],
    };
    (pool, words.choose(rng).copied().unwrap_or(""))
}

/// A syllable of letters, which few tokens fit: words that nobody listed are spelled like this.
fn sound(rng: &mut StdRng) -> String {
    const ONSETS: [&str; 31] = [
        "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "ch", "sh",
        "st", "tr", "br", "cl", "fl", "gr", "pl", "th", "sp", "qu", "",
    ];
    const VOWELS: [&str; 12] = ["a", "e", "i", "o", "u", "a", "e", "i", "o", "ea", "oo", "ai"];
    const CODAS: [&str; 24] = [
        "", "", "", "b", "c", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "x", "ck", "nd", "st",
        "ll", "rt", "sk", "mp",
    ];
    let mut part = |from: &[&'static str]| from.choose(rng).copied().unwrap_or("");
    [part(&ONSETS), part(&VOWELS), part(&CODAS)].concat()
}

fn title_case(words: &str) -> String {
    let word = |word: &str| {
        let mut word = word.to_owned();
        if let Some(first) = word.get_mut(0..1) {
            first.make_ascii_uppercase();
        }
        word
    };
    words.split(' ').map(word).collect::<Vec<_>>().join(" ")
}
