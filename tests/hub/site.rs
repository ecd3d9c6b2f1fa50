//! One repository on a stub hub, and one empty cache to fetch it into.

use std::path::{Path, PathBuf};
use std::time::Duration;

use phicandle::Result;
use phicandle::hub::{Hub, HubOptions};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::stub::{Answer, Request, Stub};

pub(crate) const REPO: &str = "owner/model-gguf";
pub(crate) const FILE: &str = "model-Q4_K_M.gguf";
pub(crate) const COMMIT: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
pub(crate) const TOKEN: &str = "hf_a_secret_that_stays_home";

/// Bytes of the file: more than one block of the reader, and no pattern that an offset by one would match.
pub(crate) fn content() -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    (0..700_001)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// What a faultless hub answers for [`REPO`].
pub(crate) fn sound(request: &Request) -> Answer {
    if request.path.starts_with("/api/models/") {
        return listing(&[".gitattributes", "README.md", FILE]);
    }
    if request.path != format!("/{REPO}/resolve/main/{FILE}")
        && request.path != format!("/{REPO}/resolve/{COMMIT}/{FILE}")
        && !request.path.starts_with("/cdn/")
    {
        return Answer::full(404, &[("X-Error-Code", "EntryNotFound")], b"");
    }
    if request.is_get() { body_from(request.range()) } else { facts() }
}

/// The answer to HEAD.
pub(crate) fn facts() -> Answer {
    facts_with(COMMIT, &format!("\"{}\"", sha256(&content())))
}

pub(crate) fn facts_with(commit: &str, etag: &str) -> Answer {
    let size = content().len().to_string();
    Answer::head(
        200,
        &[
            ("X-Repo-Commit", commit),
            ("X-Linked-ETag", etag),
            ("X-Linked-Size", &size),
            ("Content-Length", &size),
        ],
    )
}

/// The answer to GET: all of the file, or what follows `start`.
pub(crate) fn body_from(start: Option<usize>) -> Answer {
    let content = content();
    match start {
        None => Answer::full(200, &[], &content),
        Some(start) if start < content.len() => {
            let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
            Answer::full(206, &[("Content-Range", &range)], &content[start..])
        }
        Some(_) => Answer::full(416, &[], b""),
    }
}

/// The same, but the connection is cut after `n` bytes of what was asked for.
pub(crate) fn cut_after(start: Option<usize>, n: usize) -> Answer {
    let content = content();
    let rest = &content[start.unwrap_or(0)..];
    let length = rest.len().to_string();
    let range = format!("bytes {}-{}/{}", content.len() - rest.len(), content.len() - 1, content.len());
    let headers = [("Content-Length", length.as_str()), ("Content-Range", range.as_str())];
    let (status, headers) = if start.is_some() { (206, &headers[..]) } else { (200, &headers[..1]) };
    Answer::head(status, headers).send(&rest[..n.min(rest.len())])
}

/// A repository's description.
pub(crate) fn listing(files: &[&str]) -> Answer {
    let siblings: Vec<_> = files.iter().map(|name| serde_json::json!({ "rfilename": name })).collect();
    let body = serde_json::json!({ "id": REPO, "sha": COMMIT, "siblings": siblings });
    Answer::full(200, &[("Content-Type", "application/json")], body.to_string().as_bytes())
}

/// A stub hub and a cache.
pub(crate) struct Site {
    pub(crate) stub: Stub,
    pub(crate) folder: TempDir,
}

impl Site {
    /// `script` may leave a request to the faultless hub with `None`.
    pub(crate) fn new(script: impl Fn(&Request, usize) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let stub = Stub::start(move |request, nth| script(request, nth).unwrap_or_else(|| sound(request)));
        Self { stub, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// Only GET requests for content are scripted.
    pub(crate) fn of_gets(
        script: impl Fn(&Request, usize) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        Self::new(move |request, nth| if request.is_get() { script(request, nth) } else { None })
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("hub")
    }

    /// Short waits, nothing from the environment.
    pub(crate) fn options(&self) -> HubOptions {
        HubOptions {
            cache_dir: Some(self.cache()),
            token: Some(String::new()),
            offline: Some(false),
            endpoint: Some(self.stub.url()),
            connect_timeout: Some(Duration::from_secs(5)),
            stall_timeout: Some(Duration::from_secs(5)),
            tries: Some(3),
            backoff: Some(Duration::from_millis(2)),
            longest_wait: Some(Duration::from_millis(50)),
            ..HubOptions::default()
        }
    }

    pub(crate) fn hub(&self) -> Hub {
        Hub::new(self.options()).expect("sound options")
    }

    pub(crate) fn hub_with(&self, change: impl FnOnce(&mut HubOptions)) -> Hub {
        let mut options = self.options();
        change(&mut options);
        Hub::new(options).expect("sound options")
    }

    pub(crate) fn fetch(&self) -> Result<PathBuf> {
        self.hub().file(REPO, None, FILE)
    }

    pub(crate) fn repo_folder(&self) -> PathBuf {
        self.cache().join("models--owner--model-gguf")
    }

    pub(crate) fn blob(&self) -> PathBuf {
        self.repo_folder().join("blobs").join(sha256(&content()))
    }

    pub(crate) fn incomplete(&self) -> PathBuf {
        self.repo_folder().join("blobs").join(format!("{}.incomplete", sha256(&content())))
    }

    /// Puts `bytes` where an earlier, interrupted download would have left them.
    pub(crate) fn leave_partial(&self, bytes: &[u8]) {
        std::fs::create_dir_all(self.repo_folder().join("blobs")).expect("a folder");
        std::fs::write(self.incomplete(), bytes).expect("a file");
    }

    /// Fetches and checks that the file is right, whole, and the only thing left.
    pub(crate) fn expect_right(&self) {
        let path = self.fetch().unwrap_or_else(|error| panic!("the file was not fetched: {error:?}"));
        self.check_right(&path);
    }

    pub(crate) fn check_right(&self, path: &Path) {
        assert!(std::fs::read(path).expect("a readable file") == content(), "the content is wrong");
        assert!(!self.incomplete().exists(), "the partial file is still there");
    }

    /// Checks that nothing carries the file's name.
    pub(crate) fn check_absent(&self) {
        let pointer = self.repo_folder().join("snapshots").join(COMMIT).join(FILE);
        assert!(
            std::fs::symlink_metadata(pointer).is_err(),
            "a file that failed has its name in the snapshot"
        );
        assert!(!self.blob().exists(), "a file that failed has its name among the blobs");
    }

    /// Everything in the temporary folder outside the cache: nothing, unless a name escaped.
    pub(crate) fn check_contained(&self) {
        let names: Vec<_> = std::fs::read_dir(self.folder.path())
            .expect("a readable folder")
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name != "hub")
            .collect();
        assert!(names.is_empty(), "something was written outside the cache: {names:?}");
    }
}

impl Site {
    /// Fetches, and checks what every failure must keep to: no file, no escape, a hint, no secret.
    pub(crate) fn expect_error(&self) -> phicandle::Error {
        self.expect_error_from(&self.hub())
    }

    pub(crate) fn expect_error_from(&self, hub: &Hub) -> phicandle::Error {
        let error = hub.file(REPO, None, FILE).expect_err("the fetch should have failed");
        self.check_absent();
        self.check_contained();
        check_error(&error);
        error
    }
}

/// An error says what to do, and holds no token and no signed query.
pub(crate) fn check_error(error: &phicandle::Error) {
    let text = format!("{error} {error:?}");
    assert!(error.hint().len() > 20, "no hint: {error:?}");
    assert!(!text.contains(TOKEN) && !text.contains("Signature"), "a secret is in {text}");
    assert!(!error.message().chars().any(char::is_control), "control characters in {:?}", error.message());
}

/// Checks an error's kind; the message shows the whole error when it is another.
#[macro_export]
macro_rules! assert_kind {
    ($error:expr, $($pattern:tt)+) => {{
        let error = &$error;
        assert!(matches!(error.kind(), $($pattern)+), "another kind of error: {error:?}");
    }};
}
