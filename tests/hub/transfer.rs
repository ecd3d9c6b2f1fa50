//! Faults of a transfer: cuts, stalls, wrong bytes, wrong lengths, wrong ranges, passing refusals.

use std::time::Duration;

use phicandle::ErrorKind;

use crate::Row;
use crate::assert_kind;
use crate::site::{COMMIT, Site, TOKEN, body_from, content, cut_after, facts_with, sha256};
use crate::stub::Answer;

const LEN: usize = 700_001;

/// The first GET gets `answer`; later ones a faultless one.
fn once(answer: impl Fn(Option<usize>) -> Answer + Send + Sync + 'static) -> Site {
    Site::of_gets(move |request, nth| (nth == 0).then(|| answer(request.range())))
}

/// Every GET gets `answer`.
fn always(answer: impl Fn(Option<usize>) -> Answer + Send + Sync + 'static) -> Site {
    Site::of_gets(move |request, _| Some(answer(request.range())))
}

/// The fetch after a cut at `n` bytes goes on from there.
fn resumes_after(n: usize) {
    let site = once(move |start| cut_after(start, n));
    site.expect_right();
    let ranges: Vec<Option<usize>> = site.stub.gets().iter().map(|request| request.range()).collect();
    assert_eq!(ranges, [None, (n > 0).then_some(n)]);
}

/// A fault in the first answer to a Range request, after `LEN / 2` good bytes of an earlier run.
fn resume_meets(answer: impl Fn(Option<usize>) -> Answer + Send + Sync + 'static) {
    let site = once(answer);
    site.leave_partial(&content()[..LEN / 2]);
    site.expect_right();
    assert_eq!(site.stub.gets()[0].range(), Some(LEN / 2));
}

fn part(range: &str, body: &[u8]) -> Answer {
    Answer::full(206, &[("Content-Range", range)], body)
}

fn wrong() -> Vec<u8> {
    let mut bytes = content();
    bytes[LEN / 3] ^= 1;
    bytes
}

fn fails_resumably(site: &Site, expected: Option<u16>) {
    let error = site.expect_error();
    assert_kind!(error, ErrorKind::Download { status, resumable: true, .. } if *status == expected);
}

pub(crate) const ROWS: &[Row] = &[
    ("cut before the first byte", || resumes_after(0)),
    ("cut after one byte", || resumes_after(1)),
    ("cut at the end of a block", || resumes_after(256 << 10)),
    ("cut in the middle", || resumes_after(LEN / 2)),
    ("cut before the last byte", || resumes_after(LEN - 1)),
    ("cut again and again, a little further each time", || {
        let site = Site::of_gets(|request, nth| (nth < 2).then(|| cut_after(request.range(), LEN / 4)));
        site.expect_right();
        let last = site.stub.gets().last().and_then(|request| request.range());
        assert_eq!(last, Some(LEN / 4 * 2));
    }),
    ("cut for ever at the same place", || {
        let site = Site::of_gets(|request, _| {
            Some(cut_after(request.range(), if request.range().is_none() { 1000 } else { 0 }))
        });
        fails_resumably(&site, None);
        assert_eq!(std::fs::read(site.incomplete()).unwrap(), &content()[..1000], "the bytes are kept");
        assert_eq!(site.stub.gets().len(), 3);
    }),
    ("connection closed without an answer, once", || once(|_| Answer::default()).expect_right()),
    ("connection closed without an answer, always", || fails_resumably(&always(|_| Answer::default()), None)),
    ("stall in the body, once", || {
        let site = once(|start| cut_after(start, 5000).wait(Duration::from_secs(20)));
        let hub = site.hub_with(|options| options.stall_timeout = Some(Duration::from_millis(300)));
        site.check_right(&hub.file(crate::site::REPO, None, crate::site::FILE).unwrap());
        assert!(site.stub.gets()[1].range().is_some());
    }),
    ("stall in the body, always", || {
        let site = always(|start| cut_after(start, 0).wait(Duration::from_secs(20)));
        let hub = site.hub_with(|options| options.stall_timeout = Some(Duration::from_millis(200)));
        let error = site.expect_error_from(&hub);
        assert_kind!(error, ErrorKind::Download { status: None, resumable: true, .. });
        assert!(error.message().contains("silent"), "{error}");
    }),
    ("wrong bytes, once", || {
        let site = once(|_| Answer::full(200, &[], &wrong()));
        site.expect_right();
        assert!(
            site.stub.gets().iter().all(|request| request.range().is_none()),
            "a clean retry starts at 0"
        );
    }),
    ("wrong bytes, always", || {
        let site = always(|_| Answer::full(200, &[], &wrong()));
        let error = site.expect_error();
        let expected = sha256(&content());
        assert_kind!(error, ErrorKind::CorruptModel { expected_sha256: Some(sum), .. } if *sum == expected);
        assert!(error.message().contains(&sha256(&wrong())), "{error}");
        assert!(!site.incomplete().exists(), "bad bytes are not kept");
        assert_eq!(site.stub.gets().len(), 2);
    }),
    ("wrong bytes left by an earlier run", || {
        let site = Site::new(|_, _| None);
        site.leave_partial(&wrong()[..LEN / 2]);
        site.expect_right();
        assert_eq!(site.stub.gets().len(), 2);
    }),
    ("an earlier run left more than the file has", || {
        let site = Site::new(|_, _| None);
        site.leave_partial(&[content(), b"more".to_vec()].concat());
        site.expect_right();
        assert_eq!(site.stub.gets()[0].range(), None);
    }),
    ("an earlier run left the whole file unnamed", || {
        let site = Site::new(|_, _| None);
        site.leave_partial(&content());
        site.expect_right();
        assert_eq!(site.stub.gets().len(), 0, "nothing was missing");
    }),
    ("200 for a range", || resume_meets(|_| body_from(None))),
    ("206 from another byte, and then wrong bytes, once", || {
        // The first fault is seen in the header, so the one clean retry is left for the second.
        let site = Site::of_gets(|request, nth| match (nth, request.range()) {
            (0, Some(start)) => {
                Some(part(&format!("bytes 0-{}/{LEN}", LEN - start - 1), &content()[..LEN - start]))
            }
            (1, None) => Some(Answer::full(200, &[], &wrong())),
            _ => None,
        });
        site.leave_partial(&content()[..LEN / 2]);
        site.expect_right();
        assert_eq!(site.stub.gets().len(), 3);
    }),
    ("206 of another size", || {
        resume_meets(|_| part(&format!("bytes {}-{}/{}", LEN / 2, LEN, LEN + 1), &content()[LEN / 2..]));
    }),
    ("206 without Content-Range", || resume_meets(|_| Answer::full(206, &[], &content()[LEN / 2..]))),
    ("206 with a Content-Range that is none", || resume_meets(|_| part("bytes */*", &content()[LEN / 2..]))),
    ("206 that nobody asked for", || once(|_| part("bytes 5-9/10", b"abcde")).expect_right()),
    ("416 for a range", || resume_meets(|_| Answer::full(416, &[], b""))),
    ("416 always", || fails_resumably(&always(|_| Answer::full(416, &[], b"")), None)),
    ("announces too many bytes", || {
        fails_resumably(&always(|_| Answer::full(200, &[], &[content(), vec![0; 9]].concat())), None);
    }),
    ("announces too few bytes", || {
        fails_resumably(&always(|_| Answer::full(200, &[], &content()[..LEN - 9])), None)
    }),
    ("sends bytes without end", || {
        let site = always(|_| {
            (0..64).fold(Answer::head(200, &[]).send(&content()), |answer, _| answer.send(&content()))
        });
        fails_resumably(&site, None);
    }),
    ("no length in the answer", || once(|_| Answer::head(200, &[]).send(&content())).expect_right()),
    ("no length, and cut", || once(|_| Answer::head(200, &[]).send(&content()[..1234])).expect_right()),
    ("chunked", || once(|_| chunked(&content(), true)).expect_right()),
    ("chunked, and cut", || once(|_| chunked(&content()[..5555], false)).expect_right()),
    ("chunked, with a length that is none", || {
        once(|_| Answer::head(200, &[("Transfer-Encoding", "chunked")]).send(b"zzz\r\nabc\r\n"))
            .expect_right();
    }),
    ("says gzip and is not", || {
        let site = always(|_| Answer::full(200, &[("Content-Encoding", "gzip")], &content()));
        fails_resumably(&site, None);
    }),
    ("no size anywhere, but a sha256", || {
        let site = Site::new(|request, _| {
            let etag = sha256(&content());
            Some(if request.is_get() {
                Answer::head(200, &[]).send(&content())
            } else {
                Answer::head(200, &[("X-Repo-Commit", COMMIT), ("ETag", &etag)])
            })
        });
        site.expect_right();
    }),
    ("no size anywhere, and no sha256", || {
        let site = Site::new(|request, _| {
            Some(if request.is_get() {
                Answer::head(200, &[]).send(&content())
            } else {
                Answer::head(200, &[("X-Repo-Commit", COMMIT), ("ETag", COMMIT)])
            })
        });
        assert_kind!(site.expect_error(), ErrorKind::Download { resumable: false, .. });
    }),
    ("a git object of the wrong length", || {
        let site = Site::new(|request, _| {
            Some(if request.is_get() { body_from(None).send(b"x") } else { facts_with(COMMIT, COMMIT) })
        });
        // The length in the answer ends the body before the stray byte.
        let path = site.fetch().unwrap();
        assert!(std::fs::read(path).unwrap() == content());
    }),
    ("500, once", || once(|_| Answer::full(500, &[], b"oops")).expect_right()),
    ("503, always", || fails_resumably(&always(|_| Answer::full(503, &[], b"")), Some(503))),
    ("500 to the first question, once", || {
        let site =
            Site::new(|request, nth| (!request.is_get() && nth == 0).then(|| Answer::full(500, &[], b"")));
        site.expect_right();
    }),
    ("429 with Retry-After in seconds, once", || {
        once(|_| Answer::full(429, &[("Retry-After", "3600")], b"")).expect_right();
    }),
    ("429 with Retry-After as a date, once", || {
        once(|_| Answer::full(429, &[("Retry-After", "Wed, 21 Oct 2099 07:28:00 GMT")], b"")).expect_right();
    }),
    ("429, always", || {
        let site = always(|_| Answer::full(429, &[("Retry-After", "0")], b""));
        let error = site.expect_error();
        assert_kind!(error, ErrorKind::Download { status: Some(429), resumable: true, .. });
        assert!(error.hint().contains("HF_TOKEN"), "{error}");
    }),
    ("a signed link that has run out, once", || {
        let cdn = crate::stub::Stub::start(|_, nth| {
            if nth == 0 { Answer::full(403, &[], b"expired") } else { body_from(None) }
        });
        let target = format!("{}/cdn/blob?Signature=abc", cdn.url());
        let site = always(move |_| Answer::full(302, &[("Location", &target)], b""));
        site.expect_right();
        assert_eq!(cdn.gets().len(), 2);
    }),
    ("a storage that refuses, always", || {
        let cdn = crate::stub::Stub::start(|_, _| Answer::full(403, &[], b"expired"));
        let target = format!("{}/cdn/blob?Signature=abc", cdn.url());
        let site = always(move |_| Answer::full(302, &[("Location", &target)], b""));
        let hub = site.hub_with(|options| options.token = Some(TOKEN.to_owned()));
        let error = site.expect_error_from(&hub);
        assert_kind!(error, ErrorKind::Download { status: Some(403), resumable: true, .. });
    }),
];

fn chunked(bytes: &[u8], ended: bool) -> Answer {
    let mut answer = Answer::head(200, &[("Transfer-Encoding", "chunked")]);
    for chunk in bytes.chunks(99_999) {
        answer = answer.send(format!("{:x}\r\n", chunk.len()).as_bytes()).send(chunk).send(b"\r\n");
    }
    if ended { answer.send(b"0\r\n\r\n") } else { answer }
}
