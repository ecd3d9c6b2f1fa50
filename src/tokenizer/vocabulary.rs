//! What a token stands for: its bytes and its part in the vocabulary.

use crate::error::{Error, ErrorKind, Result};

/// Most tokens that a vocabulary may hold; the largest published one has about 260,000.
pub(crate) const MAX_TOKENS: usize = 1 << 20;

/// How a vocabulary spells text in its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alphabet {
    /// SentencePiece: plain text with `▁` for a space, and tokens `<0x00>` to `<0xFF>` for single bytes.
    SentencePiece,
    /// GPT-2: every byte of the text is one printable character.
    ByteLevel,
}

/// The part that a token plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Text: the encoder's merges make it.
    Normal,
    /// One raw byte, for characters that the vocabulary lacks.
    Byte(u8),
    /// Text that is matched as a whole before anything else.
    UserDefined,
    /// A mark of the conversation, matched in raw prompts only; never text.
    Control,
    /// A place in the table that is neither matched nor text.
    Unused,
}

impl TokenKind {
    /// Whether the token never becomes text.
    pub(crate) fn is_control(self) -> bool {
        matches!(self, Self::Control | Self::Unused)
    }
}

/// Every token by id: the bytes of text it stands for, how it is written, and its kind. One allocation each.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    kinds: Vec<TokenKind>,
}

impl Pieces {
    /// Adds the next token. Control and unused tokens keep their spelling as `bytes`.
    pub(crate) fn push(&mut self, kind: TokenKind, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.kinds.push(kind);
    }

    /// Tokens in the table.
    pub(crate) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The kind of token `id`.
    pub(crate) fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(usize::try_from(id).ok()?).copied()
    }

    /// The bytes of token `id`: text for a text token, the spelling for a control token.
    pub(crate) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let index = usize::try_from(id).ok()?;
        let end = *self.ends.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes.get(start..end)
    }
}

/// Text bytes of a SentencePiece token: its `▁` are spaces.
pub(crate) fn unescape_spaces(spelling: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = "▁".as_bytes();
    let mut text = Vec::with_capacity(spelling.len());
    let mut rest = spelling;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(MARK) {
            text.push(b' ');
            rest = after;
        } else {
            text.push(first);
            rest = tail;
        }
    }
    text
}

/// The byte of a SentencePiece byte token such as `<0x0A>`.
pub(crate) fn byte_of(spelling: &[u8]) -> Option<u8> {
    let digits = spelling.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = std::str::from_utf8(digits).ok().filter(|d| d.len() == 2 && !d.starts_with('+'))?;
    u8::from_str_radix(digits, 16).ok()
}

/// The character that GPT-2's vocabularies write for `byte`: printable Latin-1 stands for itself, the other bytes take
/// the characters from U+0100 on, in order.
pub(crate) fn byte_to_char(byte: u8) -> char {
    let offset = match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => return char::from(byte),
        0..=0x20 => u32::from(byte),
        0x7F..=0xA0 => u32::from(byte) - 0x7F + 0x21,
        0xAD => 0x43,
    };
    char::from_u32(0x100 + offset).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The inverse of [`byte_to_char`].
pub(crate) fn char_to_byte(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// Text bytes of a GPT-2 token. A character outside the byte alphabet stands for itself, as llama.cpp reads it.
pub(crate) fn unescape_bytes(spelling: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(spelling) else {
        return spelling.to_vec();
    };
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match char_to_byte(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// A fault in the vocabulary itself.
#[cold]
pub(crate) fn broken(message: impl Into<String>) -> Error {
    Error::new(
        ErrorKind::Tokenizer,
        message,
        "Give the model's own tokenizer.json as `tokenizer=`, or convert the model file again.",
    )
}

/// The id at place `index`, which [`MAX_TOKENS`] keeps within 32 bits.
pub(crate) fn id_at(index: usize) -> Result<u32> {
    u32::try_from(index).map_err(|_| broken(format!("The vocabulary has a token at place {index}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_a_bijection() {
        let mut seen = std::collections::BTreeSet::new();
        for byte in 0..=255u8 {
            let c = byte_to_char(byte);
            assert!(seen.insert(c), "{c} twice");
            assert_eq!(char_to_byte(c), Some(byte));
        }
        // Spelled out in GPT-2's encoder: space is Ġ, newline is Ċ.
        assert_eq!((byte_to_char(b' '), byte_to_char(b'\n'), byte_to_char(0xAD)), ('Ġ', 'Ċ', 'Ń'));
    }

    #[test]
    fn byte_tokens_are_exactly_two_hex_digits() {
        assert_eq!(byte_of(b"<0x0A>"), Some(10));
        for spelling in ["<0xA>", "<0x0A", "0x0A>", "<0x+1>", "<0xGG>", "<0x0A0>"] {
            assert_eq!(byte_of(spelling.as_bytes()), None, "{spelling}");
        }
    }

    #[test]
    fn pieces_give_back_what_was_pushed() {
        let mut pieces = Pieces::default();
        pieces.push(TokenKind::Control, b"<s>");
        pieces.push(TokenKind::Normal, b"");
        pieces.push(TokenKind::Normal, &unescape_spaces("▁a▁".as_bytes()));
        assert_eq!(pieces.bytes(0), Some(&b"<s>"[..]));
        assert_eq!(pieces.bytes(1), Some(&b""[..]));
        assert_eq!(pieces.bytes(2), Some(&b" a "[..]));
        assert_eq!((pieces.bytes(3), pieces.kind(3), pieces.len()), (None, None, 3));
    }
}
