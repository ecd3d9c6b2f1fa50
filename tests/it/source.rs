//! Rust source as the house rules need to see it: tokens without comments and strings, each with its line and module.

use std::fs;
use std::path::{Path, PathBuf};

/// A word or a sign of the code, with where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    /// An identifier (raw ones without `r#`), a number, or one character of punctuation (`::` is one token).
    pub(crate) text: String,
    /// Line in the file, from 1.
    pub(crate) line: usize,
    /// How many `mod name { … }` of this file are open around it.
    pub(crate) depth: usize,
    /// Whether it stands under `#[cfg(test)]`.
    pub(crate) test: bool,
}

/// One file of the crate.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the crate's root, with `/`.
    pub(crate) path: String,
    /// The text as it is.
    pub(crate) text: String,
    /// Its tokens.
    pub(crate) tokens: Vec<Token>,
}

impl Source {
    /// A file's text, scanned. `path` is relative to the crate's root.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut tokens = scan(text);
        mark(&mut tokens, is_test_file(path));
        Self { path: path.to_owned(), text: text.to_owned(), tokens }
    }

    /// Module path below the crate: `src/gguf/mmap.rs` is `["gguf", "mmap"]`, `src/lib.rs` is empty.
    pub(crate) fn module(&self) -> Vec<&str> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut parts: Vec<&str> = inner.split('/').collect();
        if matches!(parts.last(), Some(&("mod" | "lib" | "main"))) {
            parts.pop();
        }
        parts
    }

    /// Whether the tokens from `at` on are `words`.
    pub(crate) fn is(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| self.tokens.get(at + i).is_some_and(|t| t.text == *word))
    }
}

/// Every Rust file under `src/`, in order of path.
pub(crate) fn crate_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join("src"), &mut paths);
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            Source::new(&relative, &fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|e| e == "rs") {
            paths.push(path);
        }
    }
}

/// Files that are only ever compiled for tests: `tests.rs`, and all below a folder `tests`.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Text to tokens; comments, strings, characters and lifetimes are left out.
fn scan(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let start = at;
        let rest = &chars[at..];
        at += match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => string(rest, 0),
            ['b' | 'c', '"', ..] => 1 + string(&rest[1..], 0),
            ['b', '\'', ..] => 1 + character(&rest[1..]),
            ['r', '"' | '#', ..] if raw_string(&rest[1..]) > 0 => 1 + raw_string(&rest[1..]),
            ['b' | 'c', 'r', '"' | '#', ..] if raw_string(&rest[2..]) > 0 => 2 + raw_string(&rest[2..]),
            ['\'', ..] => character(rest),
            [':', ':', ..] => {
                push(&mut tokens, "::", line);
                2
            }
            ['r', '#', c, ..] if c.is_alphabetic() || *c == '_' => 2,
            [c, ..] if c.is_alphanumeric() || *c == '_' => {
                let word: String = rest.iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
                push(&mut tokens, &word, line);
                word.chars().count()
            }
            [c, ..] => {
                if !c.is_whitespace() {
                    push(&mut tokens, &c.to_string(), line);
                }
                1
            }
            [] => break,
        };
        line += chars[start..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn push(tokens: &mut Vec<Token>, text: &str, line: usize) {
    tokens.push(Token { text: text.to_owned(), line, depth: 0, test: false });
}

/// Length of the (nested) comment that `rest` begins with.
fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of the string that `rest` begins with; `hashes` > 0 or a raw string knows no escapes.
fn string(rest: &[char], hashes: usize) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' if hashes == 0 => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of `#…#"…"#…#`, or 0 when `rest` is no raw string.
fn raw_string(rest: &[char]) -> usize {
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    if rest.get(hashes) != Some(&'"') {
        return 0;
    }
    let mut at = hashes + 1;
    while at < rest.len() {
        if rest[at] == '"' && rest[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    rest.len()
}

/// Length of the character literal or lifetime that `rest` begins with.
fn character(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', _, tail @ ..] => 3 + tail.iter().position(|c| *c == '\'').map_or(tail.len(), |i| i + 1),
        ['\'', _, '\'', ..] => 3,
        _ => 1 + rest[1..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count(),
    }
}

/// Sets each token's module depth, and whether it is under `#[cfg(test)]`.
fn mark(tokens: &mut [Token], whole_file_is_test: bool) {
    // Open braces: whether each is a module's, and whether what it holds is test code.
    let mut open: Vec<(bool, bool)> = Vec::new();
    let mut pending_module = false;
    let mut pending_test = false;
    for at in 0..tokens.len() {
        let word = |i: usize| tokens.get(at + i).map_or("", |t| t.text.as_str());
        if word(0) == "#" && word(1) == "[" && word(2) == "cfg" && word(3) == "(" {
            let end = (at..tokens.len()).find(|i| tokens[*i].text == "]").unwrap_or(at);
            let names: Vec<&str> = tokens[at..end].iter().map(|t| t.text.as_str()).collect();
            pending_test |= names.contains(&"test") && !names.contains(&"not");
        }
        if word(0) == "mod" && word(2) == "{" {
            pending_module = true;
        }
        let inside_test = whole_file_is_test || pending_test || open.iter().any(|(_, test)| *test);
        let depth = open.iter().filter(|(module, _)| *module).count();
        match word(0) {
            "{" => {
                open.push((pending_module, inside_test));
                (pending_module, pending_test) = (false, false);
            }
            "}" => {
                open.pop();
            }
            // The item under the attribute ended without a body: `#[cfg(test)] mod tests;`.
            ";" => pending_test = false,
            _ => {}
        }
        tokens[at].depth = depth;
        tokens[at].test = inside_test;
    }
}

#[test]
fn strings_comments_and_lifetimes_are_no_code() {
    let text = r####"
        // unsafe
        /* unsafe /* unsafe */ unsafe */
        const A: &str = "unsafe \" unsafe"; const B: &str = r#"unsafe " unsafe"#; const C: &[u8] = br"unsafe";
        fn f<'unsafe_like>(c: char) -> bool { c == 'u' || c == '\'' || c == '"' || b'\\' == b'"' }
        fn r#unsafe() {}
    "####;
    let source = Source::new("src/x.rs", text);
    let found: Vec<_> = source.tokens.iter().filter(|t| t.text == "unsafe").map(|t| t.line).collect();
    assert_eq!(found, [6], "only the raw identifier is a token");
    assert!(source.tokens.iter().any(|t| t.text == "f"), "what follows is still read");
}

#[test]
fn modules_and_test_code_are_marked() {
    let text = "fn a() {}\nmod m { fn b() {} }\n#[cfg(test)]\nmod tests { fn c() { d(); } }\n#[cfg(test)] use e; fn f() {}";
    let source = Source::new("src/x/mod.rs", text);
    let of = |name: &str| source.tokens.iter().find(|t| t.text == name).map(|t| (t.depth, t.test)).unwrap();
    assert_eq!(of("a"), (0, false));
    assert_eq!(of("b"), (1, false));
    assert_eq!(of("d"), (1, true));
    assert_eq!(of("e"), (0, true));
    assert_eq!(of("f"), (0, false));
    assert!(Source::new("src/x/tests.rs", "fn a() {}").tokens.iter().all(|t| t.test));
}

#[test]
fn a_path_gives_its_module() {
    assert_eq!(Source::new("src/gguf/mmap.rs", "").module(), ["gguf", "mmap"]);
    assert_eq!(Source::new("src/gguf/mod.rs", "").module(), ["gguf"]);
    assert!(Source::new("src/lib.rs", "").module().is_empty());
}
