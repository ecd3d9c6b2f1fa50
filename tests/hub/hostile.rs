//! A server that lies, wanders, or is no hub at all.

use std::time::Duration;

use phicandle::ErrorKind;
use phicandle::hub::ModelSpec;

use crate::Row;
use crate::assert_kind;
use crate::site::{
    COMMIT, FILE, REPO, Site, TOKEN, body_from, check_error, content, facts, facts_with, listing, sha256,
};
use crate::stub::{Answer, Stub};

/// The server names this commit and this etag.
fn names(commit: &'static str, etag: &'static str) {
    let site = Site::new(move |request, _| (!request.is_get()).then(|| facts_with(commit, etag)));
    assert_kind!(site.expect_error(), ErrorKind::Download { resumable: false, .. });
    assert!(site.stub.gets().is_empty(), "nothing is downloaded under a name that cannot be");
    assert!(!site.cache().exists() || !site.repo_folder().exists(), "nothing is written for it either");
}

/// The answer to HEAD is `answer`, for ever.
fn answers_head(answer: fn() -> Answer) -> phicandle::Error {
    let site = Site::new(move |request, _| (!request.is_get()).then(answer));
    site.expect_error()
}

fn redirects_to(location: &'static str) -> phicandle::Error {
    Site::new(move |_, _| Some(Answer::full(302, &[("Location", location)], b""))).expect_error()
}

fn lists(answer: impl Fn() -> Answer + Send + Sync + 'static) -> phicandle::Error {
    let site = Site::new(move |request, _| request.path.starts_with("/api/").then(&answer));
    let error = site.hub().resolve(&ModelSpec::parse(REPO).unwrap()).unwrap_err();
    check_error(&error);
    site.check_contained();
    error
}

fn redirect(to: &str) -> Answer {
    Answer::full(302, &[("Location", to)], b"")
}

pub(crate) const ROWS: &[Row] = &[
    ("an etag that climbs", || names(COMMIT, "\"../../../../escaped\"")),
    ("an etag that is an absolute path", || names(COMMIT, "/tmp/escaped")),
    ("an etag of dots, as long as a sha256", || {
        names(COMMIT, "................................................................");
    }),
    ("an md5 etag", || names(COMMIT, "\"d41d8cd98f00b204e9800998ecf8427e\"")),
    ("an empty etag", || names(COMMIT, "\"\"")),
    ("a commit that climbs", || names("../../../../escaped", COMMIT)),
    ("a commit of 40 characters that is a path", || {
        names("../../../../../../../../../../../../tmpx", COMMIT)
    }),
    ("no etag", || {
        let error = answers_head(|| Answer::head(200, &[("X-Repo-Commit", COMMIT), ("Content-Length", "5")]));
        assert_kind!(error, ErrorKind::Download { resumable: false, .. });
        assert!(error.message().contains("ETag"), "{error}");
    }),
    ("no commit", || {
        let error = answers_head(|| Answer::head(200, &[("ETag", COMMIT), ("Content-Length", "5")]));
        assert_kind!(error, ErrorKind::Download { resumable: false, .. });
        assert!(error.message().contains("commit") && error.hint().contains("HF_ENDPOINT"), "{error}");
    }),
    ("another commit than the one asked for", || {
        let site = Site::new(|request, _| (!request.is_get()).then(facts));
        let error = site.hub().file(REPO, Some(&"ab".repeat(20)), FILE).unwrap_err();
        check_error(&error);
        assert_kind!(error, ErrorKind::Download { resumable: false, .. });
    }),
    ("file names that climb, in the listing", || {
        let site = Site::new(|request, _| {
            request.path.starts_with("/api/").then(|| {
                listing(&[
                    "../../escaped-Q4_K_M.gguf",
                    "/tmp/escaped-Q4_K_M.gguf",
                    "a\\..\\b-Q4_K_M.gguf",
                    "C:x.gguf",
                    FILE,
                ])
            })
        });
        assert_eq!(site.hub().list_files(REPO, None).unwrap(), [FILE]);
        let model = site.hub().resolve(&ModelSpec::parse(REPO).unwrap()).unwrap();
        assert_eq!((model.file.as_str(), model.revision.as_str()), (FILE, COMMIT));
        site.check_right(&model.model);
        site.check_contained();
    }),
    ("redirected three times at home", || {
        let site = Site::new(|request, _| {
            let hop = request.path.strip_prefix("/hop/").and_then(|n| n.parse::<u8>().ok());
            match hop {
                None if request.path.contains("/resolve/") => Some(redirect("/hop/1")),
                Some(1) => Some(redirect("2?x=/y")),
                None if request.path.starts_with("/hop/2") => Some(redirect("/cdn/x")),
                _ => None,
            }
        });
        site.expect_right();
    }),
    ("redirected in a circle", || {
        let error = redirects_to("/round/and/round");
        assert_kind!(error, ErrorKind::Download { resumable: false, .. });
        assert!(error.message().contains("redirected more than"), "{error}");
    }),
    ("redirected nowhere", || {
        let error = Site::new(|_, _| Some(Answer::full(302, &[], b""))).expect_error();
        assert_kind!(error, ErrorKind::Download { .. });
    }),
    ("redirected to a file of this machine", || {
        assert_kind!(redirects_to("file:///etc/passwd"), ErrorKind::Download { .. });
    }),
    ("redirected to nonsense", || {
        assert_kind!(redirects_to("http://"), ErrorKind::Download { .. });
    }),
    ("redirected to another host: the token stays home", || {
        let cdn = std::sync::Arc::new(Stub::start(|request, _| body_from(request.range())));
        let target = format!("{}/cdn/blob?Signature=abc", cdn.url());
        let site = Site::new(move |request, _| {
            let etag = sha256(&content());
            let size = content().len().to_string();
            let headers = [
                ("Location", target.as_str()),
                ("X-Repo-Commit", COMMIT),
                ("X-Linked-ETag", etag.as_str()),
                ("X-Linked-Size", size.as_str()),
                // The redirect's own, which must not be taken for the file's.
                ("ETag", "\"../redirect\""),
            ];
            request.path.contains("/resolve/").then(|| Answer::full(302, &headers, b"Found"))
        });
        let hub = site.hub_with(|options| options.token = Some(TOKEN.to_owned()));
        site.check_right(&hub.file(REPO, None, FILE).unwrap());
        let home: Vec<bool> =
            site.stub.seen().iter().map(|request| request.header("authorization").is_some()).collect();
        assert!(!home.is_empty() && home.iter().all(|sent| *sent), "the hub is told the token");
        assert!(!cdn.seen().is_empty());
        assert!(cdn.seen().iter().all(|request| request.header("authorization").is_none()), "nobody else is");
    }),
    ("redirected away and back: the token does not return", || {
        let home = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let known_home = std::sync::Arc::clone(&home);
        let away = Stub::start(move |_, _| redirect(&format!("{}/cdn/back", known_home.lock().unwrap())));
        let target = format!("{}/away", away.url());
        let site =
            Site::of_gets(move |request, _| request.path.contains("/resolve/").then(|| redirect(&target)));
        *home.lock().unwrap() = site.stub.url();
        let hub = site.hub_with(|options| options.token = Some(TOKEN.to_owned()));
        site.check_right(&hub.file(REPO, None, FILE).unwrap());
        let back: Vec<_> =
            site.stub.seen().into_iter().filter(|request| request.path == "/cdn/back").collect();
        assert!(!back.is_empty() && back.iter().all(|request| request.header("authorization").is_none()));
    }),
    ("a signed link whose storage is gone: its query is not told", || {
        let site = Site::of_gets(|_, _| Some(redirect("http://127.0.0.1:1/blob?Signature=abc")));
        let error = site.expect_error();
        assert_kind!(error, ErrorKind::Offline { .. });
    }),
    ("not HTTP at all", || {
        let error = Site::new(|_, _| Some(Answer::raw(b"SSH-2.0-OpenSSH_9.9\r\n"))).expect_error();
        assert_kind!(error, ErrorKind::Download { .. });
    }),
    ("headers that trickle in for ever", || {
        let site = Site::new(|_, _| {
            let pause = Duration::from_millis(50);
            Some((0..400).fold(Answer::raw(b"HTTP/1.1 200 OK\r\n"), |answer, n| {
                answer.wait(pause).send(format!("X-{n}: y\r\n").as_bytes())
            }))
        });
        let hub = site.hub_with(|options| {
            options.stall_timeout = Some(Duration::from_millis(300));
            options.tries = Some(2);
        });
        let error = site.expect_error_from(&hub);
        assert_kind!(error, ErrorKind::Download { .. });
        assert!(error.message().contains("too slow"), "{error}");
    }),
    ("headers of a megabyte", || {
        let site = Site::new(|_, _| Some(Answer::full(200, &[("X-Big", &"y".repeat(1 << 20))], b"")));
        assert_kind!(site.expect_error(), ErrorKind::Download { .. });
    }),
    ("ten thousand headers", || {
        let site = Site::new(|_, _| {
            let lines: String = (0..10_000).map(|n| format!("X-{n}: y\r\n")).collect();
            Some(Answer::raw(format!("HTTP/1.1 200 OK\r\n{lines}\r\n").as_bytes()))
        });
        assert_kind!(site.expect_error(), ErrorKind::Download { .. });
    }),
    ("an error message full of escapes", || {
        let error = Site::new(|_, _| {
            Some(Answer::full(403, &[("X-Error-Message", &format!("\u{9}see{}", "!".repeat(5000)))], b""))
        })
        .expect_error();
        assert_kind!(error, ErrorKind::GatedModel { .. });
        assert!(error.message().len() < 700, "{}", error.message().len());
    }),
    ("a listing that is not JSON", || {
        assert_kind!(lists(|| Answer::full(200, &[], b"<html>Sign in</html>")), ErrorKind::Download { .. });
    }),
    ("a listing that is cut", || {
        let error = lists(|| Answer::head(200, &[("Content-Length", "900")]).send(br#"{"sha":"c0ff"#));
        assert_kind!(error, ErrorKind::Download { resumable: true, .. });
    }),
    ("a listing of another shape", || {
        assert_kind!(lists(|| Answer::full(200, &[], br#"{"siblings": 7}"#)), ErrorKind::Download { .. });
    }),
    ("a listing nested very deep", || {
        assert_kind!(
            lists(|| Answer::full(200, &[], "[".repeat(100_000).as_bytes())),
            ErrorKind::Download { .. }
        );
    }),
    ("a listing without end", || {
        let megabyte = vec![b' '; 1 << 20];
        let error = lists(move || (0..40).fold(Answer::head(200, &[]), |answer, _| answer.send(&megabyte)));
        assert_kind!(error, ErrorKind::Download { resumable: false, .. });
        assert!(error.message().contains("MiB"), "{error}");
    }),
];
