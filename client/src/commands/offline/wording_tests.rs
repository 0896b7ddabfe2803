//! Every error that advises a setting, in the words of run
//! files and client.toml and in those of the options.

use std::path::PathBuf;

use rondo_data::template::TemplateError;
use rondo_data::{DataError, Place};
use rondo_methods::MethodError;
use rondo_proto::run_file::{RunFile, RunFileError, TaskKind};
use rondo_proto::wording::{SettingKey, Wording};
use rondo_trainer::error::TrainerError;
use rondo_trainer_api::work::WorkError;

fn file() -> PathBuf {
    "rows.jsonl".into()
}

/// The error's message in both wordings.
fn both(error: &dyn std::error::Error) -> [String; 2] {
    [Wording::Keys, Wording::Options].map(|wording| wording.scope(|| error.to_string()))
}

fn check(error: impl std::error::Error, keys: &str, options: &str) {
    let [with_keys, with_options] = both(&error);
    assert!(with_keys.contains(keys), "{with_keys:?} should contain {keys:?}");
    assert!(with_options.contains(options), "{with_options:?} should contain {options:?}");
    for key in ["client.toml", "[[dataset]]", "task.", "method.", "train.", "run file"] {
        assert!(!with_options.contains(key), "{with_options:?} has {key:?}");
    }
}

#[test]
fn run_file_errors_name_the_option() {
    let text = "name = \"r\"\nbase = { model = \"m\" }\n\
        task = { kind = \"classification\", dataset = \"d\", labels = [\"a\", \"b\"] }\n\
        method = { id = \"fedit\", rank = 2, targets = [\"query\"], alpha = 2.0 }\n\
        train = { local_steps = 2, batch = 8, lr = 1e-3, weight_decay = 0.0, max_grad_norm = 1.0, proximal = 0.0 }\n\
        rounds = { count = 1, cohort = 1, quorum = 1 }\n";
    RunFile::parse(text).unwrap();
    let cases = [
        ("dataset = \"d\"", "dataset = \"\"", "`task.dataset` must", "--dataset must"),
        ("dataset = \"d\"", "dataset = \"d\", max_tokens = 0", "`task.max_tokens` must", "--max-tokens must"),
        (
            "dataset = \"d\"",
            "dataset = \"d\", max_new_tokens = 0",
            "`task.max_new_tokens` must",
            "--max-new-tokens must",
        ),
        ("\"a\", \"b\"", "\"a\", \"a\"", "`task.labels` names", "--labels names"),
        ("\"fedit\"", "\"\"", "`method.id` must", "--method must"),
        ("rank = 2", "rank = 0", "`method.rank` must", "--rank must"),
        ("alpha = 2.0", "alpha = -1.0", "`method.alpha` is -1", "--alpha is -1"),
        ("[\"query\"]", "[]", "`method.targets` must", "--targets must"),
        ("local_steps = 2", "local_steps = 0", "`train.local_steps` must", "--steps must"),
        ("batch = 8", "batch = 0", "`train.batch` must", "--batch must"),
        ("lr = 1e-3", "lr = nan", "`train.lr` is NaN", "--lr is NaN"),
        ("weight_decay = 0.0", "weight_decay = -1.0", "`train.weight_decay` is -1", "--weight-decay is -1"),
        ("max_grad_norm = 1.0", "max_grad_norm = 0.0", "`train.max_grad_norm` is 0", "--max-grad-norm is 0"),
        ("proximal = 0.0", "proximal = -1.0", "`train.proximal` is -1", "--proximal is -1"),
    ];
    for (from, to, keys, options) in cases {
        let error = RunFile::parse(&text.replacen(from, to, 1)).unwrap_err();
        let [with_keys, with_options] = both(&error);
        assert!(with_keys.starts_with("run file: ") && with_options.starts_with("--"), "{with_keys} {with_options}");
        check(error, keys, options);
    }
    for setting in [SettingKey::Quantise, SettingKey::Dtype] {
        let error = RunFileError::Value { key: setting.key(), problem: "is none".to_owned() };
        check(error, &format!("run file: `{}` is none", setting.key()), &format!("{} is none", setting.option()));
    }
    check(RunFileError::Syntax("no TOML".to_owned()), "run file: no TOML", "no TOML");
    let misspelt = RunFile::parse(&text.replace("local_steps", "local_step")).unwrap_err();
    assert_eq!(both(&misspelt)[0], "run file: unknown key `train.local_step`, did you mean `train.local_steps`?");
}

#[test]
fn method_errors_name_the_option() {
    let method = || "fed-sb".to_owned();
    let unknown =
        MethodError::UnknownOption { method: method(), option: "init".to_owned(), nearest: None, known: Vec::new() };
    check(unknown, "run file: unknown key `method.init` for", "unknown key `--option init` for");
    let value = MethodError::OptionValue { method: method(), option: "init".to_owned(), problem: "is 3".to_owned() };
    check(value, "run file: `method.init` of", "`--option init` of");
    let value = MethodError::RunValue { key: "train.proximal", method: method(), problem: "set it to 0".to_owned() };
    check(value, "run file: `train.proximal` does not go", "--proximal does not go");
    let rank = MethodError::Rank { rank: 9, largest: 8, target: "query".to_owned(), out: 8, inp: 8 };
    check(rank, "lower `method.rank`", "lower --rank");
    let work = WorkError::NotFinite { round: 1, step: 2, what: "the loss".to_owned() };
    check(work, "a lower `train.lr` or `train.max_grad_norm`", "a lower --lr or --max-grad-norm");
}

#[test]
fn data_errors_name_the_option() {
    let at = Place::Line(3);
    let there = || vec!["a".to_owned()];
    let columns = "name the columns in the [[dataset]] table, for example `question = \"their name\"`, or set `rows`";
    let options = "--data-option \"question=their name\", or say what a row holds with --data-option rows=SHAPE";
    let kind = TaskKind::ExactAnswer;
    check(DataError::UnknownRowFormat { file: file(), at, there: there(), kind }, columns, options);
    check(DataError::NoTask { file: file(), at, there: there() }, columns, options);
    check(
        DataError::MissingColumn { file: file(), at, column: "text".to_owned(), there: there() },
        "name the column there is in the [[dataset]] table",
        "name the column there is with --text-column, --label-column or --data-option KEY=COLUMN",
    );
    check(
        DataError::UnknownLabel {
            file: file(),
            at,
            column: "label".to_owned(),
            label: "\"so\"".to_owned(),
            known: there(),
        },
        "(map others under [dataset.labels] or leave their rows out with `skip_labels`)",
        "(map others with --map-label FILE_LABEL=LABEL or leave their rows out with --skip-label LABEL)",
    );
    check(
        DataError::UnknownFormat { file: file() },
        "or set `format` to one of \"jsonl\", \"json\"",
        "or give --format one of \"jsonl\", \"json\"",
    );
    let io = std::io::Error::from(std::io::ErrorKind::NotFound);
    check(
        DataError::Io { file: file(), source: io },
        "is not there; set the right `path` in its [[dataset]] table",
        "is not there; name the right one with --data",
    );
    let first = Box::new(DataError::NoRows { file: file() });
    check(
        DataError::TooManyBad { file: file(), bad: 2, seen: 4, most: 0.25, first },
        "than the share `max_bad_rows` = 0.25; the",
        "than the share --data-option max_bad_rows=0.25; the",
    );
    let setting =
        |setting: SettingKey| [Wording::Keys, Wording::Options].map(|it| it.scope(|| setting.quoted().to_string()));
    assert_eq!(setting(SettingKey::MaxBadRows), ["`max_bad_rows`", "--data-option max_bad_rows"]);
    assert_eq!(setting(SettingKey::Format), ["`format`", "--format"]);
    let bare = |setting: SettingKey| [Wording::Keys, Wording::Options].map(|it| it.scope(|| setting.to_string()));
    assert_eq!(bare(SettingKey::AnswerAfter), ["answer_after", "--data-option answer_after"]);
    check(
        TemplateError::Syntax("line 1".to_owned()),
        "line 1; set task.template = \"plain\", or fix",
        "line 1; give --template plain, or fix",
    );
    check(
        TemplateError::NotAPrefix { turn: 2 },
        "set task.loss_on = \"all\", or task.template = \"plain\"",
        "give --loss-on all, or --template plain",
    );
}

#[test]
fn trainer_errors_name_the_option() {
    check(
        TrainerError::TooLong { asked: 41, limit: 40 },
        "task.max_tokens = 41, but the model has 40 positions; lower task.max_tokens",
        "--max-tokens 41, but the model has 40 positions; lower --max-tokens",
    );
    check(
        TrainerError::NoExamples { what: "the training part" },
        "check the data set's path, labels and eval_fraction",
        "check --data, --skip-label and --eval-fraction",
    );
    check(TrainerError::NothingCounts { what: "it" }, "raise task.max_tokens", "raise --max-tokens");
    check(
        TrainerError::NoAnswer { what: "it" },
        "by the rule task.answer; set it to \"text\" where",
        "by the rule --answer; give --answer text where",
    );
}

#[test]
fn what_is_no_advice_stays() {
    let known = vec!["task".to_owned(), "method".to_owned()];
    let label = "\"method.rank\"".to_owned();
    let error =
        DataError::UnknownLabel { file: file(), at: Place::Line(3), column: "train.lr".to_owned(), label, known };
    for message in both(&error) {
        let start = "rows.jsonl:3: column `train.lr`: unknown label \"method.rank\"; the labels are `task`, `method` (";
        assert!(message.starts_with(start), "{message}");
    }
}
