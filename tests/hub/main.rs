//! The hub against a stub server: every fault that a transfer, a refusal, a hostile server or this machine can have.
//!
//! A row passes when the file is right or absent, the error is of its kind, and its hint says what to do.
#![cfg(feature = "hub")]
// Here a panic is how a check fails (clippy's own allowance covers only functions marked as tests), and counts and
// skips are written past the capture of a passing test's output.
#![allow(clippy::expect_used, clippy::explicit_write, clippy::panic, clippy::unwrap_used)]

mod hostile;
mod local;
mod models;
mod refusal;
mod site;
mod sound;
mod stub;
mod transfer;

use std::io::Write;
use std::sync::Mutex;

/// A kind of fault: its name, and a check that panics when the hub does not cope with it.
type Row = (&'static str, fn());

/// Rows that wait for timeouts overlap; more at once would only crowd a small machine.
const AT_ONCE: usize = 8;

#[test]
fn every_fault_ends_well() {
    let tables = [transfer::ROWS, refusal::ROWS, hostile::ROWS, local::ROWS];
    let rows: Vec<Row> = tables.into_iter().flatten().copied().collect();
    let mut names: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rows.len(), "two rows have one name");
    assert!(rows.len() >= 25);

    let queue = Mutex::new(rows.iter());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some((name, check)) = next else { return };
                    if let Err(panic) = std::panic::catch_unwind(check) {
                        let text = panic.downcast_ref::<String>().cloned();
                        let text =
                            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                        failed.lock().unwrap().push(format!("{name}: {}", text.unwrap_or_default()));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    // Not `println!`: the count is to be seen in a run that captures the output of passing tests.
    writeln!(std::io::stdout(), "hub faults: {} kinds, {} failures", rows.len(), failed.len()).unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
