//! Models in several files, as llama.cpp's `gguf-split` writes them: `PREFIX-00001-of-00003.gguf` and so on.
//!
//! Each part is a GGUF file with tensors of its own. The first has the model's metadata, and every one has `split.no` (from 0),
//! `split.count` and `split.tensors.count` (the tensors of all parts together).

#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::header::Header;
use super::metadata::shown;
use crate::error::{Error, Result};

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";
const ALIGNMENT: &str = "general.alignment";
/// Most parts of a model: the largest that are published have about a hundred.
pub const MAX_PARTS: u64 = 1000;

/// The name of a part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartName {
    /// What stands before `-00001-of-00003.gguf`.
    pub prefix: String,
    /// Which part, from 1.
    pub number: u64,
    /// How many there are.
    pub count: u64,
    extension: String,
}

impl PartName {
    /// Reads `PREFIX-00001-of-00003.gguf`; `None` for any other name.
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        let (rest, count) = stem.rsplit_once('-')?;
        let (rest, of) = rest.rsplit_once('-')?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let five_digits = |text: &str| {
            let sound = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            sound.then(|| text.parse::<u64>().ok()).flatten()
        };
        let (number, count) = (five_digits(number)?, five_digits(count)?);
        let sound = of == "of" && extension.eq_ignore_ascii_case("gguf") && (1..=count).contains(&number);
        sound.then(|| Self { prefix: prefix.to_owned(), number, count, extension: extension.to_owned() })
    }

    /// The name of part `number`, from 1.
    pub fn of(&self, number: u64) -> String {
        format!("{}-{number:05}-of-{:05}.{}", self.prefix, self.count, self.extension)
    }

    /// The names of all parts, in order.
    pub fn all(&self) -> impl Iterator<Item = String> + use<'_> {
        (1..=self.count).map(|number| self.of(number))
    }
}

/// Which part of a model a header is, from 0, and of how many; `None` for a whole model.
///
/// # Errors
/// `CorruptModel` for numbers that contradict each other.
pub fn part_of(header: &Header) -> Result<Option<(u64, u64)>> {
    let metadata = &header.metadata;
    let Some(count) = metadata.u64(COUNT)? else { return Ok(None) };
    if !(1..=MAX_PARTS).contains(&count) {
        return Err(metadata.bad_value(COUNT, format!("is {count}; it should be from 1 to {MAX_PARTS}.")));
    }
    let no = match metadata.u64(NO)? {
        Some(no) => no,
        None if count == 1 => 0,
        None => {
            let message = format!("is {count}, and the file has no `{NO}` to say which of them it is.");
            return Err(metadata.bad_value(COUNT, message));
        }
    };
    if no >= count {
        let message = format!("is {no}, and `{COUNT}` is {count}: parts count from 0 to {}.", count - 1);
        return Err(metadata.bad_value(NO, message));
    }
    Ok((count > 1).then_some((no, count)))
}

/// The names of the parts beside the file `name` with this header, in order, its own included; `None` for a whole model.
///
/// # Errors
/// `CorruptModel` when the name says another number than the header.
pub fn part_names(name: &str, header: &Header) -> Result<Option<PartName>> {
    let Some((no, count)) = part_of(header)? else { return Ok(None) };
    let (wanted, asked) = (format!("-{:05}-of-{count:05}.gguf", no + 1), shown(name));
    let said = format!("part {} of {count} (`{NO}` {no}, `{COUNT}` {count})", no + 1);
    match PartName::parse(name) {
        Some(part) if (part.number, part.count) == (no + 1, count) => Ok(Some(part)),
        Some(part) => {
            let (number, of) = (part.number, part.count);
            let message =
                format!("`{asked}` is by its name part {number} of {of}, and by its header {said}.");
            Err(Error::corrupt(NO, None, message))
        }
        None => {
            let message = format!(
                "The header of `{asked}` says that it is {said}, and its name does not end in `{wanted}`, so the other parts cannot be found."
            );
            Err(Error::corrupt(NO, None, message))
        }
    }
}

/// Refuses a header that is only one part of a model.
pub(super) fn check_whole(header: &Header) -> Result<()> {
    match part_of(header)? {
        Some((no, count)) if header.parts.len() as u64 != count => {
            let message =
                format!("is {no}: this is part {} of {count}, and the others are not here.", no + 1);
            Err(header.metadata.bad_value(NO, message))
        }
        _ => Ok(()),
    }
}

/// One header from those of all parts, in order, each with its file's name for errors.
///
/// # Errors
/// `CorruptModel` that names both files when they contradict each other, or both numbers when tensors are missing.
pub fn join(parts: Vec<(String, Header)>) -> Result<Header> {
    check_agreement(&parts)?;
    let mut place: HashMap<&str, &str> = HashMap::new();
    for (name, header) in &parts {
        for tensor in &header.tensors {
            if let Some(other) = place.insert(&tensor.name, name) {
                let message = format!(
                    "The tensor `{}` is in `{}` and in `{}`.",
                    shown(&tensor.name),
                    shown(other),
                    shown(name)
                );
                return Err(Error::corrupt(&tensor.name, None, message));
            }
        }
    }
    let found = place.len();
    let count = parts.len();
    let mut headers = parts.into_iter().map(|(_, header)| header);
    let Some(mut whole) = headers.next() else { return Err(Error::internal("A model of no parts.")) };
    if let Some(announced) = whole.metadata.u64(TENSORS)?
        && announced != found as u64
    {
        let message = format!("is {announced}, and the {count} parts hold {found} tensors together.");
        return Err(whole.metadata.bad_value(TENSORS, message));
    }
    for (number, header) in headers.enumerate() {
        let tensors = header.tensors.into_iter();
        whole.tensors.extend(tensors.map(|mut tensor| {
            tensor.part = number + 1;
            tensor
        }));
        whole.file_len = whole.file_len.saturating_add(header.file_len);
        whole.parts.extend(header.parts);
    }
    whole.index()?;
    Ok(whole)
}

/// Compares every part with the first.
fn check_agreement(parts: &[(String, Header)]) -> Result<()> {
    let Some((first_name, first)) = parts.first() else { return Ok(()) };
    let count = parts.len() as u64;
    for (number, (name, header)) in parts.iter().enumerate() {
        let differ = |key: &str, own: String, firsts: String| {
            let message = format!(
                "`{}` and `{}` are not parts of one model: {key} {own} in the one and {firsts} in the other.",
                shown(name),
                shown(first_name)
            );
            Err(Error::corrupt(key.trim_matches('`'), None, message))
        };
        match part_of(header)? {
            Some(found) if found == (number as u64, count) => {}
            Some((no, of)) => {
                let message = format!(
                    "`{}` should be part {} of {count}, as `{}` has it, and its header says part {} of {of} (`{NO}` {no}, `{COUNT}` {of}).",
                    shown(name),
                    number + 1,
                    shown(first_name),
                    no + 1
                );
                return Err(Error::corrupt(NO, None, message));
            }
            None => {
                let message = format!(
                    "`{}` should be part {} of {count}, as `{}` has it, and its header says that it is no part of anything (no `{COUNT}`).",
                    shown(name),
                    number + 1,
                    shown(first_name)
                );
                return Err(Error::corrupt(COUNT, None, message));
            }
        }
        if header.version != first.version {
            return differ("version", format!("is {}", header.version), format!("{}", first.version));
        }
        let (own, firsts) = (&header.metadata, &first.metadata);
        for key in own.keys().filter(|&key| key != NO && !own.same_value(firsts, key)) {
            // A part says its alignment only if it is not the default of 32, whatever the first one has.
            let value = if firsts.contains(key) {
                firsts.describe(key)
            } else if key == ALIGNMENT {
                "32".to_owned()
            } else {
                "absent".to_owned()
            };
            if key == ALIGNMENT && header.alignment == first.alignment {
                continue;
            }
            return differ(&format!("`{}`", shown(key)), format!("is {}", own.describe(key)), value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_are_read_and_written() {
        let part = PartName::parse("sub/phi-4-Q4_K_M-00002-of-00003.gguf").unwrap();
        assert_eq!((part.prefix.as_str(), part.number, part.count), ("sub/phi-4-Q4_K_M", 2, 3));
        assert_eq!(part.all().last().unwrap(), "sub/phi-4-Q4_K_M-00003-of-00003.gguf");
        assert_eq!(PartName::parse("m-00001-of-00002.GGUF").unwrap().of(2), "m-00002-of-00002.GGUF");
        for other in [
            "m.gguf",
            "m-00000-of-00002.gguf",
            "m-00003-of-00002.gguf",
            "m-1-of-2.gguf",
            "m-00001-of-00002.bin",
            "m-00001-to-00002.gguf",
            "00001-of-00002.gguf",
            "m-0000a-of-00002.gguf",
            "m-+0001-of-00002.gguf",
        ] {
            assert_eq!(PartName::parse(other), None, "{other}");
        }
    }
}
