//! Names that come from a user or a server, checked before they become part of a path or an address.

use std::fmt;

/// Longest file name inside a repository, in bytes.
const MAX_FILE_NAME: usize = 1024;
/// Longest part of a path, in bytes: what common file systems hold.
const MAX_PART: usize = 255;

/// What the hub says identifies the content of a file, and names its blob in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Etag {
    /// 64 hex digits: the sha256 of an LFS file.
    Sha256(String),
    /// 40 hex digits: the git object id of a small file.
    Git(String),
}

impl Etag {
    /// Reads an `ETag` or `X-Linked-ETag` header: quotes and a weak mark are dropped, and what is left must be 40 or
    /// 64 lower-case hex digits, because it becomes a file name.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let text = header.trim();
        let text = text.strip_prefix("W/").unwrap_or(text);
        let text = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        match text.len() {
            40 if is_hex(text) => Some(Self::Git(text.to_owned())),
            64 if is_hex(text) => Some(Self::Sha256(text.to_owned())),
            _ => None,
        }
    }

    /// The blob's file name.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `text` is a full commit id: 40 lower-case hex digits.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

/// Whether `name` may be joined to a folder: relative, `/` between parts, no `..`, nothing that a platform reads as
/// a drive, a stream or a separator.
pub(super) fn is_safe_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_FILE_NAME
        && !name.chars().any(|c| c.is_control() || matches!(c, '\\' | ':'))
        && name.split('/').all(|part| {
            // Windows drops trailing dots and spaces, so `.. ` would climb there.
            !part.is_empty() && part.len() <= MAX_PART && part != "." && !part.ends_with(['.', ' '])
        })
}

/// Whether `repo` is `owner/name` in the hub's alphabet.
pub(super) fn is_repo(repo: &str) -> bool {
    repo.split_once('/').is_some_and(|(owner, name)| is_repo_part(owner) && is_repo_part(name))
}

fn is_repo_part(part: &str) -> bool {
    // `--` separates owner and name in the cache folder, and the hub allows neither it nor `..`.
    !part.is_empty()
        && part.len() <= 96
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("--")
        && !part.contains("..")
}

/// Whether `revision` is a branch, a tag, `refs/pr/1` or a commit, safe as a path below `refs/`.
pub(super) fn is_revision(revision: &str) -> bool {
    revision.len() <= MAX_PART
        && revision.split('/').all(|part| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && !part.ends_with('.')
                && !part.contains("..")
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'+'))
        })
}

/// Percent-encodes one part of an address; with `keep_slash`, a path of several parts.
pub(super) fn percent_encode(text: &str, keep_slash: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b'~')
            || (keep_slash && byte == b'/')
        {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// `url` without user, password, query and fragment: signed links and tokens stay out of errors and logs.
pub(super) fn redact(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let bare = url.get(..end).unwrap_or_default();
    match bare.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = match rest.find('/') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            };
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}://{host}{path}")
        }
        None => bare.to_owned(),
    }
}

/// Text that a server sent, made fit for an error or a log: printable, one line, at most 160 characters.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(160).collect::<String>().trim().to_owned()
}

/// How alike two names are, from 0 to 1: Dice's coefficient over pairs of neighbouring letters, ignoring case.
pub(super) fn likeness(a: &str, b: &str) -> f64 {
    let pairs = |text: &str| -> Vec<(char, char)> {
        let letters: Vec<char> = text.to_lowercase().chars().take(MAX_PART).collect();
        letters.windows(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?))).collect()
    };
    let (left, mut right) = (pairs(a), pairs(b));
    let total = left.len() + right.len();
    if total == 0 {
        return if a.eq_ignore_ascii_case(b) { 1.0 } else { 0.0 };
    }
    let mut shared = 0;
    for pair in &left {
        if let Some(at) = right.iter().position(|other| other == pair) {
            right.swap_remove(at);
            shared += 1;
        }
    }
    2.0 * f64::from(shared) / total as f64
}

/// The names most like `wanted`, best first, at most five.
pub(super) fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut scored: Vec<(f64, &str)> = names
        .into_iter()
        .map(|name| (likeness(wanted, name), name))
        .filter(|(score, _)| *score > 0.2)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.into_iter().take(5).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA1: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn etags_are_hex_of_two_lengths_and_nothing_else() {
        let sha256 = SHA1.repeat(2).chars().take(64).collect::<String>();
        assert_eq!(Etag::parse(&format!("\"{sha256}\"")), Some(Etag::Sha256(sha256.clone())));
        assert_eq!(Etag::parse(&format!("W/\"{SHA1}\"")), Some(Etag::Git(SHA1.to_owned())));
        assert_eq!(Etag::parse(SHA1), Some(Etag::Git(SHA1.to_owned())));
        for bad in
            ["", "\"", "\"\"", "../../etc/passwd", "/tmp/x", "0123", &SHA1.to_uppercase(), &"..".repeat(20)]
        {
            assert_eq!(Etag::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn file_names_that_leave_the_folder_are_refused() {
        for good in ["a.gguf", "sub/a.gguf", ".gitattributes", "a..b", "ü x.gguf"] {
            assert!(is_safe_file_name(good), "{good}");
        }
        let long = "x".repeat(256);
        for bad in [
            "", "/a", "a/", "a//b", "..", "../a", "a/../b", "./a", "a\\b", "C:a", "a\0b", "a\nb", "a:stream",
            ".. /a", "a./b", &long,
        ] {
            assert!(!is_safe_file_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn repositories_and_revisions_keep_to_the_hubs_alphabet() {
        for good in ["microsoft/Phi-3-mini-4k-instruct-gguf", "a/b", "A_b/c.d"] {
            assert!(is_repo(good), "{good}");
        }
        for bad in
            ["", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a--b/c", "a/b c", "a/b?x", "-a/b", "a/.b", "ü/b"]
        {
            assert!(!is_repo(bad), "{bad}");
        }
        for good in ["main", "refs/pr/1", "v1.0", SHA1] {
            assert!(is_revision(good), "{good}");
        }
        for bad in ["", "/main", "main/", "../main", "a/../b", "a b", "a?b", "a%2F", ".hidden", "-x", "a\\b"]
        {
            assert!(!is_revision(bad), "{bad}");
        }
    }

    #[test]
    fn secrets_leave_addresses() {
        assert_eq!(redact("https://u:p@cdn.example/a/b?Signature=s#f"), "https://cdn.example/a/b");
        assert_eq!(redact("http://127.0.0.1:80"), "http://127.0.0.1:80");
        assert_eq!(percent_encode("a b/ü#.gguf", true), "a%20b/%C3%BC%23.gguf");
        assert_eq!(percent_encode("refs/pr/1", false), "refs%2Fpr%2F1");
    }

    #[test]
    fn the_nearest_name_comes_first() {
        let names = ["Phi-3-mini-4k-instruct-fp16.gguf", "Phi-3-mini-4k-instruct-q4.gguf", "README.md"];
        let near = nearest("phi-3-mini-4k-instruct-q5.gguf", names);
        assert_eq!(near.first().map(String::as_str), Some("Phi-3-mini-4k-instruct-q4.gguf"));
        assert!(!near.iter().any(|name| name == "README.md"));
    }
}
