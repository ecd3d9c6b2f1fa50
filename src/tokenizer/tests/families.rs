//! Byte-level vocabularies shaped like the published ones, against the crate `tokenizers` reading their published form.

use super::super::samples;
use super::*;

/// Text with the control tokens of all families, whole and in pieces, and whitespace around them.
fn prompts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => prop::sample::select(vec![
            "<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|user|>", "<|end|>", "<|assistant|>", "<|tool|>", "<|/tool|>",
            "<|endoftext|>", "<|dummy_0|>", "<|endofprompt|>",
        ]).prop_map(str::to_owned),
        2 => "[ \\t\\n\u{a0}]{1,9}",
        2 => texts(),
        1 => prop::sample::select(vec!["\0", "\u{feff}", "\u{feff}\u{feff}", "\u{fffd}", "\u{301}\u{301}"]).prop_map(str::to_owned),
        1 => (any::<char>(), 1usize..40).prop_map(|(c, n)| c.to_string().repeat(n)),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

fn styles() -> &'static [(Family, Tokenizer)] {
    static STYLES: OnceLock<Vec<(Family, Tokenizer)>> = OnceLock::new();
    STYLES.get_or_init(|| samples::BYTE_LEVEL.map(|family| (family, samples::tokenizer(family))).into())
}

#[test]
fn the_family_is_told_from_either_form() {
    for family in samples::BYTE_LEVEL {
        assert_eq!(samples::tokenizer(family).family(), Some(family));
        assert_eq!(Tokenizer::from_json(&samples::json(family)).unwrap().family(), Some(family));
    }
    assert_eq!(
        vocabulary("phi-3-vocab.gguf").and_then(|t| t.family()),
        shared("phi-3-vocab.gguf").map(|_| Family::Phi3)
    );
}

#[test]
fn ids_are_those_of_the_crate_with_the_published_flags() {
    for family in samples::BYTE_LEVEL {
        let bytes = samples::json(family);
        let (gguf, json) = (samples::tokenizer(family), Tokenizer::from_json(&bytes).unwrap());
        let mut oracle = tokenizers::Tokenizer::from_bytes(&bytes).unwrap();
        oracle.set_encode_special_tokens(false);
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for _ in 0..400 {
            let text = prompts().new_tree(&mut runner).unwrap().current();
            let expected = oracle.encode(text.as_str(), false).unwrap().get_ids().to_vec();
            assert_eq!(gguf.encode_prompt(&text, Some(false)).unwrap(), expected, "{family:?} {text:?}");
            assert_eq!(json.encode_prompt(&text, Some(false)).unwrap(), expected, "{family:?} {text:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_comes_back_from_every_style(text in prompts()) {
        for (family, tokenizer) in styles() {
            let ids = tokenizer.encode(&text, Some(false)).unwrap();
            prop_assert!(ids.iter().all(|&id| !tokenizer.is_control(id)), "{family:?} {ids:?}");
            prop_assert_eq!(tokenizer.decode(&ids, true).unwrap(), text.clone(), "{:?}", family);
        }
        for tokenizer in both() {
            let ids = tokenizer.encode(&text, Some(false)).unwrap();
            let expected = if tokenizer.strips_space { text.replace('▁', " ") } else { text.clone() };
            prop_assert_eq!(tokenizer.decode(&ids, true).unwrap(), expected);
        }
    }

    /// Cutting SentencePiece text where no token reaches over changes no id: merging it in one piece gives the same.
    #[test]
    fn cuts_between_tokens_change_no_ids(text in prompts()) {
        let Some((tokenizer, oracle)) = phi_3_and_oracle() else { return Ok(()) };
        let expected = oracle.encode(text.as_str(), false).unwrap().get_ids().to_vec();
        prop_assert_eq!(tokenizer.encode_prompt(&text, Some(false)).unwrap(), expected);
    }
}

fn phi_3_and_oracle() -> Option<&'static (Tokenizer, tokenizers::Tokenizer)> {
    static BOTH: OnceLock<Option<(Tokenizer, tokenizers::Tokenizer)>> = OnceLock::new();
    let made = BOTH.get_or_init(|| {
        let bytes = as_json("phi-3-vocab.gguf")?;
        let mut oracle = tokenizers::Tokenizer::from_bytes(&bytes).unwrap();
        oracle.set_encode_special_tokens(false);
        Some((Tokenizer::from_json(&bytes).unwrap(), oracle))
    });
    made.as_ref()
}

#[test]
fn phi_4s_control_tokens_take_the_whitespace_around_them_along() {
    let tokenizer = samples::tokenizer(Family::Phi4);
    let ids = |text: &str| tokenizer.encode_prompt(text, Some(false)).unwrap();
    assert_eq!(
        ids("<|im_start|>user<|im_sep|>\n Hi there \n<|im_end|>\n"),
        ids("<|im_start|>user<|im_sep|>Hi there<|im_end|>")
    );
    let tokenizer = samples::tokenizer(Family::Phi4Mini);
    let ids = |text: &str| tokenizer.encode_prompt(text, Some(false)).unwrap();
    assert_eq!(ids("<|user|>\n Hi <|end|>\n"), ids("<|user|>Hi <|end|>"));
    assert_ne!(ids("<|user|>Hi <|end|>"), ids("<|user|>Hi<|end|>"));
    assert_ne!(ids("<|endoftext|>\nHi"), ids("<|endoftext|>Hi"));
}

#[test]
fn every_end_of_a_turn_stops_in_files_that_name_another() {
    for (family, closers) in [
        (Family::Phi2, &["<|endoftext|>"][..]),
        (Family::Phi4, &["<|endoftext|>", "<|im_end|>"]),
        (Family::Phi4Mini, &["<|endoftext|>", "<|end|>"]),
        (Family::ChatMl, &["<|endoftext|>", "<|im_end|>"]),
    ] {
        // Id 5 is a letter: metadata as wrong as can be. Types as wrong as they have been: user-defined, normal.
        for (eos, kind) in [(Some(5), 3), (None, 4), (Some(5), 1)] {
            let mut source = samples::gguf(family);
            source.ids = KnownIds { eos, ..KnownIds::default() };
            source.types.iter_mut().filter(|old| **old == 3).for_each(|old| *old = kind);
            let tokenizer = Tokenizer::from(source.build().unwrap());
            let ends = tokenizer.end_of_turn_ids(None);
            for closer in closers {
                let id = tokenizer.special_tokens()[*closer];
                assert!(ends.contains(&id) && tokenizer.is_control(id), "{family:?} {closer}");
                assert_eq!(tokenizer.decode(&[id], true).unwrap(), "");
            }
            assert_eq!(ends.len(), closers.len() + usize::from(eos.is_some()), "{family:?} {ends:?}");
        }
        let json = Tokenizer::from_json(&samples::json(family)).unwrap();
        let ends: Vec<String> =
            json.end_of_turn_ids(None).iter().map(|&id| json.token_text(id).unwrap()).collect();
        assert!(closers.iter().all(|closer| ends.iter().any(|end| end == closer)), "{family:?} {ends:?}");
    }
}

#[test]
fn roles_of_tokens_are_those_of_the_file_or_of_the_family() {
    let tokenizer = samples::tokenizer(Family::Phi4);
    let special = |text: &str| tokenizer.special_tokens().get(text).copied();
    assert_eq!(tokenizer.eos_id(), special("<|endoftext|>"));
    assert_eq!(tokenizer.eot_id(), special("<|im_end|>"));
    assert_eq!((tokenizer.unk_id(), tokenizer.pad_id()), (None, None));
    let mut source = samples::gguf(Family::Phi4Mini);
    source.ids = KnownIds { eot: Some(7), unk: Some(8), pad: Some(9), ..source.ids };
    let tokenizer = Tokenizer::from(source.build().unwrap());
    assert_eq!((tokenizer.eot_id(), tokenizer.unk_id(), tokenizer.pad_id()), (Some(7), Some(8), Some(9)));
}
