//! Chat templates, against what transformers renders.

use serde::Deserialize;

use super::super::template::{ChatTemplate, Segment, SpecialTokens, TemplateError};
use super::*;

#[derive(Deserialize)]
struct Golden {
    template: String,
    special: SpecialTokens,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<Message>,
    prompt: bool,
    rendered: String,
    said: Option<Vec<String>>,
}

fn goldens() -> Vec<Golden> {
    serde_json::from_slice(&fs::read(golden("chat/chat.json")).unwrap()).unwrap()
}

fn check(golden: &Golden, source: &str) {
    let template = ChatTemplate::new(source, golden.special.clone()).unwrap();
    for case in &golden.cases {
        let name = format!("{} {:?}", golden.template, case.messages);
        assert_eq!(template.render(&case.messages.clone().into(), case.prompt).unwrap(), case.rendered, "{name}");
        if case.prompt {
            continue;
        }
        let segments = template.segments(&case.messages.clone().into()).unwrap();
        assert_eq!(segments.iter().map(|segment| &*segment.text).collect::<String>(), case.rendered, "{name}");
        let said: Vec<&str> = segments.iter().filter(|s| s.is_assistant).map(|s| &*s.text).collect();
        if let Some(marked) = &case.said {
            assert_eq!(&said, marked, "{name}");
        }
    }
}

#[test]
fn conversations_are_laid_out_as_transformers_does() {
    let mut checked = 0;
    for golden in goldens().iter().filter(|golden| golden.template != "smollm2") {
        check(golden, &fs::read_to_string(super::golden(&format!("chat/{}.jinja", golden.template))).unwrap());
        checked += golden.cases.len();
    }
    assert_eq!(checked, 30);
}

/// SmolLM2's own template, out of its file where `cargo xtask setup` has put it (or
/// RONDO_SMOLLM2_GGUF names it).
#[test]
fn smollm2_is_laid_out_as_transformers_does() {
    let named = std::env::var_os("RONDO_SMOLLM2_GGUF").map(std::path::PathBuf::from);
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.rondo/models");
    let folders = fs::read_dir(models).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = folders.flat_map(|path| match path.is_dir() {
        true => fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect(),
        false => vec![path],
    });
    let is_it = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        name.starts_with("smollm2") && name.ends_with(".gguf")
    };
    let Some(file) = named.or_else(|| files.into_iter().find(is_it)) else { return };
    // The value of a string key: its name, type 8, length, text (GGUF, little-endian).
    let bytes = fs::read(file).unwrap();
    let key = b"tokenizer.chat_template\x08\0\0\0";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let source = std::str::from_utf8(&bytes[at + 8..at + 8 + length]).unwrap();
    let goldens = goldens();
    let golden = goldens.iter().find(|golden| golden.template == "smollm2").unwrap();
    check(golden, source);
}

fn turns(contents: &[&str]) -> Conversation {
    let role = |index| if index % 2 == 0 { Role::User } else { Role::Assistant };
    contents.iter().enumerate().map(|(index, content)| Message::new(role(index), *content)).collect::<Vec<_>>().into()
}

#[test]
fn what_ends_a_turn_is_said_and_the_break_behind_it_is_not() {
    let said = |source: &str| {
        let template = ChatTemplate::new(source, SpecialTokens::new()).unwrap();
        let segments = template.segments(&turns(&["q", "a", "r", "b"])).unwrap();
        segments.into_iter().filter(|s| s.is_assistant).map(|s| s.text).collect::<Vec<_>>()
    };
    let marked = "{% for m in messages %}{{ m.role }}: {{ m.content }}<end>\n\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    assert_eq!(said(marked), ["a<end>", "b<end>"]);
    // Where only a line break ends a turn, it has to be said.
    assert_eq!(said(&marked.replace("<end>", "")), ["a\n\n", "b\n\n"]);
    let whole = ChatTemplate::plain([("eos_token".into(), "</s>".into())].into()).unwrap();
    assert_eq!(
        whole.segments(&turns(&["q", "a"])).unwrap(),
        [
            Segment { text: "### User:\nq\n\n### Assistant:\n".into(), is_assistant: false },
            Segment { text: "a</s>".into(), is_assistant: true },
            Segment { text: "\n\n".into(), is_assistant: false },
        ]
    );
}

#[test]
fn templates_that_cannot_be_used_are_refused_with_the_mend() {
    let said = ChatTemplate::new("{% for m in messages %}", SpecialTokens::new()).unwrap_err().to_string();
    assert!(said.contains("task.template = \"plain\"") && said.contains("line 1"), "{said}");
    let inst = fs::read_to_string(golden("chat/inst.jinja")).unwrap();
    let inst = ChatTemplate::new(&inst, SpecialTokens::new()).unwrap();
    let twice = vec![Message::new(Role::User, "a"), Message::new(Role::User, "b")].into();
    let said = inst.render(&twice, false).unwrap_err().to_string();
    assert!(said.contains("turns must alternate between user and assistant"), "{said}");
    // The last turn is laid out otherwise than the same turn with more behind it.
    let last = "{% for m in messages %}{{ m.content }}{% if loop.last and not add_generation_prompt %}!{% endif %}{% endfor %}";
    let last = ChatTemplate::new(last, SpecialTokens::new()).unwrap();
    assert!(last.segments(&turns(&["q", "a"])).is_ok());
    let said = last.segments(&turns(&["q", "a", "r", "b"])).unwrap_err();
    assert_eq!(said, TemplateError::NotAPrefix { turn: 2 });
    assert!(said.to_string().contains("task.loss_on = \"all\""));
    // What was said does not stand there.
    let silent = ChatTemplate::new("{% for m in messages %}{{ m.role }}{% endfor %}", SpecialTokens::new()).unwrap();
    assert_eq!(silent.segments(&turns(&["q", "b"])), Err(TemplateError::NotAPrefix { turn: 2 }));
}

#[test]
fn dates_do_not_change_from_day_to_day() {
    let source = "{{ strftime_now('%d %b %Y|%A %B %-j %j|%F %H:%M %y%%') }}";
    let template = ChatTemplate::new(source, SpecialTokens::new()).unwrap();
    assert_eq!(
        template.render(&Conversation::default(), false).unwrap(),
        "26 Jul 2024|Friday July %-j 208|2024-07-26 00:00 24%"
    );
}
