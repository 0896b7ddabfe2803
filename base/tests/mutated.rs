//! Every reader of this crate is fed 300 mutations of a small valid file. None may panic, hang, or
//! hold more memory than a bound that follows from the size of the files.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program of its own")]
#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rondo_base::Checkpoint;
use rondo_base::gguf;
use rondo_proto::manifest;
use serde_json::{Value, json};

/// Most memory for each byte of the files, and what is always allowed beside it: buffers, messages
/// and the list of a config's windows.
const PER_BYTE: usize = 64;
const ALWAYS: usize = 1 << 20;
/// No small file is worth longer. Far above what is seen, so that a busy machine does not fail.
const LONGEST: Duration = Duration::from_secs(20);
const MUTATIONS: u64 = 300;

/// Counts the bytes that are held, and the most that ever were.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it comes.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(held, Relaxed);
        // SAFETY: the layout is the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: pointer and layout are the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// SplitMix64 (Steele et al. 2014): the same mutations every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// A copy with one to three faults: flipped bits, a cut, bytes put in or repeated, large lengths,
/// other numbers.
fn mutated(valid: &[u8], seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = valid.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => {
                let more: Vec<u8> = (0..=random.below(9)).map(|_| random.next() as u8).collect();
                drop(bytes.splice(at..at, more));
            }
            3 => {
                let end = (at + 1 + random.below(64)).min(bytes.len());
                let again = bytes[at.min(end)..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            4 => {
                let large = [u64::MAX, 1 << 63, 1 << 40, 1 << 31, 1 << 24][random.below(5)].to_le_bytes();
                let end = (at + 8).min(bytes.len());
                bytes[at..end].copy_from_slice(&large[..end - at]);
            }
            _ => {
                let digits =
                    [b"1e999".as_slice(), b"-1", b"99999999999999999999", b"null", b"\"", b"[[[["][random.below(6)];
                let end = (at + digits.len()).min(bytes.len());
                drop(bytes.splice(at..end, digits.iter().copied()));
            }
        }
    }
    bytes
}

/// Feeds a reader with mutations of the valid bytes; answers how many it refused.
fn feed(name: &str, path: &Path, others: usize, read: &dyn Fn() -> Result<(), String>) {
    let valid = std::fs::read(path).expect("the valid file was written");
    read().expect("the valid file is read");
    let mut refused = 0;
    for seed in 0..MUTATIONS {
        let bytes = mutated(&valid, seed);
        std::fs::write(path, &bytes).expect("a temporary file can be written");
        let before = HELD.load(Relaxed);
        MOST.store(before, Relaxed);
        let start = Instant::now();
        let outcome = read();
        let took = start.elapsed();
        let most = MOST.load(Relaxed) - before;
        let bound = PER_BYTE * (bytes.len() + others) + ALWAYS;
        assert!(most <= bound, "{name}, mutation {seed}: {most} bytes held, {bound} allowed");
        assert!(took < LONGEST, "{name}, mutation {seed}: {took:?}");
        if let Err(error) = outcome {
            assert!(!error.is_empty(), "{name}, mutation {seed}");
            refused += 1;
        }
    }
    std::fs::write(path, &valid).expect("a temporary file can be written");
    assert!(refused > MUTATIONS / 4, "{name}: only {refused} were refused; do the mutations change anything?");
    println!("{name}: {refused} of {MUTATIONS} refused");
}

/// A Llama of one layer in two files with an index.
fn write_folder(dir: &Path) {
    let config = json!({"model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 8, "max_position_embeddings": 16, "vocab_size": 5,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}});
    std::fs::write(dir.join("config.json"), config.to_string()).expect("written");
    std::fs::write(dir.join("tokenizer.json"), "{}").expect("written");
    let at = |part: &str| format!("model.layers.0.{part}.weight");
    let one = [("model.embed_tokens.weight".to_owned(), vec![5, 8]), ("lm_head.weight".to_owned(), vec![5, 8])];
    let two = [
        (at("self_attn.q_proj"), vec![8, 8]),
        (at("self_attn.k_proj"), vec![4, 8]),
        (at("self_attn.v_proj"), vec![4, 8]),
        (at("self_attn.o_proj"), vec![8, 8]),
        (at("mlp.gate_proj"), vec![8, 8]),
        (at("mlp.up_proj"), vec![8, 8]),
        (at("mlp.down_proj"), vec![8, 8]),
        (at("input_layernorm"), vec![8]),
        (at("post_attention_layernorm"), vec![8]),
        ("model.norm.weight".to_owned(), vec![8]),
    ];
    let mut places = serde_json::Map::new();
    for (file, part) in [("model-1.safetensors", &one[..]), ("model-2.safetensors", &two[..])] {
        let zeros = [0; 256];
        let view = |shape: &Vec<usize>| {
            let bytes = &zeros[..shape.iter().product::<usize>() * 4];
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).expect("fits")
        };
        let views: Vec<_> = part.iter().map(|(name, shape)| (name.clone(), view(shape))).collect();
        std::fs::write(dir.join(file), safetensors::serialize(views, None).expect("sound")).expect("written");
        places.extend(part.iter().map(|(name, _)| (name.clone(), Value::from(file))));
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": places});
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).expect("written");
}

/// The header of a small GGUF file: numbers, texts, an array of each, two tensors.
fn write_gguf(path: &Path) {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let entry = |key: &str, kind: u32, value: &[u8]| [&text(key)[..], &kind.to_le_bytes(), value].concat();
    let texts = [&8u32.to_le_bytes()[..], &3u64.to_le_bytes(), &text("a"), &text(""), &text("word")].concat();
    let numbers = [&5u32.to_le_bytes()[..], &4u64.to_le_bytes(), &[1; 16]].concat();
    let mut file = [b"GGUF".as_slice(), &3u32.to_le_bytes(), &2u64.to_le_bytes(), &5u64.to_le_bytes()].concat();
    file.extend(entry("general.architecture", 8, &text("llama")));
    file.extend(entry("llama.block_count", 4, &2u32.to_le_bytes()));
    file.extend(entry("llama.rope.freq_base", 6, &500f32.to_le_bytes()));
    file.extend(entry("tokenizer.ggml.tokens", 9, &texts));
    file.extend(entry("tokenizer.ggml.token_type", 9, &numbers));
    for (name, offset) in [("token_embd.weight", 0u64), ("output_norm.weight", 1024)] {
        file.extend(text(name));
        file.extend(2u32.to_le_bytes());
        file.extend([64u64.to_le_bytes(), 4u64.to_le_bytes()].concat());
        file.extend(0u32.to_le_bytes());
        file.extend(offset.to_le_bytes());
    }
    file.resize(file.len().next_multiple_of(32) + 2048, 0);
    std::fs::write(path, file).expect("written");
}

fn main() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = dir.path().join("model");
    std::fs::create_dir(&folder).expect("made");
    write_folder(&folder);
    let packed = dir.path().join("m.gguf");
    write_gguf(&packed);
    let whole: usize = std::fs::read_dir(&folder)
        .expect("is there")
        .map(|entry| entry.expect("is there").metadata().expect("is there").len() as usize)
        .sum();

    let open = || Checkpoint::open(&folder).map(drop).map_err(|error| error.to_string());
    for file in ["config.json", "model.safetensors.index.json", "model-1.safetensors", "model-2.safetensors"] {
        feed(file, &folder.join(file), whole, &open);
    }
    let weights = folder.join("model-2.safetensors");
    feed("safetensors alone", &weights, 0, &|| manifest::read(&weights).map(drop).map_err(|error| error.to_string()));
    feed("gguf", &packed, 0, &|| {
        let header = gguf::read(&packed).map_err(|error| error.to_string())?;
        // What follows from a header may be refused as well, and may not panic either.
        drop(rondo_base::gguf_names::config(&header));
        drop(Checkpoint::open(&packed));
        Ok(())
    });
}
