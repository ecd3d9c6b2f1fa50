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
    /// Measure how well a model predicts a text.
    Perplexity(PerplexityArgs),
    /// Measure how fast a model runs here, beside what this machine could do.
    #[command(after_help = BENCH)]
    Bench(BenchArgs),
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
pub(super) struct PerplexityArgs {
    /// A file of UTF-8 text, in which control tokens are plain text; `-` for standard input.
    pub(super) file: PathBuf,
    /// Tokens from the beginning of a window to that of the next: fewer give each token more to look back at, and take longer
    /// [default: half the window].
    #[arg(long, value_name = "TOKENS")]
    pub(super) stride: Option<usize>,
    /// Tokens of a window [default: the context length].
    #[arg(long, value_name = "TOKENS")]
    pub(super) window: Option<usize>,
    /// Leave out the begin-of-text token that the file asks for.
    #[arg(long)]
    pub(super) no_bos: bool,
    /// Write one JSON object.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
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

/// The end of `bench --help`.
const BENCH: &str = "\
Without a flag of \"What to measure\" all is measured, as far as the model's
context goes; with some, what they name. Lists have commas, as in -b 1,4,16.
Load time, memory and the machine's limits are always there.

  of limit  time that the machine needs at least, over the median: bytes of
            weights, keys and values over the read bandwidth, or operations
            over the arithmetic peak, whichever is longer
  spread    from the fastest to the slowest repetition, over the median
  check     a pass over guessed tokens, as speculation makes it
  between   time per token that the engine adds: sampling, text, events";

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// A hub name, a path to a .gguf file, or `demo` [default: microsoft/Phi-3-mini-4k-instruct-gguf].
    pub(super) model: Option<String>,
    #[command(flatten)]
    pub(super) hub: HubArgs,
    /// Tokens of a prompt to read [default: 512].
    #[arg(short, long, value_name = "TOKENS", value_delimiter = ',', help_heading = MEASURE)]
    pub(super) prompt: Vec<usize>,
    /// Tokens to write, one pass for each [default: 128].
    #[arg(short = 'n', long, value_name = "TOKENS", help_heading = MEASURE)]
    pub(super) generate: Option<usize>,
    /// Sequences that write together; more than one are measured at the first depth [default: 1,4,16].
    #[arg(short, long, value_name = "SEQUENCES", value_delimiter = ',', help_heading = MEASURE)]
    pub(super) batch: Vec<usize>,
    /// Tokens that a sequence holds before it is measured [default: 0,2048].
    #[arg(short, long, value_name = "TOKENS", value_delimiter = ',', help_heading = MEASURE)]
    pub(super) depth: Vec<usize>,
    /// Guessed tokens to check in one pass, against the time of one token [default: 5].
    #[arg(long, value_name = "TOKENS", help_heading = MEASURE)]
    pub(super) verify: Option<usize>,
    /// How often to measure each.
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    pub(super) repetitions: usize,
    /// Threads to compute with, one run for each [default: what the backend chooses].
    #[arg(short, long, value_name = "N", value_delimiter = ',')]
    pub(super) threads: Vec<usize>,
    /// What computes: auto, candle or native.
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub(super) backend: String,
    /// Where the weights are kept: repack (copied for speed), mmap (left in the file) or auto (by the memory available).
    #[arg(long, default_value = "auto", value_name = "MODE")]
    pub(super) memory: String,
    /// How keys and values are kept: f16, or q8 for half the memory.
    #[arg(long, default_value = "f16", value_name = "TYPE")]
    pub(super) kv_dtype: String,
    /// Do not measure the machine's own limits (some seconds, and 2 GiB of memory meanwhile).
    #[arg(long)]
    pub(super) no_limits: bool,
    /// Write one JSON object with every sample.
    #[arg(long)]
    pub(super) json: bool,
}

/// The heading of the flags that choose what `bench` measures.
const MEASURE: &str = "What to measure";

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
    /// Let attention look back over everything, also where the file has a sliding window.
    #[arg(long)]
    pub(super) no_sliding_window: bool,
    /// Tokens that prompt and answer may hold together [default: the longest that fits].
    #[arg(short, long, value_name = "TOKENS")]
    pub(super) context_length: Option<usize>,
}
