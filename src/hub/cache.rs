//! The cache folder, laid out as `huggingface_hub` lays it out, so that both share every download.
//!
//! `models--owner--name/blobs/<etag>` holds contents, `refs/<revision>` names a commit, `snapshots/<commit>/<file>`
//! is a relative link to a blob, or the content itself where links are not allowed. Locks are in `.locks`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use crate::error::Result;

use super::faults;
use super::job::Job;
use super::names::{Etag, is_commit};

/// How often a lock that is taken is tried again.
const LOCK_TICK: Duration = Duration::from_millis(50);
/// How often waiting for a lock is mentioned in the log.
const LOCK_NEWS: Duration = Duration::from_secs(30);

/// The folder that holds every repository.
#[derive(Debug, Clone)]
pub(super) struct Store {
    cache: Cache,
}

impl Store {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { cache: Cache::new(root) }
    }

    pub(super) fn root(&self) -> &Path {
        self.cache.path()
    }

    /// The folder of one repository.
    pub(super) fn repo(&self, repo: &str) -> RepoStore {
        let handle = Repo::new(repo.to_owned(), RepoType::Model);
        let name = handle.folder_name();
        RepoStore {
            folder: self.root().join(&name),
            locks: self.root().join(".locks").join(&name),
            handle: self.cache.repo(handle),
        }
    }
}

/// One repository's part of the cache. Callers pass only names that `names` has checked.
#[derive(Debug)]
pub(super) struct RepoStore {
    folder: PathBuf,
    locks: PathBuf,
    handle: CacheRepo,
}

impl RepoStore {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn locks(&self) -> &Path {
        &self.locks
    }

    pub(super) fn blob(&self, etag: &Etag) -> PathBuf {
        self.handle.blob_path(etag.as_str())
    }

    /// The commit that `revision` meant when it was last asked for.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        let commit = text.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// The file in the snapshot of `commit`, if it is there.
    pub(super) fn file(&self, commit: &str, name: &str) -> Option<PathBuf> {
        let path = self.pointer(commit, name);
        path.is_file().then_some(path)
    }

    /// Names of the files in the snapshot of `commit`, sorted.
    pub(super) fn files(&self, commit: &str) -> Vec<String> {
        let mut names = Vec::new();
        collect(&self.handle.pointer_path(commit), "", &mut names);
        names.sort();
        names
    }

    fn pointer(&self, commit: &str, name: &str) -> PathBuf {
        let mut path = self.handle.pointer_path(commit);
        path.extend(name.split('/'));
        path
    }

    /// Makes the blob appear as `name` in the snapshot of `commit`. `fresh`: the blob was downloaded just now, so
    /// nothing else needs it under its own name.
    pub(super) fn place(&self, etag: &Etag, commit: &str, name: &str, fresh: bool) -> io::Result<PathBuf> {
        self.place_with(etag, commit, name, fresh, symlink)
    }

    fn place_with(
        &self,
        etag: &Etag,
        commit: &str,
        name: &str,
        fresh: bool,
        link: impl Fn(&Path, &Path) -> io::Result<()>,
    ) -> io::Result<PathBuf> {
        let blob = self.blob(etag);
        let pointer = self.pointer(commit, name);
        let parent = pointer.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent)?;
        let whole = fs::metadata(&pointer)
            .is_ok_and(|found| fs::metadata(&blob).is_ok_and(|it| it.len() == found.len()));
        if whole {
            return Ok(pointer);
        }
        match fs::remove_file(&pointer) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut target = PathBuf::new();
        // Up from the snapshot's folder, and once more for each folder in the name.
        for _ in 0..=name.split('/').count() {
            target.push("..");
        }
        target.push("blobs");
        target.push(etag.as_str());
        match link(&target, &pointer) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                log::debug!(
                    "{} cannot be a link ({error}); keeping the file itself there.",
                    pointer.display()
                );
                if fresh {
                    fs::rename(&blob, &pointer)?;
                } else {
                    let copy = with_suffix(&pointer, ".copy");
                    fs::copy(&blob, &copy)?;
                    fs::rename(&copy, &pointer)?;
                }
            }
        }
        Ok(pointer)
    }

    /// Notes that `revision` is `commit`, for lookups without the network.
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> io::Result<()> {
        if is_commit(revision) || self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        // Written beside and renamed: a reader sees the old commit or the new one.
        let draft = with_suffix(&path, &format!(".{}.draft", std::process::id()));
        File::create(&draft)?.write_all(commit.as_bytes())?;
        fs::rename(&draft, &path)
    }

    /// Waits until no other thread or process downloads the same blob. The lock ends with the value, or the process.
    pub(super) fn lock(&self, etag: &Etag, what: &str, url: &str, job: &Job) -> Result<BlobLock> {
        let path = self.locks.join(format!("{etag}.lock"));
        let opened = fs::create_dir_all(&self.locks)
            .and_then(|()| OpenOptions::new().create(true).truncate(false).write(true).open(&path));
        let file = opened.map_err(|error| faults::of_disk(&path, url, &error))?;
        let mut news: Option<Instant> = None;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(BlobLock { _file: file }),
                Err(TryLockError::WouldBlock) => {
                    if news.is_none_or(|at| at.elapsed() >= LOCK_NEWS) {
                        news = Some(Instant::now());
                        log::info!(
                            "{what} is being downloaded by someone else: waiting for {}.",
                            path.display()
                        );
                    }
                    job.sleep(LOCK_TICK)?;
                }
                Err(TryLockError::Error(error)) => {
                    // Some network file systems have no locks: a download that may be made twice beats none.
                    log::warn!("{} cannot be locked ({error}); going on without.", path.display());
                    return Ok(BlobLock { _file: file });
                }
            }
        }
    }
}

/// A held lock on one blob.
pub(super) struct BlobLock {
    _file: File,
}

/// `path` with `suffix` after its whole name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes a rename in `folder` survive a power cut, where the platform lets a folder be synced.
pub(super) fn sync_folder(folder: &Path) {
    if cfg!(unix)
        && let Err(error) = File::open(folder).and_then(|folder| folder.sync_all())
    {
        log::debug!("{} was not synced: {error}.", folder.display());
    }
}

fn collect(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        let name = if prefix.is_empty() { file_name } else { format!("{prefix}/{file_name}") };
        // The entry's own type: a linked folder is not entered, so a loop of links ends here.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), &name, names);
        } else if entry.path().is_file() {
            names.push(name);
        }
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_target: &Path, _link: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn blob(folder: &Path, content: &str) -> (RepoStore, Etag) {
        let repo = Store::new(folder.to_owned()).repo("o/n");
        let etag = Etag::parse(COMMIT).unwrap();
        fs::create_dir_all(folder.join("models--o--n/blobs")).unwrap();
        fs::write(repo.blob(&etag), content).unwrap();
        (repo, etag)
    }

    #[test]
    #[cfg(unix)]
    fn snapshots_link_to_blobs_by_relative_paths() {
        let folder = tempfile::tempdir().unwrap();
        let (repo, etag) = blob(folder.path(), "x");
        repo.place(&etag, COMMIT, "a.gguf", true).unwrap();
        repo.place(&etag, COMMIT, "sub/b.gguf", false).unwrap();
        let snapshot = folder.path().join("models--o--n/snapshots").join(COMMIT);
        assert_eq!(fs::read_link(snapshot.join("a.gguf")).unwrap(), Path::new("../../blobs").join(COMMIT));
        assert_eq!(
            fs::read_link(snapshot.join("sub/b.gguf")).unwrap(),
            Path::new("../../../blobs").join(COMMIT)
        );
        assert_eq!(repo.files(COMMIT), ["a.gguf", "sub/b.gguf"]);
        assert_eq!(fs::read_to_string(repo.file(COMMIT, "sub/b.gguf").unwrap()).unwrap(), "x");
    }

    #[test]
    fn without_links_the_file_itself_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (repo, etag) = blob(folder.path(), "x");
        let refused = |_: &Path, _: &Path| Err(io::ErrorKind::PermissionDenied.into());
        let copy = repo.place_with(&etag, COMMIT, "copy", false, refused).unwrap();
        assert!(repo.blob(&etag).is_file());
        let moved = repo.place_with(&etag, COMMIT, "moved", true, refused).unwrap();
        assert!(!repo.blob(&etag).exists());
        for path in [copy, moved] {
            assert_eq!(fs::read_to_string(path).unwrap(), "x");
        }
        assert_eq!(repo.files(COMMIT), ["copy", "moved"]);
    }

    #[test]
    fn a_broken_or_short_pointer_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (repo, etag) = blob(folder.path(), "content");
        let pointer = repo.place(&etag, COMMIT, "a", false).unwrap();
        fs::remove_file(&pointer).unwrap();
        fs::write(&pointer, "con").unwrap();
        repo.place(&etag, COMMIT, "a", false).unwrap();
        assert_eq!(fs::read_to_string(&pointer).unwrap(), "content");
    }

    #[test]
    fn refs_hold_commits_only() {
        let folder = tempfile::tempdir().unwrap();
        let repo = Store::new(folder.path().to_owned()).repo("o/n");
        assert_eq!(repo.commit("main"), None);
        repo.write_ref("refs/pr/1", COMMIT).unwrap();
        assert_eq!(repo.commit("refs/pr/1").as_deref(), Some(COMMIT));
        assert_eq!(repo.commit(COMMIT).as_deref(), Some(COMMIT));
        fs::write(folder.path().join("models--o--n/refs/main"), "../../../etc").unwrap();
        assert_eq!(repo.commit("main"), None);
    }
}
