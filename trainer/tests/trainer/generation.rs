//! Generation against transformers' (goldens/make_tasks.py), and against itself: in a batch, from a
//! cache, by seed.

use std::ops::ControlFlow;

use rondo_methods::export::peft;
use rondo_methods::{Delta, TensorSet};
use rondo_trainer::error::TrainerError;
use rondo_trainer::generate::sampling::Sampling;
use rondo_trainer::generate::{FinishReason, Generated, Memory, Options, generate};
use rondo_trainer::models::Transformer;
use rondo_trainer::session::Session;
use rondo_trainer::text::tokens::Tokens;
use serde_json::Value;
use tch::Device;

use crate::support::*;

/// The golden facts of the bare model and of the adapted one.
pub(crate) const WHO: [&str; 2] = ["bare", "adapted"];

/// The tiny language model, with the golden adapter or without.
pub(crate) fn session<'m>(model: &'m dyn Transformer, who: &str) -> Session<'m> {
    let mut session = Session::language(model, Device::Cpu).unwrap();
    if who == "adapted" {
        for target in peft::load(&golden("tiny-llama-lora")).unwrap().targets {
            let parts = TensorSet::from([("a".to_owned(), target.a), ("b".to_owned(), target.b)]);
            let delta = Delta::product(&["b", "a"]).scaled(target.scale);
            session.attach(&target.name, &delta, &parts, &Default::default()).unwrap();
        }
    }
    session
}

fn greedy(new: usize, stops: &[i64]) -> Options {
    Options { max_new_tokens: new, sampling: Sampling::greedy(), stops: stops.to_vec() }
}

fn prompts(facts: &Value) -> Vec<Vec<i64>> {
    let tokens = Tokens::load(&golden("tiny-llama")).unwrap();
    facts["prompts"].as_array().unwrap().iter().map(|text| tokens.ids(text.as_str().unwrap()).unwrap()).collect()
}

fn ids(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect()
}

fn all(session: &Session<'_>, prompts: &[Vec<i64>], options: &Options) -> Vec<Generated> {
    let prompts: Vec<&[i64]> = prompts.iter().map(Vec::as_slice).collect();
    generate(session, &prompts, options, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

#[test]
fn greedy_texts_are_those_of_transformers_also_in_a_batch() {
    let facts = facts();
    let prompts = prompts(&facts);
    let new = facts["new"].as_u64().unwrap() as usize;
    let model = encoder(&golden("tiny-llama"));
    for who in WHO {
        let session = session(&*model, who);
        let stop = facts[who]["stop"].as_i64().unwrap();
        for (stops, kind) in [(vec![], "greedy"), (vec![stop], "stopped")] {
            let options = greedy(new, &stops);
            let batch = all(&session, &prompts, &options);
            for (number, expected) in facts[who][kind].as_array().unwrap().iter().enumerate() {
                assert_eq!(batch[number].ids, ids(expected), "{who} {kind} {number}");
                let ending = if ids(expected).len() == new { FinishReason::Length } else { FinishReason::Stop };
                assert_eq!(batch[number].finish_reason, ending, "{who} {kind} {number}");
                let alone = all(&session, &prompts[number..=number], &options);
                assert_eq!(alone[0], batch[number], "{who} {kind} {number}");
            }
        }
    }
}

#[test]
fn a_conversation_from_the_cache_is_the_one_from_the_start() {
    let model = encoder(&golden("tiny-llama"));
    let session = session(&*model, "adapted");
    let mut memory = Memory::default();
    let mut go_on = |_: usize, _: i64| ControlFlow::Continue(());
    let options = greedy(6, &[]);
    let mut prompt = vec![1, 40, 41, 42];
    for turn in 0..4 {
        let fresh = all(&session, std::slice::from_ref(&prompt), &options);
        let held = memory.reply(&session, &prompt, &options, &mut go_on).unwrap();
        assert_eq!(held, fresh[0], "turn {turn}");
        prompt.extend(&held.ids);
        prompt.extend([50 + turn, 30]);
    }
    // The same prompt again, one that parts early, and a shorter one.
    for other in [prompt.clone(), vec![1, 40, 77, 42, 43], vec![1, 40]] {
        let held = memory.reply(&session, &other, &options, &mut go_on).unwrap();
        assert_eq!(held, all(&session, std::slice::from_ref(&other), &options)[0], "{other:?}");
    }
}

#[test]
fn the_seed_decides_what_is_drawn() {
    let model = encoder(&golden("tiny-llama"));
    let session = session(&*model, "bare");
    let draw = |seed| {
        let sampling = Sampling { temperature: 1.0, top_p: 0.9, top_k: 20, seed };
        all(&session, &[vec![1, 40, 41]], &Options { sampling, ..greedy(12, &[]) }).swap_remove(0).ids
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn texts_end_at_the_context_at_a_break_and_never_beyond_the_model() {
    let model = encoder(&golden("tiny-llama"));
    let session = session(&*model, "bare");
    let limit = model.max_positions();
    let long: Vec<i64> = std::iter::once(1).chain((0..limit as i64 - 4).map(|id| 40 + id % 30)).collect();
    let full = all(&session, &[long.clone(), vec![1, 40]], &greedy(5, &[]));
    assert_eq!((full[0].ids.len(), full[0].finish_reason), (3, FinishReason::Context));
    assert_eq!((full[1].ids.len(), full[1].finish_reason), (5, FinishReason::Length));
    assert!(all(&session, &[vec![1, 40]], &greedy(0, &[]))[0].ids.is_empty());

    let mut seen = Vec::new();
    let mut stop_early = |text: usize, id: i64| {
        seen.push((text, id));
        if seen.len() == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let cut = generate(&session, &[&[1, 40], &[1, 41]], &greedy(9, &[]), &mut stop_early).unwrap();
    assert!(cut.iter().all(|text| text.finish_reason == FinishReason::Interrupted && text.ids.len() == 2), "{cut:?}");
    assert_eq!(seen.iter().map(|(text, _)| *text).collect::<Vec<_>>(), [0, 1, 0, 1]);

    let mut go_on = |_: usize, _: i64| ControlFlow::Continue(());
    for wrong in [Vec::<i64>::new(), vec![40; limit]] {
        let error = generate(&session, &[&wrong], &greedy(5, &[]), &mut go_on).unwrap_err();
        assert!(matches!(error, TrainerError::Prompt { tokens, .. } if tokens == wrong.len()), "{error}");
    }
}
