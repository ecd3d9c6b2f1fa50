//! How likely tokens are, with a scripted model: the next letter has the logit 10, all other tokens 0.

use super::*;
use crate::sampling::TokenLogprob;

/// Logprobs of the next letter and of any other token, of 30.
fn expected() -> (f64, f64) {
    let log_sum = (10_f64.exp() + 29.0).ln();
    (10.0 - log_sum, -log_sum)
}

fn assert_said(found: &[TokenLogprob], tokens: &[u32], likely: &[bool]) {
    let (next, other) = expected();
    assert_eq!(found.iter().map(|found| found.token).collect::<Vec<_>>(), tokens);
    for (found, &likely) in found.iter().zip(likely) {
        let wanted = if likely { next } else { other };
        assert!((found.logprob - wanted).abs() < 1e-6, "{found:?} is not {wanted}");
    }
}

fn score(engine: &Engine, prompt: &[u32], continuations: &[&[u32]]) -> Vec<Vec<TokenLogprob>> {
    let stream = engine
        .score(ScoreRequest {
            prompt: Prompt::Tokens(prompt.to_vec()),
            continuations: continuations.iter().map(|tokens| tokens.to_vec()).collect(),
            top: 0,
            timeout: None,
        })
        .unwrap();
    let (text, last) = read(&stream);
    let last = finish(last);
    assert_eq!((text.as_str(), last.reason), ("", FinishReason::Stop));
    last.scores
}

/// All tokens of an answer with what was said of them.
fn answer(engine: &Engine, request: Request) -> (Vec<TokenLogprob>, Finish) {
    let stream = engine.submit(request).unwrap();
    let mut found = Vec::new();
    loop {
        match stream.next(SOON) {
            Poll::Event(Event::Chunk(chunk)) => found.extend(chunk.logprobs.unwrap()),
            Poll::Event(Event::Finish(mut last)) => {
                found.extend(last.logprobs.take().unwrap());
                return (found, *last);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn each_written_token_comes_with_what_the_model_said_of_it() {
    let engine = engine(Script::Alphabet);
    let change = |params: &mut SamplingParams| {
        params.logprobs = Some(2);
        params.max_tokens = Some(4);
        // Neither changes what the model says: the c is forbidden, so a d comes after the b; the l is preferred to the e.
        params.logit_bias = vec![(2, -100.0), (0, 9.0), (11, 100.0)];
        params.repeat_penalty = 2.0;
    };
    let (found, last) = answer(&engine, request("a", change));
    // The bias makes an l of everything, until the penalty halves it; what is told is raw all the same.
    assert_eq!(found.len(), 4);
    let (next, other) = expected();
    let mut before = 0;
    for found in &found {
        let wanted = if found.token == (before + 1) % 26 { next } else { other };
        assert!((found.logprob - wanted).abs() < 1e-6, "{found:?}");
        assert_eq!(found.top[0].0, (before + 1) % 26);
        assert_eq!(found.top.len(), 2);
        before = found.token;
    }
    assert!(found.iter().any(|found| found.token == 11));
    assert_eq!(last.prompt_logprobs, None);
}

#[test]
fn a_prompt_is_read_with_all_its_rows() {
    let engine = engine(Script::Alphabet);
    let (found, last) = answer(
        &engine,
        request("abcdxyzab", |params| {
            (params.logprobs, params.prompt_logprobs, params.max_tokens) = (Some(0), Some(1), Some(2));
        }),
    );
    assert_said(&found, &[2, 3], &[true, true]);
    let prompt = last.prompt_logprobs.unwrap();
    assert_said(&prompt, &[1, 2, 3, 23, 24, 25, 0, 1], &[true, true, true, false, true, true, true, true]);
    assert_eq!(prompt[3].top, [(4, expected().0)].map(|(token, _)| (token, prompt[0].logprob)));
}

#[test]
fn without_a_wish_nothing_is_told() {
    let engine = engine(Script::Alphabet);
    let (_, last) = read(&engine.submit(request("ab", |_| {})).unwrap());
    let last = finish(last);
    assert_eq!((last.logprobs, last.prompt_logprobs, last.scores), (None, None, Vec::new()));
}

#[test]
fn continuations_are_scored_from_a_prompt_that_is_read_once() {
    for (script, read) in [(Script::Alphabet, 2 + 6 + 1), (Script::OneWay, 2 + 6 + 2 + 1)] {
        let engine = engine(script);
        let continuations: [&[u32]; 4] = [&[2], &[2, 3, 4, 5, 7, 8, 9], &[5], &[25, 0]];
        let found = score(&engine, &[0, 1], &continuations);
        let likely: [&[bool]; 4] =
            [&[true], &[true, true, true, true, false, true, true], &[false], &[false, true]];
        assert_eq!(found.len(), 4);
        for ((found, tokens), likely) in found.iter().zip(continuations).zip(likely) {
            assert_said(found, tokens, likely);
        }
        assert_eq!(engine.stats().prompt_tokens, read);
    }
}

#[test]
fn scores_are_the_logprobs_of_the_answer_that_was_written() {
    let engine = engine(Script::Alphabet);
    let (written, _) =
        answer(&engine, request("ab", |params| (params.logprobs, params.max_tokens) = (Some(0), Some(9))));
    let tokens: Vec<u32> = written.iter().map(|found| found.token).collect();
    assert_eq!(score(&engine, &[0, 1], &[&tokens]), [written]);
}

#[test]
fn scores_are_stopped_like_answers() {
    let engine = engine(Script::Slow);
    let ask = |timeout| {
        let continuations = vec![vec![1; 40]; 200];
        let request = ScoreRequest { prompt: Prompt::Tokens(vec![0]), continuations, top: 0, timeout };
        engine.score(request).unwrap()
    };
    let stream = ask(None);
    std::thread::sleep(Duration::from_millis(5));
    stream.cancel();
    let last = finish(read(&stream).1);
    assert_eq!((last.reason, last.scores.len()), (FinishReason::Cancelled, 200));
    let last = finish(read(&ask(Some(Duration::from_millis(20)))).1);
    assert_eq!(last.reason, FinishReason::Timeout);
    let stream = ask(None);
    engine.close();
    assert!(matches!(failure(read(&stream).1).kind(), ErrorKind::Closed));
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let engine = engine(Script::Alphabet);
    let refused = |prompt: &[u32], continuations: &[&[u32]], top| {
        let request = ScoreRequest {
            prompt: Prompt::Tokens(prompt.to_vec()),
            continuations: continuations.iter().map(|tokens| tokens.to_vec()).collect(),
            top,
            timeout: None,
        };
        engine.score(request).err().map(|error| match error.kind() {
            ErrorKind::InvalidParameter { parameter, .. } => parameter.clone(),
            kind => format!("{kind:?}"),
        })
    };
    assert_eq!(refused(&[0], &[], 0).as_deref(), Some("continuations"));
    assert_eq!(refused(&[0], &[&[1], &[]], 0).as_deref(), Some("continuations"));
    assert_eq!(refused(&[0], &[&[30]], 0).as_deref(), Some("continuations"));
    assert_eq!(refused(&[], &[&[1]], 0).as_deref(), Some("prompt"));
    assert_eq!(refused(&[0], &[&[1]], 21).as_deref(), Some("top_logprobs"));
    assert_eq!(refused(&[0; 60], &[&[1; 4]], 20), None);
    let long = refused(&[0; 60], &[&[1], &[1; 5]], 0).unwrap();
    assert!(long.starts_with("ContextOverflow") && long.contains("65"), "{long}");
    for (name, change) in [
        ("logprobs", (|params| params.logprobs = Some(21)) as fn(&mut SamplingParams)),
        ("prompt_logprobs", |params| params.prompt_logprobs = Some(usize::MAX)),
    ] {
        let error = engine.submit(request("a", change)).err().unwrap();
        assert!(matches!(error.kind(), ErrorKind::InvalidParameter { parameter, .. } if parameter == name));
    }
}

#[test]
fn text_after_a_raw_prompt_is_cut_as_if_both_were_one() {
    let engine = engine(Script::Alphabet);
    let raw = Prompt::Raw("ab".to_owned());
    assert_eq!(engine.continuation_tokens(&raw, "cd").unwrap(), [2, 3]);
    assert_eq!(engine.continuation_tokens(&raw, "<|end|>").unwrap(), [29]);
    let said = Prompt::Text("ab".to_owned());
    assert_eq!(engine.continuation_tokens(&said, "cd").unwrap(), [2, 3]);
}

#[test]
fn a_pass_has_no_more_rows_than_there_is_memory_for() {
    let limits = Limits {
        slots: 3,
        run_tokens: 512,
        layers: 1,
        context_length: 1024,
        kv_tokens: 4096,
        vocab_size: 30,
        original_context: None,
        kept_tokens: None,
        rewinds: true,
        shares: false,
    };
    let requests = [(100, Some(0)), (40, Some(0)), (300, None)].map(|(length, prompt_logprobs)| {
        let params = SamplingParams { prompt_logprobs, max_tokens: Some(8), ..SamplingParams::default() };
        (length, params)
    });
    let (mut scheduler, _streams) = waiting(limits, requests);
    let mut model = super::reader::Reader::new(limits);
    scheduler.admit(&mut model);
    let batch = scheduler.next_batch(&mut model);
    let pieces: Vec<_> = batch.runs.iter().map(|run| (run.tokens.len(), run.logit_rows())).collect();
    assert_eq!(pieces, [(LOGIT_ROWS, LOGIT_ROWS), (1, 1), (32, 0)]);
}
