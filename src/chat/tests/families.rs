//! The published templates of the family, the built-in ones beside them, tools, and messages that would forge turns.

use proptest::prelude::*;
use serde_json::json;

use super::super::*;
use super::{PHI_4, PHI_4_MINI, none};
use crate::error::ErrorKind;
use crate::tokenizer::{Family, Tokenizer, samples};

/// As the `tokenizer_config.json` of each model has it (MIT, Microsoft). Phi-3.5's is compared in `tests.rs`.
const PHI_3_MINI: &str = "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}";
const PHI_3_MEDIUM: &str = "{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}";

fn turns(rows: &[(&str, &str)]) -> Vec<Message> {
    rows.iter().map(|&(role, content)| Message::new(role, content)).collect()
}

fn text(template: &ChatTemplate, messages: &[Message], add: bool) -> String {
    template.render(messages, add, &none()).unwrap().text()
}

fn built_in(family: Family) -> (Tokenizer, ChatTemplate) {
    let tokenizer = samples::tokenizer(family);
    let template = ChatTemplate::built_in(&tokenizer, None).unwrap();
    (tokenizer, template)
}

/// Worked out by hand from the model cards.
#[test]
fn published_templates_write_the_turns_of_the_model_cards() {
    let talk = turns(&[("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V")]);
    for (source, expected) in [
        (
            PHI_3_MINI,
            "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n<|assistant|>\n",
        ),
        // Phi-3-medium's has no system turn, and opens the answer by itself.
        (PHI_3_MEDIUM, "<|user|>\nU<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nV<|end|>\n<|assistant|>\n"),
        (
            PHI_4,
            "<|im_start|>system<|im_sep|>S<|im_end|><|im_start|>user<|im_sep|>U<|im_end|><|im_start|>assistant<|im_sep|>A<|im_end|><|im_start|>user<|im_sep|>V<|im_end|><|im_start|>assistant<|im_sep|>",
        ),
        (PHI_4_MINI, "<|system|>S<|end|><|user|>U<|end|><|assistant|>A<|end|><|user|>V<|end|><|assistant|>"),
    ] {
        let template = ChatTemplate::parse(source, "<s>", "<|endoftext|>").unwrap();
        assert_eq!(text(&template, &talk, true), expected);
    }
}

#[test]
fn built_in_templates_equal_the_published_ones() {
    let talks = [
        turns(&[("system", "S"), ("user", " U\n"), ("assistant", "A"), ("user", "V")]),
        turns(&[("user", "")]),
        turns(&[("user", "U"), ("assistant", "<|im_end|>")]),
        Vec::new(),
    ];
    for (family, source) in [(Family::Phi4, PHI_4), (Family::Phi4Mini, PHI_4_MINI)] {
        let (tokenizer, own) = built_in(family);
        let published = ChatTemplate::of(source, &tokenizer).unwrap();
        for talk in &talks {
            for add in [true, false] {
                assert_eq!(text(&own, talk, add), text(&published, talk, add), "{family:?} {talk:?}");
            }
        }
    }
    let phi_3 = ChatTemplate::parse(PHI_3_MINI, "<s>", "<|endoftext|>").unwrap();
    for talk in &talks {
        assert_eq!(text(&ChatTemplate::phi3().unwrap(), talk, true), text(&phi_3, talk, true));
    }
}

#[test]
fn phi_2_is_asked_as_its_model_card_says() {
    let (_, template) = built_in(Family::Phi2);
    let question = turns(&[("user", "Write a haiku.")]);
    assert_eq!(text(&template, &question, true), "Instruct: Write a haiku.\nOutput:");
    let talk = turns(&[("system", "Be brief."), ("user", "Hi"), ("assistant", "Yo"), ("user", "Bye")]);
    assert_eq!(text(&template, &talk, true), "Be brief.\nInstruct: Hi\nOutput: Yo\nInstruct: Bye\nOutput:");
}

#[test]
fn a_vocabulary_without_turns_refuses_messages_unless_the_architecture_is_phi_2s() {
    let json =
        r#"{"decoder": {"type": "ByteLevel"}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#;
    let tokenizer = Tokenizer::from_json(json.as_bytes()).unwrap();
    let refusing = ChatTemplate::built_in(&tokenizer, Some("llama")).unwrap();
    let error = refusing.render(&turns(&[("user", "a")]), true, &none()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Template { .. }));
    assert!(error.message().contains("no chat template") && error.message().contains("raw text"), "{error}");
    let phi_2 = ChatTemplate::built_in(&tokenizer, Some("phi2")).unwrap();
    assert_eq!(text(&phi_2, &turns(&[("user", "a")]), true), "Instruct: a\nOutput:");
}

#[test]
fn phi_4_minis_tools_go_into_the_system_message() {
    let template = ChatTemplate::parse(PHI_4_MINI, "", "<|endoftext|>").unwrap();
    let function = json!({"name": "get_weather", "description": "Weather of a city", "parameters": {"city": {"type": "str", "default": "London"}}});
    let wrapped = json!({"type": "function", "function": function});
    // As the model card prints it.
    let listed = r#"[{"name": "get_weather", "description": "Weather of a city", "parameters": {"city": {"type": "str", "default": "London"}}}]"#;
    for tool in [function, wrapped] {
        let render = |messages: &[Message]| {
            template.render_with_tools(messages, std::slice::from_ref(&tool), true, &none()).unwrap().text()
        };
        assert_eq!(
            render(&turns(&[("system", "Help."), ("user", "Paris?")])),
            format!("<|system|>Help.<|tool|>{listed}<|/tool|><|end|><|user|>Paris?<|end|><|assistant|>")
        );
        assert_eq!(
            render(&turns(&[("user", "Paris?")])),
            format!("<|system|><|tool|>{listed}<|/tool|><|end|><|user|>Paris?<|end|><|assistant|>")
        );
        let mut own = turns(&[("system", "Help."), ("user", "x")]);
        own[0].extra.insert("tools".into(), json!("mine"));
        assert_eq!(render(&own), "<|system|>Help.<|tool|>mine<|/tool|><|end|><|user|>x<|end|><|assistant|>");
    }
    let (_, built_in) = built_in(Family::Phi4Mini);
    let tool = json!({"name": "f"});
    assert_eq!(
        built_in.render_with_tools(&turns(&[("user", "x")]), &[tool], true, &none()).unwrap().text(),
        r#"<|system|><|tool|>[{"name": "f"}]<|/tool|><|end|><|user|>x<|end|><|assistant|>"#
    );
}

#[test]
fn tools_that_a_template_would_drop_are_an_error() {
    for source in [PHI_3_MINI, PHI_4] {
        let template = ChatTemplate::parse(source, "", "").unwrap();
        let error = template
            .render_with_tools(&turns(&[("user", "x")]), &[json!({"name": "f"})], true, &none())
            .unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Template { .. }), "{error:?}");
    }
    let reads = "{% if tools %}{{ tools | length }}{% endif %}{{ messages[0]['tools'] is defined }}";
    let template = ChatTemplate::parse(reads, "", "").unwrap();
    let tools = [json!({"name": "f"}), json!({"name": "g"})];
    let rendered = template.render_with_tools(&turns(&[("system", "x")]), &tools, true, &none()).unwrap();
    assert_eq!(rendered.text(), "2False");
}

/// Content that begins, ends, or is a control token of any of the families.
fn contents() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        2 => prop::sample::select(vec![
            "<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|user|>", "<|end|>", "<|assistant|>", "<|tool|>", "<|/tool|>",
            "<|endoftext|>", "<|im_", "start|>", "<|", "|>", "<", ">", "im_end|>", "<|end",
        ]).prop_map(str::to_owned),
        1 => "[ \\n]{1,2}",
        1 => "[a-z]{0,4}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The ids of a conversation hold exactly the template's own control tokens, whatever its messages and tools say.
    #[test]
    fn no_message_and_no_tool_forges_a_turn(first in contents(), second in contents(), about in contents()) {
        for (family, expected) in [
            (Family::Phi2, &[][..]),
            (Family::Phi4, &["<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|im_start|>", "<|im_sep|>"]),
            (Family::Phi4Mini, &["<|system|>", "<|tool|>", "<|/tool|>", "<|end|>", "<|user|>", "<|end|>", "<|assistant|>"]),
            (Family::ChatMl, &["<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>", "<|im_start|>"]),
        ] {
            let (tokenizer, template) = built_in(family);
            let messages = turns(&[("system", &first), ("user", &second)]);
            let tool = [json!({"name": about.as_str(), "parameters": {about.as_str(): about.as_str()}})];
            let tools = if family == Family::Phi4Mini { &tool[..] } else { &[] };
            let rendered = template.render_with_tools(&messages, tools, true, tokenizer.special_tokens()).unwrap();
            let ids = tokenizer.encode_rendered(&rendered, Some(false)).unwrap();
            let control: Vec<String> =
                ids.iter().filter(|&&id| tokenizer.is_control(id)).map(|&id| tokenizer.token_text(id).unwrap()).collect();
            prop_assert_eq!(control, expected, "{:?}", family);
            prop_assert!(rendered.text().contains(&second));
        }
    }
}
