//! What the command line may say, and the help it gives.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::sampling::SamplingArgs;

/// The end of `--help`.
const EXIT_CODES: &str = "\
Exit codes:
    0  success
    1  failure that no other code names
    2  wrong usage, or a parameter out of range
    3  no model: not found, not downloaded, offline, or it needs a token
    4  the model file is damaged, or this build cannot run it
    5  not enough memory
  124  --timeout ran out; the text so far was written
  130  interrupted by Ctrl-C

A model is a hub name (owner/name or owner/name:QUANT), a path to a .gguf
file, or `demo`: a small model that comes with phicandle and writes haiku.
Without --model it is what PHICANDLE_MODEL names, or else
microsoft/Phi-3-mini-4k-instruct-gguf (2.4 GB, downloaded once).";

/// Runs Microsoft's Phi models from GGUF files on this machine.
#[derive(Debug, Parser)]
#[command(name = "phicandle", version, about, after_help = EXIT_CODES, max_term_width = 110)]
pub(super) struct Arguments {
    /// Write errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Write more about what happens; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Answer one prompt: text to standard output, all else to standard error.
    Run(RunArgs),
    /// Talk with a model.
    Chat(ChatArgs),
    /// Download a model into the cache that the Hugging Face libraries share.
    Pull(PullArgs),
    /// List the models in the cache.
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show what a model file holds, what memory it needs, and whether it runs here.
    Show(ShowArgs),
    /// Remove a model from the cache.
    Rm(RmArgs),
    /// Show the tokens of a text.
    Tokenize(TokenizeArgs),
    /// Show what this machine and this build offer.
    Doctor(DoctorArgs),
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The prompt, put into the model's chat template; read from standard input when absent or `-`. Text that begins with
    /// a control token such as `<|user|>` is taken as it stands.
    pub(super) prompt: Vec<String>,
    /// A system message before the prompt.
    #[arg(short, long, conflicts_with = "raw", value_name = "TEXT")]
    pub(super) system: Option<String>,
    /// Take the prompt as it stands, without the chat template; control tokens in it count.
    #[arg(long)]
    pub(super) raw: bool,
    /// Write one JSON object at the end instead of text as it comes.
    #[arg(long)]
    pub(super) json: bool,
    /// Write times and token counts to standard error at the end.
    #[arg(long)]
    pub(super) stats: bool,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,
}

#[derive(Debug, Args)]
pub(super) struct ChatArgs {
    /// A system message for the whole conversation.
    #[arg(short, long, value_name = "TEXT")]
    pub(super) system: Option<String>,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,
}

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// The model: `owner/name` or `owner/name:QUANT`. Default: microsoft/Phi-3-mini-4k-instruct-gguf.
    pub(super) model: Option<String>,
    #[command(flatten)]
    pub(super) hub: HubArgs,
    /// Write one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Folder of the cache [default: HF_HUB_CACHE, or as the Hugging Face libraries choose it].
    #[arg(long, value_name = "FOLDER")]
    pub(super) cache_dir: Option<PathBuf>,
    /// Write one JSON array.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// A .gguf file, a model in the cache, or `demo`.
    pub(super) model: Option<String>,
    #[command(flatten)]
    pub(super) hub: HubArgs,
    /// Plan memory for a context of this many tokens [default: the longest that fits].
    #[arg(short, long, value_name = "TOKENS")]
    pub(super) context_length: Option<usize>,
    /// List every tensor.
    #[arg(long)]
    pub(super) tensors: bool,
    /// Print the chat template and nothing else.
    #[arg(long, conflicts_with_all = ["tensors", "json"])]
    pub(super) template: bool,
    /// Write one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// The repository, `owner/name`, as `phicandle list` shows it.
    pub(super) repo: String,
    /// Do not ask.
    #[arg(short, long)]
    pub(super) yes: bool,
    /// Folder of the cache [default: HF_HUB_CACHE, or as the Hugging Face libraries choose it].
    #[arg(long, value_name = "FOLDER")]
    pub(super) cache_dir: Option<PathBuf>,
    /// Write one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct TokenizeArgs {
    /// The text; read from standard input when absent or `-`.
    pub(super) text: Vec<String>,
    /// A hub name, a .gguf file, a tokenizer.json, or `demo`.
    #[arg(short, long)]
    pub(super) model: Option<String>,
    #[command(flatten)]
    pub(super) hub: HubArgs,
    /// Read control tokens such as `<|user|>` in the text as what they are, not as plain text.
    #[arg(long)]
    pub(super) raw: bool,
    /// Leave out the begin-of-text token that the file asks for.
    #[arg(long)]
    pub(super) no_bos: bool,
    /// Write one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Folder of the cache [default: HF_HUB_CACHE, or as the Hugging Face libraries choose it].
    #[arg(long, value_name = "FOLDER")]
    pub(super) cache_dir: Option<PathBuf>,
    /// Do not ask the hub whether it answers.
    #[arg(long)]
    pub(super) offline: bool,
    /// Write one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

/// Which file of which repository, and where it is kept.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct HubArgs {
    /// The file of the repository.
    #[arg(long, visible_alias = "file", value_name = "NAME")]
    pub(super) filename: Option<String>,
    /// Branch, tag or commit of the repository [default: main].
    #[arg(long, value_name = "NAME")]
    pub(super) revision: Option<String>,
    /// Folder of the cache [default: HF_HUB_CACHE, or as the Hugging Face libraries choose it].
    #[arg(long, value_name = "FOLDER")]
    pub(super) cache_dir: Option<PathBuf>,
    /// Use only what the cache holds.
    #[arg(long)]
    pub(super) offline: bool,
}

/// Which model, and what runs it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub(super) struct EngineArgs {
    /// A hub name, a path to a .gguf file, or `demo` [default: microsoft/Phi-3-mini-4k-instruct-gguf].
    #[arg(short, long)]
    pub(super) model: Option<String>,
    #[command(flatten)]
    pub(super) hub: HubArgs,
    /// A tokenizer.json, or a .gguf file whose tokenizer to use.
    #[arg(long, value_name = "FILE")]
    pub(super) tokenizer: Option<PathBuf>,
    /// A file with a Jinja chat template to use in place of the model's own.
    #[arg(long, value_name = "FILE")]
    pub(super) chat_template: Option<PathBuf>,
    /// What computes: auto, candle or native.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub(super) backend: String,
    /// Where: auto, cpu, cuda, cuda:N or metal.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub(super) device: String,
    /// Threads to compute with [default: one for each core that this process may use].
    #[arg(short, long, value_name = "N")]
    pub(super) threads: Option<usize>,
    /// Where the weights are kept: repack (copied for speed), mmap (left in the file) or auto (by the memory available).
    #[arg(long, default_value = "auto", value_name = "MODE")]
    pub(super) memory: String,
    /// How keys and values are kept: f16, or q8 for half the memory.
    #[arg(long, default_value = "f16", value_name = "TYPE")]
    pub(super) kv_dtype: String,
    /// Tokens that prompt and answer may hold together [default: the longest that fits].
    #[arg(short, long, value_name = "TOKENS")]
    pub(super) context_length: Option<usize>,
}
