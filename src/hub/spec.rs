//! What a user asks for: a repository on the hub, a revision, and a file or a quantisation in it.

use crate::error::{Error, ErrorKind, Result};

use super::names::{is_repo, is_revision, is_safe_file_name, printable};

/// The repository that is used when none is named: the one of the Phi cookbook's Rust tutorial.
pub const DEFAULT_REPO: &str = "microsoft/Phi-3-mini-4k-instruct-gguf";
/// The file of [`DEFAULT_REPO`] that is used when none is named (2.4 GB).
pub const DEFAULT_FILE: &str = "Phi-3-mini-4k-instruct-q4.gguf";
/// The repository whose [`TOKENIZER_FILE`] goes with [`DEFAULT_REPO`].
pub const DEFAULT_TOKENIZER_REPO: &str = "microsoft/Phi-3-mini-4k-instruct";
/// The tokenizer's file in [`DEFAULT_TOKENIZER_REPO`].
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// The revision that is used when none is named.
pub const DEFAULT_REVISION: &str = "main";

/// A model on the hub: `owner/name`, optionally with a quantisation, a file name and a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    repo: String,
    quant: Option<String>,
    filename: Option<String>,
    revision: String,
}

impl Default for ModelSpec {
    /// The tutorial's model: [`DEFAULT_FILE`] of [`DEFAULT_REPO`] at [`DEFAULT_REVISION`].
    fn default() -> Self {
        Self {
            repo: DEFAULT_REPO.to_owned(),
            quant: None,
            filename: Some(DEFAULT_FILE.to_owned()),
            revision: DEFAULT_REVISION.to_owned(),
        }
    }
}

impl ModelSpec {
    /// Reads `owner/name` or `owner/name:QUANT`. The caller has already tried the text as a path and as `demo`.
    ///
    /// # Errors
    /// `ModelNotFound` for text that looks like a path; `InvalidParameter` (`model`) for any other text that is not
    /// a model name.
    pub fn parse(text: &str) -> Result<Self> {
        let shown = printable(text);
        if looks_like_path(text) {
            return Err(Error::new(
                ErrorKind::ModelNotFound { candidates: Vec::new() },
                format!("There is no model file `{shown}`."),
                "Check the path, or give a hub name such as `microsoft/Phi-3-mini-4k-instruct-gguf`, or use \
                 `--model demo` / `Generator(\"demo\")`, which needs no download.",
            ));
        }
        let (repo, quant) = match text.split_once(':') {
            Some((repo, quant)) => (repo, Some(quant)),
            None => (text, None),
        };
        if !is_repo(repo) {
            return Err(Error::invalid(
                "model",
                format!("`{shown}` is not a model name: found no `owner/name` in it."),
                "Give `owner/name` or `owner/name:Q4_K_M`, a path to a .gguf file, or `demo`, which needs no download.",
            ));
        }
        if let Some(quant) = quant
            && !is_quant(quant)
        {
            return Err(Error::invalid(
                "model",
                format!("`{}` after the colon of `{shown}` is not a quantisation.", printable(quant)),
                "Give one such as `Q4_K_M`, or name the file with `filename=`.",
            ));
        }
        let filename = (repo == DEFAULT_REPO && quant.is_none()).then(|| DEFAULT_FILE.to_owned());
        Ok(Self {
            repo: repo.to_owned(),
            quant: quant.map(str::to_owned),
            filename,
            revision: DEFAULT_REVISION.to_owned(),
        })
    }

    /// The model that `model`, `filename=` and `revision=` name together; without a model, the tutorial's.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), [`with_filename`](Self::with_filename) and [`with_revision`](Self::with_revision).
    pub fn from_parts(model: Option<&str>, filename: Option<&str>, revision: Option<&str>) -> Result<Self> {
        let mut spec = model.map_or_else(|| Ok(Self::default()), Self::parse)?;
        if let Some(filename) = filename {
            spec = spec.with_filename(filename)?;
        }
        if let Some(revision) = revision {
            spec = spec.with_revision(revision)?;
        }
        Ok(spec)
    }

    /// The same repository, but exactly this file of it.
    ///
    /// # Errors
    /// `InvalidParameter` (`filename`) for a name that is not inside the repository, or beside a `:QUANT`.
    pub fn with_filename(mut self, filename: &str) -> Result<Self> {
        check_file_name(filename)?;
        if let Some(quant) = &self.quant {
            return Err(Error::invalid(
                "filename",
                format!("Both a quantisation (`:{quant}`) and a file name are given for {}.", self.repo),
                "Give one of the two.",
            ));
        }
        self.filename = Some(filename.to_owned());
        Ok(self)
    }

    /// The same repository at a branch, a tag or a commit.
    ///
    /// # Errors
    /// `InvalidParameter` (`revision`) for a name that git would not take.
    pub fn with_revision(mut self, revision: &str) -> Result<Self> {
        check_revision(revision)?;
        self.revision = revision.to_owned();
        Ok(self)
    }

    /// The repository, `owner/name`.
    pub fn repo(&self) -> &str {
        &self.repo
    }

    /// The quantisation asked for, as written.
    pub fn quant(&self) -> Option<&str> {
        self.quant.as_deref()
    }

    /// The file asked for, or the tutorial's; `None` leaves the choice to the repository's listing.
    pub fn filename(&self) -> Option<&str> {
        self.filename.as_deref()
    }

    /// Branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

/// Checks a file name before it is used.
pub(super) fn check_file_name(filename: &str) -> Result<()> {
    if is_safe_file_name(filename) {
        return Ok(());
    }
    Err(Error::invalid(
        "filename",
        format!("`{}` is not the name of a file in a repository.", printable(filename)),
        "Give the name as the hub lists it, with `/` between folders and without `..`.",
    ))
}

/// Checks a repository's name before it is used.
pub(super) fn check_repo(repo: &str) -> Result<()> {
    if is_repo(repo) {
        return Ok(());
    }
    Err(Error::invalid(
        "model",
        format!("`{}` is not the name of a repository.", printable(repo)),
        "Give `owner/name`, as in `microsoft/Phi-3-mini-4k-instruct-gguf`.",
    ))
}

/// Checks a revision before it is used.
pub(super) fn check_revision(revision: &str) -> Result<()> {
    if is_revision(revision) {
        return Ok(());
    }
    Err(Error::invalid(
        "revision",
        format!("`{}` is not a branch, a tag or a commit.", printable(revision)),
        "Give `main`, a tag, `refs/pr/1`, or a commit of 40 hex digits.",
    ))
}

fn looks_like_path(text: &str) -> bool {
    let drive = text.as_bytes().get(1) == Some(&b':')
        && text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic)
        && !text.contains('/');
    text.starts_with(['/', '.', '~', '\\'])
        || text.contains('\\')
        || drive
        || text.get(1..3) == Some(":/")
        || text.to_ascii_lowercase().ends_with(".gguf")
}

fn is_quant(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 32
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_model_is_the_tutorials() {
        let spec = ModelSpec::from_parts(None, None, None).unwrap();
        assert_eq!(spec.repo(), "microsoft/Phi-3-mini-4k-instruct-gguf");
        assert_eq!(spec.filename(), Some("Phi-3-mini-4k-instruct-q4.gguf"));
        assert_eq!(spec.revision(), "main");
        assert_eq!(ModelSpec::parse(DEFAULT_REPO).unwrap(), spec);
    }

    #[test]
    fn names_are_read_in_parts() {
        let spec = ModelSpec::parse("bartowski/phi-4-GGUF:Q4_K_M").unwrap();
        assert_eq!(
            (spec.repo(), spec.quant(), spec.filename()),
            ("bartowski/phi-4-GGUF", Some("Q4_K_M"), None)
        );
        let spec = ModelSpec::from_parts(Some("a/b"), Some("sub/x.gguf"), Some("refs/pr/2")).unwrap();
        assert_eq!((spec.filename(), spec.revision()), (Some("sub/x.gguf"), "refs/pr/2"));
        assert_eq!(ModelSpec::parse("microsoft/Phi-3-mini-4k-instruct-gguf:fp16").unwrap().filename(), None);
    }

    #[test]
    fn paths_are_not_hub_names() {
        for path in
            ["./a.gguf", "/m/a", "a.gguf", "dir/a.GGUF", "C:\\m\\a", "C:/m/a", "C:a", "~/a", "..", "a\\b"]
        {
            let error = ModelSpec::parse(path).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::ModelNotFound { .. }), "{path}: {error}");
            assert!(error.hint().contains("--model demo"), "{error}");
        }
    }

    #[test]
    fn bad_names_are_refused_in_words() {
        for name in ["", "gpt2", "a/b/c", "a b/c", "a/b:", "a/b:Q4/x", "a/b:c:d", "https://x/y", "a--b/c"] {
            let error = ModelSpec::parse(name).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::InvalidParameter { parameter, .. } if parameter == "model"),
                "{name}: {error}"
            );
        }
        assert!(ModelSpec::from_parts(Some("a/b"), Some("../x"), None).is_err());
        assert!(ModelSpec::from_parts(Some("a/b"), None, Some("../x")).is_err());
        assert!(ModelSpec::from_parts(Some("a/b:Q4_0"), Some("x.gguf"), None).is_err());
    }
}
