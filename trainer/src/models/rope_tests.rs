use std::path::Path;

use rondo_base::config::{ConfigValues, ModelConfig};
use serde_json::Value;

use super::*;

/// The goldens of `make_reading.py`: changes of tiny-llama's config.json, and what transformers
/// computes under each.
#[test]
fn frequencies_are_those_of_transformers_or_refused() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let read = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(goldens.join(name)).unwrap()).unwrap() };
    let cases = read("reading-rope.json");
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 100);
    for case in cases {
        let mut config = read("tiny-llama/config.json");
        let settings = config.as_object_mut().unwrap();
        settings.remove("rope_theta");
        settings.extend(case["config"].as_object().unwrap().clone());
        let values = ConfigValues::of(Path::new("config.json"), config).unwrap();
        let found = match ModelConfig::read(&values) {
            Ok(ModelConfig::Llama(config)) => Rotary::new(&config.rope, &mut |_| Ok(Vec::new())).unwrap(),
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(case["rope"].is_null(), "{}: {error}", case["config"]);
                assert!(error.to_string().contains("rope"), "{error}");
                continue;
            }
        };
        let (frequencies, scale) = found.frequencies(1);
        let expected: Vec<f64> =
            case["rope"]["inv_freq"].as_array().expect("is refused").iter().map(|f| f.as_f64().unwrap()).collect();
        assert_eq!(frequencies.len(), expected.len());
        for (found, expected) in frequencies.iter().zip(&expected) {
            let off = (f64::from(*found) - expected).abs() / expected;
            assert!(off < 1e-5, "{}: {found} is {expected}", case["config"]);
        }
        let off = f64::from(scale) - case["rope"]["attention"].as_f64().unwrap();
        assert!(off.abs() < 1e-6, "{}: {scale}", case["config"]);
    }
}
