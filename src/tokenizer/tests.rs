//! Against published ids, and properties that hold for every vocabulary.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::*;

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
