//! Damaged tokenizer files: whatever stands in them, reading and using them never panics.

use std::fs;
use std::path::Path;

use crate::text::load_tokenizer::load_tokenizer;

const SETTINGS: [(&str, &str); 3] = [
    (
        "tokenizer_config.json",
        r#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": "{{ messages }}"}"#,
    ),
    ("generation_config.json", r#"{"eos_token_id": [2, 4], "max_length": 20}"#),
    ("special_tokens_map.json", r#"{"eos_token": {"content": "<|im_end|>", "lstrip": false}, "unk_token": null}"#),
];

#[test]
fn damaged_files_are_read_or_refused_and_never_panic() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tiny-llama");
    let dir = tempfile::tempdir().unwrap();
    fs::copy(golden.join("config.json"), dir.path().join("config.json")).unwrap();
    let tokenizer = fs::read_to_string(golden.join("tokenizer.json")).unwrap();
    let files: Vec<(&str, &str)> = SETTINGS.into_iter().chain([("tokenizer.json", tokenizer.as_str())]).collect();
    for (name, text) in &files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    // A linear congruential generator: the same damage every time.
    let mut state = 7_u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for (name, whole) in files {
        let (mut read, mut refused) = (0, 0);
        for _ in 0..300 {
            let mut bytes = whole.as_bytes().to_vec();
            let at = draw(bytes.len());
            match draw(4) {
                0 => bytes[at] = draw(256) as u8,
                1 => drop(bytes.drain(at..(at + 1 + draw(9)).min(whole.len()))),
                2 => bytes[at] = b"\"{}[],:-0en"[draw(11)],
                // A digit for a digit: ids that are elsewhere.
                _ => {
                    bytes.iter_mut().skip(at).filter(|byte| byte.is_ascii_digit()).take(1).for_each(|byte| *byte = b'9')
                }
            }
            fs::write(dir.path().join(name), bytes).unwrap();
            match load_tokenizer(dir.path()) {
                Ok(tokens) => {
                    read += 1;
                    // Using what was read may fail, too.
                    let _ = tokens.ids("so we say <s>zz</s>").and_then(|ids| tokens.text(&ids));
                }
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains(name), "{error}");
                }
            }
        }
        assert!(read > 0 && refused > 0, "{name}: {read} read, {refused} refused");
        fs::write(dir.path().join(name), whole).unwrap();
    }
}
