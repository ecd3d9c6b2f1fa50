//! Faults on this side: full and forbidden disks, other threads and processes, death and cancellation.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use phicandle::ErrorKind;
use phicandle::hub::{Hub, HubOptions};

use crate::Row;
use crate::assert_kind;
use crate::site::{COMMIT, FILE, REPO, Site, check_error, content, cut_after};

const CHILD_ENDPOINT: &str = "PHICANDLE_TEST_ENDPOINT";
const CHILD_CACHE: &str = "PHICANDLE_TEST_CACHE";
const LEN: usize = 700_001;

/// This test binary again, as another process that fetches the file.
fn child(site: &Site) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "local::child_process", "--nocapture"])
        .env(CHILD_ENDPOINT, site.stub.url())
        .env(CHILD_CACHE, site.cache())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What [`child`] runs; nothing in an ordinary run of the tests.
#[test]
fn child_process() {
    let (Ok(endpoint), Ok(cache)) = (std::env::var(CHILD_ENDPOINT), std::env::var(CHILD_CACHE)) else {
        return;
    };
    let hub = Hub::new(HubOptions {
        endpoint: Some(endpoint),
        cache_dir: Some(cache.into()),
        token: Some(String::new()),
        offline: Some(false),
        ..HubOptions::default()
    })
    .unwrap();
    let path = hub.file(REPO, None, FILE).unwrap();
    assert!(std::fs::read(path).unwrap() == content());
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn partial_len(site: &Site) -> u64 {
    std::fs::metadata(site.incomplete()).map_or(0, |found| found.len())
}

/// The first GET sends half and then falls silent; later ones are faultless.
fn halts_halfway() -> Site {
    Site::of_gets(|request, nth| {
        (nth == 0).then(|| cut_after(request.range(), LEN / 2).wait(Duration::from_secs(60)))
    })
}

/// Every GET takes a while, so that others meet it.
fn slow() -> Site {
    Site::of_gets(|request, _| {
        let head = cut_after(request.range(), LEN / 2).wait(Duration::from_millis(300));
        Some(head.send(&content()[LEN / 2..]))
    })
}

fn stops_promptly(hub: &Hub, stop: &AtomicBool, when: impl FnOnce() + Send) -> phicandle::Error {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            when();
            stop.store(true, Ordering::SeqCst);
        });
        let error = hub.file(REPO, None, FILE).unwrap_err();
        assert!(stop.load(Ordering::SeqCst), "it ended before it was stopped: {error:?}");
        check_error(&error);
        error
    })
}

fn with_cancel(site: &Site) -> (Hub, Arc<AtomicBool>) {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let hub = site.hub_with(|options| {
        options.stall_timeout = Some(Duration::from_secs(60));
        options.cancel = Some(Arc::new(move || asked.load(Ordering::SeqCst)));
    });
    (hub, stop)
}

/// The cache folder cannot be made or written.
fn unwritable(site: &Site, cache: &std::path::Path) {
    let hub = site.hub_with(|options| options.cache_dir = Some(cache.to_owned()));
    let error = hub.file(REPO, None, FILE).unwrap_err();
    check_error(&error);
    assert_kind!(error, ErrorKind::Download { status: None, resumable: false, .. });
    assert!(error.hint().contains("HF_HUB_CACHE"), "{error}");
    assert!(site.stub.gets().is_empty(), "nothing is downloaded that cannot be kept");
}

pub(crate) const ROWS: &[Row] = &[
    #[cfg(target_os = "linux")]
    ("disk full", || {
        let site = Site::new(|_, _| None);
        std::fs::create_dir_all(site.repo_folder().join("blobs")).unwrap();
        std::os::unix::fs::symlink("/dev/full", site.incomplete()).unwrap();
        let error = site.expect_error();
        assert_kind!(error, ErrorKind::Download { status: None, resumable: true, .. });
        assert!(error.message().contains("is full") && error.hint().contains("phicandle rm"), "{error}");
        std::fs::remove_file(site.incomplete()).ok();
        site.expect_right();
    }),
    ("the cache folder lies below a file", || {
        let site = Site::new(|_, _| None);
        let file = site.folder.path().join("plain");
        std::fs::write(&file, "").unwrap();
        unwritable(&site, &file.join("hub"));
    }),
    #[cfg(target_os = "linux")]
    ("the cache folder lies where nobody may write", || {
        unwritable(&Site::new(|_, _| None), std::path::Path::new("/proc/phicandle"));
    }),
    ("a folder where the partial file should be", || {
        let site = Site::new(|_, _| None);
        std::fs::create_dir_all(site.incomplete()).unwrap();
        assert_kind!(site.expect_error(), ErrorKind::Download { status: None, .. });
    }),
    ("eight threads at once", || {
        let site = slow();
        let hub = site.hub();
        std::thread::scope(|scope| {
            let fetches: Vec<_> = (0..8).map(|_| scope.spawn(|| hub.file(REPO, None, FILE))).collect();
            for fetch in fetches {
                site.check_right(&fetch.join().unwrap().unwrap());
            }
        });
        assert_eq!(site.stub.gets().len(), 1, "downloaded once");
    }),
    ("two processes and a thread at once", || {
        let site = slow();
        let mut children = [child(&site), child(&site)];
        site.expect_right();
        for child in &mut children {
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(site.stub.gets().len(), 1, "downloaded once");
    }),
    ("killed halfway", || {
        let site = halts_halfway();
        let mut child = child(&site);
        wait_until("half of the file", || partial_len(&site) == (LEN / 2) as u64);
        child.kill().unwrap();
        child.wait().unwrap();
        site.check_absent();
        site.expect_right();
        assert_eq!(site.stub.gets().last().unwrap().range(), Some(LEN / 2), "its bytes are used");
    }),
    ("stopped halfway, while the server is silent", || {
        let site = halts_halfway();
        let (hub, stop) = with_cancel(&site);
        let error = stops_promptly(&hub, &stop, || {
            wait_until("half of the file", || partial_len(&site) == (LEN / 2) as u64);
        });
        assert_kind!(error, ErrorKind::Download { resumable: true, .. });
        site.check_absent();
        assert_eq!(partial_len(&site), (LEN / 2) as u64, "its bytes are kept");
    }),
    ("stopped while waiting for someone else's download", || {
        let site = halts_halfway();
        let mut child = child(&site);
        wait_until("half of the file", || partial_len(&site) == (LEN / 2) as u64);
        let (hub, stop) = with_cancel(&site);
        let heads = |site: &Site| site.stub.seen().iter().filter(|request| !request.is_get()).count();
        let error = stops_promptly(&hub, &stop, || wait_until("the second question", || heads(&site) == 2));
        assert_kind!(error, ErrorKind::Download { resumable: true, .. });
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(site.stub.gets().len(), 1);
    }),
    ("removed while it is being downloaded", || {
        let site = halts_halfway();
        let mut child = child(&site);
        wait_until("half of the file", || partial_len(&site) == (LEN / 2) as u64);
        let error = site.hub().remove(REPO).unwrap_err();
        check_error(&error);
        assert_kind!(error, ErrorKind::ModelRead);
        assert_eq!(partial_len(&site), (LEN / 2) as u64, "nothing is removed");
        child.kill().unwrap();
        child.wait().unwrap();
        site.hub().remove(REPO).unwrap();
        assert!(!site.repo_folder().exists());
    }),
    ("a link whose blob is gone", || {
        let site = Site::new(|_, _| None);
        site.expect_right();
        std::fs::remove_file(site.blob()).unwrap();
        site.expect_right();
    }),
    ("a blob that was cut short on this disk", || {
        let site = Site::new(|_, _| None);
        site.expect_right();
        std::fs::write(site.blob(), &content()[..99]).unwrap();
        site.expect_right();
    }),
    ("a ref that is no commit", || {
        let site = Site::new(|_, _| None);
        site.expect_right();
        let main = site.repo_folder().join("refs/main");
        std::fs::write(&main, "../../../../etc\n").unwrap();
        let hub = site.hub_with(|options| options.offline = Some(true));
        assert_kind!(hub.file(REPO, None, FILE).unwrap_err(), ErrorKind::Offline { .. });
        site.expect_right();
        assert_eq!(std::fs::read_to_string(main).unwrap(), COMMIT);
    }),
];
