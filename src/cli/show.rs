//! `phicandle show`: what a model file holds, what memory it needs, and whether it runs here.

use serde_json::{Map, Value, json};

use super::args::ShowArgs;
use super::console::{Console, Style};
use super::models::{self, Located};
use super::report::{count, plain, row, size, table};
use super::{Demo, Failure, Outcome};
use crate::engine::{Engine, LoadOptions};
use crate::error::Error;
use crate::gguf::{GgmlType, GgufFile, Header, ModelPlan, RopeScaling};
use crate::model::MemoryPlan;
use crate::tokenizer::Tokenizer;

/// The metadata key of the chat template.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// Shows one model.
pub(super) fn run(args: &ShowArgs, demo: &Demo, console: &mut Console<'_>) -> Outcome {
    // Looking costs no gigabytes: of a model that is not here, only the header is read.
    let located = models::describe(args.model.as_deref(), &args.hub, demo, console)?;
    let file = located.source.open()?;
    if args.template {
        return template(&file, console);
    }
    let report = Report::new(&file, &located, args.context_length);
    if args.json {
        writeln!(console.out, "{}", report.json(args.tensors))?;
    } else {
        report.write(args.tensors, console)?;
    }
    Ok(0)
}

fn template(file: &GgufFile, console: &mut Console<'_>) -> Outcome {
    match file.header().metadata.str(CHAT_TEMPLATE)? {
        Some(text) => {
            writeln!(console.out, "{text}")?;
            Ok(0)
        }
        None => {
            console.note(
                "The file has no chat template; that of its vocabulary's family is used in its place.",
            )?;
            Ok(1)
        }
    }
}

/// All that is found out about a file.
struct Report<'a> {
    file: &'a GgufFile,
    plan: Option<ModelPlan>,
    memory: Option<MemoryPlan>,
    /// Why the model does not run here.
    refusal: Option<Error>,
    warnings: Vec<String>,
}

impl<'a> Report<'a> {
    fn new(file: &'a GgufFile, located: &Located, context_length: Option<usize>) -> Self {
        let mut warnings = Vec::new();
        let (plan, memory, mut refusal) = match ModelPlan::from_header(file.header()) {
            Err(error) => (None, None, Some(error)),
            Ok(plan) => {
                let options = LoadOptions { context_length, ..LoadOptions::new(located.source.clone()) };
                match Engine::estimate(&options) {
                    Ok(memory) => (Some(plan), Some(memory), None),
                    Err(error) => (Some(plan), None, Some(error)),
                }
            }
        };
        let tokenizer = match &located.tokenizer {
            Some(path) => Tokenizer::from_file(path),
            None => Tokenizer::from_gguf(&file.header().metadata),
        };
        refusal =
            refusal.or(tokenizer.err()).or_else(|| memory.and_then(|memory| memory.check(file.name()).err()));
        if let (Some(plan), Some(memory), None) = (&plan, &memory, context_length)
            && memory.context_length < plan.context_length
        {
            warnings.push(format!(
                "The context is {} tokens here, not the {} that the model was made for.",
                memory.context_length, plan.context_length
            ));
        }
        if !file.header().metadata.contains(CHAT_TEMPLATE) {
            warnings.push(
                "The file has no chat template; that of its vocabulary's family is used in its place."
                    .to_owned(),
            );
        }
        if let Some(plan) = &plan
            && !plan.extra_tensors.is_empty()
        {
            let names: Vec<String> = plan.extra_tensors.iter().take(4).map(|name| plain(name)).collect();
            let more = if plan.extra_tensors.len() > 4 { " ..." } else { "" };
            let count = plan.extra_tensors.len();
            warnings.push(format!("{count} tensors are not used: {}{more}", names.join(", ")));
        }
        Self { file, plan, memory, refusal, warnings }
    }

    fn header(&self) -> &Header {
        self.file.header()
    }

    /// The file's name for the model, or else the file's.
    fn title(&self) -> String {
        let name = self.header().metadata.str("general.name").ok().flatten();
        name.map_or_else(|| self.file.name().to_owned(), |name| name.chars().take(120).collect())
    }

    /// Type, number of tensors, bytes; the most bytes first.
    fn types(&self) -> Vec<(GgmlType, usize, u64)> {
        let mut types: Vec<(GgmlType, usize, u64)> = Vec::new();
        for tensor in &self.header().tensors {
            match types.iter_mut().find(|(kind, ..)| *kind == tensor.kind) {
                Some((_, tensors, bytes)) => {
                    *tensors += 1;
                    *bytes += tensor.n_bytes;
                }
                None => types.push((tensor.kind, 1, tensor.n_bytes)),
            }
        }
        types.sort_by_key(|(.., bytes)| std::cmp::Reverse(*bytes));
        types
    }

    fn write(&self, tensors: bool, console: &mut Console<'_>) -> Result<(), Failure> {
        let header = self.header();
        writeln!(console.out, "{}", plain(&self.title()))?;
        write!(console.out, "{}", table(&self.facts()))?;
        let mut section = |title: &str, rows: Vec<Vec<String>>| -> Result<(), Failure> {
            if !rows.is_empty() {
                writeln!(console.out, "\n{title}")?;
                for line in table(&rows).lines() {
                    writeln!(console.out, "  {line}")?;
                }
            }
            Ok(())
        };
        let types = self.types();
        let types = types
            .iter()
            .map(|(kind, tensors, bytes)| row([kind.name(), &format!("{tensors} tensors"), &size(*bytes)]));
        section("Tensors", types.collect())?;
        if tensors {
            let rows = header.tensors.iter();
            let rows = rows.map(|t| row([&plain(&t.name), t.kind.name(), &t.shape_text(), &size(t.n_bytes)]));
            section("All tensors", rows.collect())?;
        }
        if let Some(memory) = &self.memory {
            section(
                &format!("Memory at a context of {} tokens", memory.context_length),
                memory_rows(memory),
            )?;
        }
        let keys =
            header.metadata.keys().map(|key| row([&plain(key), &plain(&header.metadata.describe(key))]));
        section("Metadata", keys.collect())?;
        for warning in &self.warnings {
            let label = console.paint(Style::Yellow, "warning:");
            writeln!(console.err, "{label} {warning}")?;
        }
        if let Some(error) = &self.refusal {
            let label = console.paint(Style::Red, "does not run here:");
            writeln!(console.err, "{label} {} {}", error.message(), error.hint())?;
        }
        Ok(())
    }

    fn facts(&self) -> Vec<Vec<String>> {
        let header = self.header();
        let mut rows = vec![
            row(["file", &format!("{} ({})", plain(self.file.name()), size(header.file_len))]),
            row([
                "format",
                &format!("GGUF version {}, data aligned to {}", header.version, header.alignment),
            ]),
        ];
        if header.parts.len() > 1 {
            let sizes: Vec<String> = header.parts.iter().map(|part| size(part.file_len)).collect();
            rows.push(row(["parts", &format!("{}: {}", sizes.len(), sizes.join(" + "))]));
        }
        let Some(plan) = &self.plan else { return rows };
        let heads = if plan.n_head == plan.n_head_kv {
            format!("{} heads", plan.n_head)
        } else {
            format!("{} heads ({} for keys and values)", plan.n_head, plan.n_head_kv)
        };
        let experts = match (plan.n_expert, plan.n_expert_used) {
            (0, _) => String::new(),
            (all, used) => format!(" in each of {all} experts, {used} used"),
        };
        rows.push(row([
            "model",
            &format!(
                "{}, {} layers, width {}, {heads} of {}, feed-forward {}{experts}",
                plan.architecture.name(),
                plan.n_layer,
                plan.n_embd,
                plan.head_dim,
                plan.n_ff
            ),
        ]));
        rows.push(row(["parameters", &count(plan.parameters)]));
        rows.push(row(["vocabulary", &format!("{} tokens", plan.vocab_size)]));
        let window =
            plan.sliding_window.map_or_else(String::new, |window| format!(", sliding window {window}"));
        rows.push(row(["context", &format!("{} tokens{window}", plan.context_length)]));
        let scaling = match scaling_name(&plan.rope.scaling) {
            "none" => String::new(),
            name => format!(", {name} scaling"),
        };
        rows.push(row(["rope", &format!("base {}{scaling}", plan.rope.freq_base)]));
        rows
    }

    fn json(&self, tensors: bool) -> Value {
        let header = self.header();
        let metadata: Map<String, Value> = header
            .metadata
            .keys()
            .map(|key| (key.to_owned(), Value::from(header.metadata.describe(key))))
            .collect();
        let types = self.types();
        let types =
            types.iter().map(|(kind, n, bytes)| json!({ "type": kind.name(), "tensors": n, "bytes": bytes }));
        let list = tensors.then(|| {
            let list = header.tensors.iter();
            list.map(
                |t| json!({ "name": t.name, "type": t.kind.name(), "shape": t.shape, "bytes": t.n_bytes }),
            )
            .collect::<Vec<_>>()
        });
        json!({
            "name": self.title(),
            "file": self.file.name(),
            "bytes": header.file_len,
            "parts": header.parts.iter().map(|part| part.file_len).collect::<Vec<_>>(),
            "version": header.version,
            "alignment": header.alignment,
            "model": self.plan.as_ref().map(plan_json),
            "types": types.collect::<Vec<_>>(),
            "tensors": list,
            "memory": self.memory.as_ref().map(|memory| json!({
                "context_length": memory.context_length,
                "weights_bytes": memory.weights_bytes,
                "mapped_bytes": memory.mapped_bytes,
                "kv_bytes": memory.kv_bytes,
                "scratch_bytes": memory.scratch_bytes,
                "total_bytes": memory.total_bytes(),
                "available_bytes": memory.available_bytes,
                "fits": memory.fits(),
            })),
            "runs": self.refusal.is_none(),
            "refusal": self.refusal.as_ref().map(|error| json!({ "message": error.message(), "hint": error.hint() })),
            "warnings": self.warnings,
            "metadata": metadata,
        })
    }
}

fn memory_rows(memory: &MemoryPlan) -> Vec<Vec<String>> {
    let verdict = if memory.fits() { "fits" } else { "does not fit" };
    let total =
        format!("{} of {} available: {verdict}", size(memory.total_bytes()), size(memory.available_bytes));
    let mut rows = vec![
        row(["weights", &size(memory.weights_bytes)]),
        row(["keys and values", &size(memory.kv_bytes)]),
        row(["scratch", &size(memory.scratch_bytes)]),
        row(["total", &total]),
    ];
    if memory.mapped_bytes > 0 {
        rows.push(row(["shared with the file", &size(memory.mapped_bytes)]));
    }
    rows
}

fn plan_json(plan: &ModelPlan) -> Value {
    json!({
        "architecture": plan.architecture.name(),
        "parameters": plan.parameters,
        "layers": plan.n_layer,
        "embedding_length": plan.n_embd,
        "heads": plan.n_head,
        "kv_heads": plan.n_head_kv,
        "head_dim": plan.head_dim,
        "feed_forward_length": plan.n_ff,
        "context_length": plan.context_length,
        "vocab_size": plan.vocab_size,
        "sliding_window": plan.sliding_window,
        "rope_base": plan.rope.freq_base,
        "rope_scaling": scaling_name(&plan.rope.scaling),
        "tied_embeddings": plan.tied_embeddings,
        "experts": plan.n_expert,
        "experts_used": plan.n_expert_used,
        "unused_tensors": plan.extra_tensors,
    })
}

fn scaling_name(scaling: &RopeScaling) -> &'static str {
    match scaling {
        RopeScaling::None => "none",
        RopeScaling::Linear { .. } => "linear",
        RopeScaling::LongRope { .. } => "longrope",
        RopeScaling::Yarn { .. } => "yarn",
    }
}
