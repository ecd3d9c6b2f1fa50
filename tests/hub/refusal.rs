//! Refusals: no right, no such thing, no network.

use std::io::Write;
use std::net::TcpListener;

use phicandle::ErrorKind;
use phicandle::hub::ModelSpec;

use crate::Row;
use crate::assert_kind;
use crate::site::{COMMIT, FILE, REPO, Site, TOKEN, check_error, facts, listing, sound};
use crate::stub::Answer;

/// A hub that refuses every request.
fn refuses(status: u16, headers: &'static [(&'static str, &'static str)]) -> Site {
    Site::new(move |_, _| Some(Answer::full(status, headers, b"")))
}

/// An address where nothing listens.
fn dead_address() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// The file is in the cache and the hub then fails in some way: the cached file is used.
fn cached_then(change: impl FnOnce(&mut phicandle::hub::HubOptions), script: fn(u16) -> bool) {
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicU16::new(0));
    let shared = std::sync::Arc::clone(&broken);
    let site = Site::new(move |_, _| match shared.load(std::sync::atomic::Ordering::SeqCst) {
        0 => None,
        status => Some(Answer::full(status, &[], b"")),
    });
    site.expect_right();
    for status in [401, 403, 404, 429, 500, 503].into_iter().filter(|status| script(*status)) {
        broken.store(status, std::sync::atomic::Ordering::SeqCst);
        site.expect_right();
    }
    let before = site.stub.seen().len();
    let hub = site.hub_with(change);
    site.check_right(&hub.file(REPO, None, FILE).unwrap());
    assert_eq!(hub.list_files(REPO, None).unwrap(), [FILE]);
    let spec = ModelSpec::parse(REPO).unwrap();
    assert_eq!(hub.resolve(&spec).unwrap().file, FILE);
    if hub.is_offline() {
        assert_eq!(site.stub.seen().len(), before, "offline means no request at all");
    }
}

fn names_demo(error: &phicandle::Error) {
    assert!(error.hint().contains("--model demo"), "the way out is not named: {error}");
}

pub(crate) const ROWS: &[Row] = &[
    ("401", || {
        let error = refuses(401, &[]).expect_error();
        assert_kind!(error, ErrorKind::GatedModel { status: 401, .. });
        assert!(error.hint().contains("HF_TOKEN"), "{error}");
    }),
    ("401 to a token", || {
        let site = refuses(401, &[("X-Error-Message", "Invalid credentials in Authorization header")]);
        let hub = site.hub_with(|options| options.token = Some(TOKEN.to_owned()));
        let error = site.expect_error_from(&hub);
        assert_kind!(error, ErrorKind::GatedModel { status: 401, .. });
        assert!(error.message().contains("Invalid credentials"), "{error}");
    }),
    ("403 for a gated repository", || {
        let headers = &[("X-Error-Code", "GatedRepo"), ("X-Error-Message", "Access to model is restricted.")];
        let error = refuses(403, headers).expect_error();
        assert_kind!(error, ErrorKind::GatedModel { status: 403, .. });
        assert!(error.hint().contains("licence") && error.hint().contains("HF_TOKEN"), "{error}");
    }),
    ("401 for a repository that does not exist", || {
        let error = refuses(401, &[("X-Error-Code", "RepoNotFound")]).expect_error();
        assert_kind!(error, ErrorKind::ModelNotFound { .. });
        names_demo(&error);
    }),
    ("404 for a repository", || {
        let error = refuses(404, &[("X-Error-Code", "RepoNotFound")]).expect_error();
        assert_kind!(error, ErrorKind::ModelNotFound { .. });
        assert!(error.message().contains("no repository"), "{error}");
        names_demo(&error);
    }),
    ("404 without a word, for everything", || {
        let error = refuses(404, &[]).expect_error();
        assert_kind!(error, ErrorKind::ModelNotFound { .. });
        assert!(error.message().contains("no repository"), "{error}");
    }),
    ("404 for a file, with near names", || {
        let site = Site::new(|_, _| None);
        let error = site.hub().file(REPO, None, "model-Q4_K_S.gguf").unwrap_err();
        check_error(&error);
        assert_kind!(error, ErrorKind::ModelNotFound { candidates } if candidates == &[FILE.to_owned()]);
        assert!(error.hint().contains(FILE), "{error}");
        names_demo(&error);
    }),
    ("404 for a revision", || {
        let site = Site::new(|request, _| {
            (!request.path.contains("/main"))
                .then(|| Answer::full(404, &[("X-Error-Code", "RevisionNotFound")], b""))
        });
        let error = site.hub().file(REPO, Some("v9"), FILE).unwrap_err();
        check_error(&error);
        assert_kind!(error, ErrorKind::ModelNotFound { .. });
        assert!(error.hint().contains("revision"), "{error}");
    }),
    ("404 between question and download", || {
        let site = Site::of_gets(|request, _| {
            (!request.path.starts_with("/api")).then(|| Answer::full(404, &[], b""))
        });
        assert_kind!(site.expect_error(), ErrorKind::ModelNotFound { .. });
    }),
    ("418", || {
        let error = refuses(418, &[]).expect_error();
        assert_kind!(error, ErrorKind::Download { status: Some(418), resumable: false, .. });
        assert!(error.hint().contains("HF_ENDPOINT"), "{error}");
    }),
    ("a quantisation that is not there", || {
        let site = Site::new(|_, _| None);
        let error = site.hub().resolve(&ModelSpec::parse("owner/model-gguf:Q8_0").unwrap()).unwrap_err();
        check_error(&error);
        assert_kind!(error, ErrorKind::ModelNotFound { candidates } if candidates == &[FILE.to_owned()]);
        site.check_absent();
    }),
    ("a repository without GGUF files", || {
        let site = Site::new(|request, _| {
            request.path.starts_with("/api/").then(|| listing(&["model.safetensors", "config.json"]))
        });
        let error = site.hub().resolve(&ModelSpec::parse(REPO).unwrap()).unwrap_err();
        check_error(&error);
        assert_kind!(error, ErrorKind::ModelNotFound { .. });
        names_demo(&error);
    }),
    ("offline, and not in the cache", || {
        let site = Site::new(|_, _| None);
        let hub = site.hub_with(|options| options.offline = Some(true));
        let error = site.expect_error_from(&hub);
        assert_kind!(error, ErrorKind::Offline { .. });
        assert!(error.message().contains("HF_HUB_OFFLINE"), "{error}");
        names_demo(&error);
        let error = hub.resolve(&ModelSpec::parse(REPO).unwrap()).unwrap_err();
        assert_kind!(error, ErrorKind::Offline { .. });
        assert!(site.stub.seen().is_empty(), "offline means no request at all");
    }),
    ("offline, and in the cache", || cached_then(|options| options.offline = Some(true), |_| false)),
    ("connection refused, and nothing cached", || {
        let site = Site::new(|_, _| None);
        let hub = site.hub_with(|options| options.endpoint = Some(dead_address()));
        let error = site.expect_error_from(&hub);
        assert_kind!(error, ErrorKind::Offline { .. });
        names_demo(&error);
    }),
    ("connection refused, and in the cache", || {
        cached_then(|options| options.endpoint = Some(dead_address()), |_| false);
    }),
    ("no such host", || {
        if ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy"]
            .iter()
            .any(|name| std::env::var_os(name).is_some())
        {
            writeln!(std::io::stdout(), "SKIPPED: no such host (a proxy answers for it)").unwrap();
            return;
        }
        let site = Site::new(|_, _| None);
        let hub = site.hub_with(|options| options.endpoint = Some("http://hub.invalid".to_owned()));
        let error = site.expect_error_from(&hub);
        assert_kind!(error, ErrorKind::Offline { .. });
        names_demo(&error);
    }),
    ("401, 403, 429, 5xx, and in the cache", || {
        cached_then(|options| options.offline = Some(true), |status| status != 404);
    }),
    ("the commit is in the cache: no question asked", || {
        let site = Site::new(|_, _| None);
        site.expect_right();
        let before = site.stub.seen().len();
        site.check_right(&site.hub().file(REPO, Some(COMMIT), FILE).unwrap());
        assert_eq!(site.stub.seen().len(), before);
    }),
    ("a gated file, with a token that opens it", || {
        let site = Site::new(|request, _| {
            let known = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
            Some(if known {
                sound(request)
            } else {
                Answer::full(401, &[("X-Error-Code", "GatedRepo")], b"")
            })
        });
        assert_kind!(site.expect_error(), ErrorKind::GatedModel { .. });
        let hub = site.hub_with(|options| options.token = Some(TOKEN.to_owned()));
        site.check_right(&hub.file(REPO, None, FILE).unwrap());
    }),
    ("refused after the facts were given", || {
        let site = Site::new(|request, _| {
            Some(if request.is_get() { Answer::full(403, &[], b"") } else { facts() })
        });
        assert_kind!(site.expect_error(), ErrorKind::GatedModel { status: 403, .. });
    }),
];
