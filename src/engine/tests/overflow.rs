//! Prompts that are too long for the context, under each policy.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::chat::{turns, without_oldest};
use crate::sampling::Overflow;
use crate::tokenizer::{Family, samples};

/// An engine that knows every byte, with the turns of a family.
fn speaking(family: Family) -> Engine {
    let tokenizer = samples::tokenizer(family);
    let template = ChatTemplate::built_in(&tokenizer, None).unwrap();
    engine_speaking(tokenizer, template, Script::Alphabet, 1, DEFAULT_MAX_QUEUE).0
}

fn params(overflow: Overflow, max_tokens: Option<usize>) -> SamplingParams {
    SamplingParams { overflow, max_tokens, ..SamplingParams::default() }
}

fn talks() -> impl Strategy<Value = Vec<Message>> {
    let message = (prop::sample::select(vec!["user", "user", "assistant"]), "[a-e é日]{0,30}");
    let talk = prop::collection::vec(message, 1..10);
    (prop::option::of("[a-e]{1,6}"), talk).prop_map(|(system, talk)| {
        let system = system.map(|text| Message::new("system", text));
        let said = talk.into_iter().map(|(role, text)| Message::new(role, text));
        system.into_iter().chain(said).collect()
    })
}

/// Most tokens of a prompt, worked out from what the documentation says: an answer has `max_tokens`, up to half the context, or a
/// quarter.
fn most(max_tokens: Option<usize>) -> usize {
    match max_tokens {
        None => CONTEXT - CONTEXT / 4,
        Some(tokens) if tokens > CONTEXT / 2 => CONTEXT / 2,
        Some(tokens) => CONTEXT - tokens,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_fewest_oldest_turns_go_in_quarters_of_the_context(talk in talks(), max_tokens in prop::option::of(1usize..80)) {
        let engine = speaking(Family::ChatMl);
        let prompt = Prompt::Messages(talk.clone());
        let tokens = |talk: &[Message]| engine.prompt_tokens(&Prompt::Messages(talk.to_vec())).unwrap();
        let most = most(max_tokens);
        let turns = turns(&talk).len();
        let fitted = engine.fit(&prompt, &params(Overflow::DropOldestTurns, max_tokens));
        // One after the other, where the engine looks by halves. What has to go is counted in quarters of the context, if that can be.
        let lengths: Vec<usize> = (0..turns).map(|count| tokens(&without_oldest(&talk, count)).len()).collect();
        let needed = lengths[0].saturating_sub(most);
        let rounded = (0..).map(|quarters| quarters * CONTEXT / 4).find(|&gone| gone >= needed).unwrap();
        let enough = lengths.iter().position(|length| length + rounded <= lengths[0]);
        let enough = enough.or_else(|| lengths.iter().position(|&length| length <= most));
        let count = enough.unwrap_or(turns - 1);
        let left = without_oldest(&talk, count);
        prop_assert_eq!(left.last(), talk.last());
        prop_assert_eq!(left.iter().filter(|m| m.role == "system").count(), talk.iter().filter(|m| m.role == "system").count());
        let expected = tokens(&left);
        match fitted {
            Ok(Fitted { tokens: found, dropped }) => {
                // The template writes the shorter conversation as if it had never been longer.
                prop_assert_eq!(&found, &expected);
                prop_assert!(found.len() < CONTEXT && (found.len() <= most || enough.is_none()));
                prop_assert_eq!(dropped, Dropped { turns: count, tokens: tokens(&talk).len() - found.len() });
            }
            Err(error) => {
                prop_assert!(expected.len() >= CONTEXT, "{}", error);
                let kind = ErrorKind::ContextOverflow { prompt_tokens: tokens(&talk).len(), limit: CONTEXT };
                prop_assert_eq!(error.kind(), &kind);
            }
        }
    }

    #[test]
    fn the_middle_of_the_longest_texts_goes(talk in talks(), max_tokens in prop::option::of(1usize..80)) {
        let engine = speaking(Family::ChatMl);
        let tokenizer = engine.tokenizer();
        let tokens = |talk: Vec<Message>| engine.prompt_tokens(&Prompt::Messages(talk)).unwrap();
        let whole = tokens(talk.clone());
        let most = most(max_tokens);
        // Cut to nothing but the mark, a text still has this.
        let length = |text: &str| tokenizer.encode(text, Some(false)).unwrap().len();
        let least = tokens(talk.iter().map(|message| {
            let cut = message.role != "system" && length(&message.content) > length(CUT_MARK);
            if cut { Message::new(message.role.as_str(), CUT_MARK) } else { message.clone() }
        }).collect()).len();
        match engine.fit(&Prompt::Messages(talk.clone()), &params(Overflow::TruncateMiddle, max_tokens)) {
            Ok(Fitted { tokens, dropped }) => {
                prop_assert!(tokens.len() < CONTEXT);
                prop_assert!(tokens.len() <= most || (least > most && tokens.len() == least));
                prop_assert_eq!(dropped, Dropped { turns: 0, tokens: whole.len() - tokens.len() });
                prop_assert_eq!(dropped.tokens > 0, whole.len() > most && tokens != whole);
                let text = tokenizer.decode(&tokens, false).unwrap();
                prop_assert!(!text.contains(char::REPLACEMENT_CHARACTER));
                let mut rest = text.as_str();
                for message in &talk {
                    // Each message is there in its place, whole or as its beginning, the mark and its end.
                    let opening = format!("<|im_start|>{}\n", message.role);
                    let (before, after) = rest.split_once(&opening).unwrap();
                    prop_assert_eq!(before, "");
                    let (said, after) = after.split_once("<|im_end|>\n").unwrap();
                    rest = after;
                    match said.split_once(CUT_MARK) {
                        Some((head, tail)) => {
                            prop_assert!(message.role != "system");
                            prop_assert!(message.content.starts_with(head) && message.content.ends_with(tail));
                            prop_assert!(head.len() + tail.len() < message.content.len());
                        }
                        None => prop_assert_eq!(said, &message.content),
                    }
                }
                prop_assert_eq!(rest, "<|im_start|>assistant\n");
            }
            Err(error) => {
                prop_assert!(matches!(error.kind(), ErrorKind::ContextOverflow { .. }), "{}", error);
                prop_assert!(least >= CONTEXT, "{} of {}", least, CONTEXT);
            }
        }
    }

    #[test]
    fn ids_and_raw_text_lose_their_middle(text in "[a-e é日\n]{0,160}", max_tokens in prop::option::of(1usize..80)) {
        let engine = speaking(Family::Phi4Mini);
        let tokenizer = engine.tokenizer();
        let ids = tokenizer.encode(&text, Some(false)).unwrap();
        prop_assume!(!ids.is_empty());
        let most = most(max_tokens);
        let cut = params(Overflow::TruncateMiddle, max_tokens);
        let Fitted { tokens, dropped } = engine.fit(&Prompt::Tokens(ids.clone()), &cut).unwrap();
        prop_assert!(tokens.len() <= most && tokens.len() + dropped.tokens == ids.len());
        // Three bytes at either place may be a character that is not whole.
        prop_assert!(ids.len() <= most || tokens.len() + 6 >= most);
        let head = tokens.iter().zip(&ids).take_while(|(one, other)| one == other).count();
        prop_assert!(ids.ends_with(&tokens[head..]));
        prop_assert!(!tokenizer.decode(&tokens, false).unwrap().contains(char::REPLACEMENT_CHARACTER));
        let raw = engine.fit(&Prompt::Raw(text.clone()), &cut).unwrap();
        prop_assert!(raw.tokens.len() <= most);
        let said = tokenizer.decode(&raw.tokens, false).unwrap();
        if raw.dropped.tokens == 0 {
            prop_assert_eq!(said, text);
        } else {
            let (head, tail) = said.split_once(CUT_MARK).unwrap();
            prop_assert!(text.starts_with(head) && text.ends_with(tail));
        }
    }
}

#[test]
fn without_a_policy_a_full_prompt_is_refused_and_a_fuller_answer_is_not() {
    let engine = speaking(Family::Phi4);
    let ids = |count| Prompt::Tokens(vec![65; count]);
    let plain = params(Overflow::Error, Some(100));
    assert_eq!(
        engine.fit(&ids(CONTEXT - 1), &plain).map(|fitted| fitted.dropped).unwrap(),
        Dropped::default()
    );
    let Err(error) = engine.fit(&ids(CONTEXT), &plain) else { panic!("it has no room") };
    assert_eq!(error.kind(), &ErrorKind::ContextOverflow { prompt_tokens: CONTEXT, limit: CONTEXT });
    assert!(error.hint().contains("overflow="), "{error}");
    // Ids have no turns: nothing can be dropped of them.
    let turns = params(Overflow::DropOldestTurns, Some(100));
    assert_eq!(engine.fit(&ids(CONTEXT - 1), &turns).unwrap().tokens.len(), CONTEXT - 1);
    assert!(engine.fit(&ids(CONTEXT), &turns).is_err());
}

#[test]
fn a_single_text_is_cut_inside_its_turn() {
    let engine = speaking(Family::Phi4);
    let text = format!("begin {} end", "x ".repeat(200));
    let cut = params(Overflow::TruncateMiddle, Some(8));
    let fitted = engine.fit(&Prompt::Text(text.clone()), &cut).unwrap();
    let said = engine.tokenizer().decode(&fitted.tokens, false).unwrap();
    assert!(said.starts_with("<|im_start|>user<|im_sep|>begin x"), "{said}");
    assert!(said.ends_with("x  end<|im_end|><|im_start|>assistant<|im_sep|>"), "{said}");
    assert!((50..=56).contains(&fitted.tokens.len()), "{said}");
    // A prompt that is no turn is cut as it is, and keeps what it begins and ends with.
    let raw = format!("<|im_start|>user<|im_sep|>{text}<|im_end|><|im_start|>assistant<|im_sep|>");
    let fitted = engine.fit(&Prompt::Text(raw), &cut).unwrap();
    let said = engine.tokenizer().decode(&fitted.tokens, false).unwrap();
    assert!(
        said.starts_with("<|im_start|>user<|im_sep|>begin") && said.ends_with("assistant<|im_sep|>"),
        "{said}"
    );
    assert!(said.contains(CUT_MARK) && fitted.tokens.len() == 56, "{said}");
}

#[test]
fn tools_stay_and_the_stream_tells_what_went() {
    let engine = speaking(Family::Phi4Mini);
    let messages: Vec<Message> =
        (0..12).flat_map(|_| [Message::new("user", "the user"), Message::new("assistant", "then")]).collect();
    let messages = [messages, vec![Message::new("user", "the end")]].concat();
    let prompt = Prompt::WithTools { messages, tools: vec![json!({"name": "f"})] };
    let answer = params(Overflow::DropOldestTurns, Some(4));
    let fitted = engine.fit(&prompt, &answer).unwrap();
    let said = engine.tokenizer().decode(&fitted.tokens, false).unwrap();
    assert!(said.starts_with("<|system|><|tool|>[{\"name\": \"f\"}]<|/tool|><|end|>"), "{said}");
    assert!(said.ends_with("<|user|>the end<|end|><|assistant|>"), "{said}");
    assert!(fitted.dropped.turns > 3);
    let stream = engine.submit(Request { prompt, params: answer }).unwrap();
    assert_eq!(stream.dropped(), fitted.dropped);
    assert_eq!(finish(read(&stream).1).usage.prompt_tokens, fitted.tokens.len());
}

#[test]
fn the_prompts_of_a_full_conversation_begin_alike() {
    let engine = speaking(Family::Phi4Mini);
    let policy = params(Overflow::DropOldestTurns, Some(4));
    let (mut talk, mut dropped) = (Vec::new(), Vec::new());
    for turn in 0..40 {
        talk.push(Message::new("user", "a"));
        dropped.push(engine.fit(&Prompt::Messages(talk.clone()), &policy).unwrap().dropped.turns);
        talk.push(Message::new("assistant", if turn % 2 == 0 { "b" } else { "c" }));
    }
    assert!(dropped.is_sorted() && dropped[39] > 30, "{dropped:?}");
    let full = &dropped[dropped.iter().position(|&turns| turns > 0).unwrap()..];
    let steps = full.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!(steps * 2 <= full.len(), "most prompts leave out what the one before did: {dropped:?}");
}
