//! AdamW (Loshchilov & Hutter 2019) over the trained tensors, step for step as `torch.optim.AdamW`.

use tch::Tensor;

use crate::error::TrainerError;
use crate::session::Session;

/// Settings of the optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Step size.
    pub lr: f64,
    /// Decoupled weight decay: every step multiplies the parameters by `1 - lr * weight_decay`.
    pub weight_decay: f64,
    /// Limit of the gradients' L2 norm over all tensors together; `None` = no limit.
    pub max_grad_norm: Option<f64>,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { lr: 1e-3, weight_decay: 0.0, max_grad_norm: None, beta1: 0.9, beta2: 0.999, eps: 1e-8 }
    }
}

/// The optimiser and its moments, which live for one round: every round starts with fresh ones.
pub struct AdamW {
    config: AdamWConfig,
    parameters: Vec<Tensor>,
    /// First and second moment of each parameter.
    moments: Vec<(Tensor, Tensor)>,
    step: i32,
}

impl AdamW {
    /// An optimiser of these tensors, which it changes in place.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn new(config: AdamWConfig, parameters: Vec<Tensor>) -> Result<Self, TrainerError> {
        let zeros = |parameter: &Tensor| parameter.f_detach()?.f_zeros_like();
        let moments: Result<_, tch::TchError> =
            parameters.iter().map(|parameter| Ok((zeros(parameter)?, zeros(parameter)?))).collect();
        Ok(Self { config, moments: moments?, parameters, step: 0 })
    }

    /// One step with given gradients, in the order of the parameters. A parameter whose gradient is
    /// undefined (the loss does not depend on it) stays as it is.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn step(&mut self, gradients: &[Tensor]) -> Result<(), TrainerError> {
        tch::no_grad(|| self.update(gradients))
    }

    fn update(&mut self, gradients: &[Tensor]) -> Result<(), TrainerError> {
        let AdamWConfig { lr, weight_decay, max_grad_norm, beta1, beta2, eps } = self.config;
        self.step += 1;
        let correction1 = 1.0 - beta1.powi(self.step);
        let correction2 = (1.0 - beta2.powi(self.step)).sqrt();
        let shrink = match max_grad_norm {
            Some(limit) => (limit / (global_norm(gradients)? + 1e-6)).min(1.0),
            None => 1.0,
        };
        for ((parameter, (first, second)), gradient) in self.parameters.iter_mut().zip(&mut self.moments).zip(gradients)
        {
            if !gradient.defined() {
                continue;
            }
            let gradient = if shrink < 1.0 { gradient.f_mul_scalar(shrink)? } else { gradient.shallow_clone() };
            if weight_decay != 0.0 {
                let _ = parameter.f_mul_scalar_(1.0 - lr * weight_decay)?;
            }
            let _ = first.f_lerp_(&gradient, 1.0 - beta1)?;
            let _ = second.f_mul_scalar_(beta2)?.f_addcmul_(&gradient.f_mul_scalar(1.0 - beta2)?, &gradient)?;
            let denominator = second.f_sqrt()?.f_div_scalar_(correction2)?.f_add_scalar_(eps)?;
            let _ = parameter.f_addcdiv_(&first.f_mul_scalar(-lr / correction1)?, &denominator)?;
        }
        Ok(())
    }
}

/// FedProx's pull towards the adapter as received (Li et al. 2020, "Federated Optimization in
/// Heterogeneous Networks"): the loss has `mu/2 ||x - x_received||^2` added, its gradient
/// `mu (x - x_received)`.
pub struct Proximal {
    mu: f64,
    parameters: Vec<Tensor>,
    /// Empty when mu is 0.
    received: Vec<Tensor>,
}

impl Proximal {
    /// A pull towards where the session's parameters stand now.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn new(mu: f64, session: &Session<'_>) -> Result<Self, TrainerError> {
        Self::towards(mu, session.parameters()?)
    }

    fn towards(mu: f64, parameters: Vec<Tensor>) -> Result<Self, TrainerError> {
        let copy = |parameter: &Tensor| -> Result<Tensor, tch::TchError> {
            let mut copy = parameter.f_detach()?.f_zeros_like()?;
            copy.f_copy_(&parameter.f_detach()?)?;
            Ok(copy)
        };
        let received: Result<_, tch::TchError> =
            if mu == 0.0 { Ok(Vec::new()) } else { parameters.iter().map(copy).collect() };
        Ok(Self { mu, received: received?, parameters })
    }

    /// Adds the pull to gradients in the order of the parameters. A parameter that the loss does
    /// not reach has not moved.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn add_to(&self, gradients: &mut [Tensor]) -> Result<(), TrainerError> {
        let _no_grad = tch::no_grad_guard();
        for ((gradient, parameter), received) in gradients.iter_mut().zip(&self.parameters).zip(&self.received) {
            if gradient.defined() {
                let _ = gradient.f_add_(&parameter.f_sub(received)?.f_mul_scalar_(self.mu)?)?;
            }
        }
        Ok(())
    }
}

/// L2 norm over all tensors together.
fn global_norm(gradients: &[Tensor]) -> Result<f64, TrainerError> {
    let mut square = 0.0;
    for gradient in gradients.iter().filter(|gradient| gradient.defined()) {
        let norm = gradient.f_norm()?.f_double_value(&[])?;
        square += norm * norm;
    }
    Ok(square.sqrt())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn tensor(values: &Value, shape: &Value) -> Tensor {
        let numbers = |list: &Value| list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
        let shape: Vec<i64> = numbers(shape).into_iter().map(|n| n as i64).collect();
        Tensor::from_slice(&numbers(values)).to_kind(tch::Kind::Float).view(shape.as_slice())
    }

    /// Five steps of torch.optim.AdamW with weight decay and clipping (tests/goldens/make.py).
    #[test]
    fn equals_torch() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/goldens/adamw.json")).unwrap();
        let setting = |key: &str| golden[key].as_f64().unwrap();
        let tensors = |lists: &Value| -> Vec<Tensor> {
            let pairs = lists.as_array().unwrap().iter().zip(golden["shapes"].as_array().unwrap());
            pairs.map(|(values, shape)| tensor(values, shape)).collect()
        };
        let config = AdamWConfig {
            lr: setting("lr"),
            weight_decay: setting("weight_decay"),
            max_grad_norm: Some(setting("max_grad_norm")),
            ..Default::default()
        };
        let parameters = tensors(&golden["start"]);
        let mut adam = AdamW::new(config, parameters.iter().map(Tensor::shallow_clone).collect()).unwrap();
        let steps = golden["steps"].as_array().unwrap();
        assert_eq!(steps.len(), 5);
        for (number, step) in steps.iter().enumerate() {
            adam.step(&tensors(&step["gradients"])).unwrap();
            for (found, expected) in parameters.iter().zip(tensors(&step["after"])) {
                let off = (found - expected).abs().max().double_value(&[]);
                assert!(off < 1e-6, "step {number}: off by {off}");
            }
        }
    }

    #[test]
    fn a_parameter_without_gradient_stays() {
        let kind = (tch::Kind::Float, tch::Device::Cpu);
        let used = Tensor::ones([2], kind);
        let unused = Tensor::ones([3], kind);
        let parameters = vec![used.shallow_clone(), unused.shallow_clone()];
        let config = AdamWConfig { weight_decay: 0.5, ..Default::default() };
        AdamW::new(config, parameters).unwrap().step(&[&used * 2, Tensor::new()]).unwrap();
        assert_ne!(Vec::<f32>::try_from(&used.detach()).unwrap(), vec![1.0; 2]);
        assert_eq!(Vec::<f32>::try_from(&unused.detach()).unwrap(), vec![1.0; 3]);
    }

    #[test]
    fn the_proximal_pull_is_mu_times_the_way_gone() {
        let x = Tensor::from_slice(&[1.0_f32, -1.0]);
        let pull = Proximal::towards(0.5, vec![x.shallow_clone()]).unwrap();
        let mut gradients = vec![Tensor::from_slice(&[0.25_f32, 0.0]), Tensor::new()];
        pull.add_to(&mut gradients).unwrap();
        assert_eq!(Vec::<f32>::try_from(&gradients[0]).unwrap(), [0.25, 0.0]);
        let _ = x.shallow_clone().f_add_(&Tensor::from_slice(&[2.0_f32, -4.0])).unwrap();
        pull.add_to(&mut gradients).unwrap();
        assert_eq!(Vec::<f32>::try_from(&gradients[0]).unwrap(), [1.25, -2.0]);
        let none = Proximal::towards(0.0, vec![x]).unwrap();
        none.add_to(&mut gradients).unwrap();
        assert_eq!(Vec::<f32>::try_from(&gradients[0]).unwrap(), [1.25, -2.0]);
    }
}
