//! The flags that say how tokens are chosen.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::error::Result;
use crate::sampling::{Overflow, SamplingParams, timeout};

/// [`SamplingParams`] as flags. The defaults are the same but for the length: the command goes on to the end of the turn.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArgs {
    /// Most tokens to write [default: to the end of the turn].
    #[arg(short = 'n', long, value_name = "N")]
    max_tokens: Option<usize>,
    /// 0 for the likeliest token every time; higher is more varied.
    #[arg(
        long,
        visible_alias = "temp",
        default_value_t = 1.0,
        allow_negative_numbers = true,
        value_name = "T"
    )]
    temperature: f64,
    /// Draw from the K likeliest tokens only.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the smallest set of tokens whose probabilities reach P.
    #[arg(long, allow_negative_numbers = true, value_name = "P")]
    top_p: Option<f64>,
    /// Drop tokens less likely than this share of the likeliest.
    #[arg(long, allow_negative_numbers = true, value_name = "P")]
    min_p: Option<f64>,
    /// Draw from the tokens that surprise about as much as is expected, up to a probability of P.
    #[arg(long, allow_negative_numbers = true, value_name = "P")]
    typical_p: Option<f64>,
    /// Divide the logits of recent tokens by this; 1 is off.
    #[arg(long, default_value_t = 1.2, allow_negative_numbers = true, value_name = "X")]
    repeat_penalty: f32,
    /// How many of the last tokens count as recent.
    #[arg(long, default_value_t = 64, value_name = "N")]
    repeat_last_n: usize,
    /// Subtract this from the logit of every token written so far.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_name = "X")]
    presence_penalty: f32,
    /// Subtract this from a token's logit for each time it was written.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, value_name = "X")]
    frequency_penalty: f32,
    /// Add BIAS to the logit of the token ID; may be given more than once.
    #[arg(long, value_name = "ID=BIAS", value_parser = parse_bias)]
    logit_bias: Vec<(u32, f32)>,
    /// The same seed, prompt and flags give the same text [default: random].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Stop before this text; may be given more than once.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Stop at this token; may be given more than once.
    #[arg(long, value_name = "ID")]
    stop_token_id: Vec<u32>,
    /// Keep the stop text in the answer.
    #[arg(long)]
    include_stop: bool,
    /// Go on past the end of the turn.
    #[arg(long)]
    ignore_eos: bool,
    /// Do not stop before this many tokens.
    #[arg(long, default_value_t = 0, value_name = "N")]
    min_tokens: usize,
    /// Stop after this many seconds.
    #[arg(long, allow_negative_numbers = true, value_name = "SECONDS")]
    timeout: Option<f64>,
    /// What to leave out of a conversation that is too long for the context [default: error; in a chat drop_oldest_turns].
    #[arg(
        long,
        value_name = "POLICY",
        value_parser = PossibleValuesParser::new(Overflow::ALL.map(Overflow::name)).try_map(|name| name.parse::<Overflow>())
    )]
    overflow: Option<Overflow>,
}

impl SamplingArgs {
    /// The parameters, not yet validated against a model. `overflow` is the policy where no flag names another.
    pub(super) fn params(&self, overflow: Overflow) -> Result<SamplingParams> {
        Ok(SamplingParams {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last_n: self.repeat_last_n,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed,
            stop: self.stop.clone(),
            stop_token_ids: self.stop_token_id.clone(),
            include_stop: self.include_stop,
            ignore_eos: self.ignore_eos,
            min_tokens: self.min_tokens,
            logprobs: None,
            prompt_logprobs: None,
            timeout: self.timeout.map(timeout).transpose()?,
            overflow: self.overflow.unwrap_or(overflow),
            priority: 0,
        })
    }
}

fn parse_bias(text: &str) -> std::result::Result<(u32, f32), String> {
    let parsed = text.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    parsed.ok_or_else(|| "expected a token id and a number, as in 1234=-100".to_owned())
}
