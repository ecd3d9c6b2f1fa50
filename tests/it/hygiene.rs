//! What a committed text may not hold: the paths of the machine on which it was written.

use std::path::Path;
use std::process::Command;

/// Folders that exist on somebody's machine and nowhere else; spelt so that this file does not hold them.
fn machine_paths() -> [String; 2] {
    ["work", "root"].map(|folder| format!("/{folder}/"))
}

/// Lines of `text` that name such a folder, from its root: `x/work/y` is a relative path, and fine.
fn faults(text: &str) -> Vec<usize> {
    let held = |line: &str| {
        machine_paths().iter().any(|path| {
            line.match_indices(path.as_str())
                .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "-_.}*~)".contains(c)))
        })
    };
    text.lines().enumerate().filter(|(_, line)| held(line)).map(|(i, _)| i + 1).collect()
}

#[test]
fn no_committed_text_names_a_machine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listing = match Command::new("git").args(["ls-files", "-z"]).current_dir(root).output() {
        Ok(output) if output.status.success() => output.stdout,
        _ => {
            println!("SKIPPED: this is no git checkout, so there are no committed texts to read.");
            return;
        }
    };
    let names = String::from_utf8(listing).unwrap();
    let mut found = Vec::new();
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        // Binary files are not texts; a file may be deleted but not yet committed.
        let Ok(text) = std::fs::read_to_string(root.join(name)) else { continue };
        found.extend(faults(&text).into_iter().map(|line| format!("{name}:{line}")));
    }
    assert!(found.is_empty(), "paths of a machine in:\n{}", found.join("\n"));
}

#[test]
fn a_machine_path_is_seen_and_a_relative_one_is_not() {
    let [work, root] = machine_paths();
    assert_eq!(faults(&format!("fine\nsee {work}shared\n`{root}.cargo`")), [2, 3]);
    assert!(faults(&format!("target{work}wheels and ~{work}x")).is_empty());
}
