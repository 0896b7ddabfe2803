//! Properties of the decompositions and of the file reader over random input.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod suite;

use proptest::prelude::*;
use rondo_methods::linalg::{least_squares, qr, truncated_svd, truncated_svd_of_product};
use rondo_methods::{Matrix, Tensor, TensorFile, TensorSet};
use rondo_proto::run_file::Dtype;

/// Matrices up to 12 x 12, with repeated rows and zero columns among them.
fn matrix() -> impl Strategy<Value = Matrix> {
    (1_usize..12, 1_usize..12).prop_flat_map(|(rows, cols)| of_shape(rows, cols))
}

fn of_shape(rows: usize, cols: usize) -> impl Strategy<Value = Matrix> {
    let entry = prop_oneof![3 => -10.0..10.0_f64, 1 => Just(0.0), 1 => Just(1.0)];
    proptest::collection::vec(entry, rows * cols).prop_map(move |data| Matrix::new(rows, cols, data))
}

fn distance(a: &Matrix, b: &Matrix) -> f64 {
    let mut difference = a.clone();
    difference.add_scaled(-1.0, b);
    difference.norm()
}

fn orthonormal_columns(q: &Matrix) -> bool {
    distance(&q.transposed().times(q), &Matrix::identity(q.cols())) < 1e-10
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn qr_rebuilds(m in matrix()) {
        let (q, r) = qr(&m).unwrap();
        prop_assert!(orthonormal_columns(&q));
        prop_assert!(distance(&q.times(&r), &m) < 1e-10 * (1.0 + m.norm()));
        for row in 0..r.rows() {
            prop_assert!((0..row.min(r.cols())).all(|col| r.at(row, col) == 0.0));
        }
    }

    #[test]
    fn svd_rebuilds(m in matrix()) {
        let size = m.rows().min(m.cols());
        let svd = truncated_svd(&m, size).unwrap();
        prop_assert!(orthonormal_columns(&svd.u) && orthonormal_columns(&svd.v.transposed()));
        prop_assert!(svd.s.windows(2).all(|pair| pair[0] >= pair[1]) && svd.s.iter().all(|s| *s >= 0.0));
        prop_assert!(distance(&svd.u.times(&Matrix::diagonal(&svd.s)).times(&svd.v), &m) < 1e-10 * (1.0 + m.norm()));
        // Eckart-Young: what a truncation leaves out is the tail of the spectrum.
        let rank = size.div_ceil(2);
        let cut = truncated_svd(&m, rank).unwrap();
        let tail = svd.s[rank..].iter().map(|s| s * s).sum::<f64>().sqrt();
        let left = distance(&cut.u.times(&Matrix::diagonal(&cut.s)).times(&cut.v), &m);
        prop_assert!((left - tail).abs() < 1e-9 * (1.0 + m.norm()));
    }

    #[test]
    fn svd_of_a_product_is_that_of_the_dense_one(
        (left, right, rank) in (1_usize..9, 1_usize..5, 1_usize..9).prop_flat_map(|(rows, inner, cols)| {
            (of_shape(rows, inner), of_shape(inner, cols), 1..=rows.min(cols))
        })
    ) {
        let dense = left.times(&right);
        let (one, two) = (truncated_svd_of_product(&left, &right, rank).unwrap(), truncated_svd(&dense, rank).unwrap());
        prop_assert!(orthonormal_columns(&one.u) && orthonormal_columns(&one.v.transposed()));
        for (a, b) in one.s.iter().zip(&two.s) {
            prop_assert!((a - b).abs() < 1e-9 * (1.0 + dense.norm()));
        }
        let rebuilt = |svd: &rondo_methods::linalg::Svd| distance(&svd.u.times(&Matrix::diagonal(&svd.s)).times(&svd.v), &dense);
        prop_assert!((rebuilt(&one) - rebuilt(&two)).abs() < 1e-9 * (1.0 + dense.norm()));
    }

    #[test]
    fn least_squares_leaves_a_residual_at_right_angles(
        (a, b) in (1_usize..9, 1_usize..9, 1_usize..5).prop_flat_map(|(rows, cols, n)| (of_shape(rows, cols), of_shape(rows, n)))
    ) {
        let x = least_squares(&a, &b).unwrap();
        let mut residual = b.clone();
        residual.add_scaled(-1.0, &a.times(&x));
        prop_assert!(a.transposed().times(&residual).norm() < 1e-6 * (1.0 + a.norm()) * (1.0 + b.norm()));
    }

    #[test]
    fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("garbage");
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(file) = TensorFile::open(&path) {
            prop_assert!(file.read_all(|_| true).is_ok());
        }
    }

    /// A sound file with a few bytes changed or cut off is read or refused, never a panic or a huge
    /// allocation.
    #[test]
    fn damaged_files_are_refused_without_a_panic(
        at in proptest::collection::vec((0_usize..400, any::<u8>()), 1..4),
        cut in 0_usize..40,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("damaged");
        let tensors = TensorSet::from([
            ("a.lora_A".to_owned(), Tensor { shape: vec![2, 3], data: vec![1.0; 6] }),
            ("a.lora_B".to_owned(), Tensor { shape: vec![4], data: vec![2.0; 4] }),
        ]);
        rondo_methods::file::write(&path, &tensors, Dtype::F32, &suite::no_metadata()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - cut);
        for (index, byte) in at {
            let length = bytes.len();
            bytes[index % length] = byte;
        }
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(file) = TensorFile::open(&path) {
            for entry in file.entries() {
                let _ = file.read(&entry.name);
            }
        }
    }

    #[test]
    fn files_give_back_what_was_written(
        values in proptest::collection::vec(any::<f32>(), 1..40_000),
        bf16 in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let dtype = if bf16 { Dtype::Bf16 } else { Dtype::F32 };
        let mut tensor = Tensor { shape: vec![values.len(), 1], data: values };
        let tensors = TensorSet::from([("x.y".to_owned(), tensor.clone()), ("z".to_owned(), Tensor::zeros(&[0, 3]))]);
        rondo_methods::file::write(&path, &tensors, dtype, &[("k".to_owned(), "v".to_owned())].into()).unwrap();
        let file = TensorFile::open(&path).unwrap();
        tensor.round_to(dtype);
        let bits = |data: &[f32]| data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&file.read("x.y").unwrap().data), bits(&tensor.data));
        prop_assert!(file.read("z").unwrap().is_empty());
        prop_assert_eq!(file.metadata().get("k").map(String::as_str), Some("v"));
    }
}

#[test]
fn odd_input_to_decompositions_is_refused() {
    let nan = Matrix::new(2, 2, vec![1.0, f64::NAN, 0.0, 1.0]);
    assert!(qr(&nan).is_err() && truncated_svd(&nan, 1).is_err() && least_squares(&nan, &nan).is_err());
    let one = Matrix::identity(2);
    assert!(truncated_svd(&one, 0).is_err() && truncated_svd(&one, 3).is_err());
    assert_eq!(truncated_svd(&Matrix::zeros(3, 2), 2).unwrap().s, [0.0, 0.0]);
}
