//! Noised gradients (DP-SGD, Abadi et al. 2016, "Deep Learning with Differential Privacy",
//! algorithm 1): every example's gradient is clipped over all trained tensors together, the clipped
//! ones are summed as integers, and one draw of discrete Gaussian noise covers the sum.
//!
//! What an example adds to the sum does not depend on the others of its batch. Texts are worked on
//! together only where their own lengths give them equally many cells, nothing of one text is added
//! to another's, and a trial at the start of training ([`crate::neighbours`]) shows whether the
//! kernels here give six texts at once the bits of one by one. Where they do not, texts are worked
//! on one at a time. (In bf16 one rounding is up to 0.4 % of the clip, and so that is refused.) The
//! integers are summed exactly, in any order. The sum is divided by the expected batch size, a
//! constant; an empty batch releases noise alone. Nothing else that depends on an example leaves
//! this file.

use rondo_dp::{ExamplePlan, GaussianMechanism, Lattice, SecureRng, poisson_sample};
use rondo_trainer_api::work::Work;
use tch::{Kind, Tensor};

use crate::error::TrainerError;
use crate::session::Session;
use crate::step::{self, Gradients, Objective, Plan};
use crate::text::rows::Rows;

/// DP-SGD over one round: draws batches and gives their noised gradients.
pub struct DpSgd<'p> {
    plan: &'p ExamplePlan,
    mechanism: GaussianMechanism,
    /// Shapes of the trained tensors, in the order of [`Session::parameters`].
    shapes: Vec<Vec<i64>>,
    rng: SecureRng,
}

impl<'p> DpSgd<'p> {
    /// Keeps a data owner's plan over what a session trains.
    ///
    /// # Errors
    /// A plan that the mechanism refuses, or no source of randomness.
    pub fn new(session: &Session<'_>, plan: &'p ExamplePlan) -> Result<Self, TrainerError> {
        let shapes: Vec<Vec<i64>> = session.parameters()?.iter().map(Tensor::size).collect();
        let dimension = shapes.iter().map(|shape| shape.iter().product::<i64>() as usize).sum();
        let lattice = Lattice::new(plan.clip, plan.noise_multiplier, dimension)?;
        Ok(Self { plan, mechanism: GaussianMechanism::new(lattice)?, shapes, rng: SecureRng::new()? })
    }

    /// The gradient of one step: (sum of clipped gradients + noise) / expected batch size. Its loss
    /// is reported as 0.
    ///
    /// # Errors
    /// Rows that cannot be read; noise that cannot be drawn, and then nothing is released.
    pub fn step(
        &mut self,
        session: &Session<'_>,
        work: &Work,
        rows: &Rows<'_>,
        plan: Plan,
    ) -> Result<Gradients, TrainerError> {
        let batch = poisson_sample(rows.len(), self.plan.sampling_rate, &mut self.rng);
        let rows = rows.take(&batch)?;
        // Like lengths together, so that few micro-batches do; a sum of integers knows no order.
        let mut order = rows.indices();
        order.sort_by_key(|&text| rows.encoded.text(text).len());
        let labels: Vec<i64> = order.iter().map(|&text| i64::from(rows.examples[text].label())).collect();
        let objective = Objective::of_task(work.run.task.kind, &labels);
        let mut sum = vec![0; self.mechanism.lattice().dimension()];
        let lattice = *self.mechanism.lattice();
        let mut add = |gradients: &[Tensor]| add_clipped(&lattice, gradients, &mut sum);
        step::per_text(session, &rows.encoded, &order, objective, plan, &mut add)?;
        let noised = self.mechanism.release(&sum)?;
        Ok(Gradients { loss: 0.0, units: 1, tensors: self.mean(&noised, session)? })
    }

    /// Divides by the expected batch size and gives the numbers the shapes of the trained tensors.
    fn mean(&self, noised: &[f64], session: &Session<'_>) -> Result<Vec<Tensor>, TrainerError> {
        let mut rest = noised;
        let mut tensors = Vec::with_capacity(self.shapes.len());
        for shape in &self.shapes {
            let (numbers, after) = rest.split_at(shape.iter().product::<i64>() as usize);
            rest = after;
            let mean: Vec<f32> = numbers.iter().map(|number| (number / self.plan.expected_batch) as f32).collect();
            tensors.push(Tensor::f_from_slice(&mean)?.f_view(shape.as_slice())?.f_to_device(session.device())?);
        }
        Ok(tensors)
    }
}

/// Adds the gradients `[b, ...]` of a micro-batch's texts, each clipped, to a sum in lattice units.
fn add_clipped(lattice: &Lattice, gradients: &[Tensor], sum: &mut [i64]) -> Result<(), TrainerError> {
    let texts = gradients.first().map_or(0, |gradient| gradient.size()[0] as usize);
    let flat: Vec<Vec<f32>> = gradients
        .iter()
        .map(|gradient| {
            let flat = gradient.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view(-1)?;
            Ok(Vec::<f32>::try_from(&flat)?)
        })
        .collect::<Result<_, TrainerError>>()?;
    for text in 0..texts {
        let own = |numbers: &'_ Vec<f32>| {
            let width = numbers.len() / texts;
            text * width..(text + 1) * width
        };
        let parts: Vec<&[f32]> = flat.iter().map(|numbers| &numbers[own(numbers)]).collect();
        // Whether an example was clipped, or was not finite, is private.
        let _ = lattice.add(&parts, sum)?;
    }
    Ok(())
}
