//! `phicandle list` and `phicandle rm`: what the cache holds, and making room in it.

use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::args::{ListArgs, RmArgs};
use super::console::Console;
use super::report::{row, size, table};
use super::{Failure, Outcome};
use crate::error::Error;
use crate::hub::{CachedModel, Hub, HubOptions};

/// Lists the cached models.
pub(super) fn list(args: &ListArgs, console: &mut Console<'_>) -> Outcome {
    let hub = open(args.cache_dir.as_deref())?;
    let models = hub.cached_models()?;
    if args.json {
        let models: Vec<Value> = models.iter().map(entry).collect();
        writeln!(console.out, "{}", Value::from(models))?;
        return Ok(0);
    }
    let folder = hub.cache_dir().display();
    if models.is_empty() {
        console.note(&format!(
            "No models in {folder}. `phicandle pull` downloads one; `--model demo` needs none."
        ))?;
        return Ok(0);
    }
    let mut rows = vec![row(["MODEL", "REVISION", "SIZE", "LAST USED", "FILES"])];
    for model in &models {
        let short: String = model.revision.chars().take(8).collect();
        let revision =
            if model.refs.is_empty() { short } else { format!("{} ({short})", model.refs.join(", ")) };
        let used = model.last_used.and_then(local_time).unwrap_or_else(|| "-".to_owned());
        rows.push(row([&model.repo, &revision, &size(model.bytes), &used, &ggufs(model).join(" ")]));
    }
    write!(console.out, "{}", table(&rows))?;
    console.note(&format!("in {folder}"))?;
    Ok(0)
}

fn ggufs(model: &CachedModel) -> Vec<&str> {
    model
        .files
        .iter()
        .map(String::as_str)
        .filter(|file| file.to_ascii_lowercase().ends_with(".gguf"))
        .collect()
}

fn entry(model: &CachedModel) -> Value {
    json!({
        "repo": model.repo,
        "revision": model.revision,
        "refs": model.refs,
        "files": model.files,
        "bytes": model.bytes,
        "last_used": model.last_used.and_then(timestamp).map(|time| time.to_string()),
    })
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

fn local_time(time: SystemTime) -> Option<String> {
    Some(timestamp(time)?.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string())
}

/// Removes one repository from the cache, after a question.
pub(super) fn remove(args: &RmArgs, console: &mut Console<'_>) -> Outcome {
    let hub = open(args.cache_dir.as_deref())?;
    if !args.yes && !confirmed(&hub, args, console)? {
        console.note("Kept.")?;
        return Ok(1);
    }
    let bytes = hub.remove(&args.repo)?;
    if args.json {
        writeln!(console.out, "{}", json!({ "repo": args.repo, "freed_bytes": bytes }))?;
    } else {
        console.note(&format!("Removed {}: {} free again.", args.repo, size(bytes)))?;
    }
    Ok(0)
}

fn confirmed(hub: &Hub, args: &RmArgs, console: &mut Console<'_>) -> Result<bool, Failure> {
    if !console.input_terminal {
        let message = "Removing a model needs a yes, and standard input is not a terminal to ask at.";
        return Err(Error::invalid("yes", message, "Give --yes to remove it without a question.").into());
    }
    let bytes: u64 =
        hub.cached_models()?.iter().filter(|model| model.repo == args.repo).map(|model| model.bytes).sum();
    let of = if bytes > 0 { format!(" ({})", size(bytes)) } else { String::new() };
    write!(console.err, "Remove {}{of} from {}? [y/N] ", args.repo, hub.cache_dir().display())?;
    console.err.flush()?;
    let mut answer = String::new();
    console.input.read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn open(cache_dir: Option<&Path>) -> Result<Hub, Error> {
    Hub::new(HubOptions { cache_dir: cache_dir.map(Path::to_owned), ..HubOptions::default() })
}
