//! What the hub does when nothing fails: the cache's layout, the tutorial's files, progress, listing and removal.

use std::path::Path;
use std::sync::{Arc, Mutex};

use phicandle::ErrorKind;
use phicandle::hub::{DEFAULT_FILE, DEFAULT_REPO, DEFAULT_TOKENIZER_REPO, Hub, HubOptions, ModelSpec};

use crate::assert_kind;
use crate::site::{COMMIT, FILE, REPO, Site, check_error, content, sha256};
use crate::stub::{Answer, Stub};

const TOKENIZER_COMMIT: &str = "beef0000beef0000beef0000beef0000beef0000";
const TOKENIZER_ETAG: &str = "aa1100aa1100aa1100aa1100aa1100aa1100aa11";

/// Every entry below `folder`: a link as `name -> target`, a file as `name`, both sorted.
fn tree(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, prefix: &str, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_symlink() {
                out.push(format!("{name} -> {}", std::fs::read_link(entry.path()).unwrap().display()));
            } else if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{name}/"), out);
            } else {
                out.push(name);
            }
        }
    }
    let mut out = Vec::new();
    walk(folder, "", &mut out);
    out.sort();
    out
}

/// A hub with the tutorial's two repositories.
fn tutorial() -> (Stub, tempfile::TempDir, Hub) {
    let stub = Stub::start(|request, _| {
        let (commit, etag, body) = if request.path.starts_with(&format!("/{DEFAULT_REPO}/resolve/"))
            && request.path.ends_with(&format!("/{DEFAULT_FILE}"))
        {
            (COMMIT, sha256(&content()), content())
        } else if request.path.starts_with(&format!("/{DEFAULT_TOKENIZER_REPO}/resolve/"))
            && request.path.ends_with("/tokenizer.json")
        {
            (TOKENIZER_COMMIT, TOKENIZER_ETAG.to_owned(), b"{}".to_vec())
        } else {
            return Answer::full(404, &[], b"");
        };
        let size = body.len().to_string();
        let headers = [("X-Repo-Commit", commit), ("ETag", etag.as_str())];
        if request.is_get() {
            Answer::full(200, &headers, &body)
        } else {
            Answer::head(200, &[headers[0], headers[1], ("Content-Length", size.as_str())])
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let hub = Hub::new(HubOptions {
        cache_dir: Some(folder.path().to_owned()),
        token: Some(String::new()),
        offline: Some(false),
        endpoint: Some(stub.url()),
        ..HubOptions::default()
    })
    .unwrap();
    (stub, folder, hub)
}

#[test]
fn the_checksum_of_these_tests_is_the_published_one() {
    // FIPS 180-2, appendix B.1.
    assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
#[cfg(unix)]
fn the_cache_is_laid_out_as_huggingface_hub_does() {
    let (_stub, folder, hub) = tutorial();
    let model = hub.resolve(&ModelSpec::default()).unwrap();

    // Written by hand from the documented layout of huggingface_hub's cache.
    let sum = sha256(&content());
    let gguf = "models--microsoft--Phi-3-mini-4k-instruct-gguf";
    let base = "models--microsoft--Phi-3-mini-4k-instruct";
    let mut expected = vec![
        format!(".locks/{gguf}/{sum}.lock"),
        format!(".locks/{base}/{TOKENIZER_ETAG}.lock"),
        format!("{gguf}/blobs/{sum}"),
        format!("{gguf}/refs/main"),
        format!("{gguf}/snapshots/{COMMIT}/Phi-3-mini-4k-instruct-q4.gguf -> ../../blobs/{sum}"),
        format!("{base}/blobs/{TOKENIZER_ETAG}"),
        format!("{base}/refs/main"),
        format!("{base}/snapshots/{TOKENIZER_COMMIT}/tokenizer.json -> ../../blobs/{TOKENIZER_ETAG}"),
    ];
    expected.sort();
    assert_eq!(tree(folder.path()), expected);
    assert_eq!(std::fs::read_to_string(folder.path().join(gguf).join("refs/main")).unwrap(), COMMIT);

    let snapshot = folder.path().join(gguf).join("snapshots").join(COMMIT);
    assert_eq!(model.model, snapshot.join("Phi-3-mini-4k-instruct-q4.gguf"));
    assert_eq!((model.repo.as_str(), model.revision.as_str()), (DEFAULT_REPO, COMMIT));
    assert!(model.tokenizer.unwrap().ends_with("tokenizer.json"));
}

#[test]
fn a_cache_that_huggingface_hub_wrote_is_used() {
    let site = Site::new(|_, _| panic!("offline asks nobody"));
    let repo = site.repo_folder();
    let snapshot = repo.join("snapshots").join(COMMIT);
    for folder in ["blobs", "refs", ".no_exist"] {
        std::fs::create_dir_all(repo.join(folder)).unwrap();
    }
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
    std::fs::write(snapshot.join(FILE), content()).unwrap();
    let hub = site.hub_with(|options| options.offline = Some(true));
    let model = hub.resolve(&ModelSpec::parse(&format!("{REPO}:q4_k_m")).unwrap()).unwrap();
    site.check_right(&model.model);
    assert_eq!((model.file.as_str(), model.tokenizer), (FILE, None));
}

#[test]
fn the_tokenizer_may_be_out_of_reach() {
    let (_stub, folder, hub) = tutorial();
    hub.file(DEFAULT_REPO, None, DEFAULT_FILE).unwrap();
    let offline = Hub::new(HubOptions {
        cache_dir: Some(folder.path().to_owned()),
        token: Some(String::new()),
        offline: Some(true),
        ..HubOptions::default()
    })
    .unwrap();
    let model = offline.resolve(&ModelSpec::default()).unwrap();
    assert_eq!(model.tokenizer, None);
    assert_eq!(hub.resolve(&ModelSpec::default()).unwrap().tokenizer.map(|path| path.exists()), Some(true));
}

#[test]
fn progress_begins_at_nothing_and_ends_at_everything() {
    let site = Site::new(|_, _| None);
    let told = Arc::new(Mutex::new(Vec::new()));
    let (listener, asking) = (Arc::clone(&told), std::thread::current().id());
    let hub = site.hub_with(|options| {
        options.progress = Some(Arc::new(move |progress| {
            assert_eq!(std::thread::current().id(), asking, "told on the asking thread");
            listener.lock().unwrap().push(progress.clone());
        }));
    });
    hub.file(REPO, None, FILE).unwrap();
    let told = told.lock().unwrap();
    let size = content().len() as u64;
    assert!(told.iter().all(|progress| progress.file == FILE && progress.total == Some(size)));
    assert_eq!(told.first().map(|progress| progress.done), Some(0));
    assert_eq!(told.last().map(|progress| progress.done), Some(size));
    assert!(told.is_sorted_by_key(|progress| progress.done));
}

#[test]
fn a_file_of_no_bytes_is_a_file() {
    let empty = sha256(b"");
    let site = Site::new(move |request, _| {
        let headers = [("X-Repo-Commit", COMMIT), ("ETag", empty.as_str()), ("Content-Length", "0")];
        (!request.is_get()).then(|| Answer::head(200, &headers))
    });
    let path = site.fetch().unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"");
}

#[test]
fn a_new_commit_with_the_same_content_costs_nothing() {
    const SECOND: &str = "dddd0000dddd0000dddd0000dddd0000dddd0000";
    let site = Site::new(|request, nth| {
        let etag = sha256(&content());
        (!request.is_get()).then(|| crate::site::facts_with(if nth == 0 { COMMIT } else { SECOND }, &etag))
    });
    site.expect_right();
    let second = site.fetch().unwrap();
    site.check_right(&second);
    assert!(second.to_string_lossy().contains(SECOND));
    assert_eq!(site.stub.gets().len(), 1);

    let models = site.hub().cached_models().unwrap();
    let seen: Vec<_> = models.iter().map(|model| (model.revision.as_str(), model.refs.len())).collect();
    assert_eq!(seen, [(COMMIT, 0), (SECOND, 1)]);
    assert_eq!(site.hub().remove(REPO).unwrap(), content().len() as u64 + 40, "one blob, and the ref");
}

#[test]
fn the_cache_is_listed_and_emptied() {
    let site = Site::new(|_, _| None);
    assert_eq!(site.hub().cached_models().unwrap(), [], "a cache that is not there yet is empty");
    site.expect_right();
    let models = site.hub().cached_models().unwrap();
    assert_eq!(models.len(), 1);
    let model = &models[0];
    assert_eq!((model.repo.as_str(), model.revision.as_str()), (REPO, COMMIT));
    assert_eq!(
        (model.refs.as_slice(), model.files.as_slice()),
        (&["main".to_owned()][..], &[FILE.to_owned()][..])
    );
    assert_eq!(model.bytes, content().len() as u64);
    assert!(model.last_used.is_some());

    let error = site.hub().remove("owner/model-ggfu").unwrap_err();
    check_error(&error);
    assert_kind!(error, ErrorKind::ModelNotFound { candidates } if candidates == &[REPO.to_owned()]);
    assert!(site.hub().remove("../../escape").is_err());
    site.hub().remove(REPO).unwrap();
    assert!(!site.repo_folder().exists());
    assert_eq!(site.hub().cached_models().unwrap(), []);
}

#[test]
fn reachability_is_told_and_not_thrown() {
    let site = Site::new(|_, _| None);
    let answer = site.hub().reachable().unwrap();
    assert_eq!((answer.reachable, answer.status, answer.endpoint), (true, Some(200), site.stub.url()));
    let offline = site.hub_with(|options| options.offline = Some(true)).reachable().unwrap();
    assert!(!offline.reachable && offline.detail.contains("HF_HUB_OFFLINE"));
    let nobody = site.hub_with(|options| options.endpoint = Some("http://127.0.0.1:1".to_owned()));
    let nobody = nobody.reachable().unwrap();
    assert!(!nobody.reachable && nobody.status.is_none());
}
