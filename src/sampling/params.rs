//! What a request may ask of the sampler, and the ranges it must keep to.

use std::time::Duration;

use super::logprobs::MOST_LOGPROBS;
use super::overflow::Overflow;
use crate::error::{Error, Result};

/// Most stop strings, and most stop token ids, that one request may have.
const MAX_STOPS: usize = 256;
/// Longest stop string, in bytes: the engine holds back this much text while it waits for a match.
const MAX_STOP_BYTES: usize = 4096;

/// How the tokens of one answer are chosen and when the answer ends.
///
/// The defaults are those of the Phi cookbook's tutorial: 100 tokens, temperature 1.0, repeat penalty 1.2 over the last
/// 64 generated tokens, no filter, a random seed.
///
/// ```
/// use phicandle::sampling::SamplingParams;
///
/// let params = SamplingParams { temperature: 0.7, top_p: Some(0.9), seed: Some(7), ..Default::default() };
/// assert!(params.validate(32_064).is_ok());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Most tokens to generate, at least 1; `None` goes on to the end of the turn or of the context. Default 100.
    pub max_tokens: Option<usize>,
    /// Divides the logits, 0 to 100; below 1e-7 the likeliest token is always taken. Default 1.0.
    pub temperature: f64,
    /// Draw from the `k` likeliest tokens only, at least 1. Default off.
    pub top_k: Option<usize>,
    /// Draw from the smallest set of tokens whose probabilities reach this sum, above 0 and up to 1. Default off.
    pub top_p: Option<f64>,
    /// Drop tokens less likely than this share of the likeliest one, 0 to 1. Default off.
    pub min_p: Option<f64>,
    /// Locally typical sampling (arXiv 2202.00666): draw from the tokens whose surprise is nearest to the expected one
    /// and whose probabilities reach this sum, above 0 and up to 1. Default off.
    pub typical_p: Option<f64>,
    /// Divides positive and multiplies negative logits of recent tokens, above 0 and up to 100; 1 is off. Default 1.2.
    pub repeat_penalty: f32,
    /// How many of the last generated tokens the repeat penalty looks at; 0 is off. Default 64.
    pub repeat_last_n: usize,
    /// Subtracted once from the logit of every token generated so far, -2 to 2. Default 0.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit once for each time it was generated, -2 to 2. Default 0.
    pub frequency_penalty: f32,
    /// Added to the logits of these token ids, each -100 to 100. Default none.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the draws; `None` takes a random one, which the answer reports. Default `None`.
    pub seed: Option<u64>,
    /// Strings that end the answer, none of them empty. Default none.
    pub stop: Vec<String>,
    /// Token ids that end the answer. Default none.
    pub stop_token_ids: Vec<u32>,
    /// Whether the stop string that matched stays in the text. Default false.
    pub include_stop: bool,
    /// Whether to go on past end-of-turn tokens. Default false.
    pub ignore_eos: bool,
    /// Tokens to generate before any stop counts; at most `max_tokens`. Default 0.
    pub min_tokens: usize,
    /// Say of each token how likely it was, and which this many were the likeliest there, 0 to 20. What is told is what the model
    /// itself said, before bias, penalties, temperature and filters. Default off.
    pub logprobs: Option<usize>,
    /// The same for the tokens of the prompt, from the second one on. Default off.
    pub prompt_logprobs: Option<usize>,
    /// Ends the answer with what there is after this time, more than zero. Default none.
    pub timeout: Option<Duration>,
    /// What to do with a prompt for which the context is too small. Default [`Overflow::Error`].
    pub overflow: Overflow,
    /// Requests of higher priority go first, and may have those of lower priority wait. Default 0.
    pub priority: i32,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            max_tokens: Some(100),
            temperature: 1.0,
            top_k: None,
            top_p: None,
            min_p: None,
            typical_p: None,
            repeat_penalty: 1.2,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            include_stop: false,
            ignore_eos: false,
            min_tokens: 0,
            logprobs: None,
            prompt_logprobs: None,
            timeout: None,
            overflow: Overflow::Error,
            priority: 0,
        }
    }
}

impl SamplingParams {
    /// Checks every field, for a model of `vocab_size` tokens.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) that names the first parameter out of its range.
    pub fn validate(&self, vocab_size: usize) -> Result<()> {
        self.validate_numbers()?;
        self.validate_lengths()?;
        self.validate_stops()?;
        self.validate_ids(vocab_size)
    }

    fn validate_numbers(&self) -> Result<()> {
        const UNIT: &str = "above 0 and at most 1";
        within("temperature", self.temperature, 0.0, 100.0, "between 0 and 100")?;
        for (name, value) in [("top_p", self.top_p), ("typical_p", self.typical_p)] {
            if let Some(value) = value.filter(|value| !(*value > 0.0 && *value <= 1.0)) {
                return Err(out_of_range(name, value, UNIT));
            }
        }
        if let Some(value) = self.min_p {
            within("min_p", value, 0.0, 1.0, "between 0 and 1")?;
        }
        if !(self.repeat_penalty > 0.0 && self.repeat_penalty <= 100.0) {
            return Err(out_of_range("repeat_penalty", self.repeat_penalty, "above 0 and at most 100"));
        }
        for (name, value) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            within(name, f64::from(value), -2.0, 2.0, "between -2 and 2")?;
        }
        for (_, bias) in &self.logit_bias {
            within("logit_bias", f64::from(*bias), -100.0, 100.0, "between -100 and 100")?;
        }
        Ok(())
    }

    fn validate_lengths(&self) -> Result<()> {
        if self.max_tokens == Some(0) {
            return Err(out_of_range("max_tokens", 0, "at least 1"));
        }
        if self.top_k == Some(0) {
            return Err(out_of_range("top_k", 0, "at least 1"));
        }
        if let Some(max) = self.max_tokens.filter(|max| self.min_tokens > *max) {
            return Err(out_of_range("min_tokens", self.min_tokens, &format!("at most max_tokens, {max}")));
        }
        for (name, top) in [("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)] {
            top.map_or(Ok(()), |top| check_top(name, top))?;
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(out_of_range("timeout", 0, "a number of seconds above 0"));
        }
        Ok(())
    }

    fn validate_stops(&self) -> Result<()> {
        if self.stop.len() > MAX_STOPS {
            let count = format!("a list of {}", self.stop.len());
            return Err(out_of_range("stop", count, &format!("at most {MAX_STOPS} strings")));
        }
        for text in &self.stop {
            if text.is_empty() {
                return Err(out_of_range("stop", "an empty string", "strings of at least one character"));
            }
            if text.len() > MAX_STOP_BYTES {
                let length = format!("a string of {} bytes", text.len());
                return Err(out_of_range(
                    "stop",
                    length,
                    &format!("strings of at most {MAX_STOP_BYTES} bytes"),
                ));
            }
        }
        if self.stop_token_ids.len() > MAX_STOPS {
            let count = format!("a list of {}", self.stop_token_ids.len());
            return Err(out_of_range("stop_token_ids", count, &format!("at most {MAX_STOPS} ids")));
        }
        Ok(())
    }

    fn validate_ids(&self, vocab_size: usize) -> Result<()> {
        let bias = self.logit_bias.iter().map(|(id, _)| ("logit_bias", *id));
        let stops = self.stop_token_ids.iter().map(|id| ("stop_token_ids", *id));
        match bias.chain(stops).find(|(_, id)| *id as usize >= vocab_size) {
            None => Ok(()),
            Some((name, id)) => Err(Error::invalid(
                name,
                format!(
                    "`{name}` has the token id {id}, and this model's ids go from 0 to {}.",
                    vocab_size.saturating_sub(1)
                ),
                "Take ids from the `encode` of this model's own tokenizer.",
            )),
        }
    }
}

/// Checks how many alternatives are asked for, as the parameter `name`.
///
/// # Errors
/// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for more than [`MOST_LOGPROBS`].
pub fn check_top(name: &str, top: usize) -> Result<()> {
    if top <= MOST_LOGPROBS {
        Ok(())
    } else {
        Err(out_of_range(name, top, &format!("at most {MOST_LOGPROBS}")))
    }
}

/// [`SamplingParams::timeout`] from a number of seconds, as users write it.
///
/// # Errors
/// [`ErrorKind::InvalidParameter`](crate::ErrorKind::InvalidParameter) for a number that is no length of time.
pub fn timeout(seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| out_of_range("timeout", seconds, "a number of seconds above 0"))
}

/// Checks `low <= value <= high`, which no NaN meets.
fn within(name: &str, value: f64, low: f64, high: f64, range: &str) -> Result<()> {
    if value >= low && value <= high { Ok(()) } else { Err(out_of_range(name, value, range)) }
}

#[cold]
fn out_of_range(name: &str, value: impl std::fmt::Display, range: &str) -> Error {
    let hint = match name {
        "temperature" => "Use 0 for the likeliest token every time, around 1 for variety.",
        "top_k" | "top_p" | "min_p" | "typical_p" => {
            "Leave it out to turn this filter off; for the likeliest token every time set `temperature` to 0."
        }
        "max_tokens" => "Leave it unset (`None`) to go on to the end of the turn.",
        "repeat_penalty" => "Use 1 to turn the penalty off; values from 1.05 to 1.3 are usual.",
        "logit_bias" => "Use -100 to rule a token out, 100 to force it.",
        "timeout" => "Leave it unset (`None`) for no time limit.",
        _ => "Change the value, or leave the parameter out for its default.",
    };
    Error::invalid(name, format!("`{name}` is {value}, and must be {range}."), hint)
}
