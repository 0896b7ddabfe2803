//! Server optimisers: the step from the last published tensors x towards the mean of the clients'
//! (Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2; FedAvgM: Hsu et al.
//! 2019).
//!
//! With Delta = mean - x as the negative gradient, number by number in f64:
//! - FedAvgM: m <- beta1 m + Delta; x <- x + lr m;
//! - FedAdam: m <- beta1 m + (1 - beta1) Delta; v <- beta2 v + (1 - beta2) Delta^2; x <- x + lr
//!   m / (sqrt v + tau);
//! - FedYogi: as FedAdam with v <- v - (1 - beta2) Delta^2 sign(v - Delta^2).
//!
//! There is no bias correction; m starts at 0 and v at tau^2, as the paper's algorithm has it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rondo_proto::run_file::{Dtype, Server, ServerOptimiser};

use super::finite::check;
use super::input::Contribution;
use crate::error::MethodError;
use crate::file::{TensorFile, TensorWriter};
use crate::layout::{Role, TensorSpec};
use crate::tensor::Tensor;

/// Prefix of the first moment m of a tensor.
const FIRST: &str = "first.";
/// Prefix of the second moment v of a tensor.
const SECOND: &str = "second.";
/// Metadata key: whose moments the file holds.
const OPTIMISER: &str = "rondo.optimiser";

/// The moments of one tensor.
#[derive(Debug, Clone, PartialEq)]
struct Moments {
    first: Tensor,
    /// Of FedAdam and FedYogi.
    second: Option<Tensor>,
}

/// An optimiser at work on one round: reads the moments of the round before, writes those of this
/// one.
pub(super) struct ServerStepper<'a> {
    settings: &'a Server,
    before: Option<TensorFile>,
    after: TensorWriter,
    path: PathBuf,
}

/// True for a tensor that a server optimiser steps: published, and trained.
pub(super) fn is_stepped(spec: &TensorSpec) -> bool {
    spec.role == Role::Trained && spec.travel.is_published()
}

/// As the run file spells it.
fn name_of(optimiser: ServerOptimiser) -> String {
    match serde_json::to_value(optimiser) {
        Ok(serde_json::Value::String(name)) => name,
        _ => format!("{optimiser:?}"),
    }
}

fn adapts(optimiser: ServerOptimiser) -> bool {
    optimiser != ServerOptimiser::FedAvgM
}

impl<'a> ServerStepper<'a> {
    /// Opens the state before, if there is one, and creates the state after, `path`. `stepped` are
    /// the tensors that will be stepped, in their order.
    pub(super) fn start(
        settings: &'a Server,
        before: Option<&Path>,
        path: PathBuf,
        stepped: impl Iterator<Item = (String, Vec<usize>)>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self, MethodError> {
        let optimiser = name_of(settings.optimiser);
        let before = before.map(TensorFile::open).transpose()?;
        if let Some(file) = &before
            && file.metadata().get(OPTIMISER) != Some(&optimiser)
        {
            let theirs = file.metadata().get(OPTIMISER).map_or("none", String::as_str);
            let problem = format!("it holds the moments of optimiser {theirs}, the run's is {optimiser}");
            return Err(MethodError::Artefact { path: file.path().to_owned(), problem });
        }
        let mut announced = Vec::new();
        for (name, shape) in stepped {
            announced.push((format!("{FIRST}{name}"), shape.clone()));
            if adapts(settings.optimiser) {
                announced.push((format!("{SECOND}{name}"), shape));
            }
        }
        let mut metadata = metadata.clone();
        metadata.insert(OPTIMISER.to_owned(), optimiser);
        let after = TensorWriter::create(&path, announced, Dtype::F32, &metadata)?;
        Ok(Self { settings, before, after, path })
    }

    /// Steps from a tensor's global value towards the mean of the clients'.
    pub(super) fn step(
        &mut self,
        owner: &str,
        name: &str,
        global: &Tensor,
        mean: &Tensor,
        updates: &[Contribution],
    ) -> Result<Tensor, MethodError> {
        let mut moments = Moments {
            first: self.moment(FIRST, name, mean, 0.0)?,
            second: match adapts(self.settings.optimiser) {
                true => Some(self.moment(SECOND, name, mean, self.settings.tau.powi(2))?),
                false => None,
            },
        };
        let stepped = step(self.settings, global, mean, &mut moments);
        let moments_of = |prefix: &str, tensor: &Tensor| check(owner, &format!("{prefix}{name}"), tensor, updates);
        moments_of(FIRST, &moments.first)?;
        moments.second.iter().try_for_each(|second| moments_of(SECOND, second))?;
        self.after.write(&format!("{FIRST}{name}"), &moments.first)?;
        if let Some(second) = &moments.second {
            self.after.write(&format!("{SECOND}{name}"), second)?;
        }
        Ok(stepped)
    }

    fn moment(&self, prefix: &str, name: &str, like: &Tensor, start: f64) -> Result<Tensor, MethodError> {
        let Some(file) = &self.before else {
            return Ok(Tensor { shape: like.shape.clone(), data: vec![start as f32; like.len()] });
        };
        let tensor = file.read(&format!("{prefix}{name}"))?;
        if tensor.shape == like.shape {
            return Ok(tensor);
        }
        let place = file.path().display().to_string();
        Err(MethodError::Shape {
            tensor: format!("{prefix}{name}"),
            place,
            expected: like.shape.clone(),
            got: tensor.shape,
        })
    }

    /// Closes the state after; all tensors must have been stepped.
    pub(super) fn finish(self) -> Result<PathBuf, MethodError> {
        self.after.finish()?;
        Ok(self.path)
    }
}

/// One step, number by number. All tensors have one shape.
fn step(settings: &Server, global: &Tensor, mean: &Tensor, moments: &mut Moments) -> Tensor {
    let Server { optimiser, lr, beta1, beta2, tau } = *settings;
    let mut stepped = global.clone();
    for (index, x) in stepped.data.iter_mut().enumerate() {
        let delta = f64::from(mean.data[index]) - f64::from(*x);
        let first = &mut moments.first.data[index];
        let share = if adapts(optimiser) { 1.0 - beta1 } else { 1.0 };
        let m = beta1 * f64::from(*first) + share * delta;
        *first = m as f32;
        let length = match &mut moments.second {
            None => 1.0,
            Some(second) => {
                let (v, square) = (f64::from(second.data[index]), delta * delta);
                let v = match optimiser {
                    // signum(0) would be 1, not 0; but then both terms are equal and nothing moves
                    // away from them.
                    ServerOptimiser::FedYogi if v == square => v,
                    ServerOptimiser::FedYogi => v - (1.0 - beta2) * square * (v - square).signum(),
                    ServerOptimiser::FedAdam | ServerOptimiser::FedAvgM => beta2 * v + (1.0 - beta2) * square,
                };
                second.data[index] = v as f32;
                v.max(0.0).sqrt() + tau
            }
        };
        *x = (f64::from(*x) + lr * m / length) as f32;
    }
    stepped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(x: f64) -> Tensor {
        Tensor { shape: vec![1], data: vec![x as f32] }
    }

    /// Two steps from x = 1 with means 2 and 1.5; lr .1, beta1 .9, beta2 .99, tau .01. By hand (and
    /// with numpy):
    ///
    /// FedAvgM: m = 1, x = 1.1; Delta = .4, m = 1.3, x = 1.23.
    ///
    /// FedAdam: m = .1, v = .99e-4 + .01 = .010099, x = 1 + .01 / (.1004938 + .01) = 1.0905028;
    /// Delta = .4094972, m = .1309497, v = .0099980 + .0016769 = .0116749,
    /// x = 1.0905028 + .0130950 / (.1080504 + .01) = 1.2014298.
    ///
    /// FedYogi: v = 1e-4 + .01 = .0101, x = 1 + .01 / (.1004988 + .01) = 1.0904988;
    /// Delta = .4095012, m = .1309501, v = .0101 + .0016769126 = .0117769126,
    /// x = 1.0904988 + .01309501 / (.1085215 + .01) = 1.2009852.
    #[test]
    fn two_steps_are_those_done_by_hand() {
        for (optimiser, expected) in [
            (ServerOptimiser::FedAvgM, [1.1, 1.23]),
            (ServerOptimiser::FedAdam, [1.090_502_8, 1.201_429_8]),
            (ServerOptimiser::FedYogi, [1.090_498_8, 1.200_985_2]),
        ] {
            let settings = Server { optimiser, lr: 0.1, beta1: 0.9, beta2: 0.99, tau: 0.01 };
            let second = adapts(optimiser).then(|| number(settings.tau.powi(2)));
            let mut moments = Moments { first: number(0.0), second };
            let mut x = number(1.0);
            for (mean, expected) in [2.0, 1.5].into_iter().zip(expected) {
                x = step(&settings, &x, &number(mean), &mut moments);
                let got = f64::from(x.data[0]);
                assert!((got - expected).abs() < 2e-6, "{optimiser:?}: {got} instead of {expected}");
            }
        }
    }

    /// Where the second moment lies above Delta^2, Yogi lets it fall by what Adam would not:
    /// (1 - beta2) Delta^2.
    #[test]
    fn yogi_falls_slowly() {
        let settings = Server { optimiser: ServerOptimiser::FedYogi, lr: 1.0, beta1: 0.0, beta2: 0.5, tau: 1.0 };
        let mut moments = Moments { first: number(0.0), second: Some(number(9.0)) };
        step(&settings, &number(0.0), &number(2.0), &mut moments);
        assert_eq!(moments.second.unwrap().data, [9.0 - 0.5 * 4.0]);
    }
}
