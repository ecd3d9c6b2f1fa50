//! The sampler against Candle's `LogitsProcessor`, against slow 64-bit oracles, and against bad rows.

use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};
use proptest::prelude::*;

use super::{Sampler, SamplingParams};
use crate::error::ErrorKind;

/// No penalties, no filters.
fn plain() -> SamplingParams {
    SamplingParams { repeat_penalty: 1.0, ..Default::default() }
}

/// This crate's way to ask for a mode of Candle's.
fn params_for(mode: &Sampling) -> SamplingParams {
    match mode.clone() {
        Sampling::ArgMax => SamplingParams { temperature: 0.0, ..plain() },
        Sampling::All { temperature } => SamplingParams { temperature, ..plain() },
        Sampling::TopK { k, temperature } => SamplingParams { temperature, top_k: Some(k), ..plain() },
        Sampling::TopP { p, temperature } => SamplingParams { temperature, top_p: Some(p), ..plain() },
        Sampling::TopKThenTopP { k, p, temperature } => {
            SamplingParams { temperature, top_k: Some(k), top_p: Some(p), ..plain() }
        }
        Sampling::GumbelSoftmax { .. } => unreachable!("not offered: it ignores the seed"),
    }
}

/// Draws `draws` tokens with both, from rows that change a little each time, and compares.
fn assert_same_tokens(logits: &[f32], mode: Sampling, seed: u64, draws: usize) {
    let mut ours = Sampler::new(&params_for(&mode), seed);
    let mut candles = LogitsProcessor::from_sampling(seed, mode.clone());
    let mut row = logits.to_vec();
    let (mut actual, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..draws {
        let tensor = Tensor::from_slice(&row, row.len(), &Device::Cpu).unwrap();
        expected.push(candles.sample(&tensor).unwrap());
        actual.push(ours.sample(&mut row.clone(), &[], &[]).unwrap());
        row.rotate_right(1);
    }
    assert_eq!(actual, expected, "{mode:?}, {} logits, seed {seed}", logits.len());
}

/// Rows as models make them and worse: smooth, with ties, with tokens masked, nearly flat, one token far ahead.
fn row(sizes: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f32>> {
    let size = sizes.clone();
    let smooth = prop::collection::vec(-25.0f32..25.0, size.clone());
    let ties = prop::collection::vec((-6i8..7).prop_map(|v| f32::from(v) * 0.75), size.clone());
    let flat = prop::collection::vec(1.0f32..1.001, size.clone());
    let masked = prop::collection::vec(
        prop_oneof![3 => -9.0f32..9.0, 1 => Just(f32::NEG_INFINITY), 1 => Just(2.5f32)],
        size.clone(),
    );
    let peaked = (prop::collection::vec(-4.0f32..4.0, size), any::<prop::sample::Index>()).prop_map(
        |(mut row, at)| {
            let at = at.index(row.len());
            row[at] = 30.0;
            row
        },
    );
    prop_oneof![4 => smooth, 2 => ties, 1 => flat, 2 => masked, 1 => peaked]
        .prop_filter("one token must be left", |row| row.iter().any(|logit| logit.is_finite()))
}

fn mode() -> impl Strategy<Value = Sampling> {
    let temperature = prop_oneof![Just(1.0f64), 0.01f64..2.5, Just(0.7), Just(50.0)];
    let k = prop_oneof![4 => 1usize..100, 1 => 1usize..5000];
    let p = prop_oneof![4 => 0.001f64..1.0, 1 => Just(0.9), 1 => Just(1.0), 1 => Just(0.999_999_99), 1 => 1e-6f64..1e-3];
    prop_oneof![
        Just(Sampling::ArgMax),
        temperature.clone().prop_map(|temperature| Sampling::All { temperature }),
        (k.clone(), temperature.clone()).prop_map(|(k, temperature)| Sampling::TopK { k, temperature }),
        (p.clone(), temperature.clone()).prop_map(|(p, temperature)| Sampling::TopP { p, temperature }),
        (k, p, temperature).prop_map(|(k, p, temperature)| Sampling::TopKThenTopP { k, p, temperature }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn tokens_equal_candles(logits in row(1..600), mode in mode(), seed in any::<u64>()) {
        assert_same_tokens(&logits, mode, seed, 8);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn tokens_equal_candles_on_longer_rows(logits in row(600..4200), mode in mode(), seed in any::<u64>()) {
        assert_same_tokens(&logits, mode, seed, 6);
    }
}

/// A row of a real vocabulary's size: a sum of uniforms, scaled to the spread that logits have.
fn vocabulary_row(size: usize, seed: u64) -> Vec<f32> {
    use rand::{Rng, SeedableRng};
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    (0..size).map(|_| (0..6).map(|_| rng.random_range(-3.0f32..3.0)).sum()).collect()
}

#[test]
fn tokens_equal_candles_on_whole_vocabularies() {
    for (size, seed) in [(32_064, 299_792_458), (32_064, 1), (200_064, 42)] {
        let logits = vocabulary_row(size, seed);
        let mut coarse = logits.clone();
        coarse.iter_mut().for_each(|logit| *logit = logit.round());
        for row in [&logits, &coarse] {
            for temperature in [0.3, 1.0, 5.0] {
                for mode in [
                    Sampling::ArgMax,
                    Sampling::All { temperature },
                    Sampling::TopK { k: 40, temperature },
                    Sampling::TopK { k: size + 1, temperature },
                    Sampling::TopP { p: 0.9, temperature },
                    Sampling::TopP { p: 0.999, temperature },
                    Sampling::TopKThenTopP { k: 1000, p: 0.8, temperature },
                    Sampling::TopKThenTopP { k: size, p: 1.0, temperature },
                ] {
                    assert_same_tokens(row, mode, seed, 3);
                }
            }
        }
    }
}

#[test]
fn logits_processor_new_is_matched() {
    // What the tutorial's program calls: greedy below 1e-7, then all or top-p.
    let logits = vocabulary_row(2_000, 3);
    for (temperature, top_p) in
        [(0.0, None), (9e-8, Some(0.5)), (1e-7, None), (1.0, None), (1.0, Some(0.9)), (0.8, Some(1.0))]
    {
        let mut candles = LogitsProcessor::new(7, Some(temperature), top_p);
        let mut ours = Sampler::new(&SamplingParams { temperature, top_p, ..plain() }, 7);
        let tensor = Tensor::from_slice(&logits, logits.len(), &Device::Cpu).unwrap();
        for _ in 0..50 {
            let expected = candles.sample(&tensor).unwrap();
            assert_eq!(
                ours.sample(&mut logits.clone(), &[], &[]).unwrap(),
                expected,
                "{temperature} {top_p:?}"
            );
        }
    }
}

/// The ids that `params` leaves to draw from, with the ids' probabilities after a draw of many.
fn support(params: &SamplingParams, logits: &[f32]) -> Vec<bool> {
    let mut scratch = super::sampler::Scratch::default();
    let mut row = logits.to_vec();
    let found = super::sampler::weigh(params, &mut row, &mut scratch).unwrap();
    let mut kept = vec![false; logits.len()];
    for (place, weight) in found.weights.iter().enumerate() {
        let id = found.ids.map_or(place, |ids| ids[place] as usize);
        kept[id] = *weight > 0.0;
    }
    kept
}

/// `softmax(logits / temperature)` in 64 bits.
fn softmax64(logits: &[f32], temperature: f64) -> Vec<f64> {
    let scaled: Vec<f64> = logits.iter().map(|logit| f64::from(*logit) / temperature).collect();
    let max = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scaled.iter().map(|logit| (logit - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn min_p_keeps_what_its_definition_keeps(
        logits in row(1..1500), share in 0.0001f64..1.0, temperature in 0.1f64..3.0,
    ) {
        let kept = support(&SamplingParams { min_p: Some(share), temperature, ..plain() }, &logits);
        let exact = softmax64(&logits, temperature);
        let floor = share * exact.iter().copied().fold(0.0, f64::max);
        for (kept, p) in kept.iter().zip(&exact) {
            // 32-bit rounding may decide only what lies on the edge.
            if (p / floor - 1.0).abs() > 1e-4 {
                prop_assert_eq!(*kept, *p > floor);
            }
        }
    }

    #[test]
    fn typical_p_keeps_what_its_definition_keeps(
        logits in row(1..1500), p in 0.01f64..0.999, temperature in 0.2f64..3.0,
    ) {
        let kept = support(&SamplingParams { typical_p: Some(p), temperature, ..plain() }, &logits);
        let exact = softmax64(&logits, temperature);
        // Surprise and entropy as the paper writes them; below this share a 32-bit softmax may be zero.
        let alive: Vec<usize> = (0..exact.len()).filter(|i| exact[*i] > 1e-30).collect();
        let entropy: f64 = alive.iter().map(|i| -exact[*i] * exact[*i].ln()).sum();
        let distance = |i: usize| (-exact[i].ln() - entropy).abs();
        let farthest = alive.iter().filter(|i| kept[**i]).map(|i| distance(*i)).fold(0.0, f64::max);
        let nearest_out = alive.iter().filter(|i| !kept[**i]).map(|i| distance(*i)).fold(f64::INFINITY, f64::min);
        prop_assert!(farthest <= nearest_out + 1e-3, "kept {farthest}, dropped {nearest_out}");
        let mass: f64 = alive.iter().filter(|i| kept[**i]).map(|i| exact[*i]).sum();
        prop_assert!(mass >= p - 1e-4, "mass {mass}, p {p}");
        // Smallest such set: without its least typical members it would fall short.
        let inner: f64 =
            alive.iter().filter(|i| kept[**i] && distance(**i) < farthest - 1e-3).map(|i| exact[*i]).sum();
        prop_assert!(inner < p + 1e-4, "inner mass {inner}, p {p}");
    }

    #[test]
    fn penalties_follow_their_formulas(
        logits in prop::collection::vec(-20.0f32..20.0, 1..400),
        generated in prop::collection::vec(0u32..420, 0..200),
        repeat_penalty in 0.5f32..2.0,
        repeat_last_n in 0usize..80,
        presence_penalty in -2.0f32..2.0,
        frequency_penalty in -2.0f32..2.0,
        bias in prop::collection::vec((0u32..400, -50.0f32..50.0), 0..5),
        banned in prop::collection::vec(0u32..400, 0..5),
    ) {
        let params = SamplingParams {
            temperature: 0.0, repeat_penalty, repeat_last_n, presence_penalty, frequency_penalty,
            logit_bias: bias.clone(), ..Default::default()
        };
        let recent = &generated[generated.len().saturating_sub(repeat_last_n)..];
        let expected: Vec<f64> = logits.iter().zip(0u32..).map(|(logit, id)| {
            let mut logit = bias.iter().filter(|(i, _)| *i == id).fold(f64::from(*logit), |l, (_, b)| l + f64::from(*b));
            if recent.contains(&id) {
                let penalty = f64::from(repeat_penalty);
                logit = if logit >= 0.0 { logit / penalty } else { logit * penalty };
            }
            let count = generated.iter().filter(|i| **i == id).count();
            if count > 0 {
                logit -= count as f64 * f64::from(frequency_penalty) + f64::from(presence_penalty);
            }
            if banned.contains(&id) { f64::NEG_INFINITY } else { logit }
        }).collect();
        prop_assume!(expected.iter().any(|logit| logit.is_finite()));
        let mut sampler = Sampler::new(&params, 0);
        // Twice: the second call finds the scratch that the first one left.
        for _ in 0..2 {
            let mut actual = logits.clone();
            let token = sampler.sample(&mut actual, &generated, &banned).unwrap() as usize;
            for (actual, expected) in actual.iter().zip(&expected) {
                let close = (f64::from(*actual) - expected).abs() <= 1e-4 * (1.0 + expected.abs());
                prop_assert!(close || f64::from(*actual) == *expected, "{actual} is not {expected}");
            }
            prop_assert!(actual.iter().all(|logit| *logit <= actual[token]));
        }
    }

    #[test]
    fn repeat_penalty_equals_candles(
        logits in prop::collection::vec(-20.0f32..20.0, 1..300),
        generated in prop::collection::vec(0u32..310, 0..150),
        penalty in 0.8f32..2.0,
        last in 0usize..100,
    ) {
        let params = SamplingParams { temperature: 0.0, repeat_penalty: penalty, repeat_last_n: last, ..Default::default() };
        let mut actual = logits.clone();
        Sampler::new(&params, 0).sample(&mut actual, &generated, &[]).unwrap();
        let tensor = Tensor::from_slice(&logits, logits.len(), &Device::Cpu).unwrap();
        // The tutorial's call: the context starts `repeat_last_n` tokens from the end.
        let context = &generated[generated.len().saturating_sub(last)..];
        let expected = candle_transformers::utils::apply_repeat_penalty(&tensor, penalty, context).unwrap();
        prop_assert_eq!(actual, expected.to_vec1::<f32>().unwrap());
    }
}

#[test]
fn filters_work_together() {
    // Probabilities 0.4, 0.3, 0.2, 0.1 in shuffled places.
    let logits: Vec<f32> = [0.2f32, 0.4, 0.1, 0.3].iter().map(|p| p.ln()).collect();
    let kept = |params: SamplingParams| support(&params, &logits);
    assert_eq!(kept(SamplingParams { top_k: Some(3), ..plain() }), [true, true, false, true]);
    assert_eq!(kept(SamplingParams { top_p: Some(0.65), ..plain() }), [false, true, false, true]);
    assert_eq!(
        kept(SamplingParams { top_k: Some(3), top_p: Some(0.65), ..plain() }),
        [false, true, false, true]
    );
    assert_eq!(
        kept(SamplingParams { top_k: Some(3), min_p: Some(0.6), ..plain() }),
        [false, true, false, true]
    );
    // Entropy is 1.280; surprises are 1.609, 0.916, 2.303, 1.204: nearest first 0.3, then 0.2.
    assert_eq!(kept(SamplingParams { typical_p: Some(0.25), ..plain() }), [false, false, false, true]);
    assert_eq!(kept(SamplingParams { typical_p: Some(0.45), ..plain() }), [true, false, false, true]);
    assert_eq!(
        kept(SamplingParams { top_k: Some(1), typical_p: Some(0.1), ..plain() }),
        [false, true, false, false]
    );
}

#[test]
fn bad_rows_are_errors_in_every_mode() {
    let modes = [
        SamplingParams { temperature: 0.0, ..plain() },
        plain(),
        SamplingParams { top_k: Some(2), ..plain() },
        SamplingParams { top_p: Some(0.5), ..plain() },
        SamplingParams { min_p: Some(0.1), typical_p: Some(0.5), ..plain() },
    ];
    let mut long = vec![0.5f32; 1000];
    long[600] = f32::NAN;
    let rows: [&[f32]; 7] = [
        &[],
        &[1.0, f32::NAN, 2.0],
        &[f32::NAN; 3],
        &[0.0, f32::INFINITY],
        &[f32::NEG_INFINITY; 4],
        &[f32::NAN, f32::NEG_INFINITY],
        &long,
    ];
    for params in &modes {
        for row in rows {
            let error = Sampler::new(params, 0).sample(&mut row.to_vec(), &[], &[]).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Numerical, "{row:?}");
            assert!(!error.hint().is_empty());
        }
        let error = Sampler::new(params, 0).sample(&mut [1.0, 2.0], &[], &[0, 1, 9]).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Numerical);
    }
}

#[test]
fn a_banned_token_is_never_drawn() {
    let mut sampler = Sampler::new(&plain(), 5);
    for _ in 0..200 {
        assert_ne!(sampler.sample(&mut [9.0, 1.0, 1.0, 1.0], &[], &[0]).unwrap(), 0);
    }
}

#[test]
fn parameters_out_of_range_name_themselves() {
    type Change = fn(&mut SamplingParams);
    let cases: [(&str, Change); 29] = [
        ("temperature", |p| p.temperature = -0.1),
        ("temperature", |p| p.temperature = f64::NAN),
        ("temperature", |p| p.temperature = f64::INFINITY),
        ("temperature", |p| p.temperature = 100.5),
        ("top_p", |p| p.top_p = Some(0.0)),
        ("top_p", |p| p.top_p = Some(1.01)),
        ("top_p", |p| p.top_p = Some(f64::NAN)),
        ("typical_p", |p| p.typical_p = Some(0.0)),
        ("typical_p", |p| p.typical_p = Some(-f64::INFINITY)),
        ("min_p", |p| p.min_p = Some(-0.01)),
        ("min_p", |p| p.min_p = Some(1.5)),
        ("repeat_penalty", |p| p.repeat_penalty = 0.0),
        ("repeat_penalty", |p| p.repeat_penalty = f32::NAN),
        ("repeat_penalty", |p| p.repeat_penalty = f32::INFINITY),
        ("presence_penalty", |p| p.presence_penalty = 2.5),
        ("frequency_penalty", |p| p.frequency_penalty = f32::NAN),
        ("logit_bias", |p| p.logit_bias = vec![(1, 101.0)]),
        ("logit_bias", |p| p.logit_bias = vec![(1, f32::NEG_INFINITY)]),
        ("logit_bias", |p| p.logit_bias = vec![(100, 1.0)]),
        ("stop_token_ids", |p| p.stop_token_ids = vec![5, 100]),
        ("max_tokens", |p| p.max_tokens = Some(0)),
        ("top_k", |p| p.top_k = Some(0)),
        ("min_tokens", |p| p.min_tokens = 101),
        ("timeout", |p| p.timeout = Some(std::time::Duration::ZERO)),
        ("stop", |p| p.stop = vec!["ok".into(), String::new()]),
        ("stop", |p| p.stop = vec!["x".into(); 300]),
        ("stop", |p| p.stop = vec!["x".repeat(5000)]),
        ("stop_token_ids", |p| p.stop_token_ids = vec![1; 300]),
        ("repeat_penalty", |p| p.repeat_penalty = -1.0),
    ];
    for (name, change) in cases {
        let mut params = SamplingParams::default();
        change(&mut params);
        let error = params.validate(100).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::InvalidParameter { parameter, .. } if parameter == name),
            "{name}: {error}"
        );
        assert!(error.message().contains(&format!("`{name}`")), "{error}");
    }
    assert!(SamplingParams::default().validate(100).is_ok());
    let edges = SamplingParams {
        max_tokens: None,
        temperature: 100.0,
        top_k: Some(usize::MAX),
        top_p: Some(1.0),
        min_p: Some(0.0),
        typical_p: Some(1.0),
        logit_bias: vec![(99, -100.0)],
        min_tokens: 5_000,
        ..Default::default()
    };
    assert!(edges.validate(100).is_ok());
}
