//! A guard around `+`, the one operator that the engine's fuel does not cover.
//!
//! Lists are added lazily at first and copied once the chain is long, unpaid: forty times `x = x + x` would copy more
//! than any machine holds. So before parsing, the right operand of every `+` is wrapped in a call of a function
//! that pays for its length and returns it unchanged: `a + b` becomes `a + paid(b)`.

/// Most words, numbers, strings and signs in one tag, and deepest nesting of block tags. The parser keeps its own
/// count of most kinds of nesting, but not of signs in a row, and it is slow to refuse deep blocks.
const MAX_PARTS: usize = 4096;
const MAX_BLOCKS: usize = 100;

/// The line, from 1, and the reason for which a source is not parsed at all.
pub(super) type Refused = (usize, &'static str);

/// `source` with the right operand of every binary `+` wrapped in `name(…)`. Lines stay where they are.
pub(super) fn pay_for_sums(source: &str, name: &str) -> Result<String, Refused> {
    let mut blocks = 0usize;
    let mut out = String::with_capacity(source.len() + source.len() / 16);
    let mut rest = source;
    while let Some(at) = rest.as_bytes().windows(2).position(|pair| matches!(pair, b"{{" | b"{%" | b"{#")) {
        let (text, tag) = rest.split_at(at);
        out.push_str(text);
        if tag.starts_with("{#") {
            let end = tag.find("#}").map_or(tag.len(), |end| end + 2);
            out.push_str(tag.get(..end).unwrap_or_default());
            rest = tag.get(end..).unwrap_or_default();
            continue;
        }
        let (open, inner) = tag.split_at(2);
        let close = if open == "{{" { "}}" } else { "%}" };
        out.push_str(open);
        let raw = inner.trim_start_matches(['-', '+']).trim_start().strip_prefix("raw");
        if let Some(after) =
            raw.filter(|after| open == "{%" && after.trim_start_matches([' ', '-', '+']).starts_with("%}"))
        {
            // Raw text runs to its own end tag, whatever it looks like.
            let end = after.find("endraw").map_or(inner.len(), |end| inner.len() - after.len() + end);
            out.push_str(inner.get(..end).unwrap_or_default());
            rest = inner.get(end..).unwrap_or_default();
            continue;
        }
        if open == "{%" {
            let word = inner.trim_start_matches(['-', '+']).trim_start();
            match word.get(..word_length(word)).unwrap_or_default() {
                "if" | "for" | "macro" | "call" | "filter" | "with" | "block" | "autoescape" => blocks += 1,
                word if word.starts_with("end") => blocks = blocks.saturating_sub(1),
                _ => {}
            }
        }
        let mut scanner =
            Scanner { rest: inner, name, out: &mut out, open: vec![false], after_operand: false, parts: 0 };
        rest = scanner.scan(close);
        let line = || source.get(..source.len() - tag.len()).unwrap_or_default().matches('\n').count() + 1;
        if scanner.parts > MAX_PARTS {
            return Err((line(), "a tag in it is too long"));
        }
        if blocks > MAX_BLOCKS {
            return Err((line(), "its blocks are nested too deeply"));
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Copies one tag's expression, wrapping operands on the way.
struct Scanner<'s, 'o> {
    rest: &'s str,
    name: &'s str,
    out: &'o mut String,
    /// For each open bracket, and the tag itself: whether a wrapped operand is open in it.
    open: Vec<bool>,
    /// Whether what came last can be the left side of an operator.
    after_operand: bool,
    /// Parts of the tag so far.
    parts: usize,
}

impl<'s> Scanner<'s, '_> {
    /// Scans up to and including the `close` of the tag; returns what follows.
    fn scan(&mut self, close: &str) -> &'s str {
        // `{%+` and `{{-` control whitespace.
        self.take(self.rest.len() - self.rest.trim_start_matches(['-', '+']).len());
        while let Some(c) = self.rest.chars().next() {
            let unsigned = self.rest.strip_prefix(['-', '+']).unwrap_or(self.rest);
            if self.open.len() == 1 && (self.rest.starts_with(close) || unsigned.starts_with(close)) {
                self.end_operand();
                break;
            }
            self.parts += usize::from(!c.is_whitespace());
            match c {
                '"' | '\'' => {
                    self.begin_operand();
                    self.take(string_length(self.rest, c));
                }
                '0'..='9' => {
                    self.begin_operand();
                    self.take(number_length(self.rest));
                }
                c if c.is_alphanumeric() || c == '_' => self.word(),
                '(' | '[' | '{' => {
                    self.take(1);
                    self.open.push(false);
                    self.after_operand = false;
                }
                ')' | ']' | '}' => {
                    self.end_operand();
                    if self.open.len() > 1 {
                        self.open.pop();
                    }
                    self.take(1);
                    self.after_operand = true;
                }
                '+' | '-' if self.after_operand => {
                    self.end_operand();
                    self.take(1);
                    if c == '+' {
                        self.out.push_str(self.name);
                        self.out.push('(');
                        self.open.iter_mut().last().into_iter().for_each(|open| *open = true);
                    }
                    self.after_operand = false;
                }
                ',' | ':' | '=' | '!' | '<' | '>' => {
                    self.end_operand();
                    self.take(1);
                    self.after_operand = false;
                }
                '.' | '|' => {
                    // What follows is a name, even where it is spelled like a keyword.
                    self.take(1);
                    self.take(self.rest.len() - self.rest.trim_start().len());
                    self.take(word_length(self.rest));
                    self.after_operand = true;
                }
                c => {
                    self.take(c.len_utf8());
                    self.after_operand &= c.is_whitespace();
                }
            }
        }
        self.rest
    }

    fn take(&mut self, length: usize) {
        let (head, tail) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.out.push_str(head);
        self.rest = tail;
    }

    fn word(&mut self) {
        let length = word_length(self.rest);
        let word = self.rest.get(..length).unwrap_or_default();
        if matches!(word, "and" | "or" | "not" | "in" | "is" | "if" | "else") {
            self.end_operand();
            self.take(length);
            self.after_operand = false;
        } else {
            self.begin_operand();
            self.take(length);
        }
    }

    /// Two operands in a row: the first ended the expression.
    fn begin_operand(&mut self) {
        if self.after_operand {
            self.end_operand();
        }
        self.after_operand = true;
    }

    fn end_operand(&mut self) {
        if let Some(open) = self.open.last_mut()
            && std::mem::take(open)
        {
            self.out.push(')');
        }
    }
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

/// A number, with the sign of its exponent.
fn number_length(text: &str) -> usize {
    let plain =
        |text: &str| text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let mut length = plain(text);
    if let Some(fraction) = text.get(length..).and_then(|rest| rest.strip_prefix('.'))
        && fraction.starts_with(|c: char| c.is_ascii_digit())
    {
        length += 1 + plain(fraction);
    }
    let (number, rest) = text.split_at(length);
    let signed =
        rest.strip_prefix(['+', '-']).filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit()));
    match signed {
        Some(digits) if number.ends_with(['e', 'E']) && !number.starts_with("0x") => {
            length + 1 + plain(digits)
        }
        _ => length,
    }
}

/// A string literal, quotes included.
fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::pay_for_sums;

    #[test]
    fn right_operands_are_wrapped_and_nothing_else() {
        let rows = [
            ("{{ a + b }} + {# c + d #}", "{{ a +p( b )}} + {# c + d #}"),
            ("{{ a+b+c }}", "{{ a+p(b)+p(c )}}"),
            ("{{- a['x'] + '+' -}}", "{{- a['x'] +p( '+' )-}}"),
            ("{% set x = x + y[1 + 2] * 3 %}", "{% set x = x +p( y[1 +p( 2)] * 3 )%}"),
            ("{%+ if a + b == c and d + e %}", "{%+ if a +p( b )== c and d +p( e )%}"),
            ("{{ f(a + b, c=-d) ~ e | g(+1) }}", "{{ f(a +p( b), c=-d) ~ e | g(+1) }}"),
            ("{% for x in a + b if c %}", "{% for x in a +p( b )if c %}"),
            ("{% for x in a + b recursive %}", "{% for x in a +p( b )recursive %}"),
            ("{{ a + b is none }}{{ a + -1 }}", "{{ a +p( b )is none }}{{ a +p( -1 )}}"),
            ("{% raw %}{{ a + b }}{% endraw %}{{ c + d }}", "{% raw %}{{ a + b }}{% endraw %}{{ c +p( d )}}"),
            (
                "{{ 1e+5 + 'it\\'s + x' + {'a': {'b': 1 + 2}} }}",
                "{{ 1e+5 +p( 'it\\'s + x' )+p( {'a': {'b': 1 +p( 2)}} )}}",
            ),
            ("{{ a.if + b }}{{ x if a + b else c }}", "{{ a.if +p( b )}}{{ x if a +p( b )else c }}"),
            ("{{ a + ", "{{ a +p( "),
            ("{{ 'ä", "{{ 'ä"),
        ];
        for (source, expected) in rows {
            assert_eq!(pay_for_sums(source, "p").as_deref(), Ok(expected));
        }
    }

    #[test]
    fn long_tags_and_deep_blocks_are_refused_with_their_line() {
        let long = format!("\n{{{{ {}1 }}}}", "-".repeat(5_000));
        assert_eq!(pay_for_sums(&long, "p").map_err(|(line, _)| line), Err(2));
        assert_eq!(pay_for_sums(&"{% if a %}\n".repeat(200), "p").map_err(|(line, _)| line), Err(101));
        assert!(pay_for_sums(&"{%- if a -%}x{%- endif %}".repeat(200), "p").is_ok());
    }
}
