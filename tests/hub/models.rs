//! Models on a hub: split ones, many in one repository, and the header alone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use phicandle::ErrorKind;
use phicandle::engine::{Engine, LoadOptions, ModelSource};
use phicandle::gguf::{GgufFile, Header, ModelPlan};
use phicandle::hub::{Described, Hub, ModelSpec};

use crate::assert_kind;
use crate::site::{COMMIT, REPO, Site, TOKEN, check_error, sha256};
use crate::stub::{Answer, Request};

const MIB: u64 = 1 << 20;
/// Tokens of the models: so many that their names alone take more than the first request brings.
const TOKENS: u64 = 40_000;

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

fn number(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key)[..], &kind.to_le_bytes(), value].concat()
}

type Tensor = (&'static str, Vec<u64>);

fn tensors() -> Vec<Tensor> {
    vec![
        ("token_embd.weight", vec![32, TOKENS]),
        ("blk.0.attn_norm.weight", vec![32]),
        ("blk.0.attn_q.weight", vec![32, 32]),
        ("blk.0.attn_k.weight", vec![32, 32]),
        ("blk.0.attn_v.weight", vec![32, 32]),
        ("blk.0.attn_output.weight", vec![32, 32]),
        ("blk.0.ffn_norm.weight", vec![32]),
        ("blk.0.ffn_gate.weight", vec![32, 64]),
        ("blk.0.ffn_up.weight", vec![32, 64]),
        ("blk.0.ffn_down.weight", vec![64, 32]),
        ("output_norm.weight", vec![32]),
    ]
}

fn keys() -> Vec<Vec<u8>> {
    let mut keys = vec![number("general.architecture", 8, &text("llama"))];
    for (key, value) in [
        ("block_count", 1_u32),
        ("embedding_length", 32),
        ("feed_forward_length", 64),
        ("context_length", 128),
        ("attention.head_count", 2),
    ] {
        keys.push(number(&format!("llama.{key}"), 4, &value.to_le_bytes()));
    }
    keys.push(number("llama.attention.layer_norm_rms_epsilon", 6, &1e-5_f32.to_le_bytes()));
    let tokens: Vec<u8> =
        (0..TOKENS).flat_map(|id| text(&format!("a token with the number {id:06}"))).collect();
    let array = [&8_u32.to_le_bytes()[..], &TOKENS.to_le_bytes(), &tokens].concat();
    keys.push(number("tokenizer.ggml.tokens", 9, &array));
    keys
}

fn file(keys: &[Vec<u8>], tensors: &[Tensor]) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((keys.len() as u64).to_le_bytes());
    bytes.extend(keys.concat());
    let mut offset = 0;
    for (name, shape) in tensors {
        bytes.extend(text(name));
        bytes.extend((shape.len() as u32).to_le_bytes());
        bytes.extend(shape.iter().flat_map(|dim| dim.to_le_bytes()));
        bytes.extend([0; 4]);
        bytes.extend(u64::to_le_bytes(offset));
        offset += 4 * shape.iter().product::<u64>();
    }
    bytes.resize(bytes.len().next_multiple_of(32) + offset as usize, 0);
    bytes
}

fn whole() -> Vec<u8> {
    file(&keys(), &tensors())
}

/// The same model in three parts.
fn parts() -> Vec<Vec<u8>> {
    let all = tensors();
    let part = |no: usize| {
        let mut own = if no == 0 { keys() } else { Vec::new() };
        own.push(number("split.no", 2, &(no as u16).to_le_bytes()));
        own.push(number("split.count", 2, &3_u16.to_le_bytes()));
        own.push(number("split.tensors.count", 5, &(all.len() as i32).to_le_bytes()));
        file(&own, &all[[0..1, 1..6, 6..11][no].clone()])
    };
    (0..3).map(part).collect()
}

fn part_name(prefix: &str, number: usize) -> String {
    format!("{prefix}-{number:05}-of-00003.gguf")
}

type Files = BTreeMap<String, Vec<u8>>;

fn one(name: &str) -> Files {
    Files::from([(name.to_owned(), whole())])
}

fn split(prefix: &str) -> Files {
    (1..).zip(parts()).map(|(number, bytes)| (part_name(prefix, number), bytes)).collect()
}

/// The bytes that a request asks for.
fn asked(request: &Request, length: usize) -> Option<Range<usize>> {
    let (start, end) = request.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
    let end = if end.is_empty() { length } else { end.parse::<usize>().ok()? + 1 };
    Some(start.parse().ok()?..end.min(length))
}

/// What a hub that serves `files` answers. `ranges`: whether it sends parts of files.
fn serve(files: &Files, request: &Request, ranges: bool) -> Answer {
    if request.path.starts_with("/api/models/") {
        let siblings: Vec<_> = files
            .iter()
            .map(|(name, bytes)| serde_json::json!({ "rfilename": name, "size": bytes.len() }))
            .collect();
        let body = serde_json::json!({ "id": REPO, "sha": COMMIT, "siblings": siblings }).to_string();
        return Answer::full(200, &[], body.as_bytes());
    }
    let found = files.iter().find(|(name, _)| request.path.ends_with(&format!("/{name}")));
    let Some((_, bytes)) = found else { return Answer::full(404, &[("X-Error-Code", "EntryNotFound")], b"") };
    if !request.is_get() {
        let (size, etag) = (bytes.len().to_string(), format!("\"{}\"", sha256(bytes)));
        return Answer::head(
            200,
            &[("X-Repo-Commit", COMMIT), ("X-Linked-ETag", &etag), ("X-Linked-Size", &size)],
        );
    }
    match asked(request, bytes.len()).filter(|_| ranges) {
        Some(part) => {
            let range = format!("bytes {}-{}/{}", part.start, part.end - 1, bytes.len());
            Answer::full(206, &[("Content-Range", &range)], &bytes[part])
        }
        None => Answer::full(200, &[], bytes),
    }
}

fn site(files: Files) -> Site {
    Site::new(move |request, _| Some(serve(&files, request, true)))
}

fn spec(quant: &str) -> ModelSpec {
    ModelSpec::parse(&format!("{REPO}{quant}")).unwrap()
}

fn header_of(hub: &Hub, quant: &str) -> Header {
    match hub.describe(&spec(quant)).unwrap() {
        Described::Remote { name, header } => {
            assert!(name.ends_with(REPO), "{name}");
            header
        }
        Described::Local(local) => panic!("{local:?} is in the cache"),
    }
}

/// Bytes of content that the hub was asked for.
fn bytes_asked(site: &Site) -> u64 {
    let gets = site.stub.gets();
    gets.iter().map(|request| asked(request, usize::MAX).map_or(u64::MAX, |part| part.len() as u64)).sum()
}

#[test]
fn a_header_is_read_without_the_weights() {
    let bytes = whole();
    let expected = Header::parse(&bytes, bytes.len() as u64).unwrap();
    let site = site(one("m-Q8_0.gguf"));
    assert_eq!(header_of(&site.hub(), ""), expected);
    let data = expected.parts[0].data_offset;
    assert!(data > MIB, "one request is not enough: {data}");
    let asked = bytes_asked(&site);
    assert!(asked >= data && asked <= 2 * MIB + data, "{asked} bytes for a header of {data}");
    assert!(asked < bytes.len() as u64 / 2, "{asked} of {}", bytes.len());
    // The memory is planned from it as from the file.
    let options = |source| LoadOptions { context_length: Some(64), ..LoadOptions::new(source) };
    let estimate = |source| {
        let plan = Engine::estimate(&options(source)).unwrap();
        (plan.weights_bytes, plan.mapped_bytes, plan.kv_bytes, plan.scratch_bytes)
    };
    let source = ModelSource::Header("a header".to_owned(), Box::new(expected));
    let refused = Engine::load(&options(source.clone())).err().unwrap();
    assert_kind!(refused, ErrorKind::ModelNotFound { .. });
    check_error(&refused);
    let planned = estimate(source);
    // Once the file is here, nobody asks the hub.
    let local = site.hub().resolve(&spec("")).unwrap();
    assert_eq!(planned, estimate(ModelSource::File(local.model.clone())));
    let before = site.stub.seen().len();
    assert_eq!(site.hub().describe(&spec("")).unwrap(), Described::Local(local.clone()));
    assert_eq!(site.hub().describe(&spec(":Q8_0")).unwrap(), Described::Local(local));
    assert_eq!(site.stub.seen().len(), before);
}

#[test]
fn a_server_without_ranges_and_one_that_redirects_give_the_header_too() {
    let bytes = whole();
    let expected = Header::parse(&bytes, bytes.len() as u64).unwrap();
    let files = one("m.gguf");
    let site = Site::new(move |request, _| Some(serve(&files, request, false)));
    assert_eq!(header_of(&site.hub(), ""), expected);

    let files = one("m.gguf");
    let site = Site::new(move |request, _| {
        let away = request.is_get() && request.path.contains("/resolve/");
        Some(if away {
            Answer::head(302, &[("Location", "/cdn/m.gguf?Signature=x"), ("Content-Length", "0")])
        } else {
            let mut request = request.clone();
            request.path = request.path.split('?').next().unwrap_or_default().to_owned();
            serve(&files, &request, true)
        })
    });
    assert_eq!(header_of(&site.hub(), ""), expected);
    assert!(site.stub.gets().iter().all(|request| request.header("range").is_some()));
}

#[test]
fn a_transfer_that_breaks_goes_on_where_it_ended() {
    let bytes = whole();
    let expected = Header::parse(&bytes, bytes.len() as u64).unwrap();
    let files = one("m.gguf");
    let broken = Mutex::new(false);
    let site = Site::new(move |request, _| {
        let content = request.is_get() && request.path.contains("/resolve/");
        if content && !std::mem::replace(&mut broken.lock().unwrap(), true) {
            let length = files["m.gguf"].len();
            let part = asked(request, length).unwrap();
            let range = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            let headers = [("Content-Range", range.as_str()), ("Content-Length", &part.len().to_string())];
            return Some(Answer::head(206, &headers).send(&files["m.gguf"][part][..1000]));
        }
        Some(serve(&files, request, true))
    });
    assert_eq!(header_of(&site.hub(), ""), expected);
    assert_eq!(asked(&site.stub.gets()[1], usize::MAX).unwrap().start, 1000);
}

#[test]
fn headers_that_may_not_be_read_are_errors() {
    let gated = Site::new(|request, _| (!request.is_get()).then(|| Answer::full(403, &[], b"")));
    let named = spec("").with_filename("m.gguf").unwrap();
    let error = gated.hub().describe(&named).unwrap_err();
    assert_kind!(error, ErrorKind::GatedModel { status: 403, .. });
    check_error(&error);
    let offline = gated.hub_with(|options| options.offline = Some(true)).describe(&named).unwrap_err();
    assert_kind!(offline, ErrorKind::Offline { .. });
    check_error(&offline);
    let site = site(one("m.gguf"));
    let absent = site.hub().describe(&spec("").with_filename("n.gguf").unwrap()).unwrap_err();
    assert_kind!(absent, ErrorKind::ModelNotFound { candidates } if candidates == &["m.gguf"]);
    // A file that is none is refused after its first bytes.
    let text = self::site(Files::from([("m.gguf".to_owned(), vec![b'x'; 3_000_000])]));
    let error = text.hub().describe(&spec("")).unwrap_err();
    assert_kind!(error, ErrorKind::CorruptModel { .. });
    assert!(error.message().contains("m.gguf") && error.message().contains(REPO), "{error}");
    assert!(bytes_asked(&text) <= MIB);
}

#[test]
fn a_header_that_never_ends_is_given_up() {
    /// Bytes of the file, or so it says.
    const SIZE: u64 = 1 << 40;
    let mut start = b"GGUF\x03\0\0\0".to_vec();
    start.extend([0_u64.to_le_bytes(), 1_u64.to_le_bytes()].concat());
    start.extend(number(
        "tokenizer.ggml.tokens",
        9,
        &[&8_u32.to_le_bytes()[..], &(1_u64 << 22).to_le_bytes()].concat(),
    ));
    // Strings of 65,528 letters without end: with their lengths they repeat every 65,536 bytes.
    let string = [&65_528_u64.to_le_bytes()[..], &[b'a'; 65_528]].concat();
    let site = Site::new(move |request, _| {
        if !request.is_get() {
            let etag = format!("\"{}\"", sha256(b"endless"));
            let size = SIZE.to_string();
            return Some(Answer::head(
                200,
                &[("X-Repo-Commit", COMMIT), ("X-Linked-ETag", &etag), ("X-Linked-Size", &size)],
            ));
        }
        let part = asked(request, SIZE as usize)?;
        let range = format!("bytes {}-{}/{SIZE}", part.start, part.end - 1);
        let byte = |at: usize| match start.get(at) {
            Some(&byte) => byte,
            None => string[(at - start.len()) % string.len()],
        };
        Some(Answer::full(206, &[("Content-Range", &range)], &part.map(byte).collect::<Vec<_>>()))
    });
    let error = site.hub().describe(&spec("").with_filename("m.gguf").unwrap()).unwrap_err();
    assert_kind!(error, ErrorKind::CorruptModel { .. });
    assert!(error.message().contains("64 MiB"), "{error}");
    assert!(bytes_asked(&site) <= 64 * MIB);
}

#[test]
fn the_parts_of_a_split_model_come_as_one() {
    let mut files = split("Q4_K_M/m");
    files.extend(split("Q8_0/m"));
    let site = site(files);
    let expected: u64 = parts().iter().map(|part| part.len() as u64).sum();

    let header = header_of(&site.hub(), ":Q4_K_M");
    assert_eq!((header.parts.len(), header.file_len), (3, expected));
    let plan = ModelPlan::from_header(&header).unwrap();
    assert!(bytes_asked(&site) < expected / 2);

    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let hub = site.hub_with(|options| {
        options.progress = Some(Arc::new(move |now| told.lock().unwrap().push(now.clone())));
    });
    let local = hub.resolve(&spec(":q4_k_m")).unwrap();
    assert_eq!((local.parts.len(), local.file.as_str()), (3, part_name("Q4_K_M/m", 1).as_str()));
    assert_eq!(local.model, local.parts[0]);
    let file = GgufFile::open(&local.model).unwrap();
    assert_eq!(ModelPlan::from_header(file.header()).unwrap(), plan);
    // One bar for all of it.
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|now| now.file == local.file && now.total == Some(expected)), "{seen:?}");
    assert!(seen.is_sorted_by_key(|now| now.done));
    assert_eq!(seen.last().unwrap().done, expected);
    // Named by any of its parts, it is all there, and nobody is asked.
    let before = site.stub.seen().len();
    let named = spec("").with_filename(&part_name("Q4_K_M/m", 2)).unwrap();
    assert_eq!(hub.describe(&named).unwrap(), Described::Local(local));
    assert_eq!(site.stub.seen().len(), before);
    let listed = hub.cached_models().unwrap();
    assert_eq!((listed[0].files.len(), listed[0].bytes), (3, expected));
    assert!(hub.remove(REPO).unwrap() >= expected && hub.cached_models().unwrap().is_empty());
}

#[test]
fn a_split_download_that_broke_off_goes_on_at_its_part() {
    let files = split("m");
    let second = part_name("m", 2);
    let down = Arc::new(Mutex::new(true));
    let (broken, name) = (Arc::clone(&down), second.clone());
    let site = Site::new(move |request, _| {
        let content = request.is_get() && request.path.ends_with(&name);
        let bytes = &files[&name];
        if content && *broken.lock().unwrap() {
            // Half of it, then silence about the rest.
            let length = bytes.len().to_string();
            return Some(match asked(request, bytes.len()) {
                None => Answer::head(200, &[("Content-Length", &length)]).send(&bytes[..bytes.len() / 2]),
                Some(_) => Answer::full(503, &[], b""),
            });
        }
        Some(serve(&files, request, true))
    });
    let error = site.hub().resolve(&spec("")).unwrap_err();
    assert_kind!(error, ErrorKind::Download { resumable: true, .. });
    assert!(error.message().contains(&second), "{error}");
    *down.lock().unwrap() = false;
    let before = site.stub.gets().len();
    let local = site.hub().resolve(&spec("")).unwrap();
    assert!(GgufFile::open(&local.model).is_ok());
    let after = site.stub.gets().split_off(before);
    let paths: Vec<&str> = after.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(paths.len(), 2, "the first part is not fetched again: {paths:?}");
    assert_eq!(after[0].range(), Some(parts()[1].len() / 2));
}

#[test]
fn a_part_that_is_not_there_is_named() {
    let mut files = split("m");
    files.remove(&part_name("m", 3));
    let site = site(files);
    let error = site.hub().resolve(&spec("").with_filename(&part_name("m", 1)).unwrap()).unwrap_err();
    assert_kind!(error, ErrorKind::ModelNotFound { .. });
    assert!(error.message().contains(&part_name("m", 3)), "{error}");
    let error = site.hub().resolve(&spec("")).unwrap_err();
    assert!(error.message().contains("parts are missing"), "{error}");
}

#[test]
fn without_a_quantisation_the_best_that_fits_is_taken() {
    let mut files = one("m-Q4_K_M.gguf");
    // Downloads do not look into files, so these need be no models.
    let length = files["m-Q4_K_M.gguf"].len();
    files.insert("m-Q8_0.gguf".to_owned(), vec![0; length + 32]);
    files.insert("m-f16.gguf".to_owned(), vec![0; 2 * length]);
    let length = length as u64;
    let site = site(files);
    let fits = |extra: u64| Some(length + length / 8 + (256 << 20) + extra);
    let chosen = |memory: Option<u64>| {
        site.hub_with(|options| options.memory = memory).resolve(&spec("")).map(|local| local.file)
    };
    let least = chosen(Some(1 << 20)).unwrap_err();
    assert_kind!(least, ErrorKind::OutOfMemory { available, .. } if *available == 1 << 20);
    assert!(!format!("{least:?}").contains(TOKEN));
    assert_eq!(chosen(fits(0)).unwrap(), "m-Q4_K_M.gguf");
    // Once it is here, more memory is no reason for another download.
    assert_eq!(chosen(fits(1 << 30)).unwrap(), "m-Q4_K_M.gguf");
    site.hub().remove(REPO).unwrap();
    assert_eq!(chosen(fits(1 << 30)).unwrap(), "m-Q8_0.gguf");
}
