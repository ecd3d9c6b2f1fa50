//! The grammar of haiku: pools of lines, and frames that a subject is set into so that the line keeps its length.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::syllables::Dictionary;

/// Seasons and moods that can be asked for; each is a pool.
pub(crate) const SEASONS: [&str; 4] = ["winter", "spring", "summer", "autumn"];
/// Moods that can be asked for, by the name of their pool.
pub(crate) const MOODS: [&str; 6] = ["sad", "happy", "calm", "funny", "love", "dark"];

/// The longest subject that a line of seven has room for, in syllables.
pub(crate) const LONGEST: usize = 6;

/// Lines that fit one kind of subject, season or mood.
#[derive(Debug, Default)]
struct Pool {
    /// Whole lines, by their count of syllables.
    lines: BTreeMap<usize, Vec<String>>,
    /// Beginnings of a line that names the subject, with their counts.
    prefixes: Vec<(usize, String)>,
    /// Endings of a line that names the subject, with their counts.
    suffixes: Vec<(usize, String)>,
}

/// What a haiku is to be about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Theme<'a> {
    /// The subject as it was written in the request.
    pub(crate) words: &'a str,
    /// How many syllables that is.
    pub(crate) syllables: usize,
    /// The pool of its kind; none for a word nobody knows.
    pub(crate) kind: Option<&'a str>,
    /// The subject without its article, by which lines of its own are found.
    pub(crate) bare: &'a str,
}

/// All pools.
#[derive(Debug)]
pub(crate) struct Grammar {
    pools: BTreeMap<String, Pool>,
    specials: BTreeMap<String, Pool>,
}

impl Grammar {
    /// Reads the pools and counts every line; a line whose count is wrong is an error that shows it.
    pub(crate) fn read(lines: &str, specials: &str, dictionary: &Dictionary) -> Result<Self, String> {
        Ok(Self { pools: read_pools(lines, dictionary)?, specials: read_pools(specials, dictionary)? })
    }

    /// Whether a subject has lines of its own.
    pub(crate) fn has_own_lines(&self, subject: &str) -> bool {
        self.specials.contains_key(subject)
    }

    /// Every word that can begin a line.
    pub(crate) fn openers(&self) -> impl Iterator<Item = &str> {
        self.pools
            .values()
            .chain(self.specials.values())
            .flat_map(|pool| {
                pool.lines
                    .values()
                    .flatten()
                    .map(String::as_str)
                    .chain(pool.prefixes.iter().map(|(_, p)| p.as_str()))
            })
            .filter_map(|line| line.split(' ').next())
    }

    /// Three lines of 5-7-5, one of which names the theme when there is one.
    ///
    /// `quality` is the name of a season's or mood's pool.
    pub(crate) fn haiku(&self, theme: Option<Theme<'_>>, quality: Option<&str>, rng: &mut StdRng) -> String {
        let mut lines: [String; 3] = Default::default();
        let mut free = vec![0, 1, 2];
        if let Some(theme) = theme {
            let room: Vec<usize> =
                free.iter().copied().filter(|&at| theme.syllables + 2 <= length(at)).collect();
            let at = room.choose(rng).copied().unwrap_or(1);
            if let Some(line) = self.naming_line(theme, length(at), rng) {
                lines[at] = line;
                free.retain(|&other| other != at);
            }
        }
        let wanted = self.pools_for(theme, quality, free.len(), rng);
        for (at, pool) in free.into_iter().zip(wanted) {
            for _ in 0..8 {
                let line = pool.lines.get(&length(at)).and_then(|lines| lines.choose(rng));
                let line = line.or_else(|| self.pools["any"].lines[&length(at)].choose(rng));
                if let Some(line) = line.filter(|line| !lines.contains(line)) {
                    line.clone_into(&mut lines[at]);
                    break;
                }
            }
        }
        lines.join("\n")
    }

    /// The pools that the free lines are drawn from, in the order of the lines.
    fn pools_for<'a>(
        &'a self,
        theme: Option<Theme<'_>>,
        quality: Option<&str>,
        count: usize,
        rng: &mut StdRng,
    ) -> Vec<&'a Pool> {
        let any = &self.pools["any"];
        let mut chosen = Vec::new();
        if let Some(pool) = quality.and_then(|name| self.pools.get(name)) {
            chosen.push(pool);
        }
        let own = theme.and_then(|t| self.specials.get(t.bare));
        chosen.extend(own.filter(|_| rng.random_bool(0.85)));
        let kind = theme.and_then(|t| t.kind).and_then(|kind| self.pools.get(kind));
        while chosen.len() < count {
            let roll: f64 = rng.random();
            chosen.push(match kind {
                Some(kind) if roll < 0.65 => kind,
                _ if quality.is_none() && roll > 0.88 => {
                    SEASONS.choose(rng).and_then(|season| self.pools.get(*season)).unwrap_or(any)
                }
                _ => any,
            });
        }
        chosen.truncate(count);
        if rng.random_bool(0.5) {
            chosen.reverse();
        }
        chosen
    }

    /// A line of `length` syllables that names the theme: a beginning, the theme, and an ending if there is room.
    fn naming_line(&self, theme: Theme<'_>, length: usize, rng: &mut StdRng) -> Option<String> {
        let any = &self.pools["any"];
        let kind = theme.kind.and_then(|kind| self.pools.get(kind));
        let room = length.checked_sub(theme.syllables)?;
        // Short beginnings, so that there is room for the subject before the network has counted it.
        let longest = room.min(if length == 5 { 2 } else { 3 });
        let before: Vec<_> = any.prefixes.iter().filter(|(n, _)| *n <= longest).collect();
        for _ in 0..20 {
            let (n, prefix) = before.choose(rng)?;
            let rest = room - n;
            if rest == 0 {
                return Some(format!("{prefix} {}", theme.words));
            }
            let pool = kind.filter(|_| rng.random_bool(0.6)).unwrap_or(any);
            let after: Vec<_> = pool.suffixes.iter().filter(|(n, _)| *n == rest).collect();
            if let Some((_, suffix)) = after.choose(rng) {
                return Some(format!("{prefix} {} {suffix}", theme.words));
            }
        }
        None
    }
}

/// The syllables of the first, second and third line.
pub(crate) fn length(line: usize) -> usize {
    if line == 1 { 7 } else { 5 }
}

fn read_pools(text: &str, dictionary: &Dictionary) -> Result<BTreeMap<String, Pool>, String> {
    let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(heading) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            heading.clone_into(&mut name);
            continue;
        }
        let (mark, words) = line.split_once(' ').ok_or_else(|| format!("a line without words: {line}"))?;
        let count = dictionary
            .count(words)
            .map_err(|word| format!("\"{word}\" of \"{words}\" is not in the dictionary"))?;
        let pool = pools.entry(name.clone()).or_default();
        match mark {
            "p" => pool.prefixes.push((count, words.to_owned())),
            "s" => pool.suffixes.push((count, words.to_owned())),
            _ if mark == count.to_string() => pool.lines.entry(count).or_default().push(words.to_owned()),
            _ => return Err(format!("\"{words}\" is marked {mark} and has {count} syllables")),
        }
    }
    Ok(pools)
}
