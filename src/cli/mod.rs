//! The `phicandle` command: one door onto the engine, in words and exit codes.
//!
//! Text that was asked for goes to standard output, all else to standard error. [`run`] is all of it; the binary and
//! `python -m phicandle` differ only in where they keep the demo model.

mod answer;
mod args;
mod bench;
mod chat;
mod console;
mod doctor;
mod failure;
mod generate;
mod interrupt;
mod list;
mod log_lines;
mod models;
mod perplexity;
mod pull;
mod report;
mod sampling;
mod show;
#[cfg(test)]
mod tests;
mod tokenize;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Parser;
use clap::error::ErrorKind as ClapKind;

use args::{Arguments, Command};
use console::{Console, Style};
use failure::{Failure, USAGE};
use interrupt::Interrupts;

/// Where the demo model is.
#[derive(Debug, Clone)]
pub enum Demo {
    /// A file: the Python package has one.
    File(PathBuf),
    /// Bytes inside the program.
    Bytes(&'static [u8]),
}

/// Runs the command line `args`, whose first item is the program's name, on the process's standard streams.
///
/// Returns the exit code; `phicandle --help` lists them. Installs a Ctrl-C handler and, where none is set, a logger.
pub fn run(args: impl IntoIterator<Item = OsString>, demo: &Demo) -> i32 {
    let (stdin, mut stdout, mut stderr) = (io::stdin(), io::stdout(), io::stderr());
    let err_terminal = stderr.is_terminal();
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let mut console = Console {
        input_terminal: stdin.is_terminal(),
        input: &mut stdin.lock(),
        out: &mut stdout,
        // Not locked: the logger, the progress bar and the Ctrl-C handler write there too, from other threads.
        err: &mut stderr,
        out_terminal: io::stdout().is_terminal(),
        err_terminal,
        colour: err_terminal && !no_colour,
        quiet: false,
        interrupts: Interrupts::of_process(),
    };
    match Arguments::try_parse_from(args) {
        Ok(arguments) => {
            log_lines::install(arguments.quiet, arguments.verbose);
            execute(arguments, demo, &mut console)
        }
        Err(error) => {
            // Clap picks the stream, the colours and the width; a closed one is no failure.
            let _ = error.print();
            match error.kind() {
                ClapKind::DisplayHelp | ClapKind::DisplayVersion => 0,
                _ => USAGE,
            }
        }
    }
}

/// Runs a parsed command and reports its failure.
fn execute(arguments: Arguments, demo: &Demo, console: &mut Console<'_>) -> i32 {
    console.quiet = arguments.quiet;
    let outcome = match arguments.command {
        Command::Run(args) => generate::run(&args, demo, console),
        Command::Chat(args) => chat::run(&args, demo, console),
        Command::Pull(args) => pull::run(&args, console),
        Command::List(args) => list::list(&args, console),
        Command::Rm(args) => list::remove(&args, console),
        Command::Show(args) => show::run(&args, demo, console),
        Command::Tokenize(args) => tokenize::run(&args, demo, console),
        Command::Perplexity(args) => perplexity::run(&args, demo, console),
        Command::Bench(args) => bench::run(&args, demo, console),
        Command::Doctor(args) => doctor::run(&args, console),
    };
    let flushed = console.out.flush();
    match outcome.and_then(|code| flushed.map(|()| code).map_err(Failure::from)) {
        Ok(code) => code,
        Err(failure) => {
            report_failure(&failure, console);
            failure.code()
        }
    }
}

/// Writes `error:` and `hint:` lines. When standard error is gone as well, the exit code has to do.
fn report_failure(failure: &Failure, console: &mut Console<'_>) {
    let Some((message, hint)) = failure.lines() else { return };
    let error = console.paint(Style::Red, "error:");
    let _ = writeln!(console.err, "{error} {message}");
    if !hint.is_empty() {
        let label = console.paint(Style::Bold, "hint:");
        let _ = writeln!(console.err, "{label}  {hint}");
    }
}

/// The exit code of a command, or why it ended early.
type Outcome = Result<i32, Failure>;
