//! `phicandle pull`: a model into the cache.

use serde_json::json;

use super::args::PullArgs;
use super::console::Console;
use super::report::size;
use super::{Outcome, models};
use crate::hub::ModelSpec;

/// Downloads a model and writes its path.
pub(super) fn run(args: &PullArgs, console: &mut Console<'_>) -> Outcome {
    if args.model.as_deref() == Some(models::DEMO) {
        console.note("The demo model comes with phicandle: nothing to download.")?;
        return Ok(0);
    }
    let hub = &args.hub;
    let spec =
        ModelSpec::from_parts(args.model.as_deref(), hub.filename.as_deref(), hub.revision.as_deref())?;
    let local = models::resolve(&spec, hub, console)?;
    let mut bytes = 0;
    for part in &local.parts {
        bytes += std::fs::metadata(part)?.len();
    }
    if args.json {
        let report = json!({
            "repo": local.repo,
            "revision": local.revision,
            "file": local.file,
            "bytes": bytes,
            "parts": local.parts.iter().map(|path| path.display().to_string()).collect::<Vec<_>>(),
            "model": local.model.display().to_string(),
            "tokenizer": local.tokenizer.map(|path| path.display().to_string()),
        });
        writeln!(console.out, "{report}")?;
    } else {
        let parts = match local.parts.len() {
            1 => String::new(),
            count => format!(" in {count} parts"),
        };
        console.note(&format!("{} of {}, {}{parts}", local.file, local.repo, size(bytes)))?;
        writeln!(console.out, "{}", local.model.display())?;
    }
    Ok(0)
}
