//! What a caller and the environment say about the hub: folders, token, endpoint, patience.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};

use super::names::redact;
use super::progress::Progress;

/// Told how far a download has come, on the thread that asked for it.
pub type ProgressFn = Arc<dyn Fn(&Progress) + Send + Sync>;
/// Asked ten times a second, on the thread that asked for a file, whether to stop; `true` stops.
pub type CancelFn = Arc<dyn Fn() -> bool + Send + Sync>;

/// How to reach a hub and where to keep its files. Every field left `None` takes its value from the environment
/// variables that `huggingface_hub` reads, and then from the default.
#[derive(Clone, Default)]
pub struct HubOptions {
    /// Folder of the cache. Else `HF_HUB_CACHE`, `$HF_HOME/hub`, `~/.cache/huggingface/hub`.
    pub cache_dir: Option<PathBuf>,
    /// Access token. Else `HF_TOKEN`, `HF_HUB_TOKEN`, the file `HF_TOKEN_PATH` or `$HF_HOME/token`. An empty one
    /// means no token at all.
    pub token: Option<String>,
    /// Whether to use only what the cache holds. Else `HF_HUB_OFFLINE`, `false`.
    pub offline: Option<bool>,
    /// Address of the hub. Else `HF_ENDPOINT`, `https://huggingface.co`.
    pub endpoint: Option<String>,
    /// Told how far a download has come.
    pub progress: Option<ProgressFn>,
    /// Whether to draw a progress bar on standard error, when that is a terminal and
    /// `HF_HUB_DISABLE_PROGRESS_BARS` is unset. Default `false`.
    pub bar: bool,
    /// Bytes of memory that a model may take where the choice among several is free. Default: sizes do not count.
    pub memory: Option<u64>,
    /// Asked whether to stop. A stopped download keeps its bytes for the next try.
    pub cancel: Option<CancelFn>,
    /// Longest wait for a connection. Default 10 s.
    pub connect_timeout: Option<Duration>,
    /// Longest silence of the server. Else `HF_HUB_DOWNLOAD_TIMEOUT` (seconds), 30 s.
    pub stall_timeout: Option<Duration>,
    /// Tries for one request that fails in passing, and for one download that gets no further. Default 5.
    pub tries: Option<u32>,
    /// Wait before the second try; it doubles with each further one. Default 500 ms.
    pub backoff: Option<Duration>,
    /// Longest wait between two tries, even where the server asks for more. Default 60 s.
    pub longest_wait: Option<Duration>,
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("endpoint", &self.endpoint.as_deref().map(redact))
            .field("bar", &self.bar)
            .finish_non_exhaustive()
    }
}

/// The options once merged with the environment.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) cache_dir: PathBuf,
    pub(super) token: Option<String>,
    pub(super) offline: bool,
    pub(super) endpoint: String,
    pub(super) progress: Option<ProgressFn>,
    pub(super) bar: bool,
    pub(super) memory: Option<u64>,
    pub(super) cancel: Option<CancelFn>,
    pub(super) connect_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) tries: u32,
    pub(super) backoff: Duration,
    pub(super) longest_wait: Duration,
}

/// A lookup of environment variables: the process's own, or a table in tests.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl Settings {
    /// Merges `options` with the environment that `lookup` reads.
    pub(super) fn merge(options: HubOptions, lookup: Lookup<'_>) -> Result<Self> {
        let env = Env { lookup };
        let home = env.hf_home();
        let cache_dir = options
            .cache_dir
            .or_else(|| env.path("HF_HUB_CACHE"))
            .or_else(|| env.path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(home.as_ref()?.join("hub")))
            .ok_or_else(|| {
                Error::invalid(
                    "cache_dir",
                    "There is no folder for model files: neither a home folder nor HF_HOME is known.",
                    "Set HF_HOME or HF_HUB_CACHE, or give `cache_dir=`.",
                )
            })?;
        let token = match options.token {
            Some(token) => check_token(&token)?,
            None => env.token(home.as_ref())?,
        };
        let stall_timeout = match options.stall_timeout {
            Some(timeout) => timeout,
            None => env.seconds("HF_HUB_DOWNLOAD_TIMEOUT")?.unwrap_or(Duration::from_secs(30)),
        };
        let endpoint = match options.endpoint.or_else(|| env.text("HF_ENDPOINT")) {
            Some(endpoint) => check_endpoint(&endpoint)?,
            None => "https://huggingface.co".to_owned(),
        };
        Ok(Self {
            cache_dir: std::path::absolute(&cache_dir).unwrap_or(cache_dir),
            token,
            offline: options.offline.unwrap_or_else(|| env.flag("HF_HUB_OFFLINE")),
            endpoint,
            progress: options.progress,
            bar: options.bar && !env.flag("HF_HUB_DISABLE_PROGRESS_BARS"),
            memory: options.memory,
            cancel: options.cancel,
            connect_timeout: options.connect_timeout.unwrap_or(Duration::from_secs(10)),
            stall_timeout,
            tries: options.tries.unwrap_or(5).max(1),
            backoff: options.backoff.unwrap_or(Duration::from_millis(500)),
            longest_wait: options.longest_wait.unwrap_or(Duration::from_secs(60)),
        })
    }
}

/// Environment variables as `huggingface_hub` reads them: an empty one counts as unset.
struct Env<'a> {
    lookup: Lookup<'a>,
}

impl Env<'_> {
    fn raw(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        let value = self.raw(name)?.into_string().ok()?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.raw(name)?);
        match path.strip_prefix("~") {
            Ok(rest) => Some(self.user_home()?.join(rest)),
            Err(_) => Some(path),
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name)
            .is_some_and(|value| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
    }

    fn seconds(&self, name: &str) -> Result<Option<Duration>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0).map(Duration::try_from_secs_f64) {
            Some(Ok(duration)) => Ok(Some(duration)),
            _ => Err(Error::invalid(
                name,
                format!("The environment variable {name} is not a number of seconds above 0."),
                "Set it to a number such as 30, or unset it.",
            )),
        }
    }

    fn user_home(&self) -> Option<PathBuf> {
        let name = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
        self.raw(name).map(PathBuf::from).or_else(std::env::home_dir)
    }

    fn hf_home(&self) -> Option<PathBuf> {
        self.path("HF_HOME")
            .or_else(|| Some(self.path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(self.user_home()?.join(".cache").join("huggingface")))
    }

    fn token(&self, home: Option<&PathBuf>) -> Result<Option<String>> {
        if self.flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return Ok(None);
        }
        for name in ["HF_TOKEN", "HF_HUB_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
            if let Some(token) = self.text(name) {
                return check_token(&token);
            }
        }
        let Some(path) = self.path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token"))) else {
            return Ok(None);
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => check_token(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                log::warn!(
                    "The token file {} cannot be read ({error}); going on without it.",
                    path.display()
                );
                Ok(None)
            }
        }
    }
}

/// A token fit for a header; `None` for an empty one. The error never shows it.
fn check_token(token: &str) -> Result<Option<String>> {
    let token = token.trim();
    if token.is_empty() {
        return Ok(None);
    }
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Some(token.to_owned()));
    }
    Err(Error::invalid(
        "token",
        "The hub token holds characters that no token has (spaces, line breaks or non-ASCII letters).",
        "Copy it again from https://huggingface.co/settings/tokens and set HF_TOKEN, or unset it.",
    ))
}

/// An address without a trailing slash: `http://` or `https://`, a host, perhaps a path.
fn check_endpoint(endpoint: &str) -> Result<String> {
    let trimmed = endpoint.trim().trim_end_matches('/');
    let uri: Option<ureq::http::Uri> = trimmed.parse().ok();
    let sound = uri.as_ref().is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    });
    if sound && !trimmed.contains('#') {
        return Ok(trimmed.to_owned());
    }
    Err(Error::invalid(
        "endpoint",
        format!("`{}` is not the address of a hub.", redact(trimmed)),
        "Set HF_ENDPOINT to one such as https://huggingface.co, without user name or query, or unset it.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn merge(options: HubOptions, env: &[(&str, &str)]) -> Result<Settings> {
        let mut table: Vec<(String, OsString)> =
            env.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        for (name, value) in [("HOME", "/nobody"), ("USERPROFILE", "/nobody")] {
            if !table.iter().any(|(known, _)| known == name) {
                table.push((name.to_owned(), value.into()));
            }
        }
        Settings::merge(options, &|name| {
            table.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn defaults_without_environment() {
        let settings = merge(HubOptions::default(), &[]).unwrap();
        assert!(settings.cache_dir.ends_with(Path::new(".cache/huggingface/hub")));
        assert_eq!(settings.endpoint, "https://huggingface.co");
        assert_eq!((settings.token, settings.offline, settings.tries), (None, false, 5));
        assert_eq!(settings.stall_timeout, Duration::from_secs(30));
    }

    #[test]
    fn folders_come_from_the_nearest_variable() {
        let cache = |env: &[(&str, &str)]| merge(HubOptions::default(), env).unwrap().cache_dir;
        let abs = |path: &str| std::path::absolute(path).unwrap();
        assert_eq!(cache(&[("HF_HOME", "/hf")]), abs("/hf/hub"));
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]), abs("/c"));
        assert_eq!(cache(&[("HF_HOME", "~/hf")]), abs("/nobody/hf/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), abs("/x/huggingface/hub"));
        assert_eq!(cache(&[("HF_HOME", "")]), abs("/nobody/.cache/huggingface/hub"));
        let options = HubOptions { cache_dir: Some("/mine".into()), ..HubOptions::default() };
        assert_eq!(merge(options, &[("HF_HUB_CACHE", "/c")]).unwrap().cache_dir, abs("/mine"));
    }

    #[test]
    fn tokens_come_in_order_and_stay_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "hf_file\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let token = |env: &[(&str, &str)]| merge(HubOptions::default(), env).unwrap().token;
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_TOKEN_PATH", file.to_str().unwrap())]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_HUB_TOKEN", "b")]).as_deref(), Some("b"));
        assert_eq!(token(&[("HF_TOKEN", " a\n"), ("HF_HUB_TOKEN", "b")]).as_deref(), Some("a"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let options = HubOptions { token: Some(String::new()), ..HubOptions::default() };
        assert_eq!(merge(options, &[("HF_TOKEN", "a")]).unwrap().token, None);

        let options = HubOptions { token: Some("hf_se cret".to_owned()), ..HubOptions::default() };
        assert!(!format!("{options:?}").contains("cret"));
        let error = merge(options, &[]).err().unwrap();
        assert!(!error.to_string().contains("cret"), "{error}");
    }

    #[test]
    fn switches_and_numbers() {
        for (value, expected) in [("1", true), ("yes", true), ("TRUE", true), ("0", false), ("", false)] {
            let settings = merge(HubOptions::default(), &[("HF_HUB_OFFLINE", value)]).unwrap();
            assert_eq!(settings.offline, expected, "{value}");
        }
        let options = HubOptions { offline: Some(false), ..HubOptions::default() };
        assert!(!merge(options, &[("HF_HUB_OFFLINE", "1")]).unwrap().offline);
        let settings = merge(HubOptions::default(), &[("HF_HUB_DOWNLOAD_TIMEOUT", "2.5")]).unwrap();
        assert_eq!(settings.stall_timeout, Duration::from_millis(2500));
        for bad in ["-1", "0", "soon", "NaN", "inf"] {
            assert!(merge(HubOptions::default(), &[("HF_HUB_DOWNLOAD_TIMEOUT", bad)]).is_err(), "{bad}");
        }
        let options = HubOptions { bar: true, ..HubOptions::default() };
        assert!(!merge(options, &[("HF_HUB_DISABLE_PROGRESS_BARS", "1")]).unwrap().bar);
    }

    #[test]
    fn endpoints_are_plain_addresses() {
        let endpoint = |text: &str| {
            merge(HubOptions::default(), &[("HF_ENDPOINT", text)]).map(|settings| settings.endpoint)
        };
        assert_eq!(endpoint("https://mirror.example/hf/").unwrap(), "https://mirror.example/hf");
        for bad in
            ["mirror.example", "ftp://x", "https://", "https://u:secret@x", "https://x?q=1", "nonsense"]
        {
            let error = endpoint(bad).err().unwrap_or_else(|| panic!("{bad} was taken"));
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
