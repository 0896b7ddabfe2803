//! Language tasks: scores against transformers' (goldens/make_tasks.py), groups, limits and
//! interruption.

use std::ops::ControlFlow;

use rondo_data::{Content, Dataset, Example};
use rondo_proto::run_file::{AnswerRule, OptionScore, Task};
use rondo_trainer::error::TrainerError;
use rondo_trainer::tasks::{self, Outcome};
use rondo_trainer::text::tokens::Tokens;
use rondo_trainer_api::work::Progress;
use serde_json::Value;

use crate::generation::{WHO, session};
use crate::support::*;

fn task(kind: &str) -> Task {
    toml::from_str(&format!("kind = \"{kind}\"\ndataset = \"tiny\"\nmax_tokens = 64\ntemplate = \"plain\"\n")).unwrap()
}

fn choice(prompt: &str, options: &[&str], answer: u32, group: Option<&str>) -> Example {
    let options = options.iter().map(|&option| option.into()).collect();
    Example::of("tiny", Content::Choice { prompt: prompt.into(), options, answer }, group)
}

fn completion(prompt: &str, completion: &str, group: Option<&str>) -> Example {
    Example::of("tiny", Content::Completion { prompt: prompt.into(), completion: completion.into() }, group)
}

/// Evaluates examples under the golden model; `who` is "bare" or "adapted".
fn evaluate(who: &str, task: &Task, examples: Vec<Example>, limit: Option<usize>) -> Result<Outcome, TrainerError> {
    let model = encoder(&golden("tiny-llama"));
    let mut tokens = Tokens::load(&golden("tiny-llama")).unwrap();
    let data = Dataset::of_examples("tiny", examples, 0.0);
    tasks::evaluate(&session(&*model, who), &mut tokens, task, data.train(), limit, &mut go_on)
}

/// The golden questions in the order of `facts`, each with the option `answer` as the right one.
fn questions(facts: &Value, answer: u32) -> Vec<Example> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let questions = facts["questions"].as_array().unwrap().iter();
    let question = |question: &Value| {
        let options: Vec<String> = question["options"].as_array().unwrap().iter().map(text).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        choice(question["prompt"].as_str().unwrap(), &options, answer, Some(&options.len().to_string()))
    };
    questions.map(question).collect()
}

#[test]
fn options_score_as_transformers_says() {
    let facts = facts();
    for who in WHO {
        for by in [OptionScore::Sum, OptionScore::PerToken] {
            let task = Task { option_score: by, ..task("multiple-choice") };
            let Outcome { evaluation, verdicts } = evaluate(who, &task, questions(&facts, 1), None).unwrap();
            let mut right = 0;
            let mut loss = 0.0;
            let mut tokens = 0.0;
            for (example, verdict) in &verdicts {
                let place = facts["questions"].as_array().unwrap().iter().position(|q| q["prompt"] == *example.text());
                let options = facts[who]["options"][place.unwrap()].as_array().unwrap();
                let golden: Vec<(f64, f64)> =
                    options.iter().map(|pair| (pair[0].as_f64().unwrap(), pair[1].as_f64().unwrap())).collect();
                let score = |(sum, count): &(f64, f64)| if by == OptionScore::Sum { *sum } else { sum / count };
                for (found, option) in verdict.scores.iter().zip(&golden) {
                    assert!((found - score(option)).abs() < 2e-4, "{who} {by:?}: {found}, {}", score(option));
                }
                let best = (0..golden.len()).max_by(|&a, &b| score(&golden[a]).total_cmp(&score(&golden[b])));
                assert_eq!(verdict.chosen, best, "{who} {by:?}");
                right += u64::from(best == Some(1));
                loss -= golden[1].0;
                tokens += golden[1].1;
            }
            assert_eq!(verdicts.len(), 3);
            assert!((evaluation.loss - loss / tokens).abs() < 2e-5, "{who}: {}", evaluation.loss);
            assert_eq!((evaluation.accuracy, evaluation.tokens), (right as f64 / 3.0, tokens as u64));
            assert_eq!((evaluation.groups.len(), evaluation.groups[0].loss), (1, evaluation.loss));
        }
    }
}

#[test]
fn answers_are_the_greedy_texts_and_compared() {
    let facts = facts();
    let tokens = Tokens::load(&golden("tiny-llama")).unwrap();
    let text = |ids: &Value| {
        let ids: Vec<i64> = ids.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        // What the model says up to the end of a text or a turn.
        tokens.text(ids.split(|id| tokens.ends().contains(id)).next().unwrap()).unwrap()
    };
    let greedy = facts["bare"]["greedy"].as_array().unwrap();
    let mut task = task("exact-answer");
    (task.answer, task.max_new_tokens) = (AnswerRule::Text, facts["new"].as_u64().unwrap() as usize);
    let prompts = facts["prompts"].as_array().unwrap().iter().map(|prompt| prompt.as_str().unwrap());
    // The reference of every second prompt is what the model says, of the others it is not.
    let examples: Vec<Example> = prompts
        .zip(greedy)
        .enumerate()
        .map(|(number, (prompt, ids))| {
            let said = text(ids);
            let (reference, group) = if number % 2 == 0 { (said, "same") } else { (format!("{said}x"), "other") };
            completion(prompt, &reference, Some(group))
        })
        .collect();
    let Outcome { evaluation, verdicts } = evaluate("bare", &task, examples, None).unwrap();
    assert_eq!(verdicts.len(), 5);
    for (example, verdict) in &verdicts {
        let place = facts["prompts"].as_array().unwrap().iter().position(|prompt| *prompt == *example.text()).unwrap();
        assert_eq!(verdict.generated.as_deref(), Some(text(&greedy[place]).as_str()));
        assert_eq!(verdict.right, Some(example.group.as_deref() == Some("same")));
    }
    assert_eq!(evaluation.accuracy, 0.6);
    let groups: Vec<_> = evaluation.groups.iter().map(|g| (g.group.as_str(), g.accuracy, g.examples)).collect();
    assert_eq!(groups, [("other", 0.0, 2), ("same", 1.0, 3)]);
    assert!(evaluation.loss > 0.0 && evaluation.tokens > 0);
}

#[test]
fn causal_losses_are_per_token_and_by_group() {
    let examples = || {
        vec![
            completion("abc", "defgh", Some("long")),
            completion("The sky", " is", Some("short")),
            completion("2 + 2 =", " 4", None),
        ]
    };
    let Outcome { evaluation, verdicts } = evaluate("bare", &task("causal-lm"), examples(), None).unwrap();
    let sum = |of: &dyn Fn(&Example) -> bool| {
        let some = verdicts.iter().filter(|(example, _)| of(example));
        some.fold((0.0, 0), |(loss, tokens), (_, verdict)| {
            (loss + verdict.loss.unwrap() * verdict.tokens as f64, tokens + verdict.tokens)
        })
    };
    let (loss, tokens) = sum(&|_| true);
    assert!((evaluation.loss - loss / tokens as f64).abs() < 1e-12 && evaluation.tokens == tokens);
    for group in &evaluation.groups {
        let (loss, tokens) = sum(&|example| example.group.as_deref() == Some(&group.group));
        assert!((group.loss - loss / tokens as f64).abs() < 1e-12 && group.tokens == tokens);
    }
    let names: Vec<&str> = evaluation.groups.iter().map(|group| group.group.as_str()).collect();
    assert_eq!(names, ["long", "short"]);
    // Each alone says the same.
    for example in examples() {
        let alone = evaluate("bare", &task("causal-lm"), vec![example.clone()], None).unwrap().evaluation;
        let (_, verdict) = verdicts.iter().find(|(other, _)| other.text() == example.text()).unwrap();
        assert!((alone.loss - verdict.loss.unwrap()).abs() < 1e-5);
    }
}

#[test]
fn limits_and_interruptions_hold_for_every_kind() {
    let model = encoder(&golden("tiny-llama"));
    let mut tokens = Tokens::load(&golden("tiny-llama")).unwrap();
    let session = session(&*model, "bare");
    for kind in ["causal-lm", "multiple-choice", "exact-answer"] {
        let task = Task { max_new_tokens: 4, ..task(kind) };
        let examples: Vec<Example> = (0..7)
            .map(|number| match kind {
                "multiple-choice" => choice(&format!("question {number}"), &[" a", " b"], 0, None),
                _ => completion(&format!("question {number}"), " 7", None),
            })
            .collect();
        let data = Dataset::of_examples("tiny", examples, 0.0);
        let mut last = Progress::default();
        let mut watch = |progress: Progress| {
            assert!(progress.step >= last.step && progress.step <= progress.steps, "{kind}: {progress:?}");
            last = progress;
            ControlFlow::Continue(())
        };
        let found = tasks::evaluate(&session, &mut tokens, &task, data.train(), Some(3), &mut watch).unwrap();
        assert_eq!((found.evaluation.examples, found.verdicts.len()), (3, 3), "{kind}");
        assert!(last.steps > 0 && last.step == last.steps, "{kind}: {last:?}");

        let mut calls = 0;
        let mut stop = |_: Progress| {
            calls += 1;
            ControlFlow::Break(())
        };
        let stopped = tasks::evaluate(&session, &mut tokens, &task, data.train(), None, &mut stop);
        assert!(matches!(stopped, Err(TrainerError::Interrupted)), "{kind}");
        assert_eq!(calls, 1, "{kind}");
    }
}

#[test]
fn an_evaluation_of_nothing_is_refused() {
    let nothing = evaluate("bare", &task("causal-lm"), Vec::new(), None).unwrap_err();
    assert!(matches!(nothing, TrainerError::NoExamples { .. }), "{nothing}");
    let words = vec![completion("How many?", " none", None)];
    let answers = Task { max_new_tokens: 2, ..task("exact-answer") };
    let no_answer = evaluate("bare", &answers, words, None).unwrap_err();
    assert!(no_answer.to_string().contains("task.answer"), "{no_answer}");
}
