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
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Request {
    template: String,
    messages: Vec<Value>,
    #[serde(default)]
    tools: Option<Value>,
    #[serde(default)]
    documents: Option<Value>,
    #[serde(default)]
    add_generation_prompt: bool,
    /// The special tokens, such as `bos_token`.
    #[serde(flatten)]
    special: SpecialTokens,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for line in stdin().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let rendered = ChatTemplate::new(&request.template, request.special).and_then(|template| {
            let (tools, documents) = (request.tools.as_ref(), request.documents.as_ref());
            template.render_values(&request.messages, tools, documents, request.add_generation_prompt)
        });
        println!(
            "{}",
            rendered.map_or_else(|error| json!({ "error": error.to_string() }), |text| json!({ "ok": text }))
        );
    }
    Ok(())
}
