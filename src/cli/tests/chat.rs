//! `phicandle chat`.

use super::*;

#[test]
fn a_chat_in_a_pipe_writes_answers_only() {
    let Some(demo) = demo() else { return };
    let input = "a haiku about rain\n\n\"\"\"\na haiku\nabout snow\n\"\"\"\n";
    let done = piped(&demo, &["chat", "-m", "demo", "-n", "12", "--seed", "5"], input);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!done.err.contains(">>>") && !done.out.contains(">>>"), "{done:?}");
    assert!(done.out.lines().count() >= 2, "two answers: {done:?}");
}

#[test]
fn a_chat_at_a_terminal_greets_prompts_and_obeys() {
    let Some(demo) = demo() else { return };
    let setting = Setting { terminal: true, ..Setting::default() };
    let input = "/help\n/stats\n/system\n/system Be brief.\n/system\nrain\n/stats\n/reset\n/nonsense\n/quit\nnot read\n";
    let done = at(&setting, &demo, &["chat", "-m", "demo", "-n", "6", "--seed", "5"], input);
    assert_eq!(done.code, 0, "{done:?}");
    for text in [
        "context",
        "/help lists",
        ">>> ",
        "/system TEXT",
        "(no answer yet)",
        "(no system message)",
        "\nBe brief.\n",
        "seed 5",
        "(a new conversation)",
        "no command /nonsense",
    ]
    .map(|text| text.trim_matches('\n'))
    {
        assert!(done.err.contains(text), "{text} is missing: {}", done.err);
    }
    assert_eq!(done.err.matches(">>> ").count(), 10, "{}", done.err);
    assert!(!done.err.contains('\x1b') && !done.out.contains('\x1b'), "colours were not asked for");
}

#[test]
fn a_chat_remembers_and_forgets() {
    let Some(demo) = demo() else { return };
    let setting = Setting { terminal: true, ..Setting::default() };
    let prompts = |input: &str| -> Vec<usize> {
        let done = at(&setting, &demo, &["chat", "-m", "demo", "-n", "6", "--seed", "5"], input);
        let number = |line: &str| line.split("prompt ").nth(1)?.split(' ').next()?.parse().ok();
        done.err.lines().filter_map(number).collect()
    };
    let counts = prompts("rain\n/stats\nrain\n/stats\n/reset\nrain\n/stats\n");
    let [first, second, third] = counts[..] else { panic!("{counts:?}") };
    assert!(second > first, "the second turn holds the first");
    assert_eq!(third, first, "nothing is left after /reset");
}

#[test]
fn a_full_context_does_not_end_a_chat_at_a_terminal() {
    let Some(demo) = demo() else { return };
    let long = "rain ".repeat(300);
    let args = ["chat", "-m", "demo", "-n", "4", "-c", "64"];
    let done = at(
        &Setting { terminal: true, ..Setting::default() },
        &demo,
        &args,
        &format!("{long}\nrain\n/stats\n"),
    );
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.err.contains("Send the message in smaller parts") && done.err.contains("prompt "),
        "{done:?}"
    );
    let done = piped(&demo, &args, &format!("{long}\nrain\n"));
    assert_eq!((done.code, done.out.as_str()), (1, ""), "a script learns of it");
}

#[test]
fn a_long_chat_goes_on_without_its_oldest_turns_and_says_so() {
    let Some(demo) = demo() else { return };
    let setting = Setting { terminal: true, ..Setting::default() };
    let input = "a haiku about rain and snow\n".repeat(12) + "/stats\n";
    let args = ["chat", "-m", "demo", "-n", "8", "-c", "64", "--seed", "5"];
    let done = at(&setting, &demo, &args, &input);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.err.contains("(the context is full: the oldest turn, "), "{done:?}");
    assert!(done.err.contains(" oldest turns, "), "{done:?}");
    // Without leave to drop any, the chat says that it is full.
    let done = at(&setting, &demo, &[&args[..], &["--overflow", "error"]].concat(), &input);
    assert!(done.err.contains("/reset starts a new one"), "{done:?}");
}
