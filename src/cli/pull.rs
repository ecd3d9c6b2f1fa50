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
    let bytes = std::fs::metadata(&local.model)?.len();
    if args.json {
        let report = json!({
            "repo": local.repo,
            "revision": local.revision,
            "file": local.file,
            "bytes": bytes,
            "model": local.model.display().to_string(),
            "tokenizer": local.tokenizer.map(|path| path.display().to_string()),
        });
        writeln!(console.out, "{report}")?;
    } else {
        console.note(&format!("{} of {}, {}", local.file, local.repo, size(bytes)))?;
        writeln!(console.out, "{}", local.model.display())?;
    }
    Ok(0)
}
