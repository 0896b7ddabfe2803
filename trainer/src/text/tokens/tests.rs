//! What of a row becomes tokens, which of them count, where they are cut. The tokenizer has one
//! token per byte, but for the special ones and a doubled space, so that every flag can be read off
//! the text.

use std::io::Write;

use rondo_data::{Dataset, Example, Role, Source, TaskSpec};
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

use super::*;

const MARKED: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn tokenizer() -> Tokenizer {
    let mut letters: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    letters.sort_unstable();
    let vocabulary = letters.iter().map(char::to_string).chain(["ĠĠ".to_owned()]);
    let vocabulary: Vec<(String, u32)> = vocabulary.enumerate().map(|(id, token)| (token, id as u32)).collect();
    let vocabulary: [(String, u32); 257] = vocabulary.try_into().unwrap();
    let merges = vec![("Ġ".to_owned(), "Ġ".to_owned())];
    let model = BPE::builder().vocab_and_merges(vocabulary, merges);
    let mut tokenizer = Tokenizer::new(model.build().unwrap());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_post_processor(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"].map(|text| AddedToken::from(text, true));
    tokenizer.add_special_tokens(special).unwrap();
    tokenizer
}

fn tokens(tokenizer: Tokenizer) -> Tokens {
    let special = [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    let settings =
        TokenSettings { special: special.into(), chat_template: Some(MARKED.to_owned()), ..Default::default() };
    Tokens::new(tokenizer, settings, Path::new("tokenizer.json")).unwrap()
}

fn task(kind: TaskKind) -> Task {
    let text = format!("kind = \"{}\"\ndataset = \"d\"\nmax_tokens = 200", kind.name());
    toml::from_str(&text).unwrap()
}

impl Tokens {
    /// Text and counted part of a row.
    fn show(&mut self, content: Content, task: &Task) -> (String, String) {
        let encoded = self.encode_rows(&[Example::of("d", content, None)], task).unwrap();
        self.shown(&encoded, 0)
    }

    fn shown(&self, encoded: &Encoded, text: usize) -> (String, String) {
        assert_eq!(encoded.text(text).len(), encoded.counts(text).len());
        assert!(!encoded.counts(text)[0]);
        let tokenizer = &self.codec.tokenizer;
        let say = |ids: Vec<u32>| tokenizer.decode(&ids, false).unwrap();
        let ids = encoded.text(text).iter().map(|&id| id as u32);
        let counted = ids.clone().zip(encoded.counts(text)).filter_map(|(id, &counts)| counts.then_some(id));
        (say(ids.collect()), say(counted.collect()))
    }
}

fn completion(prompt: &str, completion: &str) -> Content {
    Content::Completion { prompt: prompt.into(), completion: completion.into() }
}

fn chat(contents: &[&str]) -> Content {
    let role = |index| if index % 2 == 0 { Role::User } else { Role::Assistant };
    Content::Chat(
        contents.iter().enumerate().map(|(index, text)| Message::new(role(index), *text)).collect::<Vec<_>>().into(),
    )
}

fn pair(text: &str, counted: &str) -> (String, String) {
    (text.to_owned(), counted.to_owned())
}

#[test]
fn what_the_model_should_say_counts_and_the_end_of_text_with_it() {
    let mut tokens = tokens(tokenizer());
    let mut task = task(TaskKind::CausalLm);
    assert_eq!(tokens.show(completion("ask: ", "tell ä"), &task), pair("ask: tell ä</s>", "tell ä</s>"));
    // Byte-level offsets leave spaces out; a token of nothing but spaces still belongs to where it
    // stands.
    assert_eq!(tokens.show(completion("ask:", "   tell  "), &task), pair("ask:   tell  </s>", "   tell  </s>"));
    assert_eq!(tokens.show(completion("ask  ", "tell"), &task), pair("ask  tell</s>", "tell</s>"));
    assert_eq!(tokens.show(Content::Text("tell".into()), &task), pair("tell</s>", "ell</s>"));
    task.loss_on = LossOn::All;
    assert_eq!(tokens.show(completion("ask: ", "tell"), &task), pair("ask: tell</s>", "sk: tell</s>"));
}

#[test]
fn the_tokenizer_decides_what_stands_before_a_text() {
    let task = task(TaskKind::CausalLm);
    let with = |template: &str| {
        let mut tokenizer = tokenizer();
        let ids = ["<s>", "</s>"].map(|text| (text, tokenizer.token_to_id(text).unwrap()));
        let mut builder = TemplateProcessing::builder();
        let template = builder.try_single(template).unwrap().special_tokens(ids.to_vec()).build().unwrap();
        tokenizer.with_post_processor(Some(template));
        tokens(tokenizer)
    };
    let mut begins = with("<s> $A");
    assert_eq!(begins.show(completion("ask ", "tell"), &task), pair("<s>ask tell</s>", "tell</s>"));
    assert_eq!(begins.show(Content::Text("tell".into()), &task), pair("<s>tell</s>", "tell</s>"));
    // A template writes its own.
    assert!(begins.show(chat(&["a", "b"]), &task).0.starts_with("<|im_start|>user"));
    // Where the tokenizer ends texts itself, they are not ended twice, and a prompt is not ended at
    // all.
    let mut ends = with("<s> $A </s>");
    assert_eq!(ends.show(completion("ask ", "tell"), &task), pair("<s>ask tell</s>", "tell</s>"));
    let prompt = ends.prompt(&Example::of("d", completion("ask ", "tell"), None), &task).unwrap();
    assert_eq!(prompt, begins.prompt(&Example::of("d", completion("ask ", "tell"), None), &task).unwrap());
}

#[test]
fn turns_of_the_assistant_count_with_what_ends_them() {
    let mut tokens = tokens(tokenizer());
    let mut task = task(TaskKind::CausalLm);
    let whole = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na b<|im_end|>\n\
                 <|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n";
    let turns = chat(&["q", "a b", "r", "c"]);
    assert_eq!(tokens.show(turns.clone(), &task), pair(whole, "a b<|im_end|>c<|im_end|>"));
    let prompt = tokens.prompt(&Example::of("d", turns.clone(), None), &task).unwrap();
    let prompt: Vec<u32> = prompt.into_iter().map(|id| id as u32).collect();
    let said = tokens.codec.tokenizer.decode(&prompt, false).unwrap();
    assert_eq!(said, whole.strip_suffix("c<|im_end|>\n").unwrap());
    task.loss_on = LossOn::All;
    assert_eq!(tokens.show(turns.clone(), &task).1, whole.strip_prefix("<|im_start|>").unwrap());
    (task.template, task.loss_on) = (Template::Plain, LossOn::Completion);
    let headed = "### User:\nq\n\n### Assistant:\na b</s>\n\n### User:\nr\n\n### Assistant:\nc</s>\n\n";
    assert_eq!(tokens.show(turns, &task), pair(headed, "a b</s>c</s>"));
}

#[test]
fn rows_are_cut_at_the_end_and_without_a_completion_are_bad() {
    let mut tokens = tokens(tokenizer());
    let mut task = task(TaskKind::CausalLm);
    task.max_tokens = 7;
    assert_eq!(tokens.show(completion("ask: ", "tell"), &task), pair("ask: te", "te"));
    task.max_tokens = 9;
    assert_eq!(tokens.show(completion("ask: ", "tell"), &task), pair("ask: tell", "tell"));
    task.max_tokens = 5;
    let said = tokens.encode_rows(&[Example::of("d", completion("ask: ", "tell"), None)], &task).unwrap_err();
    assert!(said.to_string().contains("within the first 5 of its 10 tokens (task.max_tokens)"), "{said}");
}

#[test]
fn every_option_of_a_question_is_a_text_and_none_is_cut() {
    let tokens = tokens(tokenizer());
    let mut task = task(TaskKind::MultipleChoice);
    let question = |prompt: &str, answer| {
        let options = [" red", " green"].map(Into::into).into();
        Example::of("d", Content::Choice { prompt: prompt.into(), options, answer }, None)
    };
    let choices = tokens.choices(&[question("q?", 1), question("r?", 0)], &task).unwrap();
    assert_eq!((choices.first.clone(), choices.answers.clone(), choices.options(1)), (vec![0, 2, 4], vec![1, 0], 2..4));
    let shown: Vec<_> = (0..4).map(|text| tokens.shown(&choices.encoded, text)).collect();
    assert_eq!(
        shown,
        [pair("q? red", " red"), pair("q? green", " green"), pair("r? red", " red"), pair("r? green", " green")]
    );
    task.max_tokens = 7;
    let said = tokens.choices(&[question("q?", 0)], &task).unwrap_err().to_string();
    assert!(said.contains("8 tokens, more than task.max_tokens = 7"), "{said}");
    // Trained on is the right option; a chat template asks the question.
    (task.max_tokens, task.template) = (200, Template::Chat);
    let asked = "<|im_start|>user\nq?<|im_end|>\n<|im_start|>assistant\n green";
    let mut tokens = tokens;
    assert_eq!(tokens.show(question("q?", 1).content, &task), pair(asked, " green"));
}

#[test]
fn a_model_without_a_template_is_told_so() {
    let task = task(TaskKind::CausalLm);
    let mut bare = Tokens::new(tokenizer(), TokenSettings::default(), Path::new("m/tokenizer.json")).unwrap();
    let said = bare.encode_rows(&[Example::of("d", chat(&["q", "a"]), None)], &task).unwrap_err().to_string();
    assert!(said.contains("m/tokenizer.json: the model has no chat template"), "{said}");
    assert_eq!(bare.show(completion("a", "b"), &task), pair("ab", "b"), "no end of text is known");
    let special = [("eos_token".to_owned(), "<end>".to_owned())].into();
    let odd = TokenSettings { special, ..Default::default() };
    let mut odd = Tokens::new(tokenizer(), odd, Path::new("t")).unwrap();
    let said = odd.encode_rows(&[Example::of("d", completion("a", "b"), None)], &task).unwrap_err().to_string();
    assert!(said.contains("\"<end>\" (eos_token) is not in the tokenizer's vocabulary"), "{said}");
}

/// A file whose rows have completions behind prompts of growing length.
fn file(rows: usize, skip: bool) -> (tempfile::NamedTempFile, Source) {
    let mut file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    for row in 0..rows {
        let prompt = format!("{row} {}", "x".repeat(row));
        writeln!(file, "{}", serde_json::json!({"prompt": prompt, "completion": " yes", "group": row})).unwrap();
    }
    let mut source = Source { eval_fraction: 0.2, ..Source::new("d", file.path()) };
    if skip {
        (source.on_bad_row, source.max_bad_rows) = (rondo_data::OnBadRow::Skip, 0.5);
    }
    (file, source)
}

#[test]
fn streamed_rows_and_rows_in_memory_are_the_same_tokens() {
    let (_file, source) = file(60, true);
    let mut task = task(TaskKind::CausalLm);
    task.max_tokens = 45; // the longest prompts leave no room
    let memory = Dataset::load(&source, TaskSpec::of(&task), 0).unwrap();
    let streamed = Dataset::load(&source, TaskSpec::of(&task), 1).unwrap();
    let mut first = tokens(tokenizer());
    let mut second = tokens(tokenizer());
    let memory = first.rows(memory.train(), &task).unwrap();
    let streamed = second.rows(streamed.train(), &task).unwrap();
    assert!(memory.skipped() > 5 && streamed.skipped() == 0);
    let lengths = memory.lengths();
    let mut seen = 0;
    for batch in rondo_data::batches::Batches::bucketed(&lengths, 4, "s").take(20) {
        let taken = memory.take(&batch).unwrap();
        assert_eq!(taken, streamed.take(&batch).unwrap());
        assert_eq!(taken.examples.len(), taken.encoded.len());
        for (example, text) in taken.examples.iter().zip(taken.indices()) {
            let said = first.shown(&taken.encoded, text).0;
            assert!(said.starts_with(example.text()), "{said}");
        }
        seen += batch.len() - taken.examples.len();
    }
    assert!(seen > 0, "some rows were left out");
    let whole: usize = memory.chunks(usize::MAX).map(|chunk| chunk.unwrap().examples.len()).sum();
    assert_eq!(whole, memory.len() - memory.skipped());
    // Batches without a row of use are passed over.
    let longest = (0..lengths.len()).max_by_key(|&index| lengths[index]).unwrap();
    let shortest = (0..lengths.len()).min_by_key(|&index| lengths[index]).unwrap();
    let mut order = vec![vec![longest], vec![longest, shortest]].into_iter();
    assert_eq!(streamed.draw(&mut order).unwrap().examples.len(), 1);
    assert!(streamed.draw(&mut vec![vec![longest]].into_iter()).is_err());
}

#[test]
fn the_policy_decides_on_rows_that_are_cut_away() {
    let mut task = task(TaskKind::CausalLm);
    task.max_tokens = 30;
    let (_file, source) = file(60, false);
    let data = Dataset::load(&source, TaskSpec::of(&task), 0).unwrap();
    let said = tokens(tokenizer()).rows(data.train(), &task).err().unwrap().to_string();
    assert!(said.contains(".jsonl:") && said.contains("(task.max_tokens)"), "{said}");
    let (_file, mut source) = file(60, true);
    source.max_bad_rows = 0.3;
    let data = Dataset::load(&source, TaskSpec::of(&task), 0).unwrap();
    let said = tokens(tokenizer()).rows(data.train(), &task).err().unwrap().to_string();
    assert!(said.contains("cannot be used within task.max_tokens = 30"), "{said}");
    // A run with privacy goes on without them, and they count; in memory and streamed.
    source.on_bad_row = rondo_data::OnBadRow::Keep;
    for in_memory in [0, 1] {
        let kept = Dataset::load(&source, TaskSpec::of(&task), in_memory).unwrap();
        assert_eq!(kept.train().len(), data.train().len());
        let mut tokens = tokens(tokenizer());
        let rows = tokens.rows(kept.train(), &task).unwrap();
        let taken = rows.take(&(0..rows.len()).collect::<Vec<_>>()).unwrap();
        assert!(!taken.examples.is_empty() && taken.examples.len() < (rows.len() * 7) / 10);
    }
}

#[test]
fn a_row_of_no_use_is_no_text_of_a_classification() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tsv");
    std::fs::write(&path, "text\tlabel\none\ta\ntwo\tc\n\tb\nfour\tb\n").unwrap();
    let source = Source { eval_fraction: 0.0, on_bad_row: rondo_data::OnBadRow::Keep, ..Source::new("d", &path) };
    let task: Task =
        toml::from_str("kind = \"classification\"\ndataset = \"d\"\nlabels = [\"a\", \"b\"]\nmax_tokens = 9").unwrap();
    for in_memory in [0, 1] {
        let data = Dataset::load(&source, TaskSpec::of(&task), in_memory).unwrap();
        let mut tokens = tokens(tokenizer());
        let rows = tokens.rows(data.train(), &task).unwrap();
        let taken = rows.take(&[0, 1, 2, 3]).unwrap();
        // The label that nobody knows, and the text without a token.
        let text = |text: usize| tokens.text(taken.encoded.text(text)).unwrap();
        let mut texts: Vec<String> = taken.indices().into_iter().map(text).collect();
        texts.sort();
        assert_eq!((rows.len(), texts), (4, vec!["four".to_owned(), "one".to_owned()]));
        assert_eq!(taken.labels().iter().sum::<i64>(), 1);
    }
}
