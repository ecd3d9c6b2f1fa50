//! `phicandle perplexity`.

use super::*;

const TEXT: &[u8] = b"the old pond is still\na frog jumps into the sound\nof water at night\n";

#[test]
fn a_text_is_scored_and_every_window_counts() {
    let Some(demo) = demo() else { return };
    let setting = Setting::default();
    let mut out = Vec::new();
    let line = ["perplexity", "--model", "demo", "--json", "--window", "16", "--stride", "4", "-"];
    let (code, err) = with(&setting, &demo, &line, TEXT, &mut out);
    assert_eq!(code, 0, "{err}");
    let found: Value = serde_json::from_slice(&out).unwrap();
    let (tokens, windows) = (found["scored_tokens"].as_u64().unwrap(), found["windows"].as_u64().unwrap());
    assert!(tokens > 16);
    assert_eq!(windows, 1 + (tokens + 1 - 16).div_ceil(4));
    let (perplexity, mean) = (found["perplexity"].as_f64().unwrap(), found["mean_logprob"].as_f64().unwrap());
    assert!(perplexity > 1.0 && (perplexity.ln() + mean).abs() < 1e-9);
    assert_eq!((found["window"].as_u64(), found["stride"].as_u64()), (Some(16), Some(4)));
    let mut out = Vec::new();
    let (code, err) = with(&setting, &demo, &["perplexity", "--model", "demo", "-"], TEXT, &mut out);
    assert_eq!(code, 0, "{err}");
    assert!(String::from_utf8(out).unwrap().trim().parse::<f64>().unwrap() > 1.0);
    assert!(err.contains(&format!("{tokens} tokens scored, in 1 windows")), "{err}");
}

#[test]
fn what_cannot_be_scored_is_a_usage_error() {
    let Some(demo) = demo() else { return };
    let lines: [(&[&str], &[u8], &str); 5] = [
        (&["-"], b"", "at least two tokens"),
        (&["no-such-file.txt"], b"", "no-such-file.txt"),
        (&["--window", "16", "--stride", "16", "-"], TEXT, "--stride is 16"),
        (&["--stride", "0", "-"], TEXT, "--stride is 0"),
        (&["--window", "1000000", "-"], TEXT, "--window is 1000000"),
    ];
    for (args, input, said) in lines {
        let line = [&["perplexity", "--model", "demo"], args].concat();
        let (code, err) = with(&Setting::default(), &demo, &line, input, &mut Vec::new());
        assert!(code == USAGE && err.contains(said), "{args:?}: {code}, {err}");
    }
}
