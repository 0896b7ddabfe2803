//! Reads the base-model files whose paths come on standard input, one a line, and prints one line
//! of JSON for each: what is in them, or why they are refused. For comparing with other readers:
//!
//! ```text
//! ls models/*.gguf | cargo run -p rondo-base --example read_base
//! ```

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::io::{BufRead, stdin};
use std::path::Path;

use rondo_base::gguf::{self, Value as Meta};
use rondo_base::is_gguf;
use rondo_proto::manifest;
use serde_json::{Map, Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    for line in stdin().lock().lines() {
        let file = line?;
        let answer = match read(Path::new(&file)) {
            Ok(found) => json!({"file": file, "ok": found}),
            Err(error) => json!({"file": file, "error": error.to_string()}),
        };
        println!("{answer}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<Value, Box<dyn Error>> {
    if is_gguf(path) {
        return gguf_file(path);
    }
    if path.extension().is_some_and(|extension| extension == "safetensors") && !path.is_dir() {
        let tensors = manifest::read(path)?;
        let rows: Vec<Value> = tensors.iter().map(|tensor| json!([tensor.name, tensor.dtype, tensor.shape])).collect();
        return Ok(json!({"tensors": rows}));
    }
    let base = rondo_base::describe(path, "base")?;
    let linear = |linear: &rondo_proto::v1::LinearLayer| json!([linear.name, linear.out_features, linear.in_features]);
    Ok(json!({
        "architecture": base.architecture,
        "parameters": base.parameters,
        "hidden_size": base.hidden_size,
        "max_positions": base.max_positions,
        "linears": base.linears.iter().map(linear).collect::<Vec<_>>(),
    }))
}

/// Keys with simple values; arrays are left out.
fn gguf_file(path: &Path) -> Result<Value, Box<dyn Error>> {
    let header = gguf::read(path)?;
    let mut metadata = Map::new();
    for (key, value) in &header.metadata {
        let value = match value {
            Meta::Unsigned(number) => json!(number),
            Meta::Signed(number) => json!(number),
            Meta::F32(number) => json!(number),
            Meta::F64(number) => json!(number),
            Meta::Bool(flag) => json!(flag),
            Meta::Text(text) => json!(text),
            Meta::Bytes(_) | Meta::Array(_) => continue,
        };
        metadata.insert(key.clone(), value);
    }
    let tensor = |tensor: &gguf::TensorInfo| json!([tensor.name, tensor.shape, tensor.kind.to_string()]);
    Ok(json!({"metadata": metadata, "tensors": header.tensors.iter().map(tensor).collect::<Vec<_>>()}))
}
