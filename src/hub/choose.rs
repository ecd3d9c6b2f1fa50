//! Which file of a repository to use when the user named none.

use crate::error::{Error, ErrorKind, Result};

use super::names::{nearest, printable};
use super::spec::ModelSpec;

/// Most names quoted in one message.
const SHOWN: usize = 8;

/// The model file that `spec` means among `files`, the names in its repository.
///
/// With a quantisation, the one file whose name carries it. Without: the only `.gguf` file, or else a Q4_K_M or q4
/// file; what was chosen is logged.
pub(super) fn choose(spec: &ModelSpec, files: &[String]) -> Result<String> {
    let models = model_files(files);
    if models.is_empty() {
        return Err(none_to_choose(spec, files));
    }
    if let Some(quant) = spec.quant() {
        return by_quant(spec, quant, &models);
    }
    if let [only] = models.as_slice() {
        return Ok((*only).to_owned());
    }
    let preferred = ["Q4_K_M", "Q4", "Q4_0", "Q4_K", "Q4_K_S"].iter().find_map(|quant| {
        let mut named: Vec<&str> = models.iter().copied().filter(|name| carries(name, quant)).collect();
        // Repositories with folders repeat a file there: the shortest name is the plain one.
        named.sort_by_key(|name| (name.len(), *name));
        named.first().copied()
    });
    match preferred {
        Some(name) => {
            log::info!(
                "{} holds {} model files: using {name}. Choose another with `{}:QUANT` or `filename=`.",
                spec.repo(),
                models.len(),
                spec.repo()
            );
            Ok(name.to_owned())
        }
        None => Err(Error::new(
            ErrorKind::ModelNotFound { candidates: models.iter().map(|name| (*name).to_owned()).collect() },
            format!("{} holds {} model files and none is an obvious choice.", spec.repo(), models.len()),
            format!("Name one with `filename=`: {}.", quoted(&models)),
        )),
    }
}

/// Whole `.gguf` models among `files`: no image projectors, no parts of a split model.
fn model_files(files: &[String]) -> Vec<&str> {
    files
        .iter()
        .map(String::as_str)
        .filter(|name| {
            let base = base_name(name);
            is_gguf(name) && !base.to_ascii_lowercase().starts_with("mmproj") && !is_part(base)
        })
        .collect()
}

fn by_quant(spec: &ModelSpec, quant: &str, models: &[&str]) -> Result<String> {
    let named: Vec<&str> = models.iter().copied().filter(|name| carries(name, quant)).collect();
    let (candidates, message) = match named.as_slice() {
        [only] => return Ok((*only).to_owned()),
        [] => (models, format!("{} has no file for the quantisation `{quant}`.", spec.repo())),
        several => {
            (several, format!("{} has {} files for the quantisation `{quant}`.", spec.repo(), several.len()))
        }
    };
    let mut near = nearest(quant, candidates.iter().copied());
    if near.is_empty() {
        near = candidates.iter().take(SHOWN).map(|name| (*name).to_owned()).collect();
    }
    Err(Error::new(
        ErrorKind::ModelNotFound { candidates: near },
        message,
        format!(
            "It has {}. Give one of their quantisations, or the name with `filename=`.",
            quoted(candidates)
        ),
    ))
}

fn none_to_choose(spec: &ModelSpec, files: &[String]) -> Error {
    let parts = files.iter().any(|name| is_gguf(name) && is_part(base_name(name)));
    let message = if parts {
        format!("The models of {} are split into parts, which phicandle does not read.", spec.repo())
    } else {
        format!("{} at `{}` holds no .gguf file.", spec.repo(), spec.revision())
    };
    Error::new(
        ErrorKind::ModelNotFound { candidates: Vec::new() },
        message,
        "Look for a repository of the same model with whole GGUF files (their names often end in `-gguf`), or try \
         `--model demo` / `Generator(\"demo\")`, which needs no download.",
    )
}

/// Whether the name of a file carries the quantisation as a word of its own: `Q4` is in `x-q4.gguf`, not in
/// `x-Q4_K_M.gguf` or `x-IQ4.gguf`.
fn carries(name: &str, quant: &str) -> bool {
    let stem = name.to_ascii_uppercase();
    let stem = stem.strip_suffix(".GGUF").unwrap_or(&stem);
    let quant = quant.to_ascii_uppercase();
    stem.match_indices(&quant).any(|(start, _)| {
        let before = stem.get(..start).and_then(|text| text.chars().next_back());
        let after = stem.get(start + quant.len()..).and_then(|text| text.chars().next());
        before.is_none_or(|c| matches!(c, '-' | '.' | '/' | '_'))
            && after.is_none_or(|c| matches!(c, '-' | '.' | '/'))
    })
}

pub(super) fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

/// Whether a file is `…-00001-of-00003.gguf`.
fn is_part(base: &str) -> bool {
    let stem = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
    let mut words = stem.rsplit('-');
    let all_digits = |word: Option<&str>| {
        word.is_some_and(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()))
    };
    all_digits(words.next()) && words.next() == Some("of") && all_digits(words.next())
}

fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn quoted(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{}`", printable(name))).collect();
    let more = names.len().saturating_sub(SHOWN);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{tail}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(model: &str, files: &[&str]) -> Result<String> {
        let files: Vec<String> = files.iter().map(|name| (*name).to_owned()).collect();
        choose(&ModelSpec::parse(model)?, &files)
    }

    #[test]
    fn a_quantisation_is_a_word_of_the_name() {
        let files =
            ["m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-IQ4_XS.gguf", "m-q4.gguf", "m-fp16.gguf", "README.md"];
        assert_eq!(pick("a/b:q4_k_m", &files).unwrap(), "m-Q4_K_M.gguf");
        assert_eq!(pick("a/b:Q4", &files).unwrap(), "m-q4.gguf");
        assert_eq!(pick("a/b:FP16", &files).unwrap(), "m-fp16.gguf");
        assert_eq!(pick("a/b:Q8_0", &["m.Q8_0.gguf", "m.Q4_0.gguf"]).unwrap(), "m.Q8_0.gguf");
    }

    #[test]
    fn an_absent_or_ambiguous_quantisation_names_the_files() {
        let error = pick("a/b:Q8_0", &["m-Q4_0.gguf", "m-Q5_0.gguf"]).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::ModelNotFound { candidates } if candidates.len() == 2),
            "{error:?}"
        );
        assert!(error.hint().contains("`m-Q4_0.gguf`"));
        let error = pick("a/b:Q4_0", &["x-Q4_0.gguf", "y-Q4_0.gguf", "z-Q8_0.gguf"]).unwrap_err();
        assert!(error.message().contains("2 files"), "{error}");
    }

    #[test]
    fn without_one_the_usual_choice_is_made() {
        assert_eq!(pick("a/b", &["only.gguf", "README.md"]).unwrap(), "only.gguf");
        assert_eq!(pick("a/b", &["m-fp16.gguf", "m-Q4_K_M.gguf", "m-Q4_0.gguf"]).unwrap(), "m-Q4_K_M.gguf");
        assert_eq!(pick("a/b", &["m-fp16.gguf", "m-q4.gguf"]).unwrap(), "m-q4.gguf");
        assert_eq!(pick("a/b", &["mmproj-m-f16.gguf", "m-f16.gguf"]).unwrap(), "m-f16.gguf");
        assert!(pick("a/b", &["x-f16.gguf", "y-f32.gguf"]).is_err());
    }

    #[test]
    fn no_whole_model_is_said_plainly() {
        let error = pick("a/b", &["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]).unwrap_err();
        assert!(error.message().contains("split"), "{error}");
        let error = pick("a/b", &["model.safetensors"]).unwrap_err();
        assert!(error.message().contains("no .gguf") && error.hint().contains("--model demo"), "{error}");
    }
}
