//! Files that are not what their format says: refused with the place, never read in part.

use serde_json::{Value, json};

use super::*;

fn load(name: &str, content: &[u8], keys: &Value) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    let mut source = json!({ "name": "x", "path": path, "eval_fraction": 0.0 });
    for (key, value) in keys.as_object().unwrap() {
        source[key] = value.clone();
    }
    let source: Source = serde_json::from_value(source).unwrap();
    let task = TaskSpec { kind: TaskKind::CausalLm, labels: &[], template: rondo_proto::run_file::Template::Auto };
    let data = Dataset::load(&source, task, 0).map_err(|error| error.to_string())?;
    let mut texts: Vec<String> = data.train().all().unwrap().iter().map(|row| row.text().to_owned()).collect();
    texts.sort();
    Ok(texts)
}

#[test]
fn quotes_are_held_to_rfc_4180() {
    let whole = "text,n\n\"a, \"\"b\"\"\nc\",1\r\n\"\",2\nplain \"middle\" quote,3\n";
    let said = load("rows.csv", whole.as_bytes(), &json!({})).unwrap_err();
    assert!(said.contains("column `text` is empty"), "{said}");
    let whole = whole.replace("\"\",2", "\"d\",2");
    assert_eq!(load("rows.csv", whole.as_bytes(), &json!({})).unwrap(), ["a, \"b\"\nc", "d", "plain \"middle\" quote"]);
    for (content, line, words) in [
        ("text,n\na,1\n\"b,2\nc,3\n", "line 3:", "never closed"),
        ("text,n\na,1\n\"b\nb\nb,2\nc \"d\" e,3\nf,4\n", "line 3:", "line 6 goes on behind"),
        ("\"text,n\na,1\n", "line 1:", "never closed"),
        ("text,n\n\"a\" ,1\n", "line 2:", "goes on behind"),
    ] {
        let said = load("rows.csv", content.as_bytes(), &json!({})).unwrap_err();
        assert!(said.contains("rows.csv") && said.contains(line) && said.contains(words), "{content:?}: {said}");
        let as_they_are = load("rows.csv", content.as_bytes(), &json!({ "quotes": false }));
        assert!(as_they_are.is_ok() || content.starts_with('"') || line == "line 3:", "{content:?}: {as_they_are:?}");
    }
    // A quote is an ordinary character of a TSV file, unless its table says otherwise.
    assert_eq!(load("rows.tsv", b"text\tn\n\"a\t1\n", &json!({})).unwrap(), ["\"a"]);
    assert!(load("rows.tsv", b"text\tn\n\"a\t1\n", &json!({ "quotes": true })).unwrap_err().contains("never closed"));
}

#[test]
fn columns_of_one_name_are_refused() {
    for (name, content) in [
        ("rows.csv", "text,n,text\na,1,b\n"),
        ("rows.tsv", "text\tn\t text\na\t1\tb\n"),
        ("rows.jsonl", "{\"text\": \"a\", \"text\": \"b\"}\n"),
        ("rows.json", "[{\"text\": \"a\",\n \"text\": \"b\"}]\n"),
    ] {
        let said = load(name, content.as_bytes(), &json!({})).unwrap_err();
        assert!(said.contains(name) && said.contains("`text`"), "{said}");
    }
}

#[test]
fn a_trailing_comma_is_called_one() {
    for (name, content) in [
        ("rows.json", "[{\"text\": \"a\"},\n]\n"),
        ("rows.jsonl", "{\"text\": \"a\",}\n"),
        ("rows.json", "[{\"text\": \"a\",}]"),
    ] {
        let said = load(name, content.as_bytes(), &json!({})).unwrap_err();
        assert!(said.contains(name) && said.contains("trailing comma"), "{said}");
    }
}

/// Three hundred damaged copies of each kind of file are read or refused; nothing panics.
#[test]
fn damaged_files_are_read_or_refused() {
    let rows: Vec<Value> = (0..8).map(|n| json!({ "text": format!("a day {n} \u{e9}"), "n": [n, 0.5] })).collect();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let csv: String = (0..8).map(|n| format!("\"a \"\"{n}\"\", b\",{n}\n")).collect();
    let parquet = fs::read(golden("rows/messages.parquet")).unwrap();
    let files = [
        ("rows.jsonl", lines.into_bytes()),
        ("rows.json", Value::from(rows).to_string().into_bytes()),
        ("rows.csv", format!("text,n\n{csv}").into_bytes()),
        ("rows.parquet", parquet),
    ];
    for (name, whole) in files {
        let mut refused = 0;
        for seed in 0..300 {
            let damaged = damaged(&whole, seed);
            refused += u32::from(load(name, &damaged, &json!({})).is_err());
        }
        assert!(refused > 20, "{name}: {refused} of 300 damaged files were refused");
    }
}

/// A copy with a few bytes changed, left out, doubled or cut off, the same for the same seed.
fn damaged(whole: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let mut bytes = whole.to_vec();
    for _ in 0..=draw(3) {
        let at = draw(bytes.len());
        let end = (at + 1 + draw(12)).min(bytes.len());
        match draw(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << draw(8),
            1 => drop(bytes.drain(at.min(end)..end)),
            2 => {
                let again = bytes[at.min(end)..end].to_vec();
                bytes.splice(end..end, again);
            }
            3 => bytes.truncate(at),
            _ => drop(bytes.splice(at..at, [0xff, b'"', b'9', b'}'].into_iter().cycle().take(1 + draw(6)))),
        }
    }
    bytes
}
