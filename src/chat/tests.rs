//! Templates of the model families, rendered as transformers renders them, and hostile ones.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;

use super::*;
use crate::error::{ErrorKind, Result};

mod answers;
mod families;
mod turns;

fn none() -> BTreeMap<String, u32> {
    BTreeMap::new()
}

fn render(source: &str, messages: &[Message]) -> Result<String> {
    Ok(ChatTemplate::parse(source, "<s>", "</s>")?.render(messages, true, &none())?.text())
}

fn conversation() -> Vec<Message> {
    vec![
        Message::new("system", "You are brief."),
        Message::new("user", " Hi there \n"),
        Message::new("assistant", "Hello."),
        Message::new("user", "Bye"),
    ]
}

const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const PHI_4: &str = "{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'assistant') %}{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}";

const PHI_4_MINI: &str = "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}";

#[test]
fn the_built_in_template_equals_the_published_one() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/phi-3.5-mini-template.jinja");
    let Ok(source) = std::fs::read_to_string(&path) else {
        println!("SKIPPED: {} is absent", path.display());
        return;
    };
    let published = ChatTemplate::parse(&source, "<s>", "<|endoftext|>").unwrap();
    let own = ChatTemplate::phi3().unwrap();
    let empty_system = [Message::new("system", ""), Message::new("user", "x"), Message::new("tool", "y")];
    for messages in [&conversation()[..], &empty_system, &[], &[Message::new("user", "")]] {
        for add in [true, false] {
            let expected = published.render(messages, add, &none()).unwrap().text();
            assert_eq!(own.render(messages, add, &none()).unwrap().text(), expected, "{messages:?}");
        }
    }
    let haiku = own.render(&[Message::new("user", "Write a haiku about ice hockey")], true, &none()).unwrap();
    assert_eq!(haiku.text(), "<|user|>\nWrite a haiku about ice hockey<|end|>\n<|assistant|>\n");
}

#[test]
fn the_families_templates_render_as_documented() {
    let messages = [Message::new("user", "Hi"), Message::new("assistant", "Yo"), Message::new("user", "é")];
    let smollm = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n<|im_start|>user\né<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(render(CHATML, &messages).unwrap(), smollm);
    let phi_4 = "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>Yo<|im_end|><|im_start|>user<|im_sep|>é<|im_end|><|im_start|>assistant<|im_sep|>";
    assert_eq!(render(PHI_4, &messages).unwrap(), phi_4);
    let phi_4_mini = "<|user|>Hi<|end|><|assistant|>Yo<|end|><|user|>é<|end|><|assistant|>";
    assert_eq!(render(PHI_4_MINI, &messages).unwrap(), phi_4_mini);
    let mut system = Message::new("system", "S");
    system.extra.insert("tools".into(), json!("[]"));
    assert_eq!(render(PHI_4_MINI, &[system]).unwrap(), "<|system|>S<|tool|>[]<|/tool|><|end|><|assistant|>");
}

/// Each row: a template, and what Jinja2 with transformers' settings writes for it.
#[test]
fn python_and_jinja_features_work() {
    let rows = [
        ("{{ '  x '.strip() }}|{{ 'a,b'.split(',')[1] }}|{{ 'abc'.startswith('ab') }}", "x|b|True"),
        (
            "{{ 'aXb'.replace('X', '-') }}|{{ 'abc'.upper() }}|{{ 'a b'.title() }}|{{ ' x'.lstrip() }}",
            "a-b|ABC|A B|x",
        ),
        ("{{ '{} {}'.format('a', 1) }}|{{ '{x}'.format(x='y') }}|{{ '-'.join(['a', 'b']) }}", "a 1|y|a-b"),
        ("{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}", "a1b2"),
        ("{{ {'a': 1}.get('b', 3) }}{{ {'a': 1}.get('b') }}", "3None"),
        (
            "{{ messages[-1]['content'] }}|{{ messages[1:] | length }}|{{ messages[::-1][0].content }}",
            "Bye|3|Bye",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "4",
        ),
        (
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        ("{% if true %}\n  x\n  {% endif %}\ny\n", "  x\ny"),
        ("{%- macro m(x) %}[{{ x }}]{% endmacro -%}{{ m('a') }}{{ bos_token }}{{ eos_token }}", "[a]<s></s>"),
        ("{{ tools is none }}{{ nothing is defined }}{{ tools }}", "TrueFalseNone"),
        (
            "{{ {'ä': [1, 2.5, true, none, '<\\n\"']} | tojson }}",
            "{\"ä\": [1, 2.5, true, null, \"<\\n\\\"\"]}",
        ),
        ("{{ {'b': [], 'a': {}} | tojson(indent=2) }}", "{\n  \"b\": [],\n  \"a\": {}\n}"),
        ("{{ [1, [2]] | tojson(indent=1) }}", "[\n 1,\n [\n  2\n ]\n]"),
        (
            "{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true, ensure_ascii=true, separators=(',', ':')) }}",
            "{\"a\":\"\\u00e9\",\"b\":1}",
        ),
        ("{% generation %}x{% endgeneration %}", ""),
        (
            "{{ 'a' ~ 1 ~ none }}|{{ 7 // 2 }}|{{ 'x' if false else 'y' }}|{{ 'a' in 'cat' }}",
            "a1None|3|y|True",
        ),
    ];
    for (source, expected) in rows {
        if source.contains("generation %}x") {
            // Training-only tag of newer templates; refused for now with the line.
            assert!(matches!(render(source, &[]).unwrap_err().kind(), ErrorKind::Template { line: Some(1) }));
            continue;
        }
        assert_eq!(render(source, &conversation()).unwrap(), expected, "{source}");
    }
    let year = render("{{ strftime_now('%Y') }}", &[]).unwrap();
    assert!(year.parse::<u32>().unwrap() >= 2025, "{year}");
}

#[test]
fn tools_and_extra_fields_reach_the_template() {
    let template = ChatTemplate::parse("{{ tools | tojson }}{{ messages[0].name }}", "", "").unwrap();
    let mut message = Message::new("tool", "");
    message.extra.insert("name".into(), json!("f"));
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {}}});
    let text = template.render_with_tools(&[message], &[tool], true, &none()).unwrap().text();
    assert_eq!(text, r#"[{"type": "function", "function": {"name": "f", "parameters": {}}}]f"#);
}

#[test]
fn a_refusal_says_what_the_template_said() {
    let error = render("a\n{{ raise_exception('Roles must alternate.') }}", &[]).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Template { line: Some(2) });
    assert_eq!(error.message(), "The chat template refuses these messages: Roles must alternate.");
    let error = ChatTemplate::parse("a\nb\n{% if %}", "", "").unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Template { line: Some(3) });
}

/// Attacks: each ends in a `Template` error or in harmless text, on a thread with a small stack.
fn attacks() -> Vec<String> {
    let nested = |open: &str, middle: &str, close: &str, n: usize| open.repeat(n) + middle + &close.repeat(n);
    let mut rows: Vec<String> = [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'].system('id') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.system('id') }}",
        "{% extends 'chat_template' %}",
        "{% include 'chat_template' %}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{{ range(1000000000) | list | length }}",
        "{{ range(1000000000) | sum }}",
        "{{ 'x' * 1000000000 }}",
        "{% set s = 'x' * 1000 %}{{ (s * 1000) * 1000 }}",
        "{{ [0] * 1000000000 }}",
        "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s | length }}",
        "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s | length }}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s | tojson }}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set t = ns.s %}{% set ns.s = ns.s + t %}{% endfor %}{{ ns.s == ns.s }}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = ns.s | chain(ns.s) %}{% endfor %}{{ ns.s | list }}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = [ns.s, ns.s] | sum(start=[]) %}{% endfor %}",
        "{% set ns = namespace(s=(1,)) %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s | list }}",
        "{% set paid = 1 %}{% set paid_ = dict %}{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = ns.s[:] + ns.s | list %}{% endfor %}{{ ns.s in [ns.s] }}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(40) %}{% set ns.s = ns.s | zip(ns.s) | list + ns.s %}{% endfor %}",
        "{% set l = range(9000) | list %}{% for i in range(3000) %}{{ 'a' if l == l | list }}{% endfor %}",
        "{% set s = 'a' * 500000 %}{% for i in range(3000) %}{{ 'a' if s == s + '' }}{% endfor %}",
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{{ 'a' | indent(1000000000) }}",
        "{{ 'a\n' * 10000 | indent(100000) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{a:{b}}'.format(a=1, b=1000000000) }}",
        "{{ ('{0}' * 1000).format('a' * 100000) }}",
        "{{ ('{a}' * 1000).format(a=['a' * 100000] * 100) }}",
        "{{ ('a' * 100000).join('b' * 10000) }}",
        "{{ 'x'.join(['a' * 100000] * 10000) }}",
        "{{ ('a ' * 600000).split() | length }}",
        "{{ 'x'.replace('', 'y' * 1000000) }}",
        "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
        "{{ ('ab' * 100000) | replace('a', 'b' * 100000) }}",
        "{{ ['a' * 100000] * 100000 | join }}",
        "{{ 10 ** 100000000 }}",
        "{{ [1] | batch(1000000000, 'x') | list }}",
        "{{ [1] | slice(1000000000, 'x') | list }}",
        "{{ strftime_now('%Y' * 100000) }}",
        "{{ strftime_now('%999999999Y') }}",
        "{{ 'x' | tojson(indent=1000000000) }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(15000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(15000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(15000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}{{ ns.x == ns.x }}{{ [ns.x] | sort }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(15000) %}{% set ns.x = [ns.x] %}{% endfor %}ok",
        "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{{ raise_exception('x' * 1000000) }}",
        "{{ messages | tojson | tojson | tojson | tojson | tojson | tojson | tojson | tojson }}",
        "{{ debug() }}",
    ]
    .map(str::to_owned)
    .into();
    rows.push(nested("{% if 1 %}", "x", "{% endif %}", 2_000));
    rows.push(nested("{%if 1%}", "x", "", 8_000));
    rows.push(nested("{% for i in [1] %}", "x", "{% endfor %}", 2_000));
    rows.push("{{ ".to_owned() + &nested("(", "1", ")", 30_000) + " }}");
    rows.push("{{ ".to_owned() + &nested("[", "1", "]", 30_000) + " }}");
    rows.push("{{ ".to_owned() + &nested("{1:", "1", "}", 15_000) + " }}");
    rows.push("{{ ".to_owned() + &"not ".repeat(15_000) + "1 }}");
    rows.push("{{ ".to_owned() + &"-".repeat(60_000) + "1 }}");
    rows.push("{{ ".to_owned() + &"1+".repeat(30_000) + "1 }}");
    rows.push("{{ 1".to_owned() + &"|abs".repeat(15_000) + " }}");
    rows.push("{{ x".to_owned() + &".a".repeat(30_000) + " }}");
    rows.push("{{ x".to_owned() + &"[0]".repeat(20_000) + " }}");
    rows.push("{{ 1 ".to_owned() + &"if 1 else 1 ".repeat(5_000) + " }}");
    // As deep as the limits allow: these must fit the stack.
    for use_of_it in [
        "{{ ns.x | tojson }}",
        "{{ ns.x }}",
        "{{ ns.x == [ns.x] }}",
        "{{ {ns.x: 1} }}",
        "ok",
        "{{ ns.x | string }}",
    ] {
        let deep =
            "{% set ns = namespace(x=[]) %}{% for i in range(2200) %}{% set ns.x = [ns.x] %}{% endfor %}";
        rows.push(deep.to_owned() + use_of_it);
        let lazy =
            "{% set ns = namespace(x=[1]) %}{% for i in range(1500) %}{% set ns.x = ns.x[0:] %}{% endfor %}";
        rows.push(lazy.to_owned() + use_of_it);
        let sums = "{% set ns = namespace(x=[1]) %}{% for i in range(1500) %}{% set ns.x = ns.x + [1] %}{% endfor %}";
        rows.push(sums.to_owned() + use_of_it);
    }
    rows.push("{{ ".to_owned() + &"-".repeat(4_000) + "1 }}");
    rows.push("{{ ".to_owned() + &"not ".repeat(4_000) + "1 }}");
    rows.push("{{ ".to_owned() + &"1+".repeat(2_000) + "1 }}");
    rows.push("{{ ".to_owned() + &"1~".repeat(2_000) + "1 }}");
    rows.push("{{ ".to_owned() + &"2**".repeat(1_300) + "1 }}");
    rows.push("{{ 1".to_owned() + &"|abs".repeat(2_000) + " }}");
    rows.push("{{ x".to_owned() + &".a".repeat(2_000) + " }}");
    rows.push("{{ x".to_owned() + &"[0]".repeat(1_300) + " }}");
    rows.push("{{ 1 ".to_owned() + &"if 1 else 1 ".repeat(1_000) + " }}");
    rows.push("{{ 1 ".to_owned() + &"is not none ".repeat(1_000) + " }}");
    rows.push("{% set x = 'a' %}".to_owned() + &"{% set x = x ~ x %}".repeat(3_000) + "{{ x }}");
    rows.push("{{ '".to_owned() + &"x".repeat(60_000) + "' * 9999999 }}");
    rows
}

#[test]
fn attacks_end_in_an_error_or_in_harmless_text() {
    let run = || {
        let mut refused = 0;
        for attack in attacks() {
            let head: String = attack.chars().take(80).collect();
            let start = Instant::now();
            let messages = [Message::new("user", "x")];
            match render(&attack, &messages) {
                Ok(text) => {
                    println!("text {:>8} {:>6.1?} {head}", text.len(), start.elapsed());
                    assert!(text.len() < 1 << 20 && !text.contains("Environment"), "{head}");
                    assert!(!text.contains("root:") && !text.contains("uid="), "{head}");
                }
                Err(error) => {
                    refused += 1;
                    println!("refused       {:>6.1?} {head}: {}", start.elapsed(), error.message());
                    assert!(matches!(error.kind(), ErrorKind::Template { .. }), "{head}: {error:?}");
                }
            }
        }
        refused
    };
    let small = std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap();
    assert!(small.join().unwrap() >= 40);
}

#[test]
fn sources_and_outputs_have_limits() {
    let error = ChatTemplate::parse(&"x".repeat(65_537), "", "").unwrap_err();
    assert!(error.message().contains("65537"), "{error}");
    let long = ChatTemplate::parse(&"x".repeat(65_536), "", "").unwrap();
    assert_eq!(long.render(&[], true, &none()).unwrap().text().len(), 65_536);
    let many = "{% for i in range(1000) %}{{ x }}{% endfor %}".replace("{{ x }}", &"y".repeat(4_000));
    assert!(matches!(render(&many, &[]).unwrap_err().kind(), ErrorKind::Template { .. }));
    // A megabyte of conversation is fine.
    let big = Message::new("user", "word ".repeat(200_000));
    let prompt = ChatTemplate::phi3().unwrap().render(&[big], true, &none()).unwrap();
    assert!(prompt.text().len() > 1_000_000);
}
