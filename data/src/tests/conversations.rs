//! Conversations with tools, parts and weights: what templates show of them, and what is refused.

use serde_json::{Value, json};

use super::super::template::{ChatTemplate, SpecialTokens, TemplateError};
use super::*;

/// Shows roles, texts or parts, and tool calls, as a template of a model with tools does.
const TOOLS: &str = "{% if tools %}T{{ tools | tojson }}\n{% endif %}{% for m in messages %}<{{ m.role }}>\
    {% if m.content is string %}{{ m.content }}{% elif m.content %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}\
    {% for c in m.tool_calls or [] %}!{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}{{ '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}<assistant>{% endif %}";
/// Knows three roles and texts alone.
const PLAIN: &str = "{% for m in messages %}{% if m.role == 'system' %}S:{{ m.content }}|{% elif m.role == 'user' %}\
    U:{{ m.content }}|{% elif m.role == 'assistant' %}A:{{ m.content }}|{% endif %}{% endfor %}\
    {% if add_generation_prompt %}A:{% endif %}";

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, SpecialTokens::new()).unwrap()
}

/// The row's text, and in brackets what of it is learnt.
fn laid_out(source: &str, row: &Value) -> Result<String, String> {
    let data = read_rows(std::slice::from_ref(row)).map_err(|error| error.to_string())?;
    let example = data.train().all().unwrap().into_owned().remove(0);
    let Content::Chat(talk) = example.content else { panic!("{example:?}") };
    let segments = template(source).segments(&talk).map_err(|error| error.to_string())?;
    Ok(segments
        .iter()
        .map(|part| if part.is_assistant { format!("[{}]", part.text) } else { part.text.clone() })
        .collect())
}

fn read_rows(rows: &[Value]) -> Result<Dataset, DataError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    fs::write(&path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    let source = json!({ "name": "talks", "path": path, "eval_fraction": 0.0 });
    let source: Source = serde_json::from_value(source).unwrap();
    let task = TaskSpec { kind: TaskKind::CausalLm, labels: &[], template: rondo_proto::run_file::Template::Auto };
    Dataset::load(&source, task, 0)
}

#[test]
fn tools_calls_and_what_comes_back_are_shown() {
    // The order of keys is the file's, which templates write out.
    let text = r#"{"tools": [{"type": "function", "function": {"name": "look", "about": "b"}}], "messages": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "look", "arguments": {"z": 1, "a": 2}}}]},
        {"role": "tool", "content": "found"}, {"role": "assistant", "content": "a"}]}"#;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    fs::write(&path, text.replace('\n', " ")).unwrap();
    let source: Source = serde_json::from_value(json!({ "name": "t", "path": path, "eval_fraction": 0.0 })).unwrap();
    let task = TaskSpec { kind: TaskKind::CausalLm, labels: &[], template: rondo_proto::run_file::Template::Auto };
    let data = Dataset::load(&source, task, 0).unwrap();
    let Content::Chat(talk) = data.train().all().unwrap()[0].content.clone() else { panic!() };
    assert_eq!(
        template(TOOLS).render(&talk, false).unwrap(),
        "T[{\"type\": \"function\", \"function\": {\"name\": \"look\", \"about\": \"b\"}}]\n<user>q\n\
         <assistant>!look{\"z\": 1, \"a\": 2}\n<tool>found\n<assistant>a\n"
    );
    let said = template(PLAIN).render(&talk, false).unwrap_err();
    assert_eq!(said, TemplateError::Dropped { what: "the `tools`".to_owned() });
}

#[test]
fn what_a_template_leaves_out_is_refused_by_name() {
    let turns = |extra: Value| {
        json!({ "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x", "tool_calls": extra},
                             {"role": "tool", "content": "r"}, {"role": "assistant", "content": "a"}] })
    };
    let said = laid_out(PLAIN, &turns(json!([{"function": {"name": "f"}}]))).unwrap_err();
    assert!(said.contains("`tool_calls` of turn 2"), "{said}");
    let said = laid_out(PLAIN, &turns(Value::Null)).unwrap_err();
    assert!(said.contains("what the tool says in turn 3"), "{said}");
}

#[test]
fn parts_are_shown_or_joined() {
    let row = json!({ "messages": [
        {"role": "user", "content": [{"type": "text", "text": "p"}, {"type": "text", "text": "q"}]},
        {"role": "assistant", "content": "a"}] });
    assert_eq!(laid_out(TOOLS, &row).unwrap(), "<user>[p][q]\n<assistant>[a\n]");
    assert_eq!(laid_out(PLAIN, &row).unwrap(), "U:pq|A:[a|]");
}

#[test]
fn a_developer_is_the_system_where_the_template_knows_no_developer() {
    let row = json!({ "messages": [{"role": "developer", "content": "d"}, {"role": "user", "content": "q"},
                                   {"role": "assistant", "content": "a"}] });
    assert_eq!(laid_out(TOOLS, &row).unwrap(), "<developer>d\n<user>q\n<assistant>[a\n]");
    assert_eq!(laid_out(PLAIN, &row).unwrap(), "S:d|U:q|A:[a|]");
}

#[test]
fn turns_without_weight_are_read_and_not_learnt() {
    let row = json!({ "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "bad", "weight": 0},
                                   {"role": "user", "content": "r"}, {"role": "assistant", "content": "a", "weight": 1}] });
    assert_eq!(laid_out(PLAIN, &row).unwrap(), "U:q|A:bad|U:r|A:[a|]");
}

#[test]
fn sharegpt_rows_keep_their_system_and_their_calls() {
    let row = json!({ "system": "s", "conversations": [
        {"from": "human", "value": "q"}, {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}"},
        {"from": "observation", "value": "r"}, {"from": "gpt", "value": "a"}] });
    assert_eq!(laid_out(TOOLS, &row).unwrap(), "<system>s\n<user>q\n<assistant>[!f{}]\n<tool>r\n<assistant>[a\n]");
    let twice = json!({ "system": "s", "messages": [{"role": "system", "content": "t"}, {"role": "assistant", "content": "a"}] });
    assert!(laid_out(PLAIN, &twice).unwrap_err().contains("keep one"));
    let pairs = json!({ "chosen": [1], "messages": [{"role": "assistant", "content": "a"}] });
    assert!(laid_out(PLAIN, &pairs).unwrap_err().contains("column `chosen`"));
}

#[test]
fn instructions_follow_their_system_and_history() {
    let row = json!({ "instruction": "go on", "input": "", "output": "end", "system": "be kind",
                      "history": [["first", "one"], ["second", "two"]] });
    let data = read_rows(std::slice::from_ref(&row)).unwrap();
    let Content::Completion { prompt, completion } = data.train().all().unwrap()[0].content.clone() else { panic!() };
    assert_eq!(
        &*prompt,
        "be kind\n\n### Instruction:\nfirst\n\n### Response:\none\n\n### Instruction:\nsecond\n\n### Response:\ntwo\n\n\
         ### Instruction:\ngo on\n\n### Response:\n"
    );
    assert_eq!(&*completion, "end");
    for (key, value) in [("history", json!([["one"]])), ("history", json!("x")), ("system", json!(3))] {
        let mut bad = row.clone();
        bad[key] = value;
        let said = read_rows(&[bad]).unwrap_err().to_string();
        assert!(said.contains(&format!("column `{key}` holds no")), "{said}");
    }
}
