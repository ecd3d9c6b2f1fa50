//! What can go wrong between here and the hub, and the words for it.

use std::io;
use std::path::Path;
use std::time::Duration;

use ureq::http::StatusCode;

use crate::error::{Error, ErrorKind};

use super::names::{printable, redact};

/// Said wherever nothing else works.
pub(super) const DEMO: &str = "`--model demo` / `Generator(\"demo\")` works without any download";

/// A failed exchange, sorted by what may help.
#[derive(Debug)]
pub(super) enum Fault {
    /// No connection came about: no network, no such host, a refused port or certificate.
    Unreachable {
        /// The address asked, redacted.
        url: String,
        /// Why, in a few words.
        detail: String,
    },
    /// It may work when tried again.
    Passing {
        /// The address asked, redacted.
        url: String,
        /// HTTP status, when there was an answer.
        status: Option<u16>,
        /// The wait that the server asked for.
        after: Option<Duration>,
        /// Why, in a few words.
        detail: String,
    },
    /// The hub answered that there is no such thing.
    Missing,
    /// Trying again does not help.
    Final(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Fault {
    /// A passing fault of the exchange itself, without an HTTP status that explains it.
    pub(super) fn passing(url: &str, detail: impl Into<String>) -> Self {
        Self::Passing { url: redact(url), status: None, after: None, detail: detail.into() }
    }

    /// The error for the caller once nothing more is tried. `what` names the thing that was wanted.
    pub(super) fn into_error(self, what: &str, tries: u32) -> Error {
        match self {
            Self::Final(error) => error,
            Self::Missing => not_found(what, Vec::new()),
            Self::Unreachable { url, detail } => Error::new(
                ErrorKind::Offline { url: url.clone() },
                format!("{what} is not in the cache, and {url} could not be reached: {detail}."),
                format!("Check the network, HTTPS_PROXY and HF_ENDPOINT, then try again; {DEMO}."),
            ),
            Self::Passing { url, status: Some(429), .. } => Error::new(
                ErrorKind::Download { url: url.clone(), status: Some(429), resumable: true },
                format!(
                    "{url} answered 429 (too many requests) {}, so {what} was not fetched.",
                    times(tries)
                ),
                "Wait some minutes and try again; what has arrived is kept. A token in HF_TOKEN raises the limit.",
            ),
            Self::Passing { url, status, detail, .. } => Error::new(
                ErrorKind::Download { url: url.clone(), status, resumable: true },
                format!("{what} was not fetched from {url}: {detail} ({}).", times(tries)),
                "Try again: what has arrived is kept and the download goes on from there.",
            ),
        }
    }

    /// The cause in a few words, for the log.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Unreachable { url, detail } | Self::Passing { url, detail, .. } => {
                format!("{url}: {detail}")
            }
            Self::Missing => "it has no such file".to_owned(),
            Self::Final(error) => error.message().to_owned(),
        }
    }
}

fn times(tries: u32) -> String {
    if tries == 1 { "once".to_owned() } else { format!("after {tries} tries") }
}

/// Sorts a failure of the HTTP client.
pub(super) fn of_transport(url: &str, error: ureq::Error) -> Fault {
    use ureq::Timeout::{Connect, RecvResponse, Resolve};
    let unreachable = match &error {
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::ConnectProxyFailed(_)
        | ureq::Error::InvalidProxyUrl
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::Timeout(Connect | Resolve) => true,
        // A failed lookup, a dead route and a refused port have many kinds; a connection that breaks has these few.
        ureq::Error::Io(error) => !matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::TimedOut
                | io::ErrorKind::WouldBlock
                | io::ErrorKind::Interrupted
                | io::ErrorKind::InvalidData
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::NotConnected
                | io::ErrorKind::WriteZero
                | io::ErrorKind::Other
        ),
        _ => false,
    };
    let detail = match &error {
        // Its text is the whole address, signature and all.
        ureq::Error::BadUri(_) => "the address is not valid".to_owned(),
        ureq::Error::Timeout(Connect | Resolve) => "no connection within the time allowed".to_owned(),
        ureq::Error::Timeout(RecvResponse) => "the server was too slow to answer".to_owned(),
        ureq::Error::Timeout(_) => "the server fell silent".to_owned(),
        ureq::Error::HostNotFound => "no such host was found".to_owned(),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection was cut".to_owned()
        }
        other => printable(&other.to_string()),
    };
    if unreachable { Fault::Unreachable { url: redact(url), detail } } else { Fault::passing(url, detail) }
}

/// What the server says about a refusal, from the headers that the hub sets.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) after: Option<Duration>,
}

/// Sorts an answer that is neither success nor redirect. `what` names the thing asked for and `repo` its repository.
/// `at_home`: the hub itself gave it, and not a storage behind it.
pub(super) fn of_status(
    url: &str,
    status: StatusCode,
    refusal: &Refusal,
    at_home: bool,
    what: &str,
    repo: &str,
) -> Fault {
    let url = redact(url);
    let number = status.as_u16();
    let said = if refusal.message.is_empty() {
        String::new()
    } else {
        format!(" (it says: {})", printable(&refusal.message))
    };
    if !at_home && refusal.code.is_empty() && matches!(number, 400 | 401 | 403) {
        // Signed links run out: the hub gives a new one when asked again.
        let detail = format!("the storage behind the hub answered {number}{said}");
        return Fault::Passing { url, status: Some(number), after: refusal.after, detail };
    }
    match (number, refusal.code.as_str()) {
        (401 | 404, "RepoNotFound") => Fault::Final(no_repo(repo)),
        (404, "RevisionNotFound") => Fault::Final(Error::new(
            ErrorKind::ModelNotFound { candidates: vec!["main".to_owned()] },
            format!("The repository {repo} has no such revision as was asked for {what}."),
            "Check `revision=`: a branch, a tag or a commit that the repository's page lists; `main` is the default.",
        )),
        (401, _) => Fault::Final(Error::new(
            ErrorKind::GatedModel { url, status: number },
            format!("The hub wants a valid token for {what}{said}."),
            format!(
                "Accept the licence on the page of {repo} if it has one, make a token at \
                 https://huggingface.co/settings/tokens and set HF_TOKEN to it; {DEMO}."
            ),
        )),
        (403, _) => Fault::Final(Error::new(
            ErrorKind::GatedModel { url, status: number },
            format!("The hub does not let this account read {what}{said}."),
            format!(
                "Sign in, accept the licence on the page of {repo}, and set HF_TOKEN to a token of that account; {DEMO}."
            ),
        )),
        (404 | 410, _) => Fault::Missing,
        (408 | 425 | 429 | 500..=599, _) => Fault::Passing {
            url,
            status: Some(number),
            after: refusal.after,
            detail: format!("the server answered {number}{said}"),
        },
        _ => Fault::Final(Error::new(
            ErrorKind::Download { url: url.clone(), status: Some(number), resumable: false },
            format!("{url} answered {number}{said}, so {what} was not fetched."),
            "Check HF_ENDPOINT: the address must be that of a Hugging Face hub or a full mirror of one.",
        )),
    }
}

/// No such repository, or none that this token may see.
pub(super) fn no_repo(repo: &str) -> Error {
    Error::new(
        ErrorKind::ModelNotFound { candidates: Vec::new() },
        format!("The hub has no repository {repo}, or shows it only to its members."),
        format!("Check the spelling of the name, and set HF_TOKEN if the repository is private; {DEMO}."),
    )
}

/// No such file; `candidates` are names that do exist.
pub(super) fn not_found(what: &str, candidates: Vec<String>) -> Error {
    let hint = if candidates.is_empty() {
        format!("Check the names of the repository and the file; {DEMO}.")
    } else {
        let near: Vec<String> = candidates.iter().map(|name| format!("`{}`", printable(name))).collect();
        format!("Near names there: {}. Choose one with `filename=`; {DEMO}.", near.join(", "))
    };
    Error::new(ErrorKind::ModelNotFound { candidates }, format!("{what} does not exist on the hub."), hint)
}

/// Offline was asked for, and the cache lacks the thing.
pub(super) fn offline(url: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::Offline { url: redact(url) },
        format!("{what} is not in the cache, and the hub is ruled out by `offline=True` or HF_HUB_OFFLINE."),
        format!("Fetch it once with the network on (`phicandle pull`), or unset HF_HUB_OFFLINE; {DEMO}."),
    )
}

/// An answer that no hub would give.
pub(super) fn not_a_hub(url: &str, found: &str) -> Error {
    let url = redact(url);
    Error::new(
        ErrorKind::Download { url: url.clone(), status: None, resumable: false },
        format!("{url} does not answer as a Hugging Face hub does: {found}."),
        "Check HF_ENDPOINT and the proxy: the address must be that of a hub or a full mirror of one.",
    )
}

/// The caller asked to stop.
pub(super) fn stopped() -> Error {
    Error::new(
        ErrorKind::Download { url: String::new(), status: None, resumable: true },
        "The download was stopped on request.",
        "Ask for the model again to go on: what has arrived is kept.",
    )
}

/// A file arrived twice with the wrong content.
pub(super) fn corrupt(what: &str, expected: &str, found: &str) -> Error {
    Error::new(
        ErrorKind::CorruptModel { place: None, offset: None, expected_sha256: Some(expected.to_owned()) },
        format!("{what} arrived twice with a wrong checksum: sha256 {found}, expected {expected}."),
        "Nothing was kept. Try again later, or through another network or HF_ENDPOINT: something on the way changes \
         the file.",
    )
}

/// The disk or the folder let a download down.
pub(super) fn of_disk(path: &Path, url: &str, error: &io::Error) -> Error {
    let full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    );
    let (message, hint) = if full {
        (
            format!("The disk that holds {} is full: {error}.", path.display()),
            "Free some space (`phicandle list`, `phicandle rm`) or set HF_HUB_CACHE to a folder on a larger disk, then \
             try again: what has arrived is kept.",
        )
    } else {
        (
            format!("The cache cannot be written at {}: {error}.", path.display()),
            "Set HF_HUB_CACHE, or `cache_dir=`, to a folder that you may write to.",
        )
    };
    Error::new(ErrorKind::Download { url: redact(url), status: None, resumable: full }, message, hint)
}
