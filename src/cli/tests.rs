//! Commands against buffers: what goes where, and with which exit code.

mod chat;
mod perplexity;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use serde_json::Value;

use super::args::{Arguments, Command};
use super::console::Console;
use super::interrupt::Interrupts;
use super::{Demo, USAGE, execute};
use crate::sampling::{Overflow, SamplingParams};

/// The demo model; `None`, with a word about it, where it has not been trained.
fn demo() -> Option<Demo> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/phicandle/demo.gguf");
    if path.exists() {
        return Some(Demo::File(path));
    }
    println!("SKIPPED: there is no demo model at {}", path.display());
    None
}

fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED: there is no {}", path.display());
    None
}

/// What a command did.
#[derive(Debug, PartialEq)]
struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Done {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// How the streams of a command are.
#[derive(Default)]
struct Setting {
    terminal: bool,
    colour: bool,
    interrupts: Arc<Interrupts>,
}

fn with(setting: &Setting, demo: &Demo, args: &[&str], input: &[u8], out: &mut dyn Write) -> (i32, String) {
    let mut err = Vec::new();
    let arguments = Arguments::try_parse_from([&["phicandle"], args].concat()).unwrap();
    let mut console = Console {
        input: &mut &*input,
        out,
        err: &mut err,
        input_terminal: setting.terminal,
        out_terminal: setting.terminal,
        // A spinner would draw on the real one.
        err_terminal: false,
        colour: setting.colour,
        quiet: false,
        interrupts: Arc::clone(&setting.interrupts),
    };
    let code = execute(arguments, demo, &mut console);
    (code, String::from_utf8(err).unwrap())
}

fn at(setting: &Setting, demo: &Demo, args: &[&str], input: &str) -> Done {
    let mut out = Vec::new();
    let (code, err) = with(setting, demo, args, input.as_bytes(), &mut out);
    Done { code, out: String::from_utf8(out).unwrap(), err }
}

/// Runs a command whose streams are pipes.
fn piped(demo: &Demo, args: &[&str], input: &str) -> Done {
    at(&Setting::default(), demo, args, input)
}

/// Runs a command that needs no model.
fn bare(args: &[&str], input: &str) -> Done {
    piped(&Demo::Bytes(b""), args, input)
}

const ASK: &str = "Write a haiku about rain";

#[test]
fn the_arguments_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn flags_default_to_the_parameters_defaults_but_for_the_length() {
    let Command::Run(args) = Arguments::try_parse_from(["phicandle", "run"]).unwrap().command else {
        panic!()
    };
    let expected = SamplingParams { max_tokens: None, ..Default::default() };
    assert_eq!(args.sampling.params(Overflow::Error).unwrap(), expected);
}

#[test]
fn the_window_is_the_files_unless_it_is_turned_off() {
    for (flags, expected) in [(&[][..], false), (&["--no-sliding-window"], true)] {
        let line = [&["phicandle", "run"], flags].concat();
        let Command::Run(args) = Arguments::try_parse_from(line).unwrap().command else { panic!() };
        assert_eq!(args.engine.no_sliding_window, expected);
    }
}

#[test]
fn every_sampling_flag_reaches_its_parameter() {
    let line = "phicandle run -n 7 --temp 0.5 --top-k 4 --top-p 0.9 --min-p 0.1 --typical-p 0.8 --repeat-penalty 1.5 \
                --repeat-last-n 9 --presence-penalty -1 --frequency-penalty -0.5 --logit-bias 3=-100 --logit-bias 4=2.5 \
                --seed 11 --stop a --stop b --stop-token-id 5 --include-stop --ignore-eos --min-tokens 2 --timeout 1.5 --overflow truncate_middle";
    let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
    let Command::Run(args) = arguments.command else { panic!() };
    let expected = SamplingParams {
        max_tokens: Some(7),
        temperature: 0.5,
        top_k: Some(4),
        top_p: Some(0.9),
        min_p: Some(0.1),
        typical_p: Some(0.8),
        repeat_penalty: 1.5,
        repeat_last_n: 9,
        presence_penalty: -1.0,
        frequency_penalty: -0.5,
        logit_bias: vec![(3, -100.0), (4, 2.5)],
        seed: Some(11),
        stop: vec!["a".into(), "b".into()],
        stop_token_ids: vec![5],
        include_stop: true,
        ignore_eos: true,
        min_tokens: 2,
        logprobs: None,
        prompt_logprobs: None,
        timeout: Some(std::time::Duration::from_millis(1500)),
        overflow: Overflow::TruncateMiddle,
        priority: 0,
    };
    assert_eq!(args.sampling.params(Overflow::Error).unwrap(), expected);
}

#[test]
fn run_writes_text_to_stdout_and_nothing_else() {
    let Some(demo) = demo() else { return };
    let args = ["run", "-m", "demo", "-n", "20", "--seed", "7", ASK];
    let first = piped(&demo, &args, "");
    assert_eq!(first.code, 0, "{first:?}");
    assert!(first.out.trim().len() > 3 && first.out.ends_with('\n'), "{first:?}");
    assert!(first.err.is_empty() || first.err == "(cut at the length limit)\n", "{first:?}");
    assert_eq!(piped(&demo, &args, ""), first, "the same seed gives the same text");
}

#[test]
fn run_reads_standard_input() {
    let Some(demo) = demo() else { return };
    let asked =
        piped(&demo, &["run", "-m", "demo", "-n", "12", "--seed", "1", "Write a haiku about", "rain"], "");
    for args in [
        ["run", "-m", "demo", "-n", "12", "--seed", "1", "-"].as_slice(),
        &["run", "-m", "demo", "-n", "12", "--seed", "1"],
    ] {
        assert_eq!(piped(&demo, args, "Write a haiku about rain\n"), asked);
    }
}

#[test]
fn run_json_is_one_object_with_the_same_text() {
    let Some(demo) = demo() else { return };
    let flags = ["run", "-m", "demo", "-n", "15", "--seed", "3", ASK];
    let text = piped(&demo, &flags, "").out;
    let done = piped(&demo, &[&flags[..], &["--json", "--stats"]].concat(), "");
    let object = done.json();
    assert_eq!(object["text"].as_str().unwrap().trim_end(), text.trim_end());
    assert_eq!(object["seed"], 3);
    assert!(["stop", "length"].contains(&object["finish_reason"].as_str().unwrap()));
    let usage = &object["usage"];
    assert_eq!(
        usage["total_tokens"].as_u64(),
        Some(usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap())
    );
    assert!(object["metrics"]["total_s"].as_f64().unwrap() > 0.0);
    assert!(done.err.contains("seed 3"), "{done:?}");
}

#[test]
fn run_takes_the_systems_word_or_raw_text() {
    let Some(demo) = demo() else { return };
    let tokens = |args: &[&str]| {
        let done = piped(&demo, &[&["run", "-m", "demo", "-n", "1", "--json"], args].concat(), "");
        done.json()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let (plain, raw) = (tokens(&[ASK]), tokens(&["--raw", ASK]));
    assert!(raw < plain, "the template adds tokens");
    assert!(tokens(&["-s", "Be brief.", ASK]) > plain, "a system message adds tokens");
    // The tutorial's prompt is what the template makes of its sentence.
    assert_eq!(tokens(&["<|user|>\nWrite a haiku about rain<|end|>\n<|assistant|>\n"]), plain);
}

#[test]
fn a_parameter_out_of_range_is_wrong_usage() {
    let Some(demo) = demo() else { return };
    for (flags, name) in [
        (["--top-p", "2"], "top_p"),
        (["--temperature", "-1"], "temperature"),
        (["--timeout", "-3"], "timeout"),
        (["--device", "tpu"], "device"),
        (["--backend", "magic"], "backend"),
        (["--memory", "swap"], "memory"),
        (["--kv-dtype", "q8_0"], "kv_dtype"),
        (["--threads", "0"], "threads"),
        (["--filename", "x.gguf"], "--filename"),
        (["-n", "0"], "max_tokens"),
    ] {
        let done = piped(&demo, &[&["run", "-m", "demo", ASK], &flags[..]].concat(), "");
        assert_eq!(done.code, USAGE, "{done:?}");
        assert!(done.err.starts_with("error: ") && done.err.contains("\nhint:  "), "{done:?}");
        assert!(done.err.contains(name), "{done:?}");
        assert_eq!(done.out, "");
    }
    let empty = piped(&demo, &["run", "-m", "demo"], "");
    assert_eq!(empty.code, USAGE, "{empty:?}");
}

#[test]
fn failures_have_their_codes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("text.gguf"), "This is no model.").unwrap();
    let cache = path("cache");
    let cases: [(&[&str], i32, &str); 5] = [
        (&["run", "-m", &path("absent.gguf"), "x"], 3, "--model demo"),
        (&["run", "-m", folder.path().to_str().unwrap(), "x"], 3, "folder"),
        (&["run", "-m", &path("text.gguf"), "x"], 4, "hint:"),
        (&["show", &path("text.gguf")], 4, "hint:"),
        (&["run", "-m", "owner/none", "--offline", "--cache-dir", &cache, "x"], 3, "--model demo"),
    ];
    for (args, code, text) in cases {
        let done = bare(args, "");
        assert_eq!(done.code, code, "{args:?} {done:?}");
        assert!(done.err.contains(text), "{args:?} {done:?}");
        assert_eq!(done.out, "");
    }
    let done = bare(&["show", "owner/none", "--offline", "--cache-dir", &cache], "");
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.err.contains("phicandle pull"), "{done:?}");
}

#[test]
fn time_that_runs_out_has_its_code() {
    let Some(demo) = demo() else { return };
    let done = piped(&demo, &["run", "-m", "demo", "--timeout", "0.000001", ASK], "");
    assert_eq!(done.code, 124, "{done:?}");
    assert!(done.err.contains("time ran out"), "{done:?}");
}

#[test]
fn input_that_is_not_text_is_refused() {
    let mut out = Vec::new();
    let (code, err) =
        with(&Setting::default(), &Demo::Bytes(b""), &["tokenize", "-m", "demo"], b"ab\xff\n", &mut out);
    assert_eq!(code, USAGE);
    assert!(err.contains("byte 2"), "{err}");
}

/// Answers the given number of writes, then behaves like a closed pipe.
struct Closing(usize);

impl Write for Closing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                Ok(bytes.len())
            }
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let Some(demo) = demo() else { return };
    for args in [
        ["run", "-m", "demo", "-n", "40", ASK].as_slice(),
        &["show", "demo"],
        &["tokenize", "-m", "demo", ASK],
    ] {
        for writes in 0..2 {
            let (code, err) = with(&Setting::default(), &demo, args, b"", &mut Closing(writes));
            assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        }
    }
}

/// Presses Ctrl-C when the first text arrives.
struct Pressing<'a> {
    interrupts: &'a Interrupts,
    text: Vec<u8>,
}

impl Write for Pressing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.is_empty() {
            self.interrupts.press();
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const ENDLESS: [&str; 4] = ["-m", "demo", "--ignore-eos", "--seed=1"];

#[test]
fn ctrl_c_ends_a_run_with_its_text() {
    let Some(demo) = demo() else { return };
    let setting = Setting::default();
    let mut out = Pressing { interrupts: &setting.interrupts, text: Vec::new() };
    let (code, err) = with(&setting, &demo, &[&["run", ASK][..], &ENDLESS].concat(), b"", &mut out);
    assert_eq!(code, 130, "{err}");
    assert!(!out.text.is_empty() && err.contains("(stopped)"), "{err}");
}

#[test]
fn ctrl_c_stops_an_answer_and_not_the_chat() {
    let Some(demo) = demo() else { return };
    let setting = Setting { terminal: true, ..Setting::default() };
    let mut out = Pressing { interrupts: &setting.interrupts, text: Vec::new() };
    let input = b"a haiku about rain\n/stats\n/quit\n";
    let (code, err) = with(&setting, &demo, &[&["chat"][..], &ENDLESS].concat(), input, &mut out);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("(stopped)") && err.contains("· cancelled ·"), "{err}");
}

#[test]
fn colours_are_for_terminals() {
    let setting = Setting { colour: true, ..Setting::default() };
    let done = at(&setting, &Demo::Bytes(b""), &["show", "absent.gguf"], "");
    assert!(done.err.starts_with("\x1b[1;31merror:\x1b[0m "), "{done:?}");
    assert!(bare(&["show", "absent.gguf"], "").err.starts_with("error: "));
}

#[test]
fn a_models_text_cannot_steer_a_terminal() {
    let mut out = Vec::new();
    let mut console = Console {
        input: &mut io::empty(),
        out: &mut out,
        err: &mut io::sink(),
        input_terminal: false,
        out_terminal: true,
        err_terminal: false,
        colour: false,
        quiet: true,
        interrupts: Arc::default(),
    };
    console.emit("a\x1b]0;x\x07\tb\u{9b}2J\r\nc").unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "a\u{fffd}]0;x\u{fffd}\tb\u{fffd}2J\u{fffd}\nc");
}

#[test]
fn tokenize_gives_the_published_ids() {
    let (Some(vocabulary), Some(cases)) = (shared("phi-3-vocab.gguf"), shared("phi-3-tokens.json")) else {
        return;
    };
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(cases).unwrap()).unwrap();
    let cases = cases.as_array().cloned().unwrap_or_default();
    assert!(!cases.is_empty());
    for case in cases {
        let (text, ids) = (case["text"].as_str().unwrap(), &case["ids"]);
        // A newline goes along, since one at the end of the input is dropped.
        let done = bare(
            &["tokenize", "-m", vocabulary.to_str().unwrap(), "--no-bos", "--json"],
            &format!("{text}\n"),
        );
        assert_eq!(&done.json()["ids"], ids, "{text:?}");
        assert_eq!(done.json()["count"].as_u64().unwrap() as usize, ids.as_array().unwrap().len());
    }
}

#[test]
fn tokenize_shows_a_line_for_each_token() {
    let Some(demo) = demo() else { return };
    let count = |args: &[&str]| {
        let done = piped(&demo, &[&["tokenize", "-m", "demo", "--no-bos"], args].concat(), "");
        assert_eq!(done.code, 0, "{done:?}");
        let lines = done.out.lines().count();
        assert!(done.err.starts_with(&format!("{lines} token")), "{done:?}");
        lines
    };
    assert_eq!(count(&["--raw", "<|user|>"]), 1);
    assert!(count(&["<|user|>"]) > 1, "without --raw it is plain text");
}

#[test]
fn show_tells_what_runs() {
    let Some(demo) = demo() else { return };
    let done = piped(&demo, &["show", "demo", "--json", "--tensors"], "");
    let object = done.json();
    assert_eq!((done.code, &object["runs"]), (0, &Value::Bool(true)), "{done:?}");
    assert_eq!(object["model"]["architecture"], "phi3");
    let tensors = object["tensors"].as_array().unwrap();
    let of_types: u64 =
        object["types"].as_array().unwrap().iter().map(|kind| kind["tensors"].as_u64().unwrap()).sum();
    assert_eq!(tensors.len() as u64, of_types);
    assert_eq!(object["memory"]["fits"], true);
    let text = piped(&demo, &["show", "demo"], "");
    for part in ["phi3,", "Tensors", "Memory at a context", "Metadata", "general.architecture"] {
        assert!(text.out.contains(part), "{part} is missing: {}", text.out);
    }
    let template = piped(&demo, &["show", "demo", "--template"], "");
    assert!(template.out.contains("{%"), "{template:?}");
}

#[test]
fn show_tells_what_does_not_run() {
    let Some(vocabulary) = shared("phi-3-vocab.gguf") else { return };
    let done = bare(&["show", vocabulary.to_str().unwrap(), "--json"], "");
    assert_eq!((done.code, &done.json()["runs"]), (0, &Value::Bool(false)), "{done:?}");
    assert!(done.json()["refusal"]["message"].as_str().unwrap().len() > 10);
    let done = bare(&["show", vocabulary.to_str().unwrap()], "");
    assert!(
        done.err.contains("does not run here:") && done.out.contains("tokenizer.ggml.tokens"),
        "{done:?}"
    );
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache with one model of five bytes.
fn cache() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let repo = folder.path().join("models--owner--name");
    std::fs::create_dir_all(repo.join("snapshots").join(COMMIT)).unwrap();
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("snapshots").join(COMMIT).join("x-Q4_0.gguf"), "12345").unwrap();
    std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
    folder
}

#[test]
fn list_shows_the_cache() {
    let cache = cache();
    let folder = cache.path().to_str().unwrap();
    let done = bare(&["list", "--cache-dir", folder], "");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.out.contains("owner/name") && done.out.contains("x-Q4_0.gguf") && done.out.contains("5 B"),
        "{done:?}"
    );
    let done = bare(&["ls", "--json", "--cache-dir", folder], "");
    assert_eq!(done.json()[0]["repo"], "owner/name");
    assert_eq!(done.json()[0]["bytes"], 5);
    let empty = tempfile::tempdir().unwrap();
    let done = bare(&["list", "--json", "--cache-dir", empty.path().to_str().unwrap()], "");
    assert_eq!(done.out, "[]\n");
}

#[test]
fn rm_asks_first() {
    let cache = cache();
    let folder = cache.path().to_str().unwrap();
    let args = ["rm", "owner/name", "--cache-dir", folder];
    let terminal = Setting { terminal: true, ..Setting::default() };
    let there = || cache.path().join("models--owner--name").exists();

    let done = bare(&args, "y\n");
    assert_eq!(done.code, USAGE, "{done:?}");
    assert!(done.err.contains("--yes") && there());
    let done = at(&terminal, &Demo::Bytes(b""), &args, "\n");
    assert!(done.code == 1 && there() && done.err.contains("(5 B)"), "{done:?}");
    let done = at(&terminal, &Demo::Bytes(b""), &args, "y\n");
    assert!(done.code == 0 && !there(), "{done:?}");
    let done = bare(&[&args[..], &["--yes"]].concat(), "");
    assert_eq!(done.code, 3, "{done:?}");
}

#[test]
fn pull_of_the_demo_needs_no_hub() {
    let done = bare(&["pull", "demo"], "");
    assert_eq!((done.code, done.out.as_str()), (0, ""), "{done:?}");
}

#[test]
fn doctor_reports() {
    let cache = cache();
    let args = ["doctor", "--offline", "--cache-dir", cache.path().to_str().unwrap()];
    let done = bare(&[&args[..], &["--json"]].concat(), "");
    let object = done.json();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(object["cpu"]["threads"].as_u64().unwrap() >= 1);
    assert_eq!(object["hub"]["models"], 1);
    assert_eq!(object["hub"]["reachable"], false);
    assert!(object["memory"]["available"].as_u64().unwrap() > 0);
    let done = bare(&args, "");
    assert!(done.out.contains("tier") && done.out.ends_with("Models run here.\n"), "{done:?}");
}

#[test]
fn bench_measures_what_it_is_asked_for() {
    let Some(demo) = demo() else { return };
    let args = ["bench", "demo", "-p", "16,99999", "-n", "4", "-r", "2", "--no-limits"];
    let done = piped(&demo, &args, "");
    assert_eq!(done.code, 0, "{done:?}");
    for part in
        ["parameters", "prefill 16 ", "decode 4 ", "between passes", "load ", "Memory at a context of 16"]
    {
        assert!(done.out.contains(part), "{part} is missing: {}", done.out);
    }
    assert!(!done.out.contains("check ") && !done.out.contains("decode 4 at"), "{done:?}");
    assert!(done.err.contains("Left out: prefill 99999."), "{done:?}");
    assert_eq!(piped(&demo, &["bench", "demo", "-r", "0"], "").code, USAGE);
}

#[test]
fn ctrl_c_ends_a_bench_with_what_was_measured() {
    let Some(demo) = demo() else { return };
    let setting = Setting::default();
    let guard = setting.interrupts.answering();
    setting.interrupts.press();
    drop(guard);
    let done = at(&setting, &demo, &["bench", "demo", "-n", "4", "--no-limits", "--json"], "");
    assert_eq!((done.code, &done.json()["interrupted"]), (130, &Value::Bool(true)), "{done:?}");
}
