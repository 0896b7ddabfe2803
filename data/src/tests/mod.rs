//! Labelled texts in every file format, the split, and errors. The other row formats and streaming
//! have files of their own.

mod chat;
mod conversations;
mod files;
mod row_formats;
mod shapes;
mod streaming;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use rondo_proto::run_file::{TaskKind, Template};

use super::*;

fn labels() -> Vec<String> {
    vec!["negative".to_owned(), "positive".to_owned()]
}

fn source(dir: &Path, file: &str, content: &[u8]) -> Source {
    let path = dir.join(file);
    fs::write(&path, content).unwrap();
    Source { eval_fraction: 0.0, ..Source::new("reviews", path) }
}

fn load(source: &Source) -> Result<Dataset, DataError> {
    Dataset::load(source, TaskSpec::classification(&labels()), 0)
}

/// What another kind of task makes of a file.
fn load_for(source: &Source, kind: TaskKind, template: Template) -> Result<Dataset, DataError> {
    Dataset::load(source, TaskSpec { kind, labels: &[], template }, 0)
}

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn pairs(part: Split<'_>) -> Vec<(String, u32)> {
    let examples = part.all().unwrap();
    let mut pairs: Vec<_> = examples.iter().map(|example| (example.text().to_string(), example.label())).collect();
    pairs.sort();
    pairs
}

#[test]
fn the_text_formats_read_the_same_rows() {
    let dir = tempfile::tempdir().unwrap();
    let expected = vec![("bad, \"really\"".to_owned(), 0), ("good".to_owned(), 1)];
    let jsonl = source(dir.path(), "a.jsonl", b"\xef\xbb\xbf{\"text\":\"bad, \\\"really\\\"\",\"label\":\"negative\"}\r\n\n{\"label\":\"positive\",\"text\":\"good\"}");
    let csv = source(
        dir.path(),
        "a.csv",
        b"\xef\xbb\xbfid,text,label\r\n1,\"bad, \"\"really\"\"\",negative\r\n2,good,positive\r\n",
    );
    let tsv = source(dir.path(), "a.tsv", b"label\ttext\nnegative\tbad, \"really\"\npositive\tgood\n");
    let mut bare = source(dir.path(), "a.txt", b"negative\tbad, \"really\"\npositive\tgood");
    bare.format = Some(Format::Tsv);
    bare.columns = Some(vec!["label".to_owned(), "text".to_owned()]);
    let list = b"\xef\xbb\xbf [ {\"text\":\"bad, \\\"really\\\"\",\"label\":\"negative\"} \r\n,\n{\"label\":\"positive\",\"text\":\"good\", \"x\":{\"]\":[{}]}}]\n";
    let json = self::source(dir.path(), "a.json", list);
    // Lists are often named .jsonl, and lines .json.
    let list_named_jsonl = self::source(dir.path(), "b.jsonl", list);
    let lines_named_json = self::source(dir.path(), "b.json", &fs::read(&jsonl.path).unwrap());
    for source in [jsonl, csv, tsv, bare, json, list_named_jsonl, lines_named_json] {
        let data = load(&source).unwrap();
        assert_eq!(pairs(data.train()), expected, "{}", source.path.display());
        assert!(data.held_out().is_empty());
    }
}

#[test]
fn labels_are_mapped_numbers_too_and_rows_can_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut source =
        source(dir.path(), "a.jsonl", b"{\"t\":\"a\",\"y\":0}\n{\"t\":\"b\",\"y\":1}\n{\"t\":\"c\",\"y\":2}\n");
    source.text = "t".to_owned();
    source.label = "y".to_owned();
    source.labels = [("0", "negative"), ("1", "positive")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    source.skip_labels = vec!["2".to_owned()];
    let data = load(&source).unwrap();
    assert_eq!(pairs(data.train()), vec![("a".to_owned(), 0), ("b".to_owned(), 1)]);
}

/// File name, content and what the error must say.
const BAD: [(&str, &[u8], &[&str]); 22] = [
    ("a.csv", b"id,txt,label\n1,x,positive\n", &["a.csv:1: missing column `text`", "`id`, `txt`, `label`"]),
    (
        "a.tsv",
        b"text\tlabel\nx\tpositive\ny\tpositve\n",
        &["a.tsv:3: column `label`: unknown label \"positve\"", "`negative`, `positive`"],
    ),
    ("a.csv", b"text,label\n\"two\nlines\",positive\ny,x\n", &["a.csv:4: column `label`: unknown label \"x\""]),
    ("a.csv", b"text,label\nx,positive,extra\n", &["a.csv:2: 3 fields where the columns are 2"]),
    ("a.tsv", b"text\tlabel\nx\tpositive\n\xff\tpositive\n", &["a.tsv:3: field 1 is not UTF-8"]),
    (
        "a.jsonl",
        b"{\"text\":\"x\",\"label\":\"positive\"}\n{\"txt\":\"x\"}\n",
        &["a.jsonl:2: missing column `text`; there are `txt`"],
    ),
    (
        "a.jsonl",
        b"{\"text\":\"x\",\"label\":\"positive\"}\n{\"text\":\"x\",\n",
        &["a.jsonl:2: not a JSON object: EOF while parsing"],
    ),
    (
        "a.jsonl",
        b"{\"text\":5,\"label\":\"positive\"}\n",
        &["a.jsonl:1: column `text` holds a number, expected a string"],
    ),
    ("a.jsonl", b"{\"text\":\"x\",\"label\":null}\n", &["a.jsonl:1: column `label` holds null"]),
    ("a.jsonl", b"\xff\n", &["a.jsonl:1: not UTF-8 at byte 1"]),
    ("a.txt", b"", &["a.txt: unknown format", ".jsonl, .json, .csv, .tsv or .parquet"]),
    ("a.csv", b"text,label\n", &["a.csv: no rows"]),
    ("a.jsonl", b"[1]", &["a.jsonl: line 1: an element of the list is not an object"]),
    (
        "a.json",
        b"[\n{\"text\":\"x\",\"label\":\"positive\"},\n{\"text\": \"y\"",
        &["a.json: line 3: the list ends within"],
    ),
    ("a.json", b"[{\"text\":\"x\",\"label\":\"positive\"}\n{}]", &["a.json: line 2: expected `,` or `]`"]),
    ("a.json", b"[{\"text\":\"x\",\"label\":\"positive\"}] x", &["a.json: line 1: goes on behind the list's `]`"]),
    ("a.json", b"[\n\n{\"text\" \"x\"}]", &["a.json:3: not a JSON object at line 1, column 9 of the row"]),
    ("a.json", b"[]", &["a.json: no rows"]),
    ("a.json", b"", &["a.json: no rows"]),
    ("a.csv", b"\xff\xfet\0e\0", &["a.csv: is UTF-16; convert it to UTF-8"]),
    ("a.parquet", b"PAR1 and then nothing of use PAR1", &["a.parquet: not a whole Parquet file"]),
    ("a.parquet", b"", &["a.parquet: not a whole Parquet file"]),
];

#[test]
fn errors_name_file_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    for (file, content, says) in BAD {
        let message = load(&source(dir.path(), file, content)).unwrap_err().to_string();
        for part in says {
            assert!(message.contains(part), "{message:?} should contain {part:?}");
        }
    }
    let missing = load(&Source::new("x", dir.path().join("none.csv"))).unwrap_err().to_string();
    assert!(missing.contains("none.csv"), "{missing}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_split_depends_on_texts_alone(
        texts in proptest::collection::vec("[a-z ]{0,12}", 1..60),
        turn in 0usize..60,
        fraction in 0.0f64..0.9,
    ) {
        let rows: Vec<(String, u32)> = texts.iter().map(|text| (text.clone(), text.len() as u32 % 2)).collect();
        let whole = Dataset::of("reviews", &labels(), rows.clone(), fraction);
        let mut turned = rows.clone();
        turned.rotate_left(turn % rows.len());
        turned.reverse();
        let turned = Dataset::of("reviews", &labels(), turned, fraction);
        prop_assert_eq!(turned.held_out().all().unwrap(), whole.held_out().all().unwrap());
        prop_assert_eq!(turned.train().all().unwrap(), whole.train().all().unwrap());

        // Rows that go away move no other row, and no text stands on both sides.
        let fewer = Dataset::of("reviews", &labels(), rows[..rows.len() / 2].to_vec(), fraction);
        for example in fewer.held_out().all().unwrap().iter() {
            prop_assert!(whole.held_out().all().unwrap().contains(example));
            prop_assert!(!whole.train().all().unwrap().iter().any(|other| other.text() == example.text()));
        }
        prop_assert_eq!(whole.train().len() + whole.held_out().len(), rows.len());
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), which in 0usize..5) {
        let dir = tempfile::tempdir().unwrap();
        let file = ["a.jsonl", "a.csv", "a.tsv", "a.json", "a.parquet"][which];
        let _ = load(&source(dir.path(), file, &bytes));
    }
}

#[test]
fn about_the_asked_share_is_held_out() {
    let rows = (0..5000).map(|n| (format!("text number {n}"), 0));
    let held_out = Dataset::of("reviews", &labels(), rows, 0.2).held_out().len();
    assert!((900..1100).contains(&held_out), "{held_out}");
}
