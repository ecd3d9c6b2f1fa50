//! What the cache holds, and how to make room in it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::error::{Error, ErrorKind, Result};

use super::cache::{RepoStore, Store};
use super::choose::is_gguf;
use super::faults::DEMO;
use super::names::{is_commit, is_repo, nearest};

/// One snapshot of a repository in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// The repository, `owner/name`.
    pub repo: String,
    /// The snapshot's commit, 40 hex digits.
    pub revision: String,
    /// Branches and tags that meant this commit when they were last asked for.
    pub refs: Vec<String>,
    /// Names of the files in the snapshot that are here.
    pub files: Vec<String>,
    /// Bytes of those files. Snapshots share files that did not change, so sums over snapshots may count some twice.
    pub bytes: u64,
    /// When one of them was last read or written, as far as the file system tells.
    pub last_used: Option<SystemTime>,
}

/// The snapshots with GGUF files, sorted by repository and commit.
pub(super) fn list(store: &Store) -> Result<Vec<CachedModel>> {
    let mut models = Vec::new();
    for name in repos(store)? {
        let repo = store.repo(&name);
        let refs = refs(&repo);
        for commit in folders(&repo.folder().join("snapshots")).filter(|name| is_commit(name)) {
            let files = repo.files(&commit);
            if !files.iter().any(|file| is_gguf(file)) {
                continue;
            }
            let found: Vec<fs::Metadata> =
                files.iter().filter_map(|file| fs::metadata(repo.file(&commit, file)?).ok()).collect();
            models.push(CachedModel {
                repo: name.clone(),
                refs: refs.iter().filter(|(_, to)| **to == commit).map(|(name, _)| name.clone()).collect(),
                bytes: found.iter().map(fs::Metadata::len).sum(),
                last_used: found.iter().filter_map(last_used).max(),
                revision: commit,
                files,
            });
        }
    }
    models.sort_by(|a, b| (&a.repo, &a.revision).cmp(&(&b.repo, &b.revision)));
    Ok(models)
}

/// Removes all of one repository; tells how many bytes that freed.
pub(super) fn remove(store: &Store, repo: &str) -> Result<u64> {
    let local = store.repo(repo);
    let folder = local.folder();
    if fs::symlink_metadata(folder).is_err() {
        let known = repos(store)?;
        return Err(Error::new(
            ErrorKind::ModelNotFound { candidates: nearest(repo, known.iter().map(String::as_str)) },
            format!("The cache {} holds nothing of {repo}.", store.root().display()),
            format!("`phicandle list` shows what it holds; {DEMO}."),
        ));
    }
    let _held = hold_locks(&local, repo)?;
    let bytes = disk_bytes(folder);
    fs::remove_dir_all(folder).map_err(|error| {
        Error::new(
            ErrorKind::ModelRead,
            format!("{} could not be removed entirely: {error}.", folder.display()),
            "Close the programs that use the model, check the folder's permissions, and try again.",
        )
    })?;
    Ok(bytes)
}

/// Takes every lock of the repository, so that no download is pulled from under another process.
fn hold_locks(local: &RepoStore, repo: &str) -> Result<Vec<fs::File>> {
    let mut held = Vec::new();
    let Ok(entries) = fs::read_dir(local.locks()) else { return Ok(held) };
    for entry in entries.flatten() {
        let Ok(file) = OpenOptions::new().write(true).open(entry.path()) else { continue };
        if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
            return Err(Error::new(
                ErrorKind::ModelRead,
                format!("{repo} is being downloaded at this moment, so it was not removed."),
                "Wait until the download has ended, or stop it, and try again.",
            ));
        }
        held.push(file);
    }
    Ok(held)
}

/// Names of the model repositories in the cache.
fn repos(store: &Store) -> Result<Vec<String>> {
    match fs::read_dir(store.root()) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Error::new(
                ErrorKind::ModelRead,
                format!("The cache folder {} cannot be read: {error}.", store.root().display()),
                "Check its permissions, or set HF_HUB_CACHE to another folder.",
            ));
        }
    }
    let names = folders(store.root())
        .filter_map(|name| Some(name.strip_prefix("models--")?.replacen("--", "/", 1)))
        .filter(|name| is_repo(name));
    Ok(names.collect())
}

/// Each branch and tag of the repository, with its commit.
fn refs(repo: &RepoStore) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![(repo.folder().join("refs"), String::new())];
    while let Some((folder, prefix)) = open.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{prefix}{name}");
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push((entry.path(), format!("{name}/")));
            } else if let Some(commit) = repo.commit(&name) {
                found.insert(name, commit);
            }
        }
    }
    found
}

fn folders(path: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok())
}

fn last_used(file: &fs::Metadata) -> Option<SystemTime> {
    file.accessed().ok().max(file.modified().ok())
}

/// Bytes of the plain files below `folder`; links count for nothing.
fn disk_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
            Ok(found) if found.is_file() => found.len(),
            _ => 0,
        })
        .sum()
}
