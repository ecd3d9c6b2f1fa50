//! The template engine, as Hugging Face's templates expect it and as a hostile one gets it.
//!
//! Nothing in it reaches outside: no loader, no files, no host objects. Fuel bounds both time and memory (one unit is
//! an instruction or 64 bytes made or read), nesting is limited by the parser and by the recursion limit.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State};

use super::{json, methods};

/// Deepest nesting of macros, blocks and filters while rendering.
const RECURSION: usize = 100;

/// Longest format for `strftime_now`, in bytes.
const MAX_TIME_FORMAT: usize = 256;

/// An environment as transformers' `apply_chat_template` makes it: blocks are trimmed on both sides, loops have
/// `break` and `continue`, strings and dicts have Python's methods, and there are `raise_exception`, `strftime_now`
/// and a `tojson` that writes what Python's `json.dumps` writes.
///
/// `paid`: the name of the function that [`pay_for_sums`](super::sums::pay_for_sums) calls. The filters `chain` and
/// `sum` are left out, because they join lists without paying for them; no published template uses them.
pub(super) fn new(paid: &str) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(write_as_python);
    environment.set_unknown_method_callback(methods::call);
    environment.set_recursion_limit(RECURSION);
    environment.remove_global("debug");
    environment.remove_filter("chain");
    environment.remove_filter("sum");
    environment.add_function(paid.to_owned(), pay_for_list);
    environment.add_filter("tojson", json::to_json);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    Ok(environment)
}

/// Python's spellings of the values that templates do print: `True`, `False`, `None`.
fn write_as_python(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => Ok(out.write_str("None")?),
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
        _ => minijinja::escape_formatter(out, state, value),
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Refusal))
}

/// Charges a list that is about to be added to another one. A lazy one of unknown length is made real.
fn pay_for_list(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(value);
    }
    if let Some(length) = value.len() {
        state.consume_fuel(length as u64)?;
        return Ok(value);
    }
    let mut items = Vec::new();
    for item in value.try_iter()? {
        state.consume_fuel(1)?;
        items.push(item);
    }
    Ok(Value::from(items))
}

/// Tells a template's own refusal from a fault in the template.
#[derive(Debug)]
pub(super) struct Refusal;

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the template refused the messages")
    }
}

impl std::error::Error for Refusal {}

/// The local time in a `strftime` format.
fn strftime_now(format: &str, options: Kwargs) -> Result<String, Error> {
    options.assert_all_used()?;
    let fault = |message: &str| Error::new(ErrorKind::InvalidOperation, message.to_owned());
    if format.len() > MAX_TIME_FORMAT {
        return Err(fault("the time format is too long"));
    }
    jiff::fmt::strtime::format(format, &jiff::Zoned::now())
        .map_err(|_| fault("the time format is not understood"))
}
