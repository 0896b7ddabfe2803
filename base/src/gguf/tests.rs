use std::path::Path;

use proptest::prelude::*;

use super::*;

/// Writes small GGUF files, right ones and wrong ones.
#[derive(Clone)]
pub(crate) struct Builder {
    pub(crate) version: u32,
    pub(crate) alignment: u64,
    metadata: Vec<(String, Vec<u8>)>,
    /// Name, sizes as the file lists them, type, offset if it is not the next.
    tensors: Vec<(String, Vec<u64>, u32, Option<u64>)>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { version: 3, alignment: 32, metadata: Vec::new(), tensors: Vec::new() }
    }

    /// A Llama of two layers: hidden 64, 4 heads, 2 for keys, intermediate 32, 10 tokens.
    pub(crate) fn llama() -> Self {
        let mut builder = Self::new()
            .text("general.architecture", "llama")
            .number("llama.embedding_length", 64)
            .number("llama.block_count", 2)
            .number("llama.attention.head_count", 4)
            .number("llama.attention.head_count_kv", 2)
            .number("llama.feed_forward_length", 32)
            .number("llama.context_length", 128)
            .float("llama.attention.layer_norm_rms_epsilon", 1e-5)
            .number("tokenizer.ggml.bos_token_id", 1)
            .tensor("token_embd.weight", &[64, 10], BlockKind::Q8_0.id())
            .tensor("output_norm.weight", &[64], 0);
        for layer in 0..2 {
            for (name, columns, rows) in [
                ("attn_q", 64, 64),
                ("attn_k", 64, 32),
                ("attn_v", 64, 32),
                ("attn_output", 64, 64),
                ("ffn_gate", 64, 32),
                ("ffn_up", 64, 32),
                ("ffn_down", 32, 64),
            ] {
                builder = builder.tensor(&format!("blk.{layer}.{name}.weight"), &[columns, rows], BlockKind::Q4_0.id());
            }
            for name in ["attn_norm", "ffn_norm"] {
                builder = builder.tensor(&format!("blk.{layer}.{name}.weight"), &[64], 0);
            }
        }
        builder
    }

    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        let entry = [&kind.to_le_bytes()[..], value].concat();
        match self.metadata.iter_mut().find(|(there, _)| there == key) {
            Some(there) => there.1 = entry,
            None => self.metadata.push((key.to_owned(), entry)),
        }
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.entry(key, 8, &text(value))
    }

    pub(crate) fn number(self, key: &str, value: u32) -> Self {
        self.entry(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn numbers(self, key: &str, values: &[i32]) -> Self {
        let mut bytes = [&5u32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        self.entry(key, 9, &bytes)
    }

    pub(crate) fn float(self, key: &str, value: f32) -> Self {
        self.entry(key, 6, &value.to_le_bytes())
    }

    /// Sizes as the file lists them: columns first.
    pub(crate) fn tensor(mut self, name: &str, sizes: &[u64], kind: u32) -> Self {
        self.tensors.push((name.to_owned(), sizes.to_vec(), kind, None));
        self
    }

    fn tensor_at(mut self, name: &str, sizes: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors.push((name.to_owned(), sizes.to_vec(), kind, Some(offset)));
        self
    }

    /// Without the entry or the tensor of that name.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.metadata.retain(|(key, _)| key != name);
        self.tensors.retain(|tensor| tensor.0 != name);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            file.extend(text(key));
            file.extend(value);
        }
        let mut end = 0u64;
        for (name, sizes, kind, offset) in &self.tensors {
            file.extend(text(name));
            file.extend((sizes.len() as u32).to_le_bytes());
            sizes.iter().for_each(|size| file.extend(size.to_le_bytes()));
            file.extend(kind.to_le_bytes());
            let offset = offset.unwrap_or(end);
            file.extend(offset.to_le_bytes());
            if let Some(kind) = BlockKind::of_id(*kind) {
                let numbers = sizes.iter().fold(1u64, |product, size| product.saturating_mul(*size));
                let bytes = (numbers / kind.numbers()).saturating_mul(kind.bytes());
                end = offset.saturating_add(bytes).saturating_add(self.alignment) / self.alignment * self.alignment;
            }
        }
        let data = (file.len() as u64).next_multiple_of(self.alignment);
        file.resize((data + end.min(1 << 20)) as usize, 7);
        file
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn read_bytes(bytes: &[u8]) -> Result<Header, String> {
    parse(bytes, bytes.len() as u64, Path::new("m.gguf")).map_err(|error| error.to_string())
}

#[test]
fn metadata_and_tensors_are_read() {
    let builder = Builder::llama();
    let bytes = builder.bytes();
    let header = read_bytes(&bytes).unwrap();
    assert_eq!(header.text("general.architecture").unwrap(), Some("llama"));
    assert_eq!(header.unsigned("llama.block_count").unwrap(), Some(2));
    assert_eq!(header.float("llama.attention.layer_norm_rms_epsilon").unwrap(), Some(1e-5));
    assert_eq!(header.unsigned("no.such.key").unwrap(), None);
    assert!(header.text("llama.block_count").unwrap_err().to_string().contains("is 2; it must be a text"));
    assert_eq!(header.tensors.len(), 20);
    let key = header.tensor("blk.0.attn_k.weight").unwrap();
    assert_eq!((key.shape.as_slice(), key.kind, key.bytes), (&[32, 64][..], BlockKind::Q4_0, 32 * 2 * 18));
    assert!(header.tensors.iter().all(|tensor| tensor.offset % 32 == 0 && bytes[tensor.offset as usize] == 7));
    // The last tensor may end where the file ends.
    let last = header.tensors.last().unwrap();
    let end = (last.offset + last.bytes) as usize;
    assert_eq!(read_bytes(&bytes[..end]).unwrap().tensors.len(), 20);
    assert!(read_bytes(&bytes[..end - 1]).unwrap_err().contains("is it cut short?"));
    assert_eq!(read_bytes(&Builder { version: 2, ..builder }.bytes()).unwrap().version, 2);
}

#[test]
fn every_kind_of_value_is_read() {
    let array = |kind: u32, count: u64, values: &[u8]| [&kind.to_le_bytes()[..], &count.to_le_bytes(), values].concat();
    let cases: Vec<(u32, Vec<u8>, Value)> = vec![
        (0, vec![200], Value::Unsigned(200)),
        (1, vec![0xff], Value::Signed(-1)),
        (2, vec![1, 2], Value::Unsigned(0x201)),
        (3, vec![0xfe, 0xff], Value::Signed(-2)),
        (4, vec![1, 0, 0, 1], Value::Unsigned(0x100_0001)),
        (5, vec![0xff; 4], Value::Signed(-1)),
        (6, 0.1f32.to_le_bytes().to_vec(), Value::F32(0.1)),
        (7, vec![1], Value::Bool(true)),
        (8, text("hé"), Value::Text("hé".into())),
        (10, vec![0xff; 8], Value::Unsigned(u64::MAX)),
        (11, vec![0xff; 8], Value::Signed(-1)),
        (12, 0.1f64.to_le_bytes().to_vec(), Value::F64(0.1)),
        (9, array(0, 2, &[1, 2]), Value::Array(Array::U8(vec![1, 2]))),
        (9, array(1, 1, &[0xff]), Value::Array(Array::I8(vec![-1]))),
        (9, array(2, 1, &[1, 2]), Value::Array(Array::U16(vec![0x201]))),
        (9, array(3, 1, &[0xff, 0xff]), Value::Array(Array::I16(vec![-1]))),
        (9, array(4, 1, &[1, 0, 0, 0]), Value::Array(Array::U32(vec![1]))),
        (9, array(5, 0, &[]), Value::Array(Array::I32(vec![]))),
        (9, array(6, 1, &1f32.to_le_bytes()), Value::Array(Array::F32(vec![1.0]))),
        (9, array(7, 2, &[0, 1]), Value::Array(Array::Bool(vec![false, true]))),
        (9, array(8, 2, &[text("a"), text("")].concat()), Value::Array(Array::Text(vec!["a".into(), String::new()]))),
        (9, array(10, 1, &[1, 0, 0, 0, 0, 0, 0, 0]), Value::Array(Array::U64(vec![1]))),
        (9, array(11, 1, &[0xff; 8]), Value::Array(Array::I64(vec![-1]))),
        (9, array(12, 1, &1f64.to_le_bytes()), Value::Array(Array::F64(vec![1.0]))),
    ];
    for (kind, bytes, value) in cases {
        let file = Builder::new().entry("k", kind, &bytes).number("after", 5).bytes();
        let header = read_bytes(&file).unwrap();
        assert_eq!(header.get("k"), Some(&value));
        assert_eq!(header.unsigned("after").unwrap(), Some(5), "{value} has its right length");
    }
    assert_eq!(Value::F32(1e-5).float(), Some(1e-5));
    assert_eq!(Value::F32(f32::NAN).float(), None);
}

#[test]
fn wrong_files_are_refused_by_name() {
    let new = Builder::new;
    let array = |kind: u32, count: u64| [kind.to_le_bytes().to_vec(), count.to_le_bytes().to_vec()].concat();
    let q8 = BlockKind::Q8_0.id();
    for (file, says) in [
        (b"GGU".to_vec(), "the file ends within the magic number"),
        (b"PK\x03\x04aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_vec(), "does not begin with \"GGUF\""),
        (b"GGUF\0\0\0\x03aaaaaaaaaaaaaaaaaaaaaaaaaa".to_vec(), "big-endian"),
        (Builder { version: 1, ..new() }.bytes(), "GGUF version 1; versions 2 and 3 are read"),
        ([b"GGUF\x03\0\0\0".to_vec(), vec![0xff; 16]].concat(), "claims 18446744073709551615 tensors"),
        ([b"GGUF\x03\0\0\0".to_vec(), vec![0; 8], vec![0xff; 8]].concat(), "18446744073709551615 metadata entries"),
        (new().entry("k", 13, &[]).bytes(), "metadata \"k\" has the unknown type 13"),
        (new().entry("k", 7, &[2]).bytes(), "flag of value 2"),
        (new().entry("k", 9, &array(9, 1)).bytes(), "array of arrays"),
        (new().entry("k", 9, &array(13, 1)).bytes(), "array of the unknown type 13"),
        (new().entry("k", 9, &array(12, u64::MAX)).bytes(), "the file ends within metadata \"k\""),
        (new().entry("k", 9, &array(8, u64::MAX)).bytes(), "has 18446744073709551615 texts"),
        (new().entry("k", 8, &u64::MAX.to_le_bytes()).bytes(), "the file ends within metadata \"k\""),
        (new().number("general.alignment", 24).bytes(), "general.alignment is 24; it must be a power of two"),
        (new().number("general.alignment", 0).bytes(), "general.alignment is 0"),
        (new().tensor("a", &[32], q8).tensor("a", &[32], q8).bytes(), "tensor \"a\" comes twice"),
        (new().tensor("a", &[1, 1, 1, 1, 1], 0).bytes(), "tensor \"a\" has 5 dimensions"),
        (new().tensor("a", &[256], 13).bytes(), "tensor \"a\" is Q5_K, which is not read; read are F32, F16"),
        (new().tensor("a", &[256], 4).bytes(), "of unknown type 4"),
        (new().tensor("a", &[33], q8).bytes(), "rows of 33 numbers; Q8_0 packs 32 at a time"),
        (new().tensor("a", &[0, 3], 0).bytes(), "tensor \"a\" has shape [3, 0]"),
        (new().tensor("a", &[1 << 40, 1 << 40], 0).bytes(), "which no tensor can have"),
        (new().tensor("a", &[1 << 62], 0).bytes(), "more than any file holds"),
        (new().tensor("a", &[1 << 30], 0).bytes(), "ends outside of the file"),
        (new().tensor_at("a", &[32], 0, u64::MAX - 31).bytes(), "ends outside of the file"),
        (new().tensor_at("a", &[32], 0, 4).bytes(), "starts at 4, which is no multiple of 32"),
        (new().tensor("a", &[32], 0).tensor_at("b", &[8], 0, 96).bytes(), "tensor \"b\" overlaps tensor \"a\""),
    ] {
        let error = read_bytes(&file).unwrap_err();
        assert!(error.contains(says) && error.starts_with("m.gguf: "), "{error:?} should contain {says:?}");
    }
    let mut twice = new().number("k", 1);
    twice.metadata.push(twice.metadata[0].clone());
    assert!(read_bytes(&twice.bytes()).unwrap_err().contains("key \"k\" comes twice"));
    let long = new().tensor(&"n".repeat(300), &[32], 0).bytes();
    assert!(read_bytes(&long).unwrap_err().contains("has 300 bytes; at most 255"));
}

#[test]
fn texts_that_nobody_asks_for_need_not_be_utf8() {
    let latin = [&4u64.to_le_bytes()[..], b"caf\xe9"].concat();
    let array = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text("a"), &latin].concat();
    let file = Builder::llama().entry("general.description", 8, &latin).entry("general.tags", 9, &array);
    let header = read_bytes(&file.bytes()).unwrap();
    assert_eq!(header.get("general.description"), Some(&Value::Bytes(b"caf\xe9".to_vec())));
    assert!(crate::gguf_names::config(&header).is_ok());
    let error = header.text("general.description").unwrap_err().to_string();
    assert!(error.contains("metadata \"general.description\" is 4 bytes that are not UTF-8"), "{error}");
    let error = header.texts("general.tags").unwrap_err().to_string();
    assert!(error.contains("general.tags") && error.contains("number 1 is not UTF-8"), "{error}");
    let used = read_bytes(&Builder::llama().entry("general.architecture", 8, &latin).bytes()).unwrap();
    let error = crate::gguf_names::config(&used).unwrap_err().to_string();
    assert!(error.contains("general.architecture") && error.contains("not UTF-8"), "{error}");

    // A key is spelled out; a tensor's name is always used.
    let mut bytes = Builder::new().number("kay", 1).bytes();
    let at = bytes.windows(3).position(|part| part == b"kay").unwrap();
    bytes[at + 1] = 0xe9;
    assert_eq!(read_bytes(&bytes).unwrap().unsigned("k\\xe9y").unwrap(), Some(1));
    let mut bytes = Builder::new().tensor("kay", &[32], 0).bytes();
    let at = bytes.windows(3).position(|part| part == b"kay").unwrap();
    bytes[at + 1] = 0xe9;
    assert!(read_bytes(&bytes).unwrap_err().contains("the name of tensor 0 is not UTF-8"));
}

#[test]
fn another_alignment_is_followed() {
    let builder = Builder { alignment: 64, ..Builder::new() }.number("general.alignment", 64);
    let header = read_bytes(&builder.tensor("a", &[3], 0).tensor("b", &[3], 0).bytes()).unwrap();
    assert_eq!(header.tensors[1].offset - header.tensors[0].offset, 64);
    assert_eq!(header.tensors[0].offset % 64, 0);
}

/// A header that claims more than the limit is refused while it is read, not after memory was
/// taken.
#[test]
fn a_header_beyond_the_limit_is_refused() {
    let start = Builder::new().entry("k", 9, &[&0u32.to_le_bytes()[..], &(1u64 << 40).to_le_bytes()].concat()).bytes();
    let endless = start.chain(std::io::repeat(0));
    let error = parse(endless, 1 << 50, Path::new("m.gguf")).unwrap_err().to_string();
    assert!(error.contains("its header is larger than 134217728 bytes, at metadata \"k\""), "{error}");
}

proptest! {
    /// Damaged files are refused or read, but nothing panics, and memory follows the file, not its
    /// claims.
    #[test]
    fn damage_never_panics(cut in 0usize..6000, flips in prop::collection::vec((0usize..1600, 0u8..8), 0..6)) {
        let mut bytes = Builder::llama().text("tokenizer.chat_template", "{{ messages }}").bytes();
        bytes.truncate(bytes.len().saturating_sub(cut).max(1));
        for (at, bit) in flips {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        if let Ok(header) = read_bytes(&bytes) {
            let config = crate::gguf_names::config(&header);
            prop_assert!(header.tensors.iter().all(|tensor| tensor.offset + tensor.bytes <= bytes.len() as u64));
            drop(config);
        }
    }
}
