//! Model names to files on this machine: hub downloads and the shared cache.
//!
//! [`Hub::resolve`] turns a [`ModelSpec`] into paths. The cache folder is the one of `huggingface_hub`; the names,
//! layout and listing types come from the `hf-hub` crate. What that crate lacks is here: checksums, safe resume,
//! locks that wait, timeouts, retries, the environment's switches, and a distrust of every name that a server sends.

mod cache;
mod choose;
mod download;
mod faults;
mod fetch;
mod header;
mod http;
mod job;
mod names;
mod options;
mod progress;
mod retry;
mod shelf;
mod spec;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::gguf::Header;

use cache::Store;
use fetch::Remote;
use http::Client;
use options::Settings;

pub use options::{CancelFn, HubOptions, ProgressFn};
pub use progress::{Progress, count_bar, work_bar};
pub use shelf::CachedModel;
pub use spec::{
    DEFAULT_FILE, DEFAULT_REPO, DEFAULT_REVISION, DEFAULT_TOKENIZER_REPO, ModelSpec, TOKENIZER_FILE,
};

/// A hub and the cache of its files. Cheap to clone, and safe to share between threads.
#[derive(Clone)]
pub struct Hub {
    remote: Arc<Remote>,
}

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalModel {
    /// The GGUF file; of a split model the first part.
    pub model: PathBuf,
    /// All files of the model, in order: the one, or its parts.
    pub parts: Vec<PathBuf>,
    /// A `tokenizer.json` that belongs to it; `None` where the GGUF file's own vocabulary is the one to use.
    pub tokenizer: Option<PathBuf>,
    /// The repository, `owner/name`.
    pub repo: String,
    /// The commit that the file is from, 40 hex digits.
    pub revision: String,
    /// The file's name in the repository; of a split model that of the first part.
    pub file: String,
}

/// What is known of a model without its weights.
#[derive(Debug, Clone, PartialEq)]
pub enum Described {
    /// It is in the cache.
    Local(LocalModel),
    /// It is on the hub, and its header was read from there.
    Remote {
        /// The file and its repository, for people.
        name: String,
        /// The header, of a split model that of all parts.
        header: Header,
    },
}

/// Whether the hub answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reachability {
    /// The address asked.
    pub endpoint: String,
    /// Whether a hub answered there.
    pub reachable: bool,
    /// The HTTP status of the answer.
    pub status: Option<u16>,
    /// Time until the answer, or until it was clear that none comes.
    pub elapsed: Duration,
    /// What was found, in a few words.
    pub detail: String,
}

impl Hub {
    /// A hub with `options`; what they leave open comes from the environment. Touches neither network nor disk,
    /// except to read a token file.
    ///
    /// # Errors
    /// `InvalidParameter` for an endpoint, token, timeout or folder that cannot be used.
    pub fn new(options: HubOptions) -> Result<Self> {
        Self::with_settings(Settings::merge(options, &|name| std::env::var_os(name))?)
    }

    fn with_settings(settings: Settings) -> Result<Self> {
        let client = Client::new(&settings)?;
        let store = Store::new(settings.cache_dir.clone());
        Ok(Self { remote: Arc::new(Remote { settings, store, client }) })
    }

    /// The files of a model: from the hub when it has newer ones, else from the cache.
    ///
    /// The tutorial's repository comes with the `tokenizer.json` of `microsoft/Phi-3-mini-4k-instruct`; every other
    /// one uses the vocabulary in its GGUF file. When the hub cannot be reached and the cache has the files, those
    /// are used and the log says so.
    ///
    /// # Errors
    /// `ModelNotFound`, `GatedModel`, `Offline`, `Download`, `CorruptModel`.
    pub fn resolve(&self, spec: &ModelSpec) -> Result<LocalModel> {
        let (remote, spec) = (Arc::clone(&self.remote), spec.clone());
        job::attend(&self.remote.settings, move |job| {
            let files = remote.files(job, &spec)?;
            let found = remote.fetch_all(job, spec.repo(), spec.revision(), &files)?;
            let tokenizer = match spec.repo() {
                DEFAULT_REPO => remote.tokenizer(job)?,
                _ => None,
            };
            local(&spec, &files, found, tokenizer)
        })
    }

    /// What is known of a model without its weights: where it is in the cache, or else its header, of which a few megabytes are
    /// read from the hub. The hub is not asked about what the cache has.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), and those of [`Header::parse`].
    pub fn describe(&self, spec: &ModelSpec) -> Result<Described> {
        let (remote, spec) = (Arc::clone(&self.remote), spec.clone());
        job::attend(&self.remote.settings, move |job| {
            if let Some(found) = remote.local(&spec)? {
                return Ok(Described::Local(found));
            }
            let files = remote.files(job, &spec)?;
            let (header, _) = remote.header(job, &spec, &files)?;
            Ok(Described::Remote {
                name: format!("{} of {}", files.first().map_or("", String::as_str), spec.repo()),
                header,
            })
        })
    }

    /// One file of a repository. `revision`: branch, tag or commit; `None` is `main`.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), and `InvalidParameter` for names that cannot be.
    pub fn file(&self, repo: &str, revision: Option<&str>, filename: &str) -> Result<PathBuf> {
        let revision = revision.unwrap_or(DEFAULT_REVISION);
        spec::check_repo(repo)?;
        spec::check_revision(revision)?;
        spec::check_file_name(filename)?;
        let remote = Arc::clone(&self.remote);
        let (repo, revision, filename) = (repo.to_owned(), revision.to_owned(), filename.to_owned());
        job::attend(&self.remote.settings, move |job| {
            remote.fetch(job, &repo, &revision, &filename).map(|found| found.path)
        })
    }

    /// Names of the files in a repository, as the hub lists them; without a hub, those in the cache.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub fn list_files(&self, repo: &str, revision: Option<&str>) -> Result<Vec<String>> {
        let revision = revision.unwrap_or(DEFAULT_REVISION);
        spec::check_repo(repo)?;
        spec::check_revision(revision)?;
        let remote = Arc::clone(&self.remote);
        let (repo, revision) = (repo.to_owned(), revision.to_owned());
        job::attend(&self.remote.settings, move |job| {
            Ok(remote.list(job, &repo, &revision)?.into_iter().map(|file| file.name).collect())
        })
    }

    /// The repositories in the cache that hold GGUF files, one entry for each snapshot, by name.
    ///
    /// # Errors
    /// `ModelRead` when the cache folder exists and cannot be read.
    pub fn cached_models(&self) -> Result<Vec<CachedModel>> {
        shelf::list(&self.remote.store)
    }

    /// Removes a repository from the cache, with every revision of it, and tells how many bytes that freed.
    ///
    /// # Errors
    /// `InvalidParameter` for a name that is none, `ModelNotFound` when the cache has no such repository,
    /// `ModelRead` when it is being downloaded or cannot be removed.
    pub fn remove(&self, repo: &str) -> Result<u64> {
        spec::check_repo(repo)?;
        shelf::remove(&self.remote.store, repo)
    }

    /// Asks the hub for a sign of life, once.
    ///
    /// # Errors
    /// Only when stopped on request: a hub that does not answer is an answer.
    pub fn reachable(&self) -> Result<Reachability> {
        let remote = Arc::clone(&self.remote);
        job::attend(&self.remote.settings, move |_| Ok(remote.ping()))
    }

    /// The folder of the cache.
    pub fn cache_dir(&self) -> &Path {
        self.remote.store.root()
    }

    /// The address of the hub.
    pub fn endpoint(&self) -> &str {
        &self.remote.settings.endpoint
    }

    /// Whether the network is ruled out.
    pub fn is_offline(&self) -> bool {
        self.remote.settings.offline
    }
}

fn local(
    spec: &ModelSpec,
    files: &[String],
    found: Vec<fetch::Found>,
    tokenizer: Option<PathBuf>,
) -> Result<LocalModel> {
    match (files.first(), found.first()) {
        (Some(file), Some(first)) => Ok(LocalModel {
            model: first.path.clone(),
            parts: found.iter().map(|found| found.path.clone()).collect(),
            tokenizer,
            repo: spec.repo().to_owned(),
            revision: first.commit.clone(),
            file: file.clone(),
        }),
        _ => Err(Error::internal("A model of no files was chosen.")),
    }
}

impl Remote {
    /// The names of the files that `spec` means: one, or all parts of a split model.
    fn files(&self, job: &job::Job, spec: &ModelSpec) -> Result<Vec<String>> {
        match spec.filename() {
            Some(file) => Ok(header::all_parts(file)),
            None => {
                choose::choose(spec, &self.list(job, spec.repo(), spec.revision())?, self.settings.memory)
            }
        }
    }

    /// The model in the cache, without a question to the hub; `None` when it is not there as a whole.
    fn local(&self, spec: &ModelSpec) -> Result<Option<LocalModel>> {
        let files = match spec.filename() {
            Some(file) => header::all_parts(file),
            None => {
                let Some(listed) = self.cached_list(spec.repo(), spec.revision()) else { return Ok(None) };
                match choose::choose(spec, &listed, self.settings.memory) {
                    Ok(files) => files,
                    // What is not here may be there.
                    Err(_) => return Ok(None),
                }
            }
        };
        let Some(found) = self.cached(spec.repo(), spec.revision(), &files) else { return Ok(None) };
        let own = [TOKENIZER_FILE.to_owned()];
        let tokenizer = match spec.repo() {
            DEFAULT_REPO => self.cached(DEFAULT_TOKENIZER_REPO, DEFAULT_REVISION, &own),
            _ => None,
        };
        let tokenizer = tokenizer.and_then(|found| Some(found.into_iter().next()?.path));
        local(spec, &files, found, tokenizer).map(Some)
    }

    /// The tutorial's `tokenizer.json`. Without network and cache the GGUF file's own vocabulary takes its place.
    fn tokenizer(&self, job: &job::Job) -> Result<Option<PathBuf>> {
        match self.fetch(job, DEFAULT_TOKENIZER_REPO, DEFAULT_REVISION, TOKENIZER_FILE) {
            Ok(found) => Ok(Some(found.path)),
            Err(error) if matches!(error.kind(), ErrorKind::Offline { .. }) => {
                log::warn!(
                    "{TOKENIZER_FILE} of {DEFAULT_TOKENIZER_REPO} is out of reach: using the vocabulary in the GGUF file."
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn ping(&self) -> Reachability {
        let endpoint = self.settings.endpoint.clone();
        let begun = Instant::now();
        let (status, reachable, detail) = if self.settings.offline {
            (None, false, "ruled out by `offline=True` or HF_HUB_OFFLINE".to_owned())
        } else {
            match self.client.head(&self.listing_url(DEFAULT_REPO, DEFAULT_REVISION)) {
                Ok(reply) => {
                    let status = reply.response.status();
                    (Some(status.as_u16()), status.as_u16() < 500, format!("answered {}", status.as_u16()))
                }
                Err(fault) => (None, false, fault.describe()),
            }
        };
        Reachability { endpoint, reachable, status, elapsed: begun.elapsed(), detail }
    }
}
