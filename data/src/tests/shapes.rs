//! Templates as public models have them, by the constructs that they use: rendered as transformers
//! renders them (tests/goldens/shapes/make.py).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::template::{ChatTemplate, SpecialTokens, TemplateError};
use super::*;

#[derive(Deserialize)]
struct Shapes {
    special: SpecialTokens,
    conversations: BTreeMap<String, Given>,
    templates: Vec<Shape>,
}

#[derive(Deserialize)]
struct Given {
    messages: Box<RawValue>,
    tools: Option<Box<RawValue>>,
    documents: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Shape {
    name: String,
    template: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    of: String,
    prompt: bool,
    #[serde(flatten)]
    right: Right,
}

/// What transformers does.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Right {
    Text(String),
    /// `raise_exception` was called.
    Refuses(String),
    /// The template fails on this conversation.
    Fails(bool),
}

#[test]
fn templates_of_public_models_are_rendered_as_transformers_renders_them() {
    let shapes: Shapes = serde_json::from_slice(&fs::read(golden("shapes/shapes.json")).unwrap()).unwrap();
    assert!(shapes.templates.len() >= 40);
    let mut wrong = Vec::new();
    for shape in &shapes.templates {
        let template = ChatTemplate::new(&shape.template, shapes.special.clone());
        let template = template.unwrap_or_else(|error| panic!("{}: {error}", shape.name));
        for case in &shape.cases {
            let given = &shapes.conversations[&case.of];
            let text = |raw: &Option<Box<RawValue>>| raw.as_ref().map(|raw| raw.get().to_owned());
            let (tools, documents) = (text(&given.tools), text(&given.documents));
            let found = template.render_json(given.messages.get(), tools.as_deref(), documents.as_deref(), case.prompt);
            let is_right = match (&found, &case.right) {
                (Ok(found), Right::Text(right)) => found == right,
                (Err(TemplateError::Refused(found)), Right::Refuses(right)) => found.contains(right.as_str()),
                // Python reports in other words why a template fails.
                (Err(_), Right::Fails(fails)) => *fails,
                _ => false,
            };
            if !is_right {
                wrong.push(format!("{} of {} ({}): {found:?}", shape.name, case.of, case.prompt));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
