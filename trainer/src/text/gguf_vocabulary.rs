//! A GGUF file's vocabulary as a tokenizer.json: the one format that the `tokenizers` library, and
//! everyone who loads an exported model, reads.

use std::collections::{HashMap, HashSet};

use rondo_base::gguf::{Array, GgufError, Header, Value as Meta};
use serde_json::{Value as Json, json};

/// How GPT-2's descendants cut a text before they merge bytes (`tokenizer.ggml.pre`).
enum Cut {
    /// GPT-2's own expression, which is built into the library's ByteLevel.
    Gpt2,
    /// Every digit alone, then as GPT-2.
    Digits,
    /// An expression of the model's own.
    Expression(&'static str),
}

/// What `tokenizer.ggml.pre` says.
struct Pre {
    names: &'static [&'static str],
    cut: Cut,
    /// Unicode normalisation form C comes first.
    compose: bool,
    /// A piece that is in the vocabulary is taken whole, whatever the merges say.
    whole_first: bool,
    /// Whether the start-of-text token is added unless the file says otherwise.
    add_bos: bool,
}

const PRES: [Pre; 4] = [
    Pre { names: &["default", "gpt-2", "gpt2"], cut: Cut::Gpt2, compose: false, whole_first: false, add_bos: false },
    Pre { names: &["smollm"], cut: Cut::Digits, compose: false, whole_first: false, add_bos: false },
    Pre {
        names: &["llama-bpe", "llama3", "llama-v3"],
        cut: Cut::Expression(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        compose: false,
        whole_first: true,
        add_bos: true,
    },
    Pre {
        names: &["qwen2"],
        cut: Cut::Expression(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        compose: true,
        whole_first: false,
        add_bos: false,
    },
];

/// Kinds of tokens in `tokenizer.ggml.token_type`.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// SentencePiece's sign for a space.
const SPACE: &str = "\u{2581}";

/// Longest piece of a vocabulary with scores whose splits are looked at, in characters;
/// SentencePiece's own limit is 16.
const MAX_PIECE: usize = 64;

/// Tokens and what the file says of them.
pub(super) struct Vocabulary<'h> {
    header: &'h Header,
    pub(super) tokens: &'h [String],
    kinds: Vec<u64>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) pad: Option<u32>,
    pub(super) ends: Vec<u32>,
    unknown: Option<u32>,
    pub(super) add_bos: bool,
    pub(super) add_eos: bool,
    /// `None` for vocabularies with scores.
    pre: Option<&'static Pre>,
}

impl<'h> Vocabulary<'h> {
    pub(super) fn read(header: &'h Header) -> Result<Self, GgufError> {
        let model = header.text("tokenizer.ggml.model")?.ok_or_else(|| {
            header.invalid(
                "it has no metadata \"tokenizer.ggml.model\", so it brings no tokenizer; convert the model again",
            )
        })?;
        let pre = match model {
            "llama" => None,
            "gpt2" => Some(pre(header)?),
            other => {
                let problem = format!("tokenizer.ggml.model is {other:?}; supported are \"gpt2\" and \"llama\"");
                return Err(header.invalid(problem));
            }
        };
        let tokens = header.texts("tokenizer.ggml.tokens")?.filter(|tokens| !tokens.is_empty());
        let tokens = tokens.ok_or_else(|| header.invalid("it has no tokens under \"tokenizer.ggml.tokens\""))?;
        let mut seen = HashSet::with_capacity(tokens.len());
        if let Some(twice) = tokens.iter().find(|token| !seen.insert(token.as_str())) {
            return Err(header.invalid(format!("token {twice:?} comes twice in its vocabulary")));
        }
        let kinds = match header.get("tokenizer.ggml.token_type") {
            None => vec![1; tokens.len()],
            Some(value) => value.unsigned_many().filter(|kinds| kinds.len() == tokens.len()).ok_or_else(|| {
                header.invalid(format!("tokenizer.ggml.token_type is {value} for {} tokens", tokens.len()))
            })?,
        };
        let id = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let Some(id) = header.unsigned(&key)? else { return Ok(None) };
            match u32::try_from(id) {
                // Converters write a number beyond every id for "none".
                Ok(u32::MAX) => Ok(None),
                Ok(id) if (id as usize) < tokens.len() => Ok(Some(id)),
                _ => Err(header.invalid(format!("{key} is {id}, the vocabulary has {} tokens", tokens.len()))),
            }
        };
        let bos = id("bos")?;
        let eos = id("eos")?;
        let ends = [eos, id("eot")?, id("eom")?].into_iter().flatten().collect();
        let pad = id("padding")?;
        let unknown = id("unknown")?;
        let add = |name: &str| header.flag(&format!("tokenizer.ggml.add_{name}_token"));
        let add_bos = add("bos")?.unwrap_or(pre.is_none_or(|pre| pre.add_bos)) && bos.is_some();
        let add_eos = add("eos")?.unwrap_or(false) && eos.is_some();
        Ok(Self { header, tokens, kinds, bos, eos, pad, ends, unknown, add_bos, add_eos, pre })
    }

    /// The whole tokenizer, as tokenizer.json holds it.
    pub(super) fn json(&self) -> Result<Json, GgufError> {
        let parts = match self.pre {
            Some(pre) => self.bytes(pre)?,
            None => self.pieces()?,
        };
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added(),
            "normalizer": parts.normalizer,
            "pre_tokenizer": parts.pre_tokenizer,
            "post_processor": self.post_processor(),
            "decoder": parts.decoder,
            "model": parts.model,
        }))
    }

    fn ids(&self) -> serde_json::Map<String, Json> {
        self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect()
    }

    /// Tokens that are found in a text before anything else is done with it.
    fn added(&self) -> Vec<Json> {
        let kinds = self.tokens.iter().zip(&self.kinds).enumerate();
        let added =
            kinds.filter(|(_, (token, kind))| [UNKNOWN, CONTROL, USER_DEFINED].contains(kind) && !token.is_empty());
        added
            .map(|(id, (token, kind))| {
                json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": *kind != USER_DEFINED,
                })
            })
            .collect()
    }

    /// Byte-level BPE with the file's merges.
    fn bytes(&self, pre: &Pre) -> Result<Parts, GgufError> {
        let merges = self.header.texts("tokenizer.ggml.merges")?;
        let merges = merges.ok_or_else(|| self.header.invalid("it has no merges under \"tokenizer.ggml.merges\""))?;
        let ids: HashSet<&str> = self.tokens.iter().map(String::as_str).collect();
        let mut pairs = Vec::with_capacity(merges.len());
        for merge in merges {
            // A token that begins with a space would make the cut ambiguous; byte-level
            // vocabularies have none.
            let pair = merge.split_once(' ').filter(|(left, right)| ids.contains(left) && ids.contains(right));
            let pair = pair.filter(|(left, right)| ids.contains(format!("{left}{right}").as_str()));
            let Some((left, right)) = pair else {
                return Err(self.header.invalid(format!("merge {merge:?} is not of two tokens that make a third")));
            };
            pairs.push(json!([left, right]));
        }
        let level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let in_turn = |first: Json, second: Json| json!({"type": "Sequence", "pretokenizers": [first, second]});
        Ok(Parts {
            normalizer: if pre.compose { json!({"type": "NFC"}) } else { Json::Null },
            pre_tokenizer: match pre.cut {
                Cut::Gpt2 => level(true),
                Cut::Digits => in_turn(json!({"type": "Digits", "individual_digits": true}), level(true)),
                Cut::Expression(regex) => in_turn(
                    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}),
                    level(false),
                ),
            },
            decoder: json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
            model: json!({
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": pre.whole_first, "vocab": self.ids(), "merges": pairs,
            }),
        })
    }

    /// SentencePiece's BPE: of all neighbours that make a piece, those whose piece has the best
    /// score merge first.
    fn pieces(&self) -> Result<Parts, GgufError> {
        let unknown = match self.unknown {
            Some(id) => Some(id as usize),
            None => self.kinds.iter().position(|kind| *kind == UNKNOWN),
        };
        let prefix = self.header.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        let mut normalizers = vec![spaces];
        if prefix {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        Ok(Parts {
            normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
            pre_tokenizer: Json::Null,
            decoder: json!({"type": "Sequence", "decoders": decoders}),
            model: json!({
                "type": "BPE", "dropout": null, "unk_token": unknown.map(|id| &self.tokens[id]),
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
                "ignore_merges": false, "vocab": self.ids(), "merges": self.merges_by_score()?,
            }),
        })
    }

    /// The pairs of pieces that make a piece, best score first; equal scores by length of the
    /// parts, longer ones first, as transformers orders them.
    fn merges_by_score(&self) -> Result<Vec<Json>, GgufError> {
        let scores = match self.header.get("tokenizer.ggml.scores") {
            Some(Meta::Array(Array::F32(scores))) if scores.len() == self.tokens.len() => scores,
            other => {
                let found = other.map_or_else(|| "absent".to_owned(), ToString::to_string);
                let problem = format!(
                    "tokenizer.ggml.scores is {found}; it must be a number for each of {} tokens",
                    self.tokens.len()
                );
                return Err(self.header.invalid(problem));
            }
        };
        let normal = |id: &usize| [1, USER_DEFINED].contains(&self.kinds[*id]);
        let ids: HashMap<&str, usize> =
            self.tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
        let mut merges = Vec::new();
        for (id, token) in self.tokens.iter().enumerate().filter(|(id, _)| normal(id)) {
            if token.chars().count() > MAX_PIECE {
                continue;
            }
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(first), Some(second)) =
                    (ids.get(left).filter(|id| normal(id)), ids.get(right).filter(|id| normal(id)))
                {
                    merges.push((scores[id], left.chars().count(), right.chars().count(), id, *first, *second));
                }
            }
        }
        merges.sort_by(|a, b| {
            b.0.total_cmp(&a.0).then((b.1, b.2).cmp(&(a.1, a.2))).then((a.3, a.4, a.5).cmp(&(b.3, b.4, b.5)))
        });
        Ok(merges.into_iter().map(|(.., first, second)| json!([self.tokens[first], self.tokens[second]])).collect())
    }

    /// Adds the start and end of a text where the file asks for them.
    fn post_processor(&self) -> Json {
        let begin = self.bos.filter(|_| self.add_bos);
        let end = self.eos.filter(|_| self.add_eos);
        if begin.is_none() && end.is_none() {
            return Json::Null;
        }
        let special =
            |id: u32, type_id: u32| json!({"SpecialToken": {"id": self.tokens[id as usize], "type_id": type_id}});
        let text = |name: &str, type_id: u32| {
            let sequence = json!({"Sequence": {"id": name, "type_id": type_id}});
            let parts = begin.map(|id| special(id, type_id)).into_iter().chain([sequence]);
            parts.chain(end.map(|id| special(id, type_id))).collect::<Vec<_>>()
        };
        let tokens = begin.iter().chain(&end).map(|id| {
            let token = &self.tokens[*id as usize];
            (token.clone(), json!({"id": token, "ids": [id], "tokens": [token]}))
        });
        let pair = [text("A", 0), text("B", 1)].concat();
        json!({
            "type": "TemplateProcessing",
            "single": text("A", 0),
            "pair": pair,
            "special_tokens": tokens.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// The parts of a tokenizer.json that differ between kinds of vocabularies.
struct Parts {
    normalizer: Json,
    pre_tokenizer: Json,
    decoder: Json,
    model: Json,
}

fn pre(header: &Header) -> Result<&'static Pre, GgufError> {
    let name = header.text("tokenizer.ggml.pre")?.unwrap_or("default");
    PRES.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = PRES.iter().flat_map(|pre| pre.names).copied().collect();
        header.invalid(format!("tokenizer.ggml.pre is {name:?}; supported are: {}", known.join(", ")))
    })
}
