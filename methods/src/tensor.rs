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
/// (`encoder.layer.0.attention.self.query.lora_A`, `head.weight`) where it is about a whole file or adapter.
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

    /// The numbers as an f64 matrix: `[rows, cols]` as is, `[n]` as one column, more dimensions flattened behind the first.
    pub fn to_matrix(&self) -> Matrix {
        let rows = self.shape.first().copied().unwrap_or(1);
        let cols = self.shape.iter().skip(1).product();
        Matrix::new(rows, cols, self.data.iter().map(|&x| f64::from(x)).collect())
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

/// The tensors of one target out of a whole set, by part name: `parts_of(set, "a.query")["lora_A"]` is `set["a.query.lora_A"]`.
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
