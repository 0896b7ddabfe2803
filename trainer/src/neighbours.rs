//! Whether a text's gradient depends on its neighbours in a batch: found out by trial, since it is
//! for the kernels of this processor to say.
//!
//! Privacy per example counts on one text changing one term of a sum. [`Batch::separate`] keeps the
//! texts of a micro-batch apart in all but one thing: a matrix product over all tokens may add in
//! another order when it has more rows. MKL's strict mode rules that out where it is honoured
//! (`environment`). So a trial compares the gradients of six texts at once with those of one by
//! one, bit for bit: for every kind of layer when a daemon starts, and on the present model and
//! adapter before private training. Where they differ, the texts of private steps are worked on one
//! at a time, where a text has no neighbours.
//!
//! [`Batch::separate`]: crate::batch::Batch::separate

mod probe;

use std::ops::Range;
use std::sync::Arc;

use rondo_proto::run_file::RunFile;
use rondo_trainer_api::work::Work;
use tch::{Device, Tensor};

use crate::environment;
use crate::error::TrainerError;
use crate::session::Session;
use crate::step::{self, Objective, Plan};
use crate::text::encoded::Encoded;

/// Texts at once in a trial.
const TEXTS: usize = 6;

/// Token ids below this are in every vocabulary.
const IDS: usize = 16;

/// Lengths of a trial's texts in tokens. Those of one trial get equally many cells.
const TRIALS: [&[usize]; 2] = [&[16, 3, 9, 16, 12, 5], &[64, 50]];

/// How the texts of a private step are worked on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PrivateBatches {
    /// As many texts at once as the plan has.
    #[default]
    Together,
    /// One text at a time.
    OneByOne,
}

impl PrivateBatches {
    /// What follows from a trial. A refusal for unequal gradients becomes a warning and
    /// [`PrivateBatches::OneByOne`].
    ///
    /// # Errors
    /// The trial failed for another reason.
    pub fn after(trial: Result<(), TrainerError>) -> Result<Self, TrainerError> {
        match trial {
            Ok(()) => Ok(Self::Together),
            Err(unequal @ TrainerError::Neighbours { .. }) => {
                tracing::warn!(%unequal, "private training works on one text at a time");
                Ok(Self::OneByOne)
            }
            Err(error) => Err(error),
        }
    }

    /// The plan of a private step.
    #[must_use]
    pub fn plan(self, plan: Plan) -> Plan {
        match self {
            Self::Together => plan,
            Self::OneByOne => Plan { micro_batch: 1, ..plan },
        }
    }
}

/// What a trainer has found out.
#[derive(Debug, Clone, Default)]
pub struct Trials {
    /// By the processor's trial.
    processor: PrivateBatches,
    /// By that of the last private run.
    last: Option<(Tried, PrivateBatches)>,
}

/// What a trial holds for.
#[derive(Debug, Clone, PartialEq)]
struct Tried {
    /// Digest of the base model.
    base: String,
    run: Arc<RunFile>,
    rank: usize,
    plan: Plan,
}

impl Trials {
    /// After the processor's trial.
    pub fn after(processor: PrivateBatches) -> Self {
        Self { processor, last: None }
    }

    /// The plan of private steps of this work. A run's model is tried once.
    ///
    /// # Errors
    /// As of [`try_session`], but for unequal gradients.
    pub fn plan(&mut self, session: &Session<'_>, work: &Work, plan: Plan) -> Result<Plan, TrainerError> {
        let plan = self.processor.plan(plan);
        let base = work.base.digest.clone();
        let run = Arc::clone(&work.run);
        let wanted = Tried { base, run, rank: work.rank, plan };
        if let Some((tried, found)) = &self.last
            && *tried == wanted
        {
            return Ok(found.plan(plan));
        }
        let found = PrivateBatches::after(try_session(session, work.run.task.max_tokens, plan))?;
        self.last = Some((wanted, found));
        Ok(found.plan(plan))
    }

    /// The plan of the one private step of a warm-up, whose
    /// probes no training has. It is tried each time.
    ///
    /// # Errors
    /// As of [`Trials::plan`].
    pub fn plan_of_warm_up(&self, session: &Session<'_>, work: &Work, plan: Plan) -> Result<Plan, TrainerError> {
        let plan = self.processor.plan(plan);
        let found = PrivateBatches::after(try_session(session, work.run.task.max_tokens, plan))?;
        Ok(found.plan(plan))
    }
}

/// Tries every kind of layer that models have, on a small model of random weights.
///
/// # Errors
/// [`TrainerError::Neighbours`] where a gradient depends on the other texts; otherwise libtorch's.
pub fn try_processor(device: Device) -> Result<(), TrainerError> {
    let model = probe::Probe::new(device)?;
    for session in [model.language()?, model.classifier()?] {
        try_session(&session, usize::MAX, Plan::default())?;
    }
    Ok(())
}

/// Tries a model with its adapter, with texts of at most `longest` tokens and no more at once than
/// the plan has. The texts are fixed, so the outcome says nothing of anyone's data.
///
/// # Errors
/// As of [`try_processor`].
pub fn try_session(session: &Session<'_>, longest: usize, plan: Plan) -> Result<(), TrainerError> {
    let at_once = if plan.micro_batch == 0 { TEXTS } else { plan.micro_batch.min(TEXTS) };
    let longest = longest.min(session.model().max_positions());
    for lengths in TRIALS {
        let texts = encoded(&lengths[..at_once.min(lengths.len())], longest);
        if texts.len() > 1 {
            try_texts(session, &texts, plan)?;
        }
    }
    Ok(())
}

/// Texts of these lengths, of at most `longest` tokens. Every token counts.
fn encoded(lengths: &[usize], longest: usize) -> Encoded {
    let mut encoded = Encoded::new();
    for (text, &length) in lengths.iter().enumerate() {
        let ids = (0..length.min(longest)).map(|place| ((text * 5 + place * 7 + place * place / 3) % IDS) as i64);
        let ids: Vec<i64> = ids.collect();
        encoded.push_counted(&ids, &vec![true; ids.len()]);
    }
    encoded
}

fn try_texts(session: &Session<'_>, encoded: &Encoded, plan: Plan) -> Result<(), TrainerError> {
    let plan = Plan { micro_batch: 0, ..plan };
    let texts: Vec<usize> = (0..encoded.len()).collect();
    let labels: Vec<i64> = match session.head() {
        Ok(head) => (0..).take(texts.len()).map(|text| text % head.weight.size()[0].max(1)).collect(),
        Err(_) => Vec::new(),
    };
    let objective =
        |texts: Range<usize>| if labels.is_empty() { Objective::Tokens } else { Objective::Labels(&labels[texts]) };
    let mut parts: Vec<Vec<Tensor>> = session.trained().iter().map(|_| Vec::new()).collect();
    let mut take = |gradients: &[Tensor]| {
        parts.iter_mut().zip(gradients).for_each(|(parts, gradient)| parts.push(gradient.shallow_clone()));
        Ok(())
    };
    step::per_text(session, encoded, &texts, objective(0..texts.len()), plan, &mut take)?;
    for &text in &texts {
        step::per_text(session, encoded, &[text], objective(text..text + 1), plan, &mut take)?;
    }
    // Of each tensor first the gradients of all texts at once, then those of one by one.
    let together: Vec<Tensor> = parts.iter().map(|parts| parts[0].shallow_clone()).collect();
    let alone = parts.iter().map(|parts| Tensor::f_cat(&parts[1..], 0)).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<&str> = session.trained().iter().map(|(name, _)| name.as_str()).collect();
    refuse_unequal(&names, &together, &alone)
}

/// Compares gradients `[texts, ...]` by tensor, of all texts at once and of one by one.
///
/// # Errors
/// [`TrainerError::Neighbours`] for the first tensor in which a bit differs, or where shapes
/// differ.
pub fn refuse_unequal(names: &[&str], together: &[Tensor], alone: &[Tensor]) -> Result<(), TrainerError> {
    for ((name, together), alone) in names.iter().zip(together).zip(alone) {
        if together.size() == alone.size() && together.f_equal(alone)? {
            continue;
        }
        let difference = match together.size() == alone.size() {
            true => together.f_sub(alone)?.f_abs()?.f_max()?.f_double_value(&[])?,
            false => f64::NAN,
        };
        let processor = environment::processor();
        return Err(TrainerError::Neighbours { tensor: (*name).to_owned(), difference, processor });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gradients of six texts, and the same with one number moved by its last bit.
    fn unequal() -> [Vec<Tensor>; 2] {
        let numbers: Vec<f32> = (1..=24).map(|number| number as f32 / 7.0).collect();
        let mut moved = numbers.clone();
        moved[17] = f32::from_bits(moved[17].to_bits() + 1);
        [numbers, moved]
            .map(|numbers| vec![Tensor::from_slice(&[1.0_f32; 6]), Tensor::from_slice(&numbers).view([6, 4])])
    }

    #[test]
    fn unequal_gradients_are_refused_by_name_and_texts_are_then_worked_on_one_by_one() {
        let [together, alone] = unequal();
        let names = ["head.bias", "query.lora_A"];
        refuse_unequal(&names, &together, &together).unwrap();
        let refusal = refuse_unequal(&names, &together, &alone).unwrap_err();
        assert!(matches!(&refusal, TrainerError::Neighbours { tensor, difference, .. }
            if tensor == "query.lora_A" && *difference > 0.0 && *difference < 1e-6));
        let text = refusal.to_string();
        assert!(text.contains("query.lora_A") && text.contains("MKL_CBWR=AUTO,STRICT"), "{text}");
        assert!(text.contains(&environment::processor()), "{text}");

        let plan = Plan { micro_batch: 8, ..Plan::default() };
        assert_eq!(PrivateBatches::after(Ok(())).unwrap().plan(plan), plan);
        let one_by_one = PrivateBatches::after(Err(refusal)).unwrap();
        assert_eq!(one_by_one.plan(plan), Plan { micro_batch: 1, ..plan });
        // What went wrong otherwise is no reason to go on.
        PrivateBatches::after(Err(TrainerError::NoVocabulary)).unwrap_err();
    }

    #[test]
    fn gradients_that_are_not_numbers_count_as_unequal() {
        let nan = vec![Tensor::from_slice(&[f32::NAN; 6])];
        refuse_unequal(&["head.bias"], &nan, &nan).unwrap_err();
    }

    /// On every processor under strict mode, which `.cargo/config.toml` sets for tests.
    #[test]
    fn this_processor_keeps_neighbours_apart() {
        try_processor(Device::Cpu).unwrap();
    }

    #[test]
    fn trials_fit_every_model() {
        for longest in [1, 2, 10, 16, 40, 1000] {
            for lengths in TRIALS {
                let encoded = encoded(lengths, longest);
                let lengths: Vec<usize> = (0..encoded.len()).map(|text| encoded.text(text).len()).collect();
                assert!(lengths.iter().all(|&length| length <= longest));
                let width = crate::batch::Batch::width;
                assert!(lengths.iter().all(|&length| width(length) == width(lengths[0])), "{lengths:?}");
            }
        }
    }
}
