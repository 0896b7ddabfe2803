//! A file that is read row by row gives what the same file gives in memory.

use super::*;

/// Rows with what is awkward: quotes, line breaks, blank lines, repeated prompts, unicode, nesting.
fn file(format: Format, rows: &[(String, String)]) -> Vec<u8> {
    let json: Vec<String> = rows
        .iter()
        .map(|(prompt, completion)| {
            serde_json::json!({"prompt": prompt, "completion": completion, "x": {"y": [completion]}}).to_string()
        })
        .collect();
    match format {
        Format::Json => format!("\u{feff}[{}]\n", json.join(" ,\n\n")).into_bytes(),
        Format::Csv => {
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let line =
                |(prompt, completion): &(String, String)| format!("{},{}\r\n", quoted(prompt), quoted(completion));
            format!("\u{feff}prompt,completion\r\n{}", rows.iter().map(line).collect::<String>()).into_bytes()
        }
        Format::Tsv => {
            let clean = |text: &str| text.replace(['\t', '\n', '\r'], " ");
            let line = |(prompt, completion): &(String, String)| format!("{}\t{}\n", clean(prompt), clean(completion));
            format!("prompt\tcompletion\n{}", rows.iter().map(line).collect::<String>()).into_bytes()
        }
        _ => json.join("\r\n\n").into_bytes(),
    }
}

fn task() -> TaskSpec<'static> {
    TaskSpec { kind: TaskKind::CausalLm, labels: &[], template: Template::Auto }
}

fn same(source: &Source) -> (Dataset, Dataset) {
    let memory = Dataset::load(source, task(), 0).unwrap();
    let streamed = Dataset::load(source, task(), 1).unwrap();
    assert!(streamed.is_streamed() && !memory.is_streamed());
    assert_eq!(streamed.skipped(), memory.skipped());
    for (one, other) in [(memory.train(), streamed.train()), (memory.held_out(), streamed.held_out())] {
        assert_eq!(one.lengths(), other.lengths());
        let one = one.all().unwrap();
        let other = other.all().unwrap();
        assert_eq!(one, other);
        assert!(one.iter().zip(other.iter()).all(|(one, other)| one.place() == other.place()));
    }
    (memory, streamed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn streaming_and_memory_give_the_same_examples_and_batches(
        rows in proptest::collection::vec(("[a-c]{1,2}", "[ -~\n\"äß😀]{0,30}x"), 1..60),
        format in 0usize..4,
        fraction in 0.0f64..0.8,
    ) {
        let format = [Format::Jsonl, Format::Json, Format::Csv, Format::Tsv][format];
        let dir = tempfile::tempdir().unwrap();
        let mut source = source(dir.path(), "rows", &file(format, &rows));
        (source.format, source.eval_fraction) = (Some(format), fraction);
        let (memory, streamed) = same(&source);
        prop_assert_eq!(memory.train().len() + memory.held_out().len(), rows.len());
        if !memory.train().is_empty() {
            let lengths = memory.train().lengths();
            for batch in batches::Batches::bucketed(&lengths, 4, "s").take(12) {
                prop_assert_eq!(memory.train().take(&batch).unwrap(), streamed.train().take(&batch).unwrap());
            }
        }
    }
}

#[test]
fn parquet_streams_through_a_copy_and_bad_rows_are_left_out_alike() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source { eval_fraction: 0.3, ..Source::new("golden", golden("rows/messages.parquet")) };
    same(&source);
    let lines = "{\"text\": \"one\"}\n{\"text\": 2}\n\n{\"text\": \"three\"}\n";
    let mut source = super::source(dir.path(), "a.jsonl", lines.as_bytes());
    (source.on_bad_row, source.max_bad_rows) = (OnBadRow::Skip, 0.5);
    let (memory, _) = same(&source);
    assert_eq!((memory.skipped(), memory.train().len()), (1, 2));
}

#[test]
fn a_file_that_changes_under_a_run_is_reported_and_not_misread() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path(), "a.jsonl", b"{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
    let data = Dataset::load(&source, task(), 1).unwrap();
    assert_eq!(data.train().take(&[1, 0, 1]).unwrap().len(), 3);
    fs::write(&source.path, b"{\"text\": \"longer\"}\n{\"text\": \"two\"}\n").unwrap();
    let said = data.train().take(&[0]).unwrap_err().to_string();
    assert!(said.contains("a.jsonl: changed since it was indexed"), "{said}");
}

#[test]
fn only_files_above_the_limit_are_streamed() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path(), "a.jsonl", b"{\"text\": \"one\"}\n");
    assert!(!Dataset::load(&source, task(), 16).unwrap().is_streamed());
    assert!(Dataset::load(&source, task(), 15).unwrap().is_streamed());
    // Parquet counts as it is unpacked: these 1,058 bytes hold more.
    let packed = Source::new("golden", golden("rows/messages.parquet"));
    let unpacked = |limit| Dataset::load(&packed, task(), limit).unwrap().is_streamed();
    assert!(unpacked(100) && !unpacked(100_000));
}

#[test]
fn a_huge_row_is_one_bad_row_and_not_the_end_of_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut lines = b"{\"text\": \"one\"}\n{\"text\": \"".to_vec();
    lines.resize(lines.len() + (65 << 20), b'a');
    lines.extend(b"\"}\n{\"text\": \"three\"}\n");
    let mut source = source(dir.path(), "a.jsonl", &lines);
    let said = Dataset::load(&source, task(), 0).unwrap_err().to_string();
    assert!(said.contains("a.jsonl:2: a row of more than 64 MiB"), "{said}");
    (source.on_bad_row, source.max_bad_rows) = (OnBadRow::Skip, 0.5);
    let data = Dataset::load(&source, task(), 1).unwrap();
    assert_eq!((data.train().len(), data.skipped()), (2, 1));
    assert_eq!(data.train().all().unwrap().len(), 2);
}

/// With privacy neither the labels nor the answers that a run asks for move a row or change how
/// many there are.
#[test]
fn rows_that_are_kept_count_alike_whatever_a_run_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String = (0..200)
        .map(|n| match n % 5 {
            0 => format!("{{\"text\": \"text {n}\", \"label\": \"neutral\"}}\n"),
            1 => format!("{{\"text\": \"text {n}\"}}\n"),
            2 => format!("{{\"text\": {n}, \"label\": \"positive\"}}\n"),
            _ => format!("{{\"text\": \"text {n}\", \"label\": \"positive\"}}\n"),
        })
        .collect();
    let good = "{\"text\": \"first\", \"label\": \"positive\"}\n";
    let source = super::source(dir.path(), "a.jsonl", format!("{good}{rows}not JSON\n").as_bytes());
    let source = Source { eval_fraction: 0.3, on_bad_row: OnBadRow::Keep, max_bad_rows: 0.0, ..source };
    let sizes = |labels: [&str; 2], in_memory| {
        let labels = labels.map(str::to_owned);
        let data = Dataset::load(&source, TaskSpec::classification(&labels), in_memory).unwrap();
        let all = data.train().all().unwrap();
        assert_eq!(all.len(), data.train().len());
        let usable = all.iter().filter(|example| example.content != Content::Unusable).count();
        ((data.train().len(), data.held_out().len()), usable, data.skipped())
    };
    let (whole, usable, bad) = sizes(["negative", "positive"], 0);
    assert_eq!((whole.0 + whole.1, bad), (201, 121), "what is no row of JSON is left out");
    assert!(usable > 40 && usable < whole.0);
    let labels = ["neutral", "positive"];
    assert_eq!((sizes(labels, 0).0, sizes(labels, 0).2), (whole, 81));
    assert_eq!(sizes(labels, 0), sizes(labels, 1));
    for in_memory in [0, 1] {
        assert_eq!(sizes(["no", "such"], in_memory), (whole, 0, 202));
    }
}
