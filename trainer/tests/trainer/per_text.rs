//! Every text's own gradient is the gradient of that text alone.

use rondo_methods::tensor::{full_name, parts_of};
use rondo_proto::run_file::Pooling;
use rondo_trainer::batch::{Batch, Encoded};
use rondo_trainer::neighbours;
use rondo_trainer::session::{Session, SessionMode};
use rondo_trainer::step::{self, Objective, Plan};
use tch::{Device, Kind, Tensor};

use crate::step::{Speaker, speaking, texts};
use crate::support::*;

/// The gradients of every text, `[texts, ...]`, out of micro-batches.
fn per_text(
    session: &Session<'_>,
    encoded: &Encoded,
    indices: &[usize],
    objective: Objective<'_>,
    plan: Plan,
) -> Vec<Tensor> {
    let mut parts: Vec<Vec<Tensor>> = session.trained().iter().map(|_| Vec::new()).collect();
    let mut take = |gradients: &[Tensor]| {
        parts.iter_mut().zip(gradients).for_each(|(parts, gradient)| parts.push(gradient.copy()));
        Ok(())
    };
    step::per_text(session, encoded, indices, objective, plan, &mut take).unwrap();
    parts.iter().map(|parts| Tensor::cat(parts, 0)).collect()
}

/// The gradients of one text in a batch of its own, without copies.
fn alone(session: &Session<'_>, encoded: &Encoded, text: usize, label: Option<i64>) -> Vec<Tensor> {
    let labels: Vec<i64> = label.into_iter().collect();
    let objective = if label.is_some() { Objective::Labels(&labels) } else { Objective::Tokens };
    let found = step::gradients(session, encoded, &[text], objective, Plan::default()).unwrap().tensors;
    let zero = |(gradient, parameter): (Tensor, Tensor)| match gradient.defined() {
        true => gradient,
        false => parameter.zeros_like(),
    };
    found.into_iter().zip(session.parameters().unwrap()).map(zero).collect()
}

/// Texts of one length, and their labels.
fn alike() -> (Encoded, Vec<i64>) {
    let mut encoded = Encoded::new();
    (0..6).for_each(|text| encoded.push((0..8).map(|place| 5 + (text * 11 + place * 3) % 40)));
    (encoded, vec![1, 0, 1, 1, 0, 1])
}

fn off(left: &Tensor, right: &Tensor) -> f64 {
    (left - right).abs().max().double_value(&[])
}

/// R, B, and A and B together, with a head: a batch of six has the bits of six batches of one, and
/// whatever lies between. Another text's gradient differs by far more than any rounding.
#[test]
fn texts_of_one_length_have_the_bits_of_micro_batches_of_one() {
    let (encoded, labels) = alike();
    let indices: Vec<usize> = (0..labels.len()).collect();
    for method in ["id = \"fed-sb\"\nrank = 4", "id = \"ffa-lora\"\nrank = 4", "id = \"fedit\"\nrank = 4"] {
        let run = TestRun::new(method);
        let mut state = SingleClient::start(run.clone(), &mut trainer()).state(1);
        stir(&run.job, &mut state);
        let model = encoder(&tiny());
        for (_, pooling) in POOLINGS {
            let session =
                Session::of_state(&*model, Device::Cpu, &run.job, &state, pooling, SessionMode::Train).unwrap();
            let each = |micro_batch| {
                let plan = Plan { micro_batch, ..Plan::default() };
                per_text(&session, &encoded, &indices, Objective::Labels(&labels), plan)
            };
            let ones = each(1);
            assert!([0, 2, 4].into_iter().all(|micro_batch| each(micro_batch) == ones), "{method}");
            for text in 0..labels.len() {
                let own = |gradient: &Tensor| gradient.get(text as i64);
                // Without copies the head's product is another kernel, which rounds otherwise.
                for (gradient, single) in ones.iter().zip(alone(&session, &encoded, text, Some(labels[text]))) {
                    let limit = 1e-5 * single.abs().max().double_value(&[]).max(1e-2);
                    assert!(
                        off(&own(gradient), &single) <= limit,
                        "{method}: {} {limit}",
                        off(&own(gradient), &single)
                    );
                }
                let next = (text + 1) % labels.len();
                let other = alone(&session, &encoded, next, Some(labels[next]));
                assert!(ones.iter().zip(&other).any(|(gradient, other)| off(&own(gradient), other) > 1e-4), "{method}");
            }
        }
    }
}

/// Weights of random matrices have copies too, and so have the matrices when they train: each
/// text's own gradient is that of the text alone.
#[test]
fn combinations_have_copies() {
    let (encoded, labels) = alike();
    let indices: Vec<usize> = (0..labels.len()).collect();
    let run = TestRun::new("id = \"woven\"\nrank = 4");
    let mut state = SingleClient::start(run.clone(), &mut trainer()).state(1);
    stir(&run.job, &mut state);
    let model = encoder(&tiny());
    for trained in [&["beta"][..], &["basis"], &["beta", "basis"]] {
        let mut session = Session::new(&*model, Device::Cpu, &state.tensors, Pooling::Mean).unwrap();
        for (index, target) in run.job.targets().iter().enumerate() {
            let names = trained.iter().map(|part| full_name(&target.name, part)).collect();
            let delta = run.job.delta(index, state.instance());
            session.attach(&target.name, &delta, &parts_of(&state.tensors, &target.name), &names).unwrap();
        }
        let found = per_text(&session, &encoded, &indices, Objective::Labels(&labels), Plan::default());
        assert_eq!(found.len(), trained.len() * run.job.targets().len());
        for text in 0..labels.len() {
            for (gradient, single) in found.iter().zip(alone(&session, &encoded, text, Some(labels[text]))) {
                let largest = single.abs().max().double_value(&[]);
                let off = off(&gradient.get(text as i64), &single);
                assert!(largest > 0.0 && off <= 1e-5 * largest.max(1e-2), "{trained:?}: {off} of {largest}");
            }
        }
    }
}

/// A and B of a language model. The texts fill their cells, so that nothing but the copies and the
/// company differs.
#[test]
fn copies_change_no_bit_of_a_language_models_gradient() {
    let model = Speaker::new(Kind::Float, false);
    let session = speaking(&model);
    let mut encoded = Encoded::new();
    for text in 0..5 {
        let ids: Vec<i64> = (0..16).map(|place| 5 + (text * 11 + place * 3) % 30).collect();
        encoded.push_counted(&ids, &[false, true, false, true, true, false, true, true].repeat(2));
    }
    let each = |micro_batch| {
        let plan = Plan { micro_batch, ..Plan::default() };
        per_text(&session, &encoded, &[0, 1, 2, 3, 4], Objective::Tokens, plan)
    };
    let (ones, together) = (each(1), each(0));
    for text in 0..5 {
        for (place, single) in alone(&session, &encoded, text, None).iter().enumerate() {
            assert_eq!(ones[place].get(text as i64), *single, "text {text}, tensor {place}");
            assert_eq!(together[place].get(text as i64), *single, "text {text}, tensor {place}");
            let limit = 3e-6 * single.abs().max().double_value(&[]);
            assert!(off(&together[place].get(text as i64), single) <= limit, "text {text}, tensor {place}");
        }
    }
}

#[test]
fn labelled_texts_of_any_length_in_any_micro_batches() {
    let run = TestRun::new("id = \"fedit\"\nrank = 4");
    let mut state = SingleClient::start(run.clone(), &mut trainer()).state(1);
    stir(&run.job, &mut state);
    let model = encoder(&tiny());
    let session = Session::of_state(&*model, Device::Cpu, &run.job, &state, Pooling::Cls, SessionMode::Train).unwrap();
    let (mut encoded, labels) = (Encoded::new(), [1, 0, 1, 1, 0]);
    [4, 9, 2, 6, 11].into_iter().for_each(|length| encoded.push((0..length).map(|place| 5 + place * 3 % 20)));
    for (checkpoint, micro_batch) in [(false, 0), (false, 1), (false, 2), (true, 0), (true, 3)] {
        let plan = Plan { checkpoint, micro_batch, chunk: 0 };
        let found = per_text(&session, &encoded, &[0, 1, 2, 3, 4], Objective::Labels(&labels), plan);
        for (text, &label) in labels.iter().enumerate() {
            for (own, single) in found.iter().zip(alone(&session, &encoded, text, Some(label))) {
                let limit = 3e-6 * single.abs().max().double_value(&[]).max(1e-3);
                assert!(off(&own.get(text as i64), &single) <= limit, "{plan:?}: text {text}");
            }
        }
    }
}

/// A text's loss is the mean over its own counting tokens; one without any has gradient zero.
#[test]
fn a_language_models_texts() {
    for packed in [false, true] {
        let (model, encoded) = (Speaker::new(Kind::Float, packed), texts());
        let mut session = speaking(&model);
        let name = session.trained()[0].0.clone();
        session.train_block(&name, &[2, 5]).unwrap();
        for (checkpoint, micro_batch, chunk) in [(false, 0, 0), (true, 2, 4), (false, 4, 3)] {
            let plan = Plan { checkpoint, micro_batch, chunk };
            let order = [3, 0, 5, 2, 4, 1];
            let found = per_text(&session, &encoded, &order, Objective::Tokens, plan);
            assert_eq!(found[0].size(), [6, 2, 5]);
            for (place, &text) in (0..).zip(&order) {
                let single = alone(&session, &encoded, text, None);
                for (own, single) in found.iter().zip(single) {
                    let limit = 3e-6 * single.abs().max().double_value(&[]).max(1e-3);
                    assert!(off(&own.get(place), &single) <= limit, "{plan:?}: text {text}");
                }
            }
            assert_eq!(found[1].get(2).abs().max().double_value(&[]), 0.0);
        }
    }
}

/// Lengths that take one, two and three times the cells of the shortest.
const LENGTHS: [usize; 9] = [16, 3, 9, 12, 5, 17, 32, 30, 40];

/// Texts of mixed lengths: in every micro-batch and in every order each has the bits of working on
/// it alone.
fn same_in_any_company(session: &Session<'_>, encoded: &Encoded, labels: Option<&[i64]>, plan: Plan) {
    let found = |order: &[usize], micro_batch| {
        let own: Vec<i64> = labels.map(|labels| order.iter().map(|&text| labels[text]).collect()).unwrap_or_default();
        let objective = if labels.is_some() { Objective::Labels(&own) } else { Objective::Tokens };
        per_text(session, encoded, order, objective, Plan { micro_batch, ..plan })
    };
    let in_order: Vec<usize> = (0..encoded.len()).collect();
    let each: Vec<Vec<Tensor>> = in_order.iter().map(|&text| found(&[text], 0)).collect();
    let of_all = |place: usize| Tensor::cat(&each.iter().map(|own| own[place].shallow_clone()).collect::<Vec<_>>(), 0);
    let ones: Vec<Tensor> = (0..each[0].len()).map(of_all).collect();
    assert!(ones.iter().all(|gradient| gradient.abs().max().double_value(&[]) > 0.0));
    let by_length: Vec<usize> = [4, 0, 3, 2, 1, 7, 5, 6, 8].to_vec();
    let few = [2, 0, 7];
    for (order, micro_batch) in [(&in_order[..], 0), (&in_order, 2), (&by_length, 0), (&by_length, 3), (&few, 0)] {
        for (together, alone) in found(order, micro_batch).iter().zip(&ones) {
            for (place, &text) in (0..).zip(order) {
                assert_eq!(together.get(place), alone.get(text as i64), "{plan:?}, {micro_batch}, text {text}");
            }
        }
    }
}

fn of_mixed_lengths() -> Encoded {
    let mut encoded = Encoded::new();
    for (text, length) in LENGTHS.into_iter().enumerate() {
        let ids: Vec<i64> = (0..length).map(|place| 5 + ((text * 11 + place * 3) % 30) as i64).collect();
        let counts: Vec<bool> = (0..length).map(|place| place > 0 && (place + text) % 3 != 0).collect();
        encoded.push_counted(&ids, &counts);
    }
    encoded
}

#[test]
fn a_labelled_text_has_the_same_bits_in_any_company() {
    let labels: Vec<i64> = (0..LENGTHS.len() as i64).map(|text| text % 2).collect();
    for method in ["id = \"fed-sb\"\nrank = 4", "id = \"fedit\"\nrank = 4"] {
        let run = TestRun::new(method);
        let mut state = SingleClient::start(run.clone(), &mut trainer()).state(1);
        stir(&run.job, &mut state);
        let model = encoder(&tiny());
        for (_, pooling) in POOLINGS {
            let session =
                Session::of_state(&*model, Device::Cpu, &run.job, &state, pooling, SessionMode::Train).unwrap();
            for checkpoint in [false, true] {
                let plan = Plan { checkpoint, ..Plan::default() };
                same_in_any_company(&session, &of_mixed_lengths(), Some(&labels), plan);
            }
            neighbours::try_session(&session, 64, Plan::default()).unwrap();
        }
    }
}

#[test]
fn a_language_models_text_has_the_same_bits_in_any_company() {
    for packed in [false, true] {
        let model = Speaker::new(Kind::Float, packed);
        let session = speaking(&model);
        same_in_any_company(&session, &of_mixed_lengths(), None, Plan::default());
        neighbours::try_session(&session, 64, Plan::default()).unwrap();
    }
}

/// Texts share a grid only where their own lengths say so, and a mean reads its own text alone,
/// whatever the others are.
#[test]
fn a_mean_reads_no_other_text() {
    let encoded = of_mixed_lengths();
    assert!(Batch::separate(&encoded, &[0, 5], Device::Cpu).is_err());
    let batch = Batch::separate(&encoded, &[1, 2, 4], Device::Cpu).unwrap();
    assert_eq!((batch.longest(), batch.texts()), (16, 3));
    // 17 tokens; the first text has room for 13 of the rows that are lacking, the second takes the
    // rest.
    assert_eq!((batch.extents(), batch.ids().size()), (&[16, 11, 5][..], vec![32]));
    let states = Tensor::arange(32 * 4, (Kind::Float, Device::Cpu)).view([32, 4]);
    let means = batch.mean(&states).unwrap();
    assert!(off(&means.get(0), &states.narrow(0, 0, 3).mean_dim(0, false, Kind::Float)) < 1e-5);
    let broken = states.shallow_clone().index_fill(0, &Tensor::from_slice(&[18_i64]), f64::INFINITY);
    let with_broken = batch.mean(&broken).unwrap();
    assert!(!bool::try_from(with_broken.get(1).isfinite().all()).unwrap());
    assert_eq!((with_broken.get(0), with_broken.get(2)), (means.get(0), means.get(2)));
}
