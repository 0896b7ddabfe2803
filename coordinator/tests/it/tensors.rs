//! A toy base model, run files on it, and update files as a client would write them, with random
//! numbers.

use rondo_methods::{Instance, Job, Kind, Registry};
use rondo_proto::manifest::TensorEntry;
use rondo_proto::run_file::RunFile;
use rondo_proto::{Digest, v1};

pub(crate) const WIDTH: u32 = 16;

/// Two layers of width 16.
pub(crate) fn base() -> v1::BaseModel {
    base_of("tiny", WIDTH)
}

/// Two layers of width 520, for updates of more than one chunk.
pub(crate) fn wide_base() -> v1::BaseModel {
    base_of("wide", 520)
}

fn base_of(name: &str, width: u32) -> v1::BaseModel {
    let linear = |name: &str| v1::LinearLayer { name: name.into(), out_features: width, in_features: width };
    v1::BaseModel {
        name: name.into(),
        digest: Digest::of(name.as_bytes()).to_string(),
        architecture: "bert".into(),
        parameters: 512,
        hidden_size: width,
        max_positions: 512,
        linears: ["layer.0.query", "layer.0.value"].map(linear).into(),
        files: vec![],
        token_digest: String::new(),
    }
}

/// Three clients, quorum two.
pub(crate) fn run_file(method: &str, rounds: u32) -> String {
    format!(
        r#"
name = "sentiment"
base = {{ model = "tiny" }}
[task]
kind = "classification"
dataset = "reviews"
labels = ["negative", "positive"]
[method]
id = "{method}"
rank = 4
targets = ["query", "value"]
[train]
local_steps = 2
batch = 4
lr = 1e-3
seed = 7
[rounds]
count = {rounds}
cohort = 3
quorum = 2
deadline_s = 120
grace_s = 60
"#
    )
}

pub(crate) fn job(run_file: &str) -> Job {
    let run = RunFile::parse(run_file).unwrap();
    let base = if run.base.model == "wide" { wide_base() } else { base() };
    Job::new(&Registry::builtin(), &run, &base).unwrap()
}

/// A safetensors file with these tensors; `number` gives the numbers.
pub(crate) fn file(entries: &[TensorEntry], mut number: impl FnMut() -> f32) -> Vec<u8> {
    let mut data = Vec::new();
    let mut header = serde_json::Map::new();
    for entry in entries {
        assert_eq!(entry.dtype, "F32");
        let start = data.len();
        for _ in 0..entry.shape.iter().product::<usize>() {
            data.extend_from_slice(&number().to_le_bytes());
        }
        let tensor = serde_json::json!({
            "dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, data.len()]
        });
        header.insert(entry.name.clone(), tensor);
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    file
}

/// Numbers in -0.1..0.1 from a seed.
pub(crate) fn random(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) / 5.0
    }
}

/// A well-formed update.
pub(crate) fn update(run_file: &str, base: &v1::BaseModel, kind: Kind, round: u32, rank: u32, seed: u64) -> Vec<u8> {
    let job = Job::new(&Registry::builtin(), &RunFile::parse(run_file).unwrap(), base).unwrap();
    file(&job.upload_manifest(kind, Instance::in_round(round).with_rank(rank as usize)), random(seed))
}
