//! From a name on the hub to a file in the cache: ask, compare, download, place.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use hf_hub::{Repo, RepoType};

use crate::error::{ErrorKind, Result};

use super::cache::{RepoStore, Store};
use super::choose::{Listed, is_gguf};
use super::download::{self, Wanted};
use super::faults::{self, Fault};
use super::http::Client;
use super::job::Job;
use super::names::{Etag, is_commit, is_safe_file_name, nearest, percent_encode, printable};
use super::options::Settings;
use super::retry;

/// Longest listing of a repository that is read, in bytes.
const MAX_LISTING: u64 = 16 << 20;

/// A hub, its cache, and how patient to be.
pub(super) struct Remote {
    pub(super) settings: Settings,
    pub(super) store: Store,
    pub(super) client: Client,
}

/// A file in the cache.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) commit: String,
}

/// What the hub says about a file, checked.
pub(super) struct Entry {
    pub(super) commit: String,
    etag: Etag,
    pub(super) size: Option<u64>,
}

/// What is known of a file before any of it is fetched.
enum Asked {
    /// The one in the cache is to be used.
    Cached(Found),
    /// The hub's.
    Listed(Entry),
}

/// A repository's description, as far as it is read.
#[derive(serde::Deserialize)]
struct Description {
    siblings: Vec<Sibling>,
}

#[derive(serde::Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
}

impl Remote {
    /// The file at `revision`: the cached one when the hub says that it is current, cannot be asked, or is ruled out;
    /// else a new download.
    pub(super) fn fetch(&self, job: &Job, repo: &str, revision: &str, file: &str) -> Result<Found> {
        match self.ask(job, repo, revision, file)? {
            Asked::Cached(found) => Ok(found),
            Asked::Listed(entry) => self.obtain(job, &self.store.repo(repo), repo, revision, file, &entry),
        }
    }

    /// The parts of a split model, or its one file. All are of one commit, and are reported as one download.
    pub(super) fn fetch_all(
        &self,
        job: &Job,
        repo: &str,
        revision: &str,
        files: &[String],
    ) -> Result<Vec<Found>> {
        let (first, rest) = match files {
            [] => return Err(crate::error::Error::internal("A model of no files.")),
            [only] => return Ok(vec![self.fetch(job, repo, revision, only)?]),
            [first, rest @ ..] => (first, rest),
        };
        let mut asked = vec![(first, self.ask(job, repo, revision, first)?)];
        // A push between two questions must not mix two models.
        let commit = match asked.first() {
            Some((_, Asked::Listed(entry))) => entry.commit.clone(),
            Some((_, Asked::Cached(found))) => found.commit.clone(),
            None => revision.to_owned(),
        };
        for file in rest {
            asked.push((file, self.ask(job, repo, &commit, file)?));
        }
        let size = |asked: &Asked| match asked {
            Asked::Listed(entry) => entry.size,
            Asked::Cached(found) => fs::metadata(&found.path).ok().map(|found| found.len()),
        };
        job.begin_whole(first, asked.iter().map(|(_, asked)| size(asked)).sum());
        let local = self.store.repo(repo);
        let mut revision = revision;
        let mut found = Vec::with_capacity(files.len());
        for (file, asked) in asked {
            let got = match asked {
                Asked::Cached(got) => got,
                Asked::Listed(entry) => self.obtain(job, &local, repo, revision, file, &entry)?,
            };
            job.add_to_whole(fs::metadata(&got.path).map_or(0, |got| got.len()));
            found.push(got);
            revision = &commit;
        }
        job.end_whole();
        Ok(found)
    }

    /// What the cache has of `files` at `revision`, without a question to the hub; `None` unless it is all.
    pub(super) fn cached(&self, repo: &str, revision: &str, files: &[String]) -> Option<Vec<Found>> {
        let local = self.store.repo(repo);
        let commit = local.commit(revision)?;
        let found =
            files.iter().map(|file| Some(Found { path: local.file(&commit, file)?, commit: commit.clone() }));
        found.collect()
    }

    fn ask(&self, job: &Job, repo: &str, revision: &str, file: &str) -> Result<Asked> {
        let local = self.store.repo(repo);
        let cached = local
            .commit(revision)
            .and_then(|commit| Some(Found { path: local.file(&commit, file)?, commit }));
        // A commit never changes, so a file of it needs no question.
        if let Some(found) = cached.as_ref().filter(|_| is_commit(revision)) {
            return Ok(Asked::Cached(found.clone()));
        }
        let what = format!("`{file}` of {repo}");
        let url = self.file_url(repo, revision, file);
        if self.settings.offline {
            return cached.map(Asked::Cached).ok_or_else(|| faults::offline(&url, &what));
        }
        let limit = if cached.is_some() { 1 } else { self.settings.tries };
        let asked = retry::request(&self.settings, job, limit, || self.entry(&url, repo, revision, &what));
        match (asked, cached) {
            (Ok(entry), _) => Ok(Asked::Listed(entry)),
            (Err((fault, _)), Some(found)) if may_use_cache(&fault) => {
                log::warn!(
                    "Using {what} from the cache, because the hub did not help: {}.",
                    fault.describe()
                );
                Ok(Asked::Cached(found))
            }
            (Err((Fault::Missing, _)), _) => Err(self.missing(job, repo, revision, file, &what)),
            (Err((fault, tries)), _) => Err(fault.into_error(&what, tries)),
        }
    }

    /// What the hub says of a file, whatever the cache has.
    pub(super) fn describe(&self, job: &Job, repo: &str, revision: &str, file: &str) -> Result<Entry> {
        let what = format!("`{file}` of {repo}");
        let url = self.file_url(repo, revision, file);
        if self.settings.offline {
            return Err(faults::offline(&url, &what));
        }
        match retry::request(&self.settings, job, self.settings.tries, || {
            self.entry(&url, repo, revision, &what)
        }) {
            Ok(entry) => Ok(entry),
            Err((Fault::Missing, _)) => Err(self.missing(job, repo, revision, file, &what)),
            Err((fault, tries)) => Err(fault.into_error(&what, tries)),
        }
    }

    /// The files that the cache has of a repository at `revision`.
    pub(super) fn cached_list(&self, repo: &str, revision: &str) -> Option<Vec<Listed>> {
        let local = self.store.repo(repo);
        let commit = local.commit(revision)?;
        let files = local.files(&commit).into_iter().map(|name| {
            let size = local.file(&commit, &name).and_then(|path| Some(fs::metadata(path).ok()?.len()));
            Listed { name, size, here: true }
        });
        Some(files.collect::<Vec<_>>()).filter(|files| !files.is_empty())
    }

    /// The files in a repository at `revision`.
    pub(super) fn list(&self, job: &Job, repo: &str, revision: &str) -> Result<Vec<Listed>> {
        let cached = self.cached_list(repo, revision);
        let what = format!("The list of files of {repo}");
        let url = self.listing_url(repo, revision);
        if self.settings.offline {
            return cached.ok_or_else(|| faults::offline(&url, &what));
        }
        let limit = if cached.is_some() { 1 } else { self.settings.tries };
        match (retry::request(&self.settings, job, limit, || self.listing(&url, repo, &what)), cached) {
            (Ok(mut files), cached) => {
                let is_here = |name: &str| cached.iter().flatten().any(|own| own.name == name);
                files.iter_mut().for_each(|file| file.here = is_here(&file.name));
                Ok(files)
            }
            (Err((fault, _)), Some(files)) if may_use_cache(&fault) => {
                log::warn!(
                    "Using the cached files of {repo}, because the hub did not help: {}.",
                    fault.describe()
                );
                Ok(files)
            }
            (Err((Fault::Missing, _)), _) => Err(faults::no_repo(repo)),
            (Err((fault, tries)), _) => Err(fault.into_error(&what, tries)),
        }
    }

    /// Asks for commit, etag and size of a file.
    fn entry(&self, url: &str, repo: &str, revision: &str, what: &str) -> Result<Entry, Fault> {
        let reply = self.client.head(url)?;
        let status = reply.response.status();
        if !status.is_success() && !status.is_redirection() {
            return Err(reply.refused(what, repo));
        }
        let refuse = |found: &str| Fault::Final(faults::not_a_hub(url, found));
        let commit = reply.facts.commit.ok_or_else(|| refuse("it names no commit"))?;
        if !is_commit(&commit) {
            return Err(refuse("the commit that it names is not 40 hex digits"));
        }
        if is_commit(revision) && commit != revision {
            return Err(refuse("it answers for another commit than the one asked for"));
        }
        let etag = reply.facts.etag.ok_or_else(|| refuse("it gives no checksum (ETag) for the file"))?;
        let etag = Etag::parse(&etag)
            .ok_or_else(|| refuse("the checksum (ETag) that it gives is neither 40 nor 64 hex digits"))?;
        Ok(Entry { commit, etag, size: reply.facts.size })
    }

    /// The file that `entry` describes, from the cache if it is there.
    fn obtain(
        &self,
        job: &Job,
        local: &RepoStore,
        repo: &str,
        revision: &str,
        file: &str,
        entry: &Entry,
    ) -> Result<Found> {
        let what = format!("`{file}` of {repo}");
        let url = self.file_url(repo, &entry.commit, file);
        let fits = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|found| entry.size.is_none_or(|size| size == found.len()))
        };
        let present = || local.file(&entry.commit, file).filter(fits);
        let path = match present() {
            Some(path) => path,
            None => {
                let _lock = local.lock(&entry.etag, &what, &url, job)?;
                // Whoever held the lock has most likely brought the file.
                match present() {
                    Some(path) => path,
                    None => {
                        let blob = local.blob(&entry.etag);
                        let fresh = !fits(&blob);
                        if fresh {
                            let wanted =
                                Wanted { repo, file, url: &url, etag: &entry.etag, size: entry.size };
                            download::fetch(&self.client, &self.settings, job, &wanted, &blob)?;
                        }
                        local
                            .place(&entry.etag, &entry.commit, file, fresh)
                            .map_err(|error| faults::of_disk(&blob, &url, &error))?
                    }
                }
            }
        };
        if let Err(error) = local.write_ref(revision, &entry.commit) {
            log::warn!(
                "The cache cannot note what `{revision}` of {repo} is ({error}): it will be asked again."
            );
        }
        Ok(Found { path, commit: entry.commit.clone() })
    }

    fn listing(&self, url: &str, repo: &str, what: &str) -> Result<Vec<Listed>, Fault> {
        let reply = self.client.get(url, None)?;
        let status = reply.response.status();
        if !status.is_success() {
            return Err(reply.refused(what, repo));
        }
        let mut text = Vec::new();
        let body = reply.response.into_body().into_reader();
        body.take(MAX_LISTING + 1)
            .read_to_end(&mut text)
            .map_err(|error| faults::of_transport(&reply.url, error.into()))?;
        if text.len() as u64 > MAX_LISTING {
            let found = format!("its list of files is longer than {} MiB", MAX_LISTING >> 20);
            return Err(Fault::Final(faults::not_a_hub(url, &found)));
        }
        let info: Description = serde_json::from_slice(&text)
            .map_err(|_| Fault::Final(faults::not_a_hub(url, "its list of files cannot be read")))?;
        let mut files = Vec::with_capacity(info.siblings.len());
        for sibling in info.siblings {
            if is_safe_file_name(&sibling.rfilename) {
                files.push(Listed { name: sibling.rfilename, size: sibling.size, here: false });
            } else {
                log::warn!("{repo} lists a file named `{}`: left out.", printable(&sibling.rfilename));
            }
        }
        Ok(files)
    }

    /// The error for a file that the hub does not have, with the names nearest to it.
    fn missing(&self, job: &Job, repo: &str, revision: &str, file: &str, what: &str) -> crate::error::Error {
        let url = self.listing_url(repo, revision);
        let files = match retry::request(&self.settings, job, 1, || self.listing(&url, repo, what)) {
            Ok(files) => files,
            Err((Fault::Missing, _)) => return faults::no_repo(repo),
            Err((Fault::Final(error), _)) if matches!(error.kind(), ErrorKind::ModelNotFound { .. }) => {
                return error;
            }
            Err(_) => Vec::new(),
        };
        let same_kind =
            files.iter().map(|file| file.name.as_str()).filter(|name| !is_gguf(file) || is_gguf(name));
        faults::not_found(what, nearest(file, same_kind))
    }

    pub(super) fn file_url(&self, repo: &str, revision: &str, file: &str) -> String {
        let handle = Repo::new(repo.to_owned(), RepoType::Model);
        let (revision, file) = (percent_encode(revision, false), percent_encode(file, true));
        format!("{}/{}/resolve/{revision}/{file}", self.settings.endpoint, handle.url())
    }

    pub(super) fn listing_url(&self, repo: &str, revision: &str) -> String {
        let handle = Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned());
        // With the sizes of the files, where the hub has them.
        format!("{}/api/{}?blobs=true", self.settings.endpoint, handle.api_url())
    }
}

/// Whether a fault of the hub leaves a cached file the best answer: everything that may be otherwise tomorrow.
fn may_use_cache(fault: &Fault) -> bool {
    match fault {
        Fault::Unreachable { .. } | Fault::Passing { .. } => true,
        Fault::Missing => false,
        Fault::Final(error) => matches!(error.kind(), ErrorKind::GatedModel { .. }),
    }
}
