//! Tensors in memory: row-major f32 numbers with a shape, and sets of them by name.

use std::collections::BTreeMap;

use rondo_proto::run_file::Dtype;

use crate::linalg::Matrix;

/// Row-major numbers. `data.len()` is the product of `shape`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Lengths of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Vec<f32>,
}

/// Tensors by name: a part name (`lora_A`) where the set is about one target, the full name
/// (`encoder.layer.0.attention.self.query.lora_A`, `head.weight`) where it is about a whole file or
/// adapter.
pub type TensorSet = BTreeMap<String, Tensor>;

impl Tensor {
    /// All zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }

    /// Rounds a matrix to f32. Shape `[rows, cols]`.
    pub fn from_matrix(matrix: &Matrix) -> Self {
        Self { shape: vec![matrix.rows(), matrix.cols()], data: matrix.data().iter().map(|&x| x as f32).collect() }
    }

    /// Rounds a vector to f32. Shape `[n]`.
    pub fn from_vector(values: &[f64]) -> Self {
        Self { shape: vec![values.len()], data: values.iter().map(|&x| x as f32).collect() }
    }

    /// The numbers as an f64 matrix: `[rows, cols]` as is, `[n]` as one column, more dimensions
    /// flattened behind the first.
    pub fn to_matrix(&self) -> Matrix {
        let rows = self.shape.first().copied().unwrap_or(1);
        let cols = self.shape.iter().skip(1).product();
        Matrix::new(rows, cols, self.data.iter().map(|&x| f64::from(x)).collect())
    }

    /// The leading block of these sizes: `[2, 3]` of a matrix is its first two rows of three
    /// numbers each.
    ///
    /// # Panics
    /// When the block is no part of the tensor: a fault of the caller.
    pub fn leading(&self, block: &[usize]) -> Self {
        let mut out = Self::zeros(block);
        for (from, to, length) in runs(&self.shape, block) {
            out.data[to..to + length].copy_from_slice(&self.data[from..from + length]);
        }
        out
    }

    /// The tensor with its leading block replaced.
    ///
    /// # Panics
    /// When the block is no part of the tensor: a fault of the caller.
    pub fn with_leading(mut self, block: &Self) -> Self {
        for (to, from, length) in runs(&self.shape, &block.shape) {
            self.data[to..to + length].copy_from_slice(&block.data[from..from + length]);
        }
        self
    }

    /// Rounds every number to what the wire can carry.
    pub fn round_to(&mut self, dtype: Dtype) {
        match dtype {
            Dtype::F32 => {}
            Dtype::Bf16 => self.data.iter_mut().for_each(|x| *x = half::bf16::from_f32(*x).to_f32()),
        }
    }

    /// Count of numbers.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// True when there are no numbers.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}

/// True when a block of these sizes is a part of a tensor of this shape.
pub fn fits(block: &[usize], shape: &[usize]) -> bool {
    block.len() == shape.len() && block.iter().zip(shape).all(|(part, whole)| part <= whole)
}

/// Stretches of numbers that lie side by side both in the whole and in its leading block: (place in
/// the whole, place in the block, length).
fn runs(whole: &[usize], block: &[usize]) -> Vec<(usize, usize, usize)> {
    assert!(fits(block, whole), "a block {block:?} is no part of a tensor {whole:?}");
    let Some((&length, outer)) = block.split_last() else { return vec![(0, 0, 1)] };
    let mut starts = vec![0];
    for (at, &count) in outer.iter().enumerate() {
        let stride: usize = whole[at + 1..].iter().product();
        starts = starts.iter().flat_map(|start| (0..count).map(move |row| start + row * stride)).collect();
    }
    starts.into_iter().enumerate().map(|(index, from)| (from, index * length, length)).collect()
}

/// The tensors of one target out of a whole set, by part name: `parts_of(set, "a.query")["lora_A"]`
/// is `set["a.query.lora_A"]`.
pub fn parts_of(tensors: &TensorSet, target: &str) -> TensorSet {
    let mut parts = TensorSet::new();
    for (name, tensor) in tensors {
        if let Some((owner, part)) = name.rsplit_once('.')
            && owner == target
        {
            parts.insert(part.to_owned(), tensor.clone());
        }
    }
    parts
}

/// Full name of a target's part on the wire: `<target>.<part>`.
pub fn full_name(target: &str, part: &str) -> String {
    format!("{target}.{part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leading_block_is_cut_and_put_back() {
        let numbers = |count: usize| (0..count).map(|x| x as f32).collect::<Vec<_>>();
        let matrix = Tensor { shape: vec![3, 4], data: numbers(12) };
        let corner = matrix.leading(&[2, 3]);
        assert_eq!(corner.data, [0., 1., 2., 4., 5., 6.]);
        let changed = Tensor { data: corner.data.iter().map(|x| -x).collect(), ..corner };
        let back = matrix.clone().with_leading(&changed);
        assert_eq!(back.data, [0., -1., -2., 3., -4., -5., -6., 7., 8., 9., 10., 11.]);
        let cube = Tensor { shape: vec![2, 2, 2], data: numbers(8) };
        assert_eq!(cube.leading(&[2, 1, 2]).data, [0., 1., 4., 5.]);
        assert_eq!(Tensor { shape: vec![4], data: numbers(4) }.leading(&[3]).data, [0., 1., 2.]);
        assert_eq!(matrix.leading(&[0, 4]).data, [0.0_f32; 0]);
        assert!(fits(&[3, 0], &[3, 4]) && !fits(&[4, 1], &[3, 4]) && !fits(&[3], &[3, 4]));
    }
}
