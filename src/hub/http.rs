//! The HTTP client: redirects followed by hand, so that the token goes to the hub and to nobody else.

use std::time::Duration;

use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, LOCATION, RANGE,
    RETRY_AFTER,
};
use ureq::http::{Method, Response, StatusCode, Uri};
use ureq::{Agent, Body};

use crate::error::{Error, ErrorKind};

use super::faults::{self, Fault, Refusal};
use super::names::redact;
use super::options::Settings;

/// Longest chain of redirects. The hub itself needs two.
const MAX_REDIRECTS: usize = 8;

/// Who answers at an address: what must stay the same for the token to go along.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = uri.host()?.to_ascii_lowercase();
        Some(Self { scheme, host, port: uri.port_u16().unwrap_or(default_port) })
    }

    fn is_loopback(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

/// What the answers along a chain of redirects said about a file.
#[derive(Debug, Default, Clone)]
pub(super) struct Facts {
    /// `X-Repo-Commit`.
    pub(super) commit: Option<String>,
    /// `X-Linked-ETag`, or the `ETag` of the last answer.
    pub(super) etag: Option<String>,
    /// `X-Linked-Size`, or the `Content-Length` of the last answer to a HEAD.
    pub(super) size: Option<u64>,
}

/// The last answer of a chain.
pub(super) struct Reply {
    pub(super) url: String,
    pub(super) response: Response<Body>,
    pub(super) facts: Facts,
    /// Whether the hub itself answered, and not a storage that it redirected to.
    pub(super) at_home: bool,
}

/// Talks to one hub.
#[derive(Debug, Clone)]
pub(super) struct Client {
    agent: Agent,
    origin: Origin,
    token: Option<String>,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let origin = Origin::of(&settings.endpoint).ok_or_else(|| {
            Error::invalid(
                "endpoint",
                format!("`{}` is not an http or https address.", redact(&settings.endpoint)),
                "Set HF_ENDPOINT to one such as https://huggingface.co.",
            )
        })?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("phicandle/", env!("CARGO_PKG_VERSION"), "; rust"))
            // Checksums and ranges are about the file itself, never about a compressed form of it.
            .accept_encoding("identity")
            .timeout_resolve(Some(settings.connect_timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_per_write(Some(settings.stall_timeout))
            .timeout_per_read(Some(settings.stall_timeout))
            .timeout_recv_response(Some(settings.stall_timeout));
        if origin.is_loopback() {
            // A hub on this machine is never behind the proxy of the environment.
            config = config.proxy(None);
        }
        Ok(Self { agent: config.build().into(), origin, token: settings.token.clone() })
    }

    /// Asks for the facts about a file: HEAD, and no further than the answer that gives them.
    pub(super) fn head(&self, url: &str) -> Result<Reply, Fault> {
        self.send(&Method::HEAD, url, None)
    }

    /// Asks for content, from byte `start` on.
    pub(super) fn get(&self, url: &str, start: Option<u64>) -> Result<Reply, Fault> {
        self.send(&Method::GET, url, start.map(|start| format!("bytes={start}-")).as_deref())
    }

    /// Asks for the bytes of `part` alone, which is not empty. A server may send all of them instead.
    pub(super) fn get_part(&self, url: &str, part: std::ops::Range<u64>) -> Result<Reply, Fault> {
        let range = format!("bytes={}-{}", part.start, part.end.saturating_sub(1));
        self.send(&Method::GET, url, Some(&range))
    }

    fn send(&self, method: &Method, url: &str, range: Option<&str>) -> Result<Reply, Fault> {
        let mut url = url.to_owned();
        let mut facts = Facts::default();
        // Once a chain has left the hub, the token does not return to it: the address is then someone else's choice.
        let mut at_home = true;
        for _ in 0..=MAX_REDIRECTS {
            at_home = at_home && Origin::of(&url).as_ref() == Some(&self.origin);
            let token = self.token.as_deref().filter(|_| at_home);
            let response = self.once(method, &url, range, token)?;
            let next = redirect_target(&url, &response)?;
            facts.note(&response, method, next.is_some());
            let Some(next) = next else {
                return Ok(Reply { url, response, facts, at_home });
            };
            let settled = facts.commit.is_some() && facts.etag.is_some();
            if *method == Method::HEAD && settled {
                return Ok(Reply { url, response, facts, at_home });
            }
            url = next;
        }
        Err(Fault::Final(Error::new(
            ErrorKind::Download { url: redact(&url), status: None, resumable: false },
            format!("{} redirected more than {MAX_REDIRECTS} times.", redact(&url)),
            "Check HF_ENDPOINT and the proxy: one of them sends requests in a circle.",
        )))
    }

    fn once(
        &self,
        method: &Method,
        url: &str,
        range: Option<&str>,
        token: Option<&str>,
    ) -> Result<Response<Body>, Fault> {
        let mut request = if *method == Method::HEAD { self.agent.head(url) } else { self.agent.get(url) };
        request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        request.call().map_err(|error| faults::of_transport(url, error))
    }
}

impl Facts {
    fn note(&mut self, response: &Response<Body>, method: &Method, redirected: bool) {
        let headers = response.headers();
        let text = |name: &str| header(headers, name).map(str::to_owned);
        self.commit = self.commit.take().or_else(|| text("x-repo-commit"));
        self.etag = self.etag.take().or_else(|| text("x-linked-etag"));
        self.size = self.size.or_else(|| header(headers, "x-linked-size")?.parse().ok());
        if !redirected && response.status().is_success() {
            self.etag = self.etag.take().or_else(|| text(ETAG.as_str()));
            if *method == Method::HEAD && !is_encoded(headers) {
                self.size = self.size.or_else(|| content_length(headers));
            }
        }
    }
}

/// The text of a header, when it has one that is text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `Content-Length`.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    header(headers, CONTENT_LENGTH.as_str())?.trim().parse().ok()
}

/// Whether the body is compressed on its way.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    header(headers, CONTENT_ENCODING.as_str()).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"))
}

impl Reply {
    /// Sorts an answer that is neither success nor redirect. `what` names the thing asked for, `repo` its repository.
    pub(super) fn refused(&self, what: &str, repo: &str) -> Fault {
        let refusal = refusal(self.response.headers());
        faults::of_status(&self.url, self.response.status(), &refusal, self.at_home, what, repo)
    }
}

/// What a refusing server says about it.
fn refusal(headers: &HeaderMap) -> Refusal {
    Refusal {
        code: header(headers, "x-error-code").unwrap_or_default().to_owned(),
        message: header(headers, "x-error-message").unwrap_or_default().to_owned(),
        after: header(headers, RETRY_AFTER.as_str()).and_then(parse_retry_after),
    }
}

/// `Retry-After`: seconds, or a date.
fn parse_retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let wait = date.timestamp().duration_since(jiff::Timestamp::now());
    Some(Duration::try_from(wait).unwrap_or(Duration::ZERO))
}

/// Where a redirect leads; `None` for any other answer.
fn redirect_target(url: &str, response: &Response<Body>) -> Result<Option<String>, Fault> {
    let redirects = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    if !redirects {
        return Ok(None);
    }
    header(response.headers(), LOCATION.as_str())
        .and_then(|location| join(url, location))
        .map(Some)
        .ok_or_else(|| Fault::Final(faults::not_a_hub(url, "it redirects to no usable address")))
}

/// `location` as seen from `base`; `None` unless that is an http or https address.
fn join(base: &str, location: &str) -> Option<String> {
    let location = location.trim();
    let location = location.split('#').next().unwrap_or(location);
    let (scheme, rest) = base.split_once("://")?;
    let target = if location.contains("://") && !location.starts_with('/') {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else {
        let path_end = rest.find(['?', '#']).unwrap_or(rest.len());
        let path = rest.get(..path_end)?;
        let host_end = path.find('/').unwrap_or(path.len());
        let kept = if location.starts_with('/') {
            path.get(..host_end)?
        } else {
            path.rfind('/').map_or(path, |at| path.get(..at).unwrap_or(path))
        };
        let slash = if location.starts_with('/') { "" } else { "/" };
        format!("{scheme}://{kept}{slash}{location}")
    };
    Origin::of(&target).map(|_| target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_read_as_a_browser_would() {
        let base = "https://hub.example/a/b?q=1";
        let cases = [
            ("https://cdn.example/x?sig=1", Some("https://cdn.example/x?sig=1")),
            ("//cdn.example/x", Some("https://cdn.example/x")),
            ("/c/d?u=http://z", Some("https://hub.example/c/d?u=http://z")),
            ("c", Some("https://hub.example/a/c")),
            ("/x#part", Some("https://hub.example/x")),
            ("file:///etc/passwd", None),
            ("ftp://x/y", None),
            ("https://", None),
        ];
        for (location, expected) in cases {
            assert_eq!(join(base, location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |url| Origin::of(url).unwrap();
        assert_eq!(origin("https://HUB.example/x"), origin("https://hub.example:443"));
        assert_ne!(origin("https://hub.example"), origin("http://hub.example"));
        assert_ne!(origin("http://127.0.0.1:80"), origin("http://127.0.0.1:81"));
        assert_ne!(origin("https://hub.example.evil"), origin("https://hub.example"));
        assert!(origin("http://[::1]:8").is_loopback() && origin("http://localhost").is_loopback());
        assert!(!origin("http://localhost.evil").is_loopback());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let later = parse_retry_after("Wed, 21 Oct 2099 07:28:00 GMT").unwrap();
        assert!(later > Duration::from_secs(3600));
        assert_eq!(parse_retry_after("soon"), None);
    }
}
