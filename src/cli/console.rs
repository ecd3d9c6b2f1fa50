//! The three streams of a command, and what is known of them.

use std::io::{self, BufRead, Read, Write};
use std::sync::Arc;

use super::interrupt::Interrupts;
use crate::error::{Error, Result};

/// Most bytes read from standard input as one prompt: far more than any context holds.
const MAX_INPUT: u64 = 16 << 20;

/// Input and outputs of one command: the process's own, or buffers in tests.
pub(super) struct Console<'a> {
    pub(super) input: &'a mut dyn BufRead,
    pub(super) out: &'a mut dyn Write,
    pub(super) err: &'a mut dyn Write,
    /// Whether a person types the input.
    pub(super) input_terminal: bool,
    /// Whether `out` is a terminal.
    pub(super) out_terminal: bool,
    /// Whether `err` is a terminal.
    pub(super) err_terminal: bool,
    /// Whether `err` takes colours: a terminal, and `NO_COLOR` unset.
    pub(super) colour: bool,
    pub(super) quiet: bool,
    pub(super) interrupts: Arc<Interrupts>,
}

/// How text on the terminal looks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Style {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

impl Style {
    /// Parameter of the ANSI sequence "select graphic rendition".
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "1;31",
            Self::Green => "1;32",
            Self::Yellow => "1;33",
        }
    }
}

impl Console<'_> {
    /// `text` in a style, where colours are wanted.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", style.code()) } else { text.to_owned() }
    }

    /// Writes a line to standard error, unless told to be quiet.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        if self.quiet { Ok(()) } else { writeln!(self.err, "{text}") }
    }

    /// Writes a piece of a model's text to standard output, at once.
    ///
    /// On a terminal, what would steer it (escape sequences and the like) is replaced: models are not trusted.
    pub(super) fn emit(&mut self, text: &str) -> io::Result<()> {
        if self.out_terminal {
            let harmless = |c: char| {
                if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
            };
            self.out.write_all(text.chars().map(harmless).collect::<String>().as_bytes())?;
        } else {
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush()
    }

    /// The words of an argument joined, or all of standard input when there are none or only `-`.
    ///
    /// One newline at the end of the input is dropped: `echo` adds it.
    pub(super) fn text_or_input(
        &mut self,
        words: &[String],
        what: &str,
    ) -> std::result::Result<String, super::Failure> {
        if !matches!(words, [] | [_] if words.iter().all(|word| word == "-")) {
            return Ok(words.join(" "));
        }
        if self.input_terminal {
            self.note(&format!(
                "Type the {what}; end it with Ctrl-D on a line of its own (Ctrl-Z on Windows)."
            ))?;
        }
        let mut bytes = Vec::new();
        (&mut *self.input).take(MAX_INPUT + 1).read_to_end(&mut bytes)?;
        Ok(decode(bytes, what)?)
    }
}

fn decode(bytes: Vec<u8>, what: &str) -> Result<String> {
    if bytes.len() as u64 > MAX_INPUT {
        return Err(Error::invalid(
            "prompt",
            format!("Standard input holds more than {} MiB.", MAX_INPUT >> 20),
            "Give less text: no model's context holds as much.",
        ));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::invalid(
            "prompt",
            format!("Standard input is not UTF-8 text: byte {at} is invalid."),
            format!("Give the {what} as UTF-8, for example through `iconv -t UTF-8`."),
        )
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
