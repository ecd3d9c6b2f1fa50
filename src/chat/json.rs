//! The filter `tojson`, as `json.dumps(value, ensure_ascii=False, ...)` in Python writes it.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use serde::Serialize;
use serde_json::ser::Formatter;
use std::io;

/// Deepest value that is written.
const MAX_DEPTH: usize = 64;

/// Widest `indent`.
const MAX_INDENT: usize = 16;

/// `value | tojson(indent=None, ensure_ascii=False, separators=None, sort_keys=False)`.
pub(super) fn to_json(
    state: &State<'_, '_>,
    value: &Value,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let indent = match options.get::<Option<Value>>("indent")?.or(indent).filter(|value| !value.is_none()) {
        Some(indent) => Some(usize::try_from(indent)?.min(MAX_INDENT)),
        None => None,
    };
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let separators = options
        .get::<Option<Vec<String>>>("separators")?
        .map(<[String; 2]>::try_from)
        .transpose()
        .map_err(|_| fault("separators are two strings"))?;
    options.assert_all_used()?;
    let [comma, colon] =
        separators.unwrap_or_else(|| [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned));
    let plain = plain(state, value, sorted, MAX_DEPTH)?;
    let mut out = Charged { state, bytes: Vec::new() };
    let style = Python { indent, ascii, comma, colon, level: 0, empty: true };
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, style);
    plain.serialize(&mut serializer).map_err(|error| fault(error.to_string()))?;
    String::from_utf8(out.bytes).map(Value::from).map_err(|_| fault("the JSON is not UTF-8"))
}

/// `value` on one line, as `json.dumps(value, ensure_ascii=False)` in Python writes it.
pub(super) fn text(value: &serde_json::Value) -> String {
    let mut bytes = Vec::new();
    let style = Python {
        indent: None,
        ascii: false,
        comma: ", ".to_owned(),
        colon: ": ".to_owned(),
        level: 0,
        empty: true,
    };
    // Memory does not refuse what is written to it, and a JSON value is always written as UTF-8.
    match value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, style)) {
        Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

#[cold]
fn fault(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::BadSerialization, message)
}

/// A copy as JSON, paid for in fuel, of a value that may be lazy, endless or too deep.
fn plain(
    state: &State<'_, '_>,
    value: &Value,
    sorted: bool,
    depth: usize,
) -> Result<serde_json::Value, Error> {
    charge(state, 1)?;
    let depth = depth.checked_sub(1).ok_or_else(|| fault("the value is nested too deeply for JSON"))?;
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.map(|item| plain(state, &item, sorted, depth));
            items.collect::<Result<Vec<_>, _>>().map(serde_json::Value::Array)
        }
        ValueKind::Map => {
            let mut pairs = Vec::new();
            for key in value.try_iter()? {
                let item = plain(state, &value.get_item(&key)?, sorted, depth)?;
                pairs.push((key.as_str().map_or_else(|| key.to_string(), str::to_owned), item));
            }
            if sorted {
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
            }
            Ok(serde_json::Value::Object(pairs.into_iter().collect()))
        }
        ValueKind::String => {
            charge(state, value.len().unwrap_or(0))?;
            Ok(value.as_str().unwrap_or_default().into())
        }
        ValueKind::Undefined => Err(fault("an undefined value has no JSON")),
        _ => serde_json::to_value(value).map_err(|_| fault("the value has no JSON")),
    }
}

fn charge(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(1 + bytes as u64 / 16)
}

/// Output that costs fuel as it grows.
struct Charged<'s, 't, 'e> {
    state: &'s State<'t, 'e>,
    bytes: Vec<u8>,
}

impl io::Write for Charged<'_, '_, '_> {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        charge(self.state, part.len()).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Python's layout: a space after each separator on one line, none at line ends.
struct Python {
    indent: Option<usize>,
    ascii: bool,
    comma: String,
    colon: String,
    level: usize,
    // Whether the container that was just opened is still empty.
    empty: bool,
}

impl Python {
    fn line<W: ?Sized + io::Write>(&self, out: &mut W) -> io::Result<()> {
        match self.indent {
            Some(indent) => write!(out, "\n{:1$}", "", indent * self.level),
            None => Ok(()),
        }
    }

    fn open<W: ?Sized + io::Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level += 1;
        self.empty = true;
        out.write_all(bracket)
    }

    fn close<W: ?Sized + io::Write>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.level = self.level.saturating_sub(1);
        if !std::mem::take(&mut self.empty) {
            self.line(out)?;
        }
        out.write_all(bracket)
    }

    fn item<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.comma.as_bytes())?;
        }
        self.empty = false;
        self.line(out)
    }
}

impl Formatter for Python {
    fn begin_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.empty = false;
        Ok(())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.item(out, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.colon.as_bytes())
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.empty = false;
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, out: &mut W, text: &str) -> io::Result<()> {
        if !self.ascii {
            return out.write_all(text.as_bytes());
        }
        for c in text.chars() {
            if c.is_ascii() {
                write!(out, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}
