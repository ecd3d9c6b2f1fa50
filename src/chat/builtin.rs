//! Templates for files that bring none: the turns that each family was trained on.

use super::ChatTemplate;
use crate::error::Result;
use crate::tokenizer::{Family, Tokenizer};

/// Phi-3 and Phi-3.5: each turn is `<|role|>`, a line break, the text and `<|end|>`.
const PHI_3: &str = "\
{%- for message in messages -%}
    {%- if message['role'] in ['user', 'assistant'] or (message['role'] == 'system' and message['content']) -%}
        {{- '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' -}}
    {%- endif -%}
{%- endfor -%}
{{- '<|assistant|>\\n' if add_generation_prompt else eos_token -}}
";

/// Phi-4: the role stands between `<|im_start|>` and `<|im_sep|>`, and nothing else is written.
const PHI_4: &str = "\
{%- for message in messages -%}
    {%- if message['role'] in ['system', 'user', 'assistant'] -%}
        {{- '<|im_start|>' + message['role'] + '<|im_sep|>' + message['content'] + '<|im_end|>' -}}
    {%- endif -%}
{%- endfor -%}
{{- '<|im_start|>assistant<|im_sep|>' if add_generation_prompt else '' -}}
";

/// Phi-4-mini: Phi-3's turns without line breaks; a system turn may list tools.
const PHI_4_MINI: &str = "\
{%- for message in messages -%}
    {{- '<|' + message['role'] + '|>' + message['content'] -}}
    {%- if message['role'] == 'system' and message['tools'] is string -%}
        {{- '<|tool|>' + message['tools'] + '<|/tool|>' -}}
    {%- endif -%}
    {{- '<|end|>' -}}
{%- endfor -%}
{{- '<|assistant|>' if add_generation_prompt else eos_token -}}
";

/// ChatML, without the system turn that some models add by themselves.
const CHAT_ML: &str = "\
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' if add_generation_prompt else '' -}}
";

/// Phi-2 has no turns. Its model card asks questions as `Instruct: …`, a line break, `Output:`; more turns repeat that.
const PHI_2: &str = "\
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}
        {{- 'Instruct: ' + message['content'] + '\\n' -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- 'Output: ' + message['content'] + '\\n' -}}
    {%- elif message['role'] == 'system' and message['content'] -%}
        {{- message['content'] + '\\n' -}}
    {%- endif -%}
{%- endfor -%}
{{- 'Output:' if add_generation_prompt else '' -}}
";

/// For a vocabulary that knows no turns at all: messages are refused, raw prompts are not.
const NONE: &str = "\
{{- raise_exception('the model file has no chat template, and its vocabulary has the turns of no known family; send \
the prompt as raw text (template=False), or give a template') -}}
";

impl ChatTemplate {
    /// The template for a file that has none: that of the family whose turns the vocabulary has, or of the
    /// `architecture` (`general.architecture`) where it has none. Says in the log which. A vocabulary that knows no
    /// turns gets a template that refuses messages, because text would have to be guessed into turns.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn built_in(tokenizer: &Tokenizer, architecture: Option<&str>) -> Result<Self> {
        let family = tokenizer.family().or((architecture == Some("phi2")).then_some(Family::Phi2));
        let (source, name) = match family {
            Some(Family::Phi2) => (PHI_2, "Phi-2's form, `Instruct: ... Output:`, is used"),
            Some(Family::Phi3) => (PHI_3, "Phi-3's is used"),
            Some(Family::Phi4) => (PHI_4, "Phi-4's is used"),
            Some(Family::Phi4Mini) => (PHI_4_MINI, "Phi-4-mini's is used"),
            Some(Family::ChatMl) => (CHAT_ML, "ChatML is used"),
            None => (NONE, "its vocabulary has the turns of no known family: only raw prompts can be used"),
        };
        log::warn!("the model file has no chat template (tokenizer.chat_template): {name}");
        Self::of(source, tokenizer)
    }

    /// A template with the marks of a tokenizer's vocabulary.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn of(source: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        Self::parse(source, &text(tokenizer.bos_id()), &text(tokenizer.eos_id()))
    }

    /// Phi-3's own format.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn phi3() -> Result<Self> {
        Self::parse(PHI_3, "<s>", "<|endoftext|>")
    }
}
