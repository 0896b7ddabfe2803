//! Renders conversations by chat templates: a request per line of standard input, an answer per line
//! of standard output.
//!
//! ```text
//! echo '{"template": "{{ messages[0].content }}", "messages": [{"role": "user", "content": "hi"}]}' |
//!     cargo run --package rondo-data --example render_chat
//! ```
#![allow(clippy::print_stdout)] // A program for people at a terminal.

use std::io::stdin;

use rondo_data::template::{ChatTemplate, SpecialTokens};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, Value};

#[derive(Deserialize)]
struct Request {
    template: String,
    messages: Box<RawValue>,
    #[serde(default)]
    tools: Option<Box<RawValue>>,
    #[serde(default)]
    documents: Option<Box<RawValue>>,
    #[serde(default)]
    add_generation_prompt: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in stdin().lines() {
        let line = line?;
        let request: Request = serde_json::from_str(&line)?;
        // All other strings are special tokens, such as `bos_token`.
        let Value::Object(keys) = serde_json::from_str(&line)? else { continue };
        let others = keys.into_iter().filter(|(key, _)| key != "template");
        let special: SpecialTokens =
            others.filter_map(|(key, value)| Some((key, value.as_str()?.to_owned()))).collect();
        let rendered = ChatTemplate::new(&request.template, special).and_then(|template| {
            let [tools, documents] =
                [&request.tools, &request.documents].map(|text| text.as_ref().map(|text| text.get()));
            template.render_json(request.messages.get(), tools, documents, request.add_generation_prompt)
        });
        println!(
            "{}",
            rendered.map_or_else(|error| json!({ "error": error.to_string() }), |text| json!({ "ok": text }))
        );
    }
    Ok(())
}
