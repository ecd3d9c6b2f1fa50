//! The house rules that a compiler does not check: who may use whom, where `unsafe` may stand, how long a file may be.

use crate::source::{Source, crate_sources};

/// Every module of `src/`, with its layer; the doors are on top. Nobody uses a module of the same or a higher layer.
const LAYERS: &[(&str, u8)] = &[
    ("kernels", 0),
    ("gguf", 0),
    ("tokenizer", 1),
    ("chat", 1),
    ("model", 1),
    ("sampling", 1),
    ("constraint", 1),
    ("hub", 1),
    ("engine", 2),
    ("python", 3),
    ("server", 3),
    ("cli", 3),
];

/// Modules for everyone, which use nothing of the crate but each other.
const BASE: &[&str] = &["error", "env", "sync"];

/// What `lib.rs` re-exports from the base: the only names that may follow `crate::` without a module.
const REEXPORTS: &[&str] = &["Error", "ErrorKind", "Result"];

/// Edges within a layer, each with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("chat", "tokenizer", "a rendered prompt keeps control tokens apart from text"),
    ("constraint", "tokenizer", "a grammar's mask is over the vocabulary"),
    ("kernels", "gguf", "what a block of weights looks like is said once, in GgmlType"),
    ("cli", "server", "`phicandle serve` starts it"),
    ("python", "cli", "`python -m phicandle` is the same command"),
    ("python", "server", "`phicandle serve` from the wheel"),
];

/// The only places of `unsafe`: arithmetic on vectors, and the one memory map.
const UNSAFE_PLACES: &[&str] = &["src/kernels/", "src/gguf/mmap.rs"];

/// Lines that a file may have; those written for one instruction set may have more.
const MAX_LINES: usize = 600;
const MAX_ISA_LINES: usize = 900;
const ISA_FOLDERS: &[&str] = &["src/kernels/simd/"];

/// Lints that hold everywhere outside tests. `#[expect(…, reason = "…")]` may lift one where the reason can be read.
const FIRM_LINTS: &[&str] = &[
    "dbg_macro",
    "expect_used",
    "missing_docs",
    "panic",
    "print_stderr",
    "print_stdout",
    "todo",
    "undocumented_unsafe_blocks",
    "unimplemented",
    "unwrap_used",
];

const PRINT_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// The first names after `crate::` (or a `super::` that climbs to the crate's root), with their lines.
fn crate_paths(source: &Source) -> Vec<(String, usize)> {
    let tokens = &source.tokens;
    let base = source.module().len();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|i| tokens.get(i)).map_or("", |t| t.text.as_str());
        let next = match token.text.as_str() {
            "crate" if source.is(at + 1, &["as"]) => {
                found.push(("crate as".to_owned(), token.line));
                continue;
            }
            "crate" if source.is(at + 1, &["::"]) => at + 2,
            "super" if before != "::" => {
                let mut end = at;
                let mut climbed = 0;
                while source.is(end, &["super", "::"]) {
                    (end, climbed) = (end + 2, climbed + 1);
                }
                if climbed == 0 || climbed < base + token.depth {
                    continue;
                }
                end
            }
            _ => continue,
        };
        if source.is(next, &["{"]) {
            found.extend(group_heads(source, next));
        } else if let Some(name) = tokens.get(next) {
            found.push((name.text.clone(), token.line));
        }
    }
    found
}

/// The first name of each path of a `use` group that opens at `open`.
fn group_heads(source: &Source, open: usize) -> Vec<(String, usize)> {
    let mut heads = Vec::new();
    let mut depth = 0_usize;
    let mut fresh = false;
    for token in &source.tokens[open..] {
        match token.text.as_str() {
            "{" => (depth, fresh) = (depth + 1, depth == 0),
            "}" => depth -= 1,
            "," => fresh = depth == 1,
            name => {
                if fresh && depth == 1 {
                    heads.push((name.to_owned(), token.line));
                }
                fresh = false;
            }
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

/// Edges of a file that its layer does not allow.
fn layer_faults(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some(own) = module.first().copied() else { return Vec::new() };
    let here = if BASE.contains(&own) { None } else { layer(own) };
    if here.is_none() && !BASE.contains(&own) {
        return vec![format!("{}: the module `{own}` has no layer: add it to LAYERS", source.path)];
    }
    let mut faults = Vec::new();
    for (name, line) in crate_paths(source) {
        let place = format!("{}:{line}", source.path);
        if name == own || BASE.contains(&name.as_str()) || REEXPORTS.contains(&name.as_str()) {
            continue;
        }
        match (here, layer(&name)) {
            (_, None) => {
                faults.push(format!("{place}: `crate::{name}` is no module; name the module it is from"))
            }
            (Some(from), Some(to)) if to < from => {}
            _ if EXCEPTIONS.iter().any(|(from, to, _)| *from == own && *to == name) => {}
            _ => faults.push(format!("{place}: `{own}` may not use `{name}`, which is not in a lower layer")),
        }
    }
    faults
}

/// `unsafe` outside its places, and `unsafe` without its reason.
fn unsafe_faults(source: &Source) -> Vec<String> {
    let allowed = UNSAFE_PLACES.iter().any(|place| source.path.starts_with(place));
    let mut faults = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let place = format!("{}:{}", source.path, token.line);
        if matches!(token.text.as_str(), "allow" | "expect")
            && lint_names(source, at).contains(&"unsafe_code")
            && !allowed
        {
            faults.push(format!("{place}: `unsafe_code` is lifted outside {UNSAFE_PLACES:?}"));
        }
        if token.text != "unsafe" || source.is(at + 1, &["("]) {
            continue;
        }
        if !allowed {
            faults.push(format!("{place}: `unsafe` outside {UNSAFE_PLACES:?}"));
        } else if (source.is(at + 1, &["{"]) || source.is(at + 1, &["impl"]))
            && !has_safety_comment(source, token.line)
        {
            faults.push(format!("{place}: `unsafe` without a `// SAFETY:` comment above it"));
        }
    }
    faults
}

/// Whether a `SAFETY:` comment stands on this line, or in the comment above the statement that the line belongs to.
fn has_safety_comment(source: &Source, line: usize) -> bool {
    let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
    if lines[line - 1].contains("// SAFETY:") {
        return true;
    }
    let mut in_comment = false;
    for text in lines[..line - 1].iter().rev() {
        let comment = text.starts_with("//");
        if comment && text.starts_with("// SAFETY:") {
            return true;
        }
        // Above the comment, or at the end of the statement before: nothing was said about this one.
        if !comment && (in_comment || text.is_empty() || text.ends_with([';', '{', '}', ','])) {
            return false;
        }
        in_comment |= comment;
    }
    false
}

/// The last names of the lints inside `allow( … )` or `expect( … )` at `at`; empty when this is no attribute.
fn lint_names(source: &Source, at: usize) -> Vec<&str> {
    let attribute = at >= 2 && (source.is(at - 2, &["#", "["]) || source.is(at - 2, &["!", "["]));
    let conditional = at >= 1 && source.is(at - 1, &[","]);
    if !source.is(at + 1, &["("]) || !(attribute || conditional) {
        return Vec::new();
    }
    source.tokens[at + 2..].iter().take_while(|t| t.text != ")").map(|t| t.text.as_str()).collect()
}

/// Firm lints that are lifted without a reason outside tests.
fn lint_faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, token) in source.tokens.iter().enumerate().filter(|(_, t)| !t.test) {
        if !matches!(token.text.as_str(), "allow" | "expect") {
            continue;
        }
        let names = lint_names(source, at);
        if token.text == "expect" && names.contains(&"reason") {
            continue;
        }
        for name in names.iter().filter(|name| FIRM_LINTS.contains(name)) {
            faults.push(format!("{}:{}: the lint `{name}` is lifted", source.path, token.line));
        }
    }
    faults
}

/// Printing, and PyO3 outside its folder.
fn word_faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let name = token.text.as_str();
        let place = format!("{}:{}", source.path, token.line);
        if !token.test && PRINT_MACROS.contains(&name) && source.is(at + 1, &["!"]) {
            faults
                .push(format!("{place}: `{name}!`: log instead, or write to a stream that the caller gave"));
        }
        if (name == "pyo3" || name.starts_with("pyo3_")) && !source.path.starts_with("src/python/") {
            faults.push(format!("{place}: PyO3 is named outside src/python"));
        }
    }
    faults
}

/// A file too long to read in one sitting.
fn length_faults(source: &Source) -> Vec<String> {
    let isa = ISA_FOLDERS.iter().any(|folder| source.path.starts_with(folder));
    let limit = if isa { MAX_ISA_LINES } else { MAX_LINES };
    let lines = source.text.lines().count();
    if lines > limit {
        vec![format!("{}: {lines} lines, more than {limit}", source.path)]
    } else {
        Vec::new()
    }
}

fn assert_none(rule: fn(&Source) -> Vec<String>) {
    let sources = crate_sources();
    assert!(sources.iter().any(|s| s.path == "src/lib.rs"), "the sources were not found");
    let faults: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn layers_only_look_down() {
    assert_none(layer_faults);
}

#[test]
fn unsafe_code_stays_in_its_places_and_gives_reasons() {
    assert_none(unsafe_faults);
}

#[test]
fn firm_lints_are_not_lifted() {
    assert_none(lint_faults);
}

#[test]
fn the_library_neither_prints_nor_names_pyo3_outside_its_folder() {
    assert_none(word_faults);
}

#[test]
fn files_are_short() {
    assert_none(length_faults);
}

/// The rules themselves: each snippet, the rule, and how many faults it has.
#[test]
fn the_rules_see_what_breaks_them() {
    type Rule = fn(&Source) -> Vec<String>;
    let long = "\n".repeat(601);
    let cases: &[(Rule, &str, &str, usize)] = &[
        (layer_faults, "src/gguf/mod.rs", "use crate::error::Error;\nuse crate::{Result, gguf::x};", 0),
        (layer_faults, "src/gguf/mod.rs", "use crate::engine::Engine;", 1),
        (layer_faults, "src/gguf/mod.rs", "fn f() { crate::engine::run(); }", 1),
        (
            layer_faults,
            "src/gguf/mod.rs",
            "use crate::{error::{Error, model}, engine::{self, event::E}, hub};",
            2,
        ),
        (layer_faults, "src/gguf/mod.rs", "use super::engine;", 1),
        (layer_faults, "src/gguf/header.rs", "use super::engine;\nuse super::super::error::Error;", 0),
        (layer_faults, "src/gguf/header.rs", "use super::super::engine;", 1),
        (layer_faults, "src/gguf/mod.rs", "mod tests { use super::engine; use super::super::engine; }", 1),
        (layer_faults, "src/gguf/mod.rs", "use crate as c;", 1),
        (layer_faults, "src/gguf/mod.rs", "use crate::Engine;", 1),
        (layer_faults, "src/gguf/mod.rs", "// use crate::engine;\nconst S: &str = \"crate::engine\";", 0),
        (layer_faults, "src/model/mod.rs", "use crate::{gguf, kernels};", 0),
        (layer_faults, "src/model/mod.rs", "use crate::sampling::Sampler;", 1),
        (layer_faults, "src/chat/mod.rs", "use crate::tokenizer::Tokenizer;", 0),
        (layer_faults, "src/tokenizer/mod.rs", "use crate::chat::Message;", 1),
        (layer_faults, "src/python/mod.rs", "use crate::{cli, engine, gguf};", 0),
        (layer_faults, "src/error.rs", "use crate::gguf;", 1),
        (layer_faults, "src/extra/mod.rs", "", 1),
        (unsafe_faults, "src/engine/mod.rs", "fn f() { unsafe { g() } }", 1),
        (unsafe_faults, "src/engine/mod.rs", "#![allow(unsafe_code)]", 1),
        (unsafe_faults, "src/gguf/mod.rs", "#![forbid(unsafe_code)]", 0),
        (
            unsafe_faults,
            "src/gguf/mmap.rs",
            "#![allow(unsafe_code)]\n// SAFETY: read-only.\nlet m = unsafe { map() };",
            0,
        ),
        (
            unsafe_faults,
            "src/gguf/mmap.rs",
            "// SAFETY: read-only.\nlet a = 1;\nlet m = unsafe { map() };",
            1,
        ),
        (
            unsafe_faults,
            "src/kernels/x.rs",
            "// SAFETY: by the token.\n#[inline]\nlet x =\n    unsafe { f() };",
            0,
        ),
        (unsafe_faults, "src/kernels/x.rs", "unsafe impl Send for X {}", 1),
        (unsafe_faults, "src/kernels/x.rs", "/// # Safety\nunsafe fn f() {}", 0),
        (lint_faults, "src/hub/mod.rs", "#[allow(clippy::unwrap_used)]\nfn f() {}", 1),
        (lint_faults, "src/hub/mod.rs", "#![cfg_attr(x, allow(clippy::panic))]", 1),
        (
            lint_faults,
            "src/hub/mod.rs",
            "#[expect(clippy::expect_used, reason = \"a constant\")]\nfn f() {}",
            0,
        ),
        (lint_faults, "src/hub/mod.rs", "#[expect(clippy::expect_used)]\nfn f() {}", 1),
        (lint_faults, "src/hub/mod.rs", "#[cfg(test)]\nmod tests { #![allow(clippy::panic)] }", 0),
        (lint_faults, "src/hub/mod.rs", "fn f() { a.expect(\"panic\"); a.expect(b.panic) }", 0),
        (word_faults, "src/hub/mod.rs", "fn f() { eprintln!(\"x\") }", 1),
        (
            word_faults,
            "src/hub/mod.rs",
            "#[cfg(test)]\nmod tests { fn f() { println!(\"x\") } }\nfn f() { dbg!(1) }",
            1,
        ),
        (word_faults, "src/engine/mod.rs", "use pyo3::prelude::*;", 1),
        (word_faults, "src/python/gil.rs", "use pyo3::prelude::*;", 0),
        (length_faults, "src/hub/mod.rs", &long, 1),
        (length_faults, "src/kernels/simd/avx2.rs", &long, 0),
    ];
    for (rule, path, text, expected) in cases {
        let faults = rule(&Source::new(path, text));
        assert_eq!(faults.len(), *expected, "{path}: {text}\n{faults:?}");
    }
}
