//! Row formats: what is read out of them, which a task can use, bad rows, and Parquet as pyarrow
//! writes it.

use serde_json::{Value, json};

use super::*;

const CAUSAL: TaskKind = TaskKind::CausalLm;
const CHOICE: TaskKind = TaskKind::MultipleChoice;
const EXACT: TaskKind = TaskKind::ExactAnswer;

/// Writes the rows as JSON lines and tells what a task makes of them, in the file's order.
fn examples(rows: &[Value], kind: TaskKind, template: Template, set: impl FnOnce(&mut Source)) -> Vec<Example> {
    let dir = tempfile::tempdir().unwrap();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let mut source = source(dir.path(), "rows.jsonl", lines.as_bytes());
    set(&mut source);
    in_order(&load_for(&source, kind, template).unwrap())
}

fn in_order(data: &Dataset) -> Vec<Example> {
    let mut examples = data.train().all().unwrap().into_owned();
    examples.sort_by_key(|example| match example.place() {
        Place::Line(number) | Place::Row(number) => number,
    });
    examples
}

fn refused(row: &Value, kind: TaskKind, set: impl FnOnce(&mut Source)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut source = source(dir.path(), "rows.jsonl", row.to_string().as_bytes());
    set(&mut source);
    load_for(&source, kind, Template::Auto).unwrap_err().to_string()
}

fn completion(prompt: &str, completion: &str) -> Content {
    Content::Completion { prompt: prompt.into(), completion: completion.into() }
}

fn chat(user: &str, assistant: &str) -> Content {
    Content::Chat(vec![Message::new(Role::User, user), Message::new(Role::Assistant, assistant)].into())
}

#[test]
fn instruction_rows_become_headings_or_turns() {
    let rows = [
        json!({"instruction": "Add.", "input": "1 2", "output": "3"}),
        json!({"instruction": "Say hi.", "input": "", "output": "hi"}),
        json!({"instruction": "Say ho.", "output": "ho", "input": null}),
    ];
    let plain = examples(&rows, CAUSAL, Template::Auto, |_| {});
    assert_eq!(plain[0].content, completion("### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n", "3"));
    assert_eq!(plain[1].content, completion("### Instruction:\nSay hi.\n\n### Response:\n", "hi"));
    assert_eq!(plain[2].content, completion("### Instruction:\nSay ho.\n\n### Response:\n", "ho"));
    let turns = examples(&rows, CAUSAL, Template::Chat, |_| {});
    assert_eq!(turns[0].content, chat("Add.\n\n1 2", "3"));
    assert_eq!(turns[1].content, chat("Say hi.", "hi"));
    // The side of the split does not hang on how rows are laid out.
    assert_eq!(plain.iter().map(|e| e.key).collect::<Vec<_>>(), turns.iter().map(|e| e.key).collect::<Vec<_>>());
}

#[test]
fn every_shape_is_told_by_its_columns() {
    let one = |row: Value, kind| examples(&[row], kind, Template::Auto, |_| {}).remove(0);
    let dolly = json!({"instruction": "Why?", "context": "c", "response": "so", "category": "qa"});
    let dolly = one(dolly, CAUSAL);
    assert_eq!(dolly.content, completion("### Instruction:\nWhy?\n\n### Input:\nc\n\n### Response:\n", "so"));
    assert_eq!((dolly.group.as_deref(), dolly.reference()), (Some("qa"), "so"));
    assert_eq!(one(json!({"prompt": "a ", "completion": "b"}), CAUSAL).content, completion("a ", "b"));
    assert_eq!(one(json!({"text": "t", "label": 1}), CAUSAL).content, Content::Text("t".into()));
    let turns = json!([{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]);
    assert_eq!(one(json!({"messages": turns}), CAUSAL).content, chat("u", "a"));
    let shared = json!({"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]});
    assert_eq!(one(shared, CAUSAL).content, chat("u", "a"));
    let gsm = json!({"question": "How many?", "answer": "1 + 1 = 2\n#### 2"});
    assert_eq!(one(gsm.clone(), EXACT).content, completion("Question: How many?\nAnswer:", " 1 + 1 = 2\n#### 2"));
    assert_eq!(one(gsm, CAUSAL).reference(), "1 + 1 = 2\n#### 2");
    // The answer beside a longer output is what an exact answer is compared with.
    let row = json!({"instruction": "i", "input": "", "output": "thinking: 15", "answer": 15.0});
    let exact = one(row, EXACT);
    assert_eq!(
        (exact.content.clone(), exact.reference()),
        (completion("### Instruction:\ni\n\n### Response:\n", "thinking: 15"), "15")
    );
}

#[test]
fn choices_are_read_in_the_forms_that_files_have() {
    let named = |answer: u32| Content::Choice {
        prompt: "Question: q\nAnswer:".into(),
        options: [" red", " green", " blue"].map(Into::into).into(),
        answer,
    };
    let texts = json!(["red", "green", "blue"]);
    let one = |row: Value, set: &dyn Fn(&mut Source)| examples(&[row], CHOICE, Template::Auto, set).remove(0).content;
    let map = |set: fn(&mut Mapping)| move |source: &mut Source| set(&mut source.mapping);
    // MMLU: an index; letters; the option itself.
    for (said, answer) in
        [(json!(2), 2), (json!("B"), 1), (json!("c"), 2), (json!("green"), 1), (json!("(B) green"), 1)]
    {
        assert_eq!(one(json!({"question": "q", "choices": texts, "answer": said}), &|_| {}), named(answer), "{said}");
    }
    // ARC: texts and labels in one object, the answer by label, be it letters or numbers from 1.
    for (labels, said) in [(["A", "B", "C"], "B"), (["1", "2", "3"], "2")] {
        let row = json!({"question": "q", "choices": {"text": texts, "label": labels}, "answerKey": said});
        assert_eq!(one(row, &|_| {}), named(1));
    }
    let pairs = json!([{"text": "red", "label": "1"}, {"text": "green", "label": "2"}, {"text": "blue", "label": "3"}]);
    let raw = json!({"question": {"stem": "q", "choices": pairs}, "answerKey": "3"});
    let mapped = map(|m| {
        m.question = Some("question.stem".into());
        m.choices = Some(Columns::One("question.choices".into()));
    });
    assert_eq!(one(raw, &mapped), named(2));
    let row = json!({"stem": "q", "c": {"text": texts, "label": ["x", "y", "z"]}, "key": "z"});
    let mapped = map(|m| {
        m.question = Some("stem".into());
        m.choices = Some(Columns::One("c.text".into()));
        m.choice_labels = Some("c.label".into());
        m.answer = Some("key".into());
    });
    assert_eq!(one(row, &mapped), named(2));
    // One column per option; the same options for every row, with the answer inside a sentence.
    let row = json!({"question": "q", "A": "red", "B": "green", "C": "blue", "answer": "C"});
    let mapped = map(|m| m.choices = Some(Columns::Many(["A", "B", "C"].map(Into::into).into())));
    assert_eq!(one(row, &mapped), named(2));
    let row = json!({"input": "q", "output": "The answer is: B. Gaucher disease"});
    let mapped = map(|m| {
        m.question = Some("input".into());
        m.answer = Some("output".into());
        m.answer_after = Some("The answer is: ".into());
        m.options = Some(["red", "green", "blue"].map(Into::into).into());
    });
    assert_eq!(one(row, &mapped), named(1));
    // As turns of a chat the question stands for itself.
    let chat = examples(&[json!({"question": "q", "choices": texts, "answer": 0})], CHOICE, Template::Chat, |_| {});
    let options = ["red", "green", "blue"].map(Into::into).into();
    assert_eq!(chat[0].content, Content::Choice { prompt: "q".into(), options, answer: 0 });
}

#[test]
fn columns_can_be_named_joined_and_numbers_answer() {
    let row = json!({"original_text": "How many?", "ans": 2.0, "difficulty": 3});
    let mapped = examples(&[row], EXACT, Template::Auto, |source| {
        source.mapping.question = Some("original_text".into());
        source.mapping.answer = Some("ans".into());
        source.mapping.group = Some("difficulty".into());
    });
    assert_eq!(mapped[0].content, completion("Question: How many?\nAnswer:", " 2"));
    assert_eq!(mapped[0].group.as_deref(), Some("3"));
    // A row format whose columns are named goes before one that the columns would fit as well.
    let row = json!({"instruction": "i", "output": "o", "a": "x", "b": "y", "c": ["p", "z"]});
    let joined = examples(&[row], CAUSAL, Template::Auto, |source| {
        source.mapping.prompt = Some("{a}, {b}: ".into());
        source.mapping.completion = Some("c.1".into());
    });
    assert_eq!(joined[0].content, completion("x, y: ", "z"));
}

#[test]
fn shapes_that_do_not_serve_the_task_are_refused_by_name() {
    let rows = |row_format| move |source: &mut Source| source.rows = row_format;
    let said = refused(&json!({"text": "t"}), CHOICE, rows(RowFormat::Text));
    assert!(said.ends_with("rows = \"text\" does not serve a multiple-choice run, which takes \"choice\""), "{said}");
    let said = refused(&json!({"a": 1, "b": 2}), CAUSAL, |_| {});
    for part in
        ["rows.jsonl:1: the columns `a`, `b` fit no row format", "causal-lm", "dolly (instruction, context, response)"]
    {
        assert!(said.contains(part), "{said:?} should contain {part:?}");
    }
    let said = refused(&json!({"instruction": "i", "context": "c"}), CAUSAL, rows(RowFormat::Dolly));
    assert!(said.contains(":1: missing column `response`; there are "), "{said}");
}

#[test]
fn bad_rows_are_reported_by_line_and_may_be_skipped_up_to_a_share() {
    let bad = [
        (json!({"question": "q", "choices": ["a", "b"], "answer": "c"}), "\"c\" names none of the 2 options"),
        (json!({"question": "q", "choices": ["a", "b"], "answer": 2}), "\"2\" names none of the 2 options"),
        (json!({"question": "q", "choices": ["a"], "answer": 0}), "has 1 options; a choice needs at least 2"),
        (json!({"question": "q", "choices": ["a", " "], "answer": 0}), "option 2 is empty"),
        (
            json!({"question": "q", "choices": ["a", {}], "answer": 0}),
            "`choices` holds a list, expected a list of texts",
        ),
        (json!({"question": "", "choices": ["a", "b"], "answer": 0}), "column `question` is empty"),
    ];
    for (row, says) in bad {
        let said = refused(&row, CHOICE, |_| {});
        assert!(said.contains(says) && said.contains("rows.jsonl:1"), "{said:?} should contain {says:?}");
    }
    let turns = [
        (json!([]), "has no turn of the assistant"),
        (json!([{"role": "narrator", "content": "x"}]), "turn 1 has the role \"narrator\""),
        (json!([{"role": "user", "content": [1]}]), "turn 1 has a part without `text`"),
        (json!([{"role": "user", "content": [{"type": "image_url"}]}]), "turn 1 has a part of the type \"image_url\""),
        (json!([{"role": "user", "content": 1}]), "turn 1 has content that is neither a string nor a list of parts"),
        (json!([{"role": "user"}]), "turn 1 has no `content`"),
        (
            json!([{"role": "user", "content": "x", "tool_calls": [{}]}]),
            "turn 1 has `tool_calls`, which only the assistant",
        ),
        (json!([{"role": "assistant", "content": null, "tool_calls": {}}]), "turn 1 has `tool_calls` that are no list"),
        (json!([{"role": "assistant", "content": "x", "function_call": {"name": "f"}}]), "turn 1 has `function_call`"),
        (json!([{"role": "assistant", "content": "x", "weight": 0.5}]), "turn 1 has the weight 0.5"),
        (json!([{"role": "assistant", "content": "x", "weight": 0}]), "every turn of the assistant has the weight 0"),
        (json!([{"from": "function_call", "value": "{}"}]), "turn 1 of a function call names no function"),
        (json!([{"role": "assistant", "content": " "}]), "turn 1 of the assistant is empty"),
        (json!("hello"), "`messages` holds a string, expected a list of turns"),
    ];
    for (turns, says) in turns {
        let said = refused(&json!({"messages": turns}), CAUSAL, |_| {});
        assert!(said.contains(says), "{said:?} should contain {says:?}");
    }

    let dir = tempfile::tempdir().unwrap();
    let mut lines: Vec<String> = (0..10).map(|n| json!({"text": format!("text {n}")}).to_string()).collect();
    (lines[3], lines[7]) = ("{\"text\": ".to_owned(), json!({"text": 5}).to_string());
    let mut source = source(dir.path(), "rows.jsonl", lines.join("\n").as_bytes());
    let load = |source: &Source| load_for(source, CAUSAL, Template::Auto);
    assert!(load(&source).unwrap_err().to_string().contains("rows.jsonl:4: not a JSON object"));
    source.on_bad_row = OnBadRow::Skip;
    let said = load(&source).unwrap_err().to_string();
    assert!(said.contains("2 of 10 rows cannot be used") && said.contains("rows.jsonl:4"), "{said}");
    source.max_bad_rows = 0.2;
    let data = load(&source).unwrap();
    assert_eq!((data.train().len(), data.skipped()), (8, 2));
}

#[test]
fn parquet_holds_what_pyarrow_wrote() {
    let rows: Value = serde_json::from_slice(&fs::read(golden("rows/rows.json")).unwrap()).unwrap();
    let mut source = Source { eval_fraction: 0.0, ..Source::new("golden", golden("rows/choice.parquet")) };
    // The same rows as JSON lines are the oracle for row formats, pyarrow for the values.
    for (name, kind) in [("choice", CHOICE), ("messages", CAUSAL), ("answers", EXACT)] {
        let set = |source: &mut Source| {
            if name == "answers" {
                source.mapping.question = Some("original_text".into());
                source.mapping.answer = Some("ans".into());
                source.mapping.group = Some("number".into());
            }
        };
        source.path = golden(&format!("rows/{name}.parquet"));
        set(&mut source);
        let expected = examples(rows[name].as_array().unwrap(), kind, Template::Auto, set);
        let found = in_order(&load_for(&source, kind, Template::Auto).unwrap());
        let contents =
            |examples: &[Example]| examples.iter().map(|e| (e.content.clone(), e.group.clone())).collect::<Vec<_>>();
        assert_eq!(contents(&found), contents(&expected), "{name}");
        assert_eq!(found[2].place(), Place::Row(3));
    }
    let said = load(&Source::new("x", golden("rows/choice.parquet"))).unwrap_err().to_string();
    assert!(said.contains("choice.parquet, row 0: missing column `text`; there are `id`, `question`"), "{said}");
}

#[test]
fn a_column_that_is_named_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let rows = json!({"prompt": "p", "completion": "c"}).to_string();
    let mut source = source(dir.path(), "rows.jsonl", rows.as_bytes());
    let load = |source: &Source| load_for(source, CAUSAL, Template::Auto).map(|data| data.train().len());
    assert_eq!(load(&source).unwrap(), 1);
    // Without a check of the name, the prompts and completions would be taken instead.
    source.text = "nosuch".to_owned();
    for error in [load(&source).unwrap_err(), source.check_columns().unwrap_err()] {
        assert!(error.to_string().contains("rows.jsonl:1: missing column `nosuch`; there are `completion`"), "{error}");
    }
    (source.text, source.mapping.input) = ("text".to_owned(), Some("may_be_left_out".to_owned()));
    assert_eq!(load(&source).unwrap(), 1);
}

#[test]
fn checking_the_columns_reads_the_first_row_and_no_further() {
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, content: &str| {
        source(dir.path(), name, content.as_bytes())
            .check_columns()
            .map_err(|error| error.to_string())
            .err()
            .unwrap_or_default()
    };
    assert_eq!(check("a.csv", "text,label\nx,y,z\n"), "");
    assert_eq!(check("a.jsonl", "{\"text\": \"x\"}\nbroken"), "");
    assert_eq!(check("a.json", "[{\"messages\": []}, broken"), "");
    assert!(
        check("b.csv", "mood,review\nx,y\n")
            .contains("b.csv:1: no task can use rows with the columns `mood`, `review`")
    );
    assert!(check("b.jsonl", "broken\n").contains("b.jsonl:1: not a JSON object"));
    assert!(check("c.jsonl", "\n").contains("no rows"));
    // A line that ends too soon is wrong at no column of its own.
    assert!(check("d.jsonl", "{\"text\"\n").contains("d.jsonl:1: not a JSON object: EOF while parsing"));
    assert!(check("e.jsonl", "{\"text\": x}\n").contains("e.jsonl:1: not a JSON object at column 10: expected value"));
    let labelled =
        Source { label: "mod".to_owned(), text: "review".to_owned(), ..source(dir.path(), "b.csv", b"mood,review") };
    assert!(
        labelled.check_columns().unwrap_err().to_string().contains("missing column `mod`; there are `mood`, `review`")
    );
    let parquet = Source { text: "body".to_owned(), ..Source::new("x", golden("rows/choice.parquet")) };
    assert!(parquet.check_columns().unwrap_err().to_string().contains("missing column `body`"));
    assert!(Source::new("x", golden("rows/choice.parquet")).check_columns().is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn damaged_parquet_never_panics(cut in 0usize..6000, at in 0usize..6000, with: u8, which in 0usize..3) {
        let name = ["choice", "messages", "answers"][which];
        let mut bytes = fs::read(golden(&format!("rows/{name}.parquet"))).unwrap();
        let length = bytes.len();
        bytes[at % length] = with;
        bytes.truncate(if cut < length { length - cut / 8 } else { length });
        let dir = tempfile::tempdir().unwrap();
        let source = source(dir.path(), "a.parquet", &bytes);
        for kind in [CHOICE, CAUSAL] {
            let _ = load_for(&source, kind, Template::Auto);
        }
    }
}
