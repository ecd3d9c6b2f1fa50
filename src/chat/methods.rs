//! Python's methods on strings, lists and dicts, paid for in fuel before they make anything.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Bytes that one unit of fuel pays for, as in the engine.
const BYTES_PER_FUEL: u64 = 64;

/// Calls `method` on `value`. The library's methods are free until they return, so the size of what they will make is
/// charged first.
pub(super) fn call(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        let size = result_size(text, method, args)?;
        state.consume_fuel(size.saturating_add(text.len() as u64) / BYTES_PER_FUEL)?;
    }
    unknown_method_callback(state, value, method, args)
}

/// Most bytes that a string method makes beyond the length of its string.
fn result_size(text: &str, method: &str, args: &[Value]) -> Result<u64, Error> {
    let length = |value: Option<&Value>| value.and_then(Value::as_str).map_or(0, str::len) as u64;
    Ok(match method {
        "replace" => {
            let old = args.first().and_then(Value::as_str).unwrap_or_default();
            (text.matches(old).count() as u64).saturating_mul(length(args.get(1)))
        }
        "join" => {
            // A string is joined character by character.
            let mut size = length(args.first()).saturating_mul(text.len() as u64 + 4);
            let list =
                args.first().filter(|list| matches!(list.kind(), ValueKind::Seq | ValueKind::Iterable));
            for item in list.map(Value::try_iter).transpose()?.into_iter().flatten() {
                size = size
                    .saturating_add(text.len() as u64)
                    .saturating_add(length(Some(&item)))
                    .saturating_add(24);
                // A long list is stopped here rather than walked twice.
                if size > u64::from(u32::MAX) {
                    break;
                }
            }
            size
        }
        // Widths such as `{:>9}` would size the result by a number in the string.
        "format" if text.contains([':', '!']) => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "str.format with conversions is not supported",
            ));
        }
        "format" => {
            let given: u64 = args.iter().map(printed_size).fold(0, u64::saturating_add);
            (text.matches('{').count() as u64).saturating_mul(given)
        }
        // A value takes 24 bytes however short its text is.
        "split" | "splitlines" => text.len() as u64 * 24,
        _ => text.len() as u64,
    })
}

/// Bytes of a value in print; a list, or a dict in a dict, counts as beyond any budget.
fn printed_size(value: &Value) -> u64 {
    let plain = |value: &Value| match value.kind() {
        ValueKind::String => value.as_str().map_or(0, str::len) as u64,
        ValueKind::Undefined | ValueKind::None | ValueKind::Bool | ValueKind::Number => 64,
        _ => u64::from(u32::MAX),
    };
    match value.kind() {
        // Keyword arguments come as one dict.
        ValueKind::Map => (value.try_iter().into_iter().flatten())
            .map(|key| plain(&key).saturating_add(value.get_item(&key).map_or(0, |item| plain(&item))))
            .fold(0, u64::saturating_add),
        _ => plain(value),
    }
}
