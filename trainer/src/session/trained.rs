//! What of a session trains: whole tensors, or their leading blocks.

use rondo_methods::TensorSet;
use tch::Tensor;

use super::{Session, to_plain};
use crate::error::TrainerError;

impl Session<'_> {
    /// The tensors that take gradients, sorted by full name. They are shared with the model:
    /// changed in place, they change it.
    pub fn trained(&self) -> &[(String, Tensor)] {
        &self.trained
    }

    /// Of a trained tensor only the leading block of these sizes is to train; the model goes on
    /// using the whole of it.
    ///
    /// # Errors
    /// The tensor does not train, or the block does not lie within it.
    pub fn train_block(&mut self, name: &str, sizes: &[usize]) -> Result<(), TrainerError> {
        let refuse = |problem: String| Err(TrainerError::Tensor { name: name.to_owned(), problem });
        let Some((_, tensor)) = self.trained.iter().find(|(trained, _)| trained == name) else {
            return refuse("it does not train".into());
        };
        let whole: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
        if sizes.len() != whole.len() || sizes.iter().zip(&whole).any(|(part, all)| *part == 0 || part > all) {
            return refuse(format!("a block of {sizes:?} cannot be cut out of {whole:?}"));
        }
        self.blocks.insert(name.to_owned(), sizes.to_vec());
        Ok(())
    }

    pub(crate) fn leaves(&self) -> Vec<Tensor> {
        self.trained.iter().map(|(_, leaf)| leaf.shallow_clone()).collect()
    }

    /// What the optimiser moves, in the order of [`Session::trained`]: each tensor, or its block
    /// that trains, as a view without a tape.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn parameters(&self) -> Result<Vec<Tensor>, TrainerError> {
        self.of_leaves(self.trained.iter().map(|(_, leaf)| leaf.f_detach()).collect::<Result<_, _>>()?)
    }

    /// The part that trains of tensors in the order and of the shapes of [`Session::trained`].
    pub(crate) fn of_leaves(&self, tensors: Vec<Tensor>) -> Result<Vec<Tensor>, TrainerError> {
        self.blocks_of(tensors, 0)
    }

    /// The same of tensors that have a dimension of texts before the others.
    pub(crate) fn of_leaves_per_text(&self, tensors: Vec<Tensor>) -> Result<Vec<Tensor>, TrainerError> {
        self.blocks_of(tensors, 1)
    }

    fn blocks_of(&self, tensors: Vec<Tensor>, first_dim: i64) -> Result<Vec<Tensor>, TrainerError> {
        let part = |((name, _), tensor): (&(String, Tensor), Tensor)| match self.blocks.get(name) {
            Some(sizes) if tensor.defined() => {
                let mut part = tensor;
                for (dim, &size) in (first_dim..).zip(sizes) {
                    part = part.f_narrow(dim, 0, size as i64)?;
                }
                Ok(part)
            }
            _ => Ok(tensor),
        };
        self.trained.iter().zip(tensors).map(part).collect()
    }

    /// The present values of what trains.
    ///
    /// # Errors
    /// Whatever libtorch refuses.
    pub fn trained_values(&self) -> Result<TensorSet, TrainerError> {
        let names = self.trained.iter().map(|(name, _)| name.clone());
        names.zip(self.parameters()?).map(|(name, tensor)| Ok((name, to_plain(&tensor)?))).collect()
    }
}
