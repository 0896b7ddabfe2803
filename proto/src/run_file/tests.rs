use super::*;
use proptest::prelude::*;

const SAMPLE: &str = r#"
name = "sentiment"
base = { model = "minilm-l6" }
[task]
kind = "classification"
dataset = "reviews"
labels = ["negative", "positive"]
[method]
id = "fed-sb"
rank = 32
targets = ["query", "value"]
init = "gradient-sketch"
oversample = 8
[train]
local_steps = 20
batch = 32
lr = 1e-3
[rounds]
count = 5
cohort = 4
quorum = 3
"#;

fn error(text: &str) -> String {
    RunFile::parse(text).unwrap_err().to_string()
}

fn with(from: &str, to: &str) -> String {
    assert!(SAMPLE.contains(from), "{from}");
    SAMPLE.replacen(from, to, 1)
}

#[test]
fn a_plain_run_file_parses_with_defaults() {
    let run = RunFile::parse(SAMPLE).unwrap();
    assert_eq!(run.task.max_tokens, 128);
    assert_eq!((run.rounds.deadline_s, run.rounds.grace_s, run.rounds.eval_every), (600, 30, 1));
    assert_eq!((run.wire.dtype, run.task.head), (Dtype::F32, HeadMode::Train));
    assert_eq!(run.privacy, None);
    let options: Vec<&str> = run.method.options.keys().map(String::as_str).collect();
    assert_eq!(options, ["init", "oversample"]);
}

#[test]
fn a_run_file_survives_writing_and_reading() {
    let run = RunFile::parse(SAMPLE).unwrap();
    assert_eq!(RunFile::parse(&toml::to_string(&run).unwrap()).unwrap(), run);
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_key() {
    assert_eq!(
        error(&with("local_steps = 20", "local_steps = 20\nweigth_decay = 0.1")),
        "run file: unknown key `train.weigth_decay`, did you mean `train.weight_decay`?"
    );
    assert!(error(&format!("nmae = \"x\"\n{SAMPLE}")).contains("`nmae`, did you mean `name`?"));
    assert!(error(&format!("{SAMPLE}\n[privcy]\nepsilon = 1.0")).contains("`privcy`, did you mean `privacy`?"));
    assert!(
        error(&with("quorum = 3", "quorum = 3\nweight_decay = 1.0")).contains("did you mean `train.weight_decay`?")
    );
    assert!(error(&with("quorum = 3", "quorum = 3\nzzzz = 1.0")).ends_with("unknown key `rounds.zzzz`"));
    // Misspelling a key that is required is reported as such, not as a missing key.
    assert!(error(&with("local_steps", "local_step")).contains("did you mean `train.local_steps`?"));
}

#[test]
fn values_outside_their_range_are_refused_by_key() {
    for (from, to, words) in [
        ("quorum = 3", "quorum = 5", "`rounds.quorum` is 5, must be at most the cohort, 4"),
        ("quorum = 3", "quorum = 0", "`rounds.quorum` must be at least 1"),
        ("count = 5", "count = 0", "`rounds.count` must be"),
        ("lr = 1e-3", "lr = nan", "`train.lr` is NaN"),
        ("lr = 1e-3", "lr = inf", "`train.lr` is inf"),
        ("lr = 1e-3", "lr = 0", "`train.lr` is 0"),
        ("batch = 32", "batch = 0", "`train.batch` must be"),
        ("rank = 32", "rank = 0", "`method.rank` must be"),
        ("rank = 32", "rank = 32\nalpha = -1", "`method.alpha` is -1"),
        ("[\"query\", \"value\"]", "[]", "`method.targets` must"),
        ("\"negative\", \"positive\"", "\"a\", \"a\"", "`task.labels` names \"a\" twice"),
        ("\"negative\", \"positive\"", "\"a\", \" a\\t\"", "`task.labels` names \"a\" twice"),
        ("\"negative\", \"positive\"", "\"a\"", "`task.labels` must name at least two"),
        ("name = \"sentiment\"", "name = \"Senti ment\"", "`name` is \"Senti ment\""),
        ("quorum = 3", "quorum = 3\ndeadline_s = 9000000000", "`rounds.deadline_s` is 9000000000"),
    ] {
        assert!(error(&with(from, to)).contains(words), "{to}: {}", error(&with(from, to)));
    }
    let privacy = "\n[privacy]\nunit = \"person\"\nepsilon = 1.0\ndelta = 1e-5\nclip = 1.0";
    assert!(error(&format!("{SAMPLE}{privacy}")).contains("`privacy.unit` is \"person\""));
    let of = |unit: &str, more: &str| format!("{SAMPLE}{}{more}", privacy.replace("person", unit));
    RunFile::parse(&of("client", "\nsampling_rate = 0.1\nnoise_multiplier = 2.0")).unwrap();
    assert!(error(&of("example", "\nsampling_rate = 0.1")).contains("is for privacy.unit = \"client\""));
    let halved = |unit: &str| of(unit, "").replace("lr = 1e-3", "lr = 1e-3\ndtype = \"bf16\"");
    assert!(error(&halved("example")).contains("`train.dtype` is \"bf16\", but with privacy.unit = \"example\""));
    RunFile::parse(&halved("client")).unwrap();
    assert!(error(&of("client", "\nsampling_rate = 1.5")).contains("must be above 0 and at most 1"));
}

#[test]
fn syntax_errors_say_where() {
    assert!(error(&with("count = 5", "count = ")).contains("line"));
    assert!(error(&with("count = 5", "count = \"five\"")).contains("invalid type"));
    assert!(error(&with("kind = \"classification\"", "kind = \"dancing\"")).contains("dancing"));
    let digest = with("model = \"minilm-l6\"", "model = \"minilm-l6\", digest = \"md5:0\"");
    assert!(error(&digest).contains("expected \"blake3:\""));
    assert!(error(&with("[train]", "[trian]")).contains("did you mean `train`?"));
}

#[test]
fn the_base_is_compared_with_what_the_run_expects() {
    let mut run = RunFile::parse(SAMPLE).unwrap();
    let digest = Digest::of(b"a");
    let mut base = BaseModel { name: "minilm-l6".to_owned(), digest: digest.to_string(), ..BaseModel::default() };
    base.max_positions = 128;
    assert_eq!(run.check_base(&base), Ok(()));
    run.base.digest = Some(digest);
    assert_eq!(run.check_base(&base), Ok(()));
    run.base.digest = Some(Digest::of(b"b"));
    assert!(run.check_base(&base).unwrap_err().to_string().contains("is registered with"));
    run.base.digest = None;
    base.max_positions = 127;
    assert!(run.check_base(&base).unwrap_err().to_string().contains("at most 127 tokens"));
}

proptest! {
    #[test]
    fn garbage_never_panics(text in "\\PC{0,200}") {
        let _ = RunFile::parse(&text);
    }

    #[test]
    fn a_damaged_file_never_panics(at in 0usize..400, insert in "\\PC{0,3}") {
        let mut text = SAMPLE.to_owned();
        text.insert_str(at % text.len(), &insert);
        let _ = RunFile::parse(&text);
    }

    #[test]
    fn a_known_key_with_one_letter_dropped_is_found_again(table in 0usize..4, key in 0usize..10, at in 1usize..12) {
        let tables = [("train", "local_steps batch weight_decay max_grad_norm"), ("rounds", "over_select deadline_s eval_every"),
            ("privacy", "epsilon delta"), ("task", "dataset max_tokens pooling")];
        let (table, keys) = tables[table];
        let keys: Vec<&str> = keys.split(' ').collect();
        let mut word = keys[key % keys.len()].to_owned();
        let whole = format!("{table}.{word}");
        word.remove(at % word.len());
        prop_assert_eq!(keys::nearest_known(&format!("{table}.{word}")), Some(whole));
    }
}
