//! Which file of a repository to use when the user named none.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::gguf::PartName;

use super::names::{nearest, printable};
use super::spec::ModelSpec;

/// Most names quoted in one message.
const SHOWN: usize = 8;
/// What is taken when the sizes are not known: small, and good enough for most work.
const USUAL: [&str; 5] = ["Q4_K_M", "Q4", "Q4_0", "Q4_K", "Q4_K_S"];
/// Weights that are not quantised: twice the bytes of Q8_0, for nothing that a reader would see.
const PLAIN: [&str; 4] = ["F16", "BF16", "F32", "FP16"];
/// Files that are no model, by the beginning of their names.
const NO_MODELS: [&str; 2] = ["mmproj", "imatrix"];
/// Quantisations that no backend runs, by the beginning of a word in the name.
const FOREIGN: [&str; 8] = ["IQ1", "IQ2", "IQ3", "TQ1", "TQ2", "MXFP4", "Q4_0_4", "Q4_0_8"];

/// A file as a repository lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    /// Bytes, when the listing says.
    pub(super) size: Option<u64>,
    /// Whether it is in the cache.
    pub(super) here: bool,
}

/// A model in a repository: one file, or all parts of a split one.
#[derive(Debug)]
struct Model {
    files: Vec<String>,
    size: Option<u64>,
    here: bool,
}

impl Model {
    /// The file that stands for it.
    fn name(&self) -> &str {
        self.files.first().map_or("", String::as_str)
    }

    /// The name without what makes it a part and a model file.
    fn stem(&self) -> String {
        let name = self.name();
        let stem = PartName::parse(name).map_or_else(|| name.to_owned(), |part| part.prefix);
        let end = stem.to_ascii_lowercase().strip_suffix(".gguf").map_or(stem.len(), str::len);
        stem.get(..end).unwrap_or_default().to_ascii_uppercase()
    }

    /// Whether the name carries the quantisation as a word of its own: `Q4` is in `x-q4.gguf` and in `Q4/x.gguf`, not in
    /// `x-Q4_K_M.gguf` or `x-IQ4.gguf`.
    fn carries(&self, quant: &str) -> bool {
        let (stem, quant) = (self.stem(), quant.to_ascii_uppercase());
        stem.match_indices(&quant).any(|(start, _)| {
            let before = stem.get(..start).and_then(|text| text.chars().next_back());
            let after = stem.get(start + quant.len()..).and_then(|text| text.chars().next());
            before.is_none_or(|c| matches!(c, '-' | '.' | '/' | '_'))
                && after.is_none_or(|c| matches!(c, '-' | '.' | '/'))
        })
    }

    /// Whether a backend runs it, as far as the name tells.
    fn runs(&self) -> bool {
        let stem = self.stem();
        !stem.split(['-', '.', '/']).any(|word| FOREIGN.iter().any(|beginning| word.starts_with(beginning)))
    }

    /// Bytes of memory that it takes at least: its weights, an eighth more, and what a short context needs.
    fn needs(&self) -> Option<u64> {
        self.size.map(|size| size.saturating_add(size / 8).saturating_add(256 << 20))
    }
}

/// The files of the model that `spec` means among `files`, those in its repository: one, or all parts in order.
///
/// With a quantisation, the one model whose name carries it. Without: the only one, or the one in the cache, or the best that
/// fits into `room` bytes of memory; what was chosen, and why, is logged.
pub(super) fn choose(spec: &ModelSpec, files: &[Listed], room: Option<u64>) -> Result<Vec<String>> {
    let (models, torn) = models(files);
    let models: Vec<&Model> = models.iter().collect();
    if models.is_empty() {
        return Err(none_to_choose(spec, &torn));
    }
    if let Some(quant) = spec.quant() {
        return by_quant(spec, quant, &models, &torn);
    }
    if let [only] = models.as_slice() {
        return Ok(only.files.clone());
    }
    let here: Vec<&Model> = models.iter().copied().filter(|model| model.here).collect();
    let room = room.filter(|_| models.iter().all(|model| model.size.is_some()));
    // Free memory changes from day to day: that alone is no reason for another download.
    let chosen = match room {
        Some(room) => match by_room(spec, &here, room) {
            Ok(Some(here)) => Some((here, "the best in the cache that fits")),
            _ => by_room(spec, &models, room)?.map(|best| (best, "the best that fits")),
        },
        None => usual(&here).or_else(|| usual(&models)).map(|usual| (usual, "")),
    };
    let Some((chosen, why)) = chosen else {
        return Err(Error::new(
            ErrorKind::ModelNotFound {
                candidates: models.iter().map(|model| model.name().to_owned()).collect(),
            },
            format!("{} holds {} models and none is an obvious choice.", spec.repo(), models.len()),
            format!("Name one with `filename=`: {}.", quoted(&models)),
        ));
    };
    let reason = match (chosen.size, room) {
        (Some(size), Some(bytes)) => {
            format!("{} MB, {why} into {} MB of memory", size.div_ceil(1_000_000), bytes / 1_000_000)
        }
        _ => "the usual choice where sizes are not known".to_owned(),
    };
    log::warn!(
        "{} holds {} models: using {} ({reason}). Choose another with `{}:QUANT` or `filename=`.",
        spec.repo(),
        models.len(),
        chosen.name(),
        spec.repo()
    );
    Ok(chosen.files.clone())
}

/// The largest quantised model that fits; one of plain floats where there is no other.
fn by_room<'a>(spec: &ModelSpec, among: &[&'a Model], room: u64) -> Result<Option<&'a Model>> {
    let runs: Vec<&Model> = among.iter().copied().filter(|model| model.runs()).collect();
    let is_plain = |model: &Model| PLAIN.iter().any(|plain| model.carries(plain));
    let best = |plain: bool| {
        let fitting = runs
            .iter()
            .copied()
            .filter(|model| is_plain(model) == plain && model.needs().is_some_and(|needs| needs <= room));
        fitting.max_by_key(|model| (model.size, std::cmp::Reverse(model.name().len())))
    };
    if let Some(best) = best(false).or_else(|| best(true)) {
        return Ok(Some(best));
    }
    let Some(least) = runs.iter().filter_map(|model| Some((model.needs()?, model.name()))).min() else {
        return Ok(None);
    };
    Err(Error::new(
        ErrorKind::OutOfMemory { needed: least.0, available: room },
        format!(
            "No model of {} fits into memory: the smallest, `{}`, needs about {} MB, and {} MB are available.",
            spec.repo(),
            printable(least.1),
            least.0.div_ceil(1_000_000),
            room / 1_000_000
        ),
        format!(
            "Close other programs, use a smaller model, or name one with `filename=`: {}.",
            quoted(&runs)
        ),
    ))
}

/// The model in one of the usual quantisations.
fn usual<'a>(among: &[&'a Model]) -> Option<&'a Model> {
    USUAL.iter().find_map(|quant| {
        // Repositories with folders repeat a file there: the shortest name is the plain one.
        let named = among.iter().copied().filter(|model| model.carries(quant));
        named.min_by_key(|model| (model.name().len(), model.name().to_owned()))
    })
}

/// The models among `files`, and the first part of each that lacks others.
fn models(files: &[Listed]) -> (Vec<Model>, Vec<String>) {
    let is_model = |file: &&Listed| {
        let base = base_name(&file.name).to_ascii_lowercase();
        is_gguf(&base) && !NO_MODELS.iter().any(|beginning| base.starts_with(beginning))
    };
    let mut models = Vec::new();
    let mut split: BTreeMap<(String, u64), BTreeMap<u64, &Listed>> = BTreeMap::new();
    for file in files.iter().filter(is_model) {
        match PartName::parse(&file.name) {
            Some(part) => {
                split.entry((part.prefix, part.count)).or_default().insert(part.number, file);
            }
            None => {
                let Listed { name, size, here } = file.clone();
                models.push(Model { files: vec![name], size, here });
            }
        }
    }
    let mut torn = Vec::new();
    for ((_, count), parts) in split {
        let files: Vec<String> = parts.values().map(|file| file.name.clone()).collect();
        if files.len() as u64 == count {
            let size = parts.values().map(|file| file.size).sum();
            models.push(Model { files, size, here: parts.values().all(|file| file.here) });
        } else {
            torn.extend(files.into_iter().next());
        }
    }
    models.sort_by(|a, b| a.files.cmp(&b.files));
    (models, torn)
}

fn by_quant(spec: &ModelSpec, quant: &str, models: &[&Model], torn: &[String]) -> Result<Vec<String>> {
    let named: Vec<&Model> = models.iter().copied().filter(|model| model.carries(quant)).collect();
    let (candidates, message) = match named.as_slice() {
        [only] => return Ok(only.files.clone()),
        [] => (models, format!("{} has no model in the quantisation `{quant}`.", spec.repo())),
        several => {
            (several, format!("{} has {} models in the quantisation `{quant}`.", spec.repo(), several.len()))
        }
    };
    let names = || candidates.iter().map(|model| model.name());
    let mut near = nearest(quant, names());
    if near.is_empty() {
        near = names().take(SHOWN).map(str::to_owned).collect();
    }
    let lacking = match torn.first() {
        Some(first) => format!(" Parts are missing there beside `{}`.", printable(first)),
        None => String::new(),
    };
    Err(Error::new(
        ErrorKind::ModelNotFound { candidates: near },
        message,
        format!(
            "It has {}. Give one of their quantisations, or the name with `filename=`.{lacking}",
            quoted(candidates)
        ),
    ))
}

fn none_to_choose(spec: &ModelSpec, torn: &[String]) -> Error {
    let message = match torn.first() {
        Some(first) => {
            format!(
                "{} holds split models only, and parts are missing beside `{}`.",
                spec.repo(),
                printable(first)
            )
        }
        None => format!("{} at `{}` holds no .gguf file.", spec.repo(), spec.revision()),
    };
    Error::new(
        ErrorKind::ModelNotFound { candidates: Vec::new() },
        message,
        "Look for a repository of the same model with GGUF files (their names often end in `-gguf`), or try \
         `--model demo` / `Generator(\"demo\")`, which needs no download.",
    )
}

pub(super) fn is_gguf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".gguf")
}

fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn quoted(models: &[&Model]) -> String {
    let shown: Vec<String> =
        models.iter().take(SHOWN).map(|model| format!("`{}`", printable(model.name()))).collect();
    let more = models.len().saturating_sub(SHOWN);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &tail
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(model: &str, files: &[&str]) -> Result<String> {
        let files: Vec<(&str, Option<u64>, bool)> = files.iter().map(|name| (*name, None, false)).collect();
        Ok(pick_in(model, &files, None)?.concat())
    }

    /// `files`: names, MB, and whether they are in the cache.
    fn pick_in(model: &str, files: &[(&str, Option<u64>, bool)], room: Option<u64>) -> Result<Vec<String>> {
        let listed = files.iter().map(|&(name, size, here)| {
            let size = size.map(|size| size * 1_000_000);
            Listed { name: name.to_owned(), size, here }
        });
        choose(&ModelSpec::parse(model)?, &listed.collect::<Vec<_>>(), room.map(|room| room * 1_000_000))
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
        assert!(error.message().contains("2 models"), "{error}");
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
    fn split_models_are_chosen_with_all_their_parts() {
        let parts = |prefix: &str| [1, 2].map(|number| format!("{prefix}-{number:05}-of-00002.gguf"));
        let (q4, q8) = (parts("Q4_K_M/m-Q4_K_M"), parts("Q8_0/m"));
        let names: Vec<&str> = q4.iter().chain(&q8).map(String::as_str).rev().collect();
        let files: Vec<(&str, Option<u64>, bool)> =
            names.iter().map(|name| (*name, Some(100), false)).collect();
        assert_eq!(pick_in("a/b:q4_k_m", &files, None).unwrap(), q4);
        // Of a folder for each quantisation the folder's name counts.
        assert_eq!(pick_in("a/b:Q8_0", &files, None).unwrap(), q8);
        assert_eq!(pick_in("a/b", &files, Some(10_000)).unwrap(), q8, "as large as the other, and shorter");
        let torn = pick("a/b", &[&q4[0], "README.md"]).unwrap_err();
        assert!(torn.message().contains("parts are missing") && torn.message().contains(&q4[0]), "{torn}");
        let torn = pick("a/b:Q4_K_M", &[&q4[0], "m-Q8_0.gguf"]).unwrap_err();
        assert!(torn.hint().contains(&q4[0]) && torn.hint().contains("`m-Q8_0.gguf`"), "{torn:?}");
    }

    #[test]
    fn the_best_that_fits_is_chosen() {
        let sizes = [
            ("m-f16.gguf", 8000),
            ("m-Q8_0.gguf", 4000),
            ("m-Q6_K.gguf", 3200),
            ("m-Q4_K_M.gguf", 2400),
            ("m-IQ2_XXS.gguf", 1200),
            ("imatrix-m.gguf", 1),
        ];
        let with = |cached: &[&str]| {
            sizes.iter().map(|&(name, size)| (name, Some(size), cached.contains(&name))).collect::<Vec<_>>()
        };
        let pick =
            |cached: &[&str], room| pick_in("a/b", &with(cached), Some(room)).map(|files| files.concat());
        assert_eq!(
            pick(&[], 100_000).unwrap(),
            "m-Q8_0.gguf",
            "floats are no better and take twice the room"
        );
        assert_eq!(pick(&[], 4000).unwrap(), "m-Q6_K.gguf");
        assert_eq!(pick(&[], 3000).unwrap(), "m-Q4_K_M.gguf");
        // What is here already is taken, as long as it fits.
        assert_eq!(pick(&["m-Q4_K_M.gguf"], 100_000).unwrap(), "m-Q4_K_M.gguf");
        assert_eq!(pick(&["m-Q8_0.gguf"], 3000).unwrap(), "m-Q4_K_M.gguf");
        let none = pick(&[], 2000).unwrap_err();
        assert!(
            matches!(none.kind(), ErrorKind::OutOfMemory { needed: 2_968_435_456, available: 2_000_000_000 }),
            "{none:?}"
        );
        assert!(
            none.message().contains("m-Q4_K_M.gguf") && none.hint().contains("`m-Q8_0.gguf`"),
            "{none:?}"
        );
        let plain = [("x-f16.gguf", Some(10), false), ("x-F32.gguf", Some(20), false)];
        assert_eq!(pick_in("a/b", &plain, Some(5000)).unwrap(), ["x-F32.gguf"]);
    }

    #[test]
    fn no_model_is_said_plainly() {
        let error = pick("a/b", &["model.safetensors"]).unwrap_err();
        assert!(error.message().contains("no .gguf") && error.hint().contains("--model demo"), "{error}");
    }
}
