//! Against published ids, and properties that hold for every vocabulary.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde::Deserialize;
use serde_json::json;

use super::gguf::VocabularySource;
use super::*;

mod families;

/// A published vocabulary, or `None` (said aloud) on a machine without the shared data.
fn vocabulary(name: &str) -> Option<Arc<Tokenizer>> {
    let path = shared(name)?;
    Some(Arc::new(Tokenizer::from_file(&path).unwrap()))
}

fn shared(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.exists() {
        println!("SKIPPED: {} is absent", path.display());
        return None;
    }
    Some(path)
}

#[derive(Deserialize)]
struct Published {
    text: String,
    ids: Vec<u32>,
}

fn agrees_with_published(vocab: &str, ids: &str) {
    let (Some(tokenizer), Some(path)) = (vocabulary(vocab), shared(ids)) else { return };
    let cases: Vec<Published> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(cases.len() > 20);
    for case in cases {
        assert_eq!(tokenizer.encode(&case.text, Some(false)).unwrap(), case.ids, "{:?}", case.text);
        assert_eq!(tokenizer.encode_prompt(&case.text, Some(false)).unwrap(), case.ids, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&case.ids, true).unwrap(), case.text);
    }
}

#[test]
fn phi_3_ids_are_those_published() {
    agrees_with_published("phi-3-vocab.gguf", "phi-3-tokens.json");
}

#[test]
fn gpt_2_ids_are_those_published() {
    agrees_with_published("gpt-2-vocab.gguf", "gpt-2-tokens.json");
}

#[test]
fn the_tutorial_prompt_is_encoded_as_transformers_does() {
    let Some(tokenizer) = vocabulary("phi-3-vocab.gguf") else { return };
    let prompt = "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>";
    let ids = tokenizer.encode_prompt(prompt, Some(false)).unwrap();
    assert_eq!(ids[..3], [32010, 14350, 263]);
    assert_eq!(ids[ids.len() - 2..], [32007, 32001]);
}

/// The metadata of a published vocabulary, to change and build.
fn source(name: &str) -> Option<VocabularySource> {
    let file = GgufFile::open(&shared(name)?).unwrap();
    Some(VocabularySource::read(&file.header().metadata).unwrap())
}

/// GPT-2's vocabulary with ChatML's control tokens after it: what SmolLM2's is like.
fn chatml() -> Option<Arc<Tokenizer>> {
    let mut source = source("gpt-2-vocab.gguf")?;
    for spelling in ["<|im_start|>", "<|im_end|>"] {
        source.tokens.push(spelling.as_bytes().to_vec());
        source.types.push(3);
    }
    Some(Arc::new(Tokenizer::from(source.build().unwrap())))
}

/// Both kinds of vocabulary, built once.
fn both() -> &'static [Arc<Tokenizer>] {
    static BOTH: OnceLock<Vec<Arc<Tokenizer>>> = OnceLock::new();
    BOTH.get_or_init(|| [vocabulary("phi-3-vocab.gguf"), chatml()].into_iter().flatten().collect())
}

/// Text of every script, with whitespace and the fragments of control tokens more often than chance gives them.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "\\PC{0,6}",
        "[a-zA-Z' ]{0,12}",
        "[ \\t\\n\\r\u{a0}\u{2003}]{1,3}",
        "[0-9]{1,5}",
        "[<|>/s\\[\\]]{1,3}",
        any::<char>().prop_map(String::from),
        prop::sample::select(vec![
            "<|end|>",
            "<|user|>",
            "<|im_end|>",
            "<|im_",
            "start|>",
            "</s>",
            "<s>",
            "<0x41>",
            "end|>",
            "<unk>",
            "👩‍👩‍👧",
            "\u{FDD0}",
            "{{ x }}",
            "[PAD32011]"
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn plain_text_comes_back_and_never_holds_a_control_token(text in texts()) {
        for tokenizer in both() {
            let ids = tokenizer.encode(&text, Some(false)).unwrap();
            prop_assert!(ids.iter().all(|&id| !tokenizer.is_control(id)), "{ids:?}");
            // `▁` is how SentencePiece writes a space, so that one character comes back as a space.
            let expected = if tokenizer.strips_space { text.replace('▁', " ") } else { text.clone() };
            prop_assert_eq!(tokenizer.decode(&ids, true).unwrap(), expected);
        }
    }

    #[test]
    fn a_stream_is_decoding_in_parts(seed in prop::collection::vec(any::<u32>(), 0..40)) {
        for tokenizer in both() {
            let size = u32::try_from(tokenizer.vocab_size()).unwrap();
            // Half of the ids from the low end, where the bytes and control tokens are.
            let ids: Vec<u32> = seed.iter().map(|id| if id % 2 == 0 { id / 2 % 300 } else { id % size }).collect();
            let mut stream = TokenStream::new(tokenizer.clone());
            let mut joined = String::new();
            for &id in &ids {
                let chunk = stream.push(id).unwrap();
                prop_assert!(!tokenizer.is_control(id) || chunk.is_empty());
                joined += &chunk;
            }
            joined += &stream.finish();
            prop_assert_eq!(joined, tokenizer.decode(&ids, true).unwrap());
        }
    }

    #[test]
    fn content_cannot_forge_control_tokens(first in texts(), second in texts()) {
        for tokenizer in both() {
            let phi3 = tokenizer.strips_space;
            let contents = [first.as_str(), second.as_str()];
            let guard = Guard::new(tokenizer.special_tokens(), contents.into_iter()).unwrap();
            let [open, close, next] =
                if phi3 { ["<|user|>\n", "<|end|>\n", "<|assistant|>"] } else { ["<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>"] };
            let turn = |text: &str| format!("{open}{}{close}", guard.protect(text, true));
            let marked = turn(&first) + &turn(&second) + next;
            let prompt = guard.finish(marked);
            let plain = format!("{open}{first}{close}{open}{second}{close}{next}");
            prop_assert_eq!(prompt.text(), plain.clone());
            let ids = tokenizer.encode_rendered(&prompt, Some(false)).unwrap();
            let control: Vec<String> = ids.iter().filter(|&&id| tokenizer.is_control(id)).map(|&id| tokenizer.token_text(id).unwrap()).collect();
            let [open, close] = [open, close].map(|text| text.split_inclusive("|>").next().unwrap());
            prop_assert_eq!(control, [open, close, open, close, next]);
            if phi3 {
                // Phi-3's control tokens take the whitespace after them along; the rest of the content comes back.
                let turns: Vec<&[u32]> = ids.split(|&id| tokenizer.is_control(id)).collect();
                for (ids, text) in [(turns[1], &first), (turns[3], &second)] {
                    prop_assert_eq!(tokenizer.decode(ids, true).unwrap(), text.trim_start().replace('▁', " "));
                }
            } else {
                prop_assert_eq!(tokenizer.decode(&ids, false).unwrap(), plain);
            }
        }
    }
}

#[test]
fn every_ending_of_a_turn_stops_even_in_files_with_wrong_metadata() {
    for eos in [2, 32000, 32007] {
        let Some(mut source) = source("phi-3-vocab.gguf") else { return };
        source.ids.eos = Some(eos);
        let tokenizer = Tokenizer::from(source.build().unwrap());
        let ends: Vec<u32> = tokenizer.end_of_turn_ids(None).into_iter().collect();
        // `</s>`, `<|endoftext|>`, `<|assistant|>`, `<|end|>`: the last three as the published generation_config has them.
        assert_eq!(ends, [2, 32000, 32001, 32007], "eos {eos}");
        assert_eq!(tokenizer.eos_id(), Some(eos));
    }
    let Some(tokenizer) = vocabulary("phi-3-vocab.gguf") else { return };
    let odd = "{{ '<|user|>' + m.content + '<|placeholder1|>' }}";
    assert!(tokenizer.end_of_turn_ids(Some(odd)).contains(&32002));
    assert!(!tokenizer.end_of_turn_ids(Some(odd)).contains(&32010));
    let Some(chatml) = chatml() else { return };
    let ends = chatml.end_of_turn_ids(None);
    assert!(ends.contains(&50256) && ends.contains(&50258) && !ends.contains(&50257), "{ends:?}");
}

#[test]
fn control_tokens_written_as_text_types_still_count() {
    let Some(mut source) = source("phi-3-vocab.gguf") else { return };
    // Converters have marked them as user-defined (4) and even as normal (1).
    source.types[32007] = 4;
    source.types[32010] = 1;
    let tokenizer = Tokenizer::from(source.build().unwrap());
    assert!(tokenizer.is_control(32007) && tokenizer.is_control(32010));
    assert!(!tokenizer.encode("<|user|><|end|>", Some(false)).unwrap().contains(&32007));
    assert_eq!(tokenizer.encode_prompt("<|user|>\n<|end|>\n", Some(false)).unwrap(), [32010, 32007]);
}

#[test]
fn raw_prompts_are_told_from_sentences() {
    let Some(tokenizer) = vocabulary("phi-3-vocab.gguf") else { return };
    for prompt in ["<|user|>\nHi<|end|>\n<|assistant|>", "<|system|>", "<s><|user|>", "<|endoftext|>x"] {
        assert!(tokenizer.begins_with_control(prompt), "{prompt}");
    }
    for text in ["Hi <|user|>", "<s>struck</s>", "</s>", "<unk>", " <|user|>", "<|us", "", "[1, 2]"] {
        assert!(!tokenizer.begins_with_control(text), "{text}");
    }
}

#[test]
fn begin_of_text_goes_first_once() {
    let Some(tokenizer) = vocabulary("phi-3-vocab.gguf") else { return };
    assert_eq!(tokenizer.encode("Hi", None).unwrap(), tokenizer.encode("Hi", Some(true)).unwrap());
    assert_eq!(tokenizer.encode("Hi", None).unwrap()[0], 1);
    assert_eq!(tokenizer.encode_prompt("<s><|user|>", None).unwrap(), [1, 32010]);
    assert_eq!(tokenizer.encode_prompt("<|user|>", Some(true)).unwrap(), [1, 32010]);
    assert_eq!(tokenizer.encode("", None).unwrap(), [1]);
    let Some(mut source) = source("phi-3-vocab.gguf") else { return };
    source.ids.bos = None;
    let tokenizer = Tokenizer::from(source.build().unwrap());
    assert_eq!(tokenizer.encode("", None).unwrap(), [0; 0]);
    assert!(matches!(
        tokenizer.encode("", Some(true)).unwrap_err().kind(),
        ErrorKind::InvalidParameter { .. }
    ));
}

#[test]
fn partial_characters_wait_and_bad_bytes_end() {
    let Some(tokenizer) = vocabulary("phi-3-vocab.gguf") else { return };
    let byte = |byte: u8| u32::from(byte) + 3;
    let mut stream = TokenStream::new(tokenizer.clone());
    let chunks: Vec<String> = "🦙".bytes().map(|b| stream.push(byte(b)).unwrap()).collect();
    assert_eq!(chunks, ["", "", "", "🦙"]);
    assert_eq!(stream.push(byte(0xF0)).unwrap(), "");
    assert_eq!(stream.push(tokenizer.encode("Hi", Some(false)).unwrap()[0]).unwrap(), "\u{FFFD} Hi");
    assert_eq!(stream.push(byte(0xE2)).unwrap() + &stream.finish(), "\u{FFFD}");
    assert_eq!(stream.finish(), "");
    let error = stream.push(40_000).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Tokenizer);
    assert_eq!(tokenizer.token_bytes(40_000), None);
    assert_eq!(tokenizer.token_bytes(32007), Some(vec![]));
    assert_eq!(tokenizer.token_bytes(byte(0xF0)), Some(vec![0xF0]));
    assert_eq!(tokenizer.token_text(32007).as_deref(), Some("<|end|>"));
}

#[test]
fn unknown_names_list_the_known_ones() {
    let Some(mut source) = source("gpt-2-vocab.gguf") else { return };
    source.pre = Some("tekken".into());
    let error = source.build().map(|_| ()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnsupportedModel { .. }));
    assert!(
        error.message().contains("`tekken`") && error.message().contains("gpt-4o, llama4, llama-bpe"),
        "{error}"
    );
}

/// The published vocabularies as `tokenizer.json` files, as their repositories have them.
fn as_json(name: &str) -> Option<Vec<u8>> {
    let source = source(name)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let vocab: BTreeMap<String, u32> = source.tokens.iter().map(|t| text(t)).zip(0u32..).collect();
    let added = |rstrip: bool, id: u32| {
        let content = text(&source.tokens[id as usize]);
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": rstrip, "normalized": false, "special": true})
    };
    let value = if name.starts_with("phi") {
        let mergeable = vocab.iter().filter(|(_, id)| source.types[**id as usize] == 1);
        let merges =
            spm::merges(&mergeable.map(|(t, id)| (t.clone(), *id)).collect(), &source.scores).unwrap();
        let merges: Vec<[String; 2]> = merges.into_iter().map(|(l, r)| [l, r]).collect();
        let tokens: Vec<_> = [(false, 0), (false, 1), (true, 2), (false, 32000)]
            .into_iter()
            .chain((32001..32011).map(|id| (true, id)))
            .map(|(rstrip, id)| added(rstrip, id))
            .collect();
        json!({
            "added_tokens": tokens,
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null,
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": merges},
        })
    } else {
        json!({
            "added_tokens": [added(false, 50256)],
            "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true},
            "model": {"type": "BPE", "vocab": vocab, "merges": source.merges.iter().map(|m| text(m)).collect::<Vec<_>>()},
        })
    };
    Some(serde_json::to_vec(&value).unwrap())
}

#[test]
fn gguf_json_and_the_tokenizers_crate_agree() {
    for name in ["phi-3-vocab.gguf", "gpt-2-vocab.gguf"] {
        let (Some(gguf), Some(bytes)) = (vocabulary(name), as_json(name)) else { return };
        let json = Tokenizer::from_json(&bytes).unwrap();
        let mut oracle = tokenizers::Tokenizer::from_bytes(&bytes).unwrap();
        let phi3 = name.starts_with("phi");
        assert_eq!(json.adds_bos(), phi3);
        assert_eq!(
            (json.bos_id(), json.eos_id()),
            if phi3 { (Some(1), Some(32000)) } else { (None, Some(50256)) }
        );
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for _ in 0..300 {
            let text = texts().new_tree(&mut runner).unwrap().current();
            // The crate's word for word semantics of added tokens: matched, or left as text.
            oracle.set_encode_special_tokens(false);
            let prompt = oracle.encode(text.as_str(), false).unwrap().get_ids().to_vec();
            assert_eq!(json.encode_prompt(&text, Some(false)).unwrap(), prompt, "{text:?}");
            // Only the GGUF file holds padding tokens.
            if !text.contains("[PAD") {
                assert_eq!(gguf.encode_prompt(&text, Some(false)).unwrap(), prompt, "{text:?}");
            }
            let plain = json.encode(&text, Some(false)).unwrap();
            assert_eq!(gguf.encode(&text, Some(false)).unwrap(), plain, "{text:?}");
            assert!(plain.iter().all(|&id| !json.is_control(id)));
            assert_eq!(json.decode(&plain, true).unwrap(), gguf.decode(&plain, true).unwrap());
        }
    }
}

#[test]
fn bad_json_files_are_tokenizer_errors() {
    let model = |model: &str| format!(r#"{{"decoder": {{"type": "ByteLevel"}}, "model": {model}}}"#);
    let rows = [
        String::new(),
        "{".into(),
        "[]".into(),
        "{\"model\": 1}".into(),
        "[".repeat(100_000),
        model(r#"{"type": "Unigram", "vocab": {}, "merges": []}"#),
        model(r#"{"type": "BPE", "vocab": {}, "merges": []}"#),
        model(r#"{"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}"#),
        model(r#"{"type": "BPE", "vocab": {"a": -1}, "merges": []}"#),
        model(r###"{"type": "BPE", "vocab": {"a": 1}, "merges": [], "continuing_subword_prefix": "##"}"###),
        r#"{"model": {"type": "BPE", "vocab": {"a": 1}, "merges": []}}"#.into(),
        r#"{"decoder": {"type": "ByteLevel"}, "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AA=="}, "model": {"type": "BPE", "vocab": {"a": 1}, "merges": []}}"#.into(),
        r#"{"decoder": {"type": "ByteLevel"}, "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}, "model": {"type": "BPE", "vocab": {"a": 1}, "merges": []}}"#.into(),
    ];
    for row in rows {
        let error = Tokenizer::from_json(row.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Tokenizer, "{}", row.chars().take(80).collect::<String>());
    }
    // A merge longer than every token: the crate would panic on it.
    let long = model(r#"{"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}"#);
    assert_eq!(Tokenizer::from_json(long.as_bytes()).unwrap().encode("ab", None).unwrap(), [0, 1]);
}

#[test]
fn files_are_told_apart_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("any.name");
    std::fs::write(
        &path,
        r#"{"decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#,
    )
    .unwrap();
    assert_eq!(Tokenizer::from_file(&path).unwrap().vocab_size(), 1);
    let missing = Tokenizer::from_file(&folder.path().join("none")).unwrap_err();
    assert!(matches!(missing.kind(), ErrorKind::ModelNotFound { .. }), "{missing}");
    assert!(matches!(
        Tokenizer::from_file(folder.path()).unwrap_err().kind(),
        ErrorKind::ModelNotFound { .. }
    ));
}
