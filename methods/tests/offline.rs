//! The laws on files alone: what is refused, and what the error is measured on.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

use std::path::PathBuf;

use rondo_methods::{
    Contribution, Matrix, MethodConfig, MethodError, OfflineInput, OfflineOutput, Registry, Tensor, TensorFile,
    TensorSet, aggregate_files, file,
};
use rondo_proto::run_file::{Dtype, MethodChoice};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file of one target `t.q` of shape [out, inp] at some rank, with made-up numbers.
    fn save(&self, name: &str, rank: usize, shape: (usize, usize), dtype: Dtype, change: impl Fn(&mut TensorSet)) {
        let tensor = |salt: f32, shape: [usize; 2]| {
            // Of full rank, unlike the sine of a sum.
            let number = |index: usize| ((index * index) as f32 * 0.37 + salt).sin();
            Tensor { shape: shape.to_vec(), data: (0..shape[0] * shape[1]).map(number).collect() }
        };
        let salt = f32::from(name.as_bytes()[0]);
        let mut tensors = TensorSet::from([
            ("t.q.lora_A".to_owned(), tensor(salt, [rank, shape.1])),
            ("t.q.lora_B".to_owned(), tensor(-salt, [shape.0, rank])),
        ]);
        change(&mut tensors);
        file::write(&self.path(name), &tensors, dtype, &[].into()).unwrap();
    }

    fn aggregate(&self, method: &str, files: &[(&str, usize)]) -> Result<OfflineOutput, MethodError> {
        self.aggregate_from(method, files, None)
    }

    fn aggregate_from(
        &self,
        method: &str,
        files: &[(&str, usize)],
        global: Option<&str>,
    ) -> Result<OfflineOutput, MethodError> {
        let registry = Registry::builtin();
        let method = registry.get(method).unwrap();
        let choice =
            MethodChoice { id: method.id().into(), rank: 3, alpha: None, targets: Vec::new(), options: [].into() };
        let config = MethodConfig::new(&choice, method.options(), 1e-3, 0).unwrap();
        let weight = 1.0 / files.len() as f64;
        let update =
            |&(name, rank): &(&str, usize)| Contribution { client: name.into(), weight, rank, path: self.path(name) };
        let updates: Vec<Contribution> = files.iter().map(update).collect();
        let out = self.path("out");
        let global = global.map(|name| self.path(name));
        let global = global.as_deref();
        aggregate_files(&OfflineInput { method, config: &config, updates: &updates, frozen: None, global, out: &out })
    }

    fn delta(&self, name: &str) -> Matrix {
        let file = TensorFile::open(&self.path(name)).unwrap();
        let part = |part: &str| file.read(&format!("t.q.{part}")).unwrap().to_matrix();
        part("lora_B").times(&part("lora_A"))
    }
}

/// The error that is reported is that of the file that was written, bf16 and all.
#[test]
fn the_error_is_that_of_the_written_numbers() {
    for (method, dtype, bounds) in [
        ("flora", Dtype::F32, 0.0..1e-6),
        ("flora", Dtype::Bf16, 1e-4..1e-2),
        ("fedit", Dtype::F32, 0.1..10.0),
        ("fedit", Dtype::Bf16, 0.1..10.0),
    ] {
        let folder = Folder::new();
        let names = ["a", "b", "c"];
        names.iter().for_each(|name| folder.save(name, 3, (7, 5), dtype, |_| {}));
        let error = folder.aggregate(method, &names.map(|name| (name, 3))).unwrap().error.unwrap();
        let mut mean = Matrix::zeros(7, 5);
        names.iter().for_each(|name| mean.add_scaled(1.0 / 3.0, &folder.delta(name)));
        let mut difference = folder.delta("out");
        difference.add_scaled(-1.0, &mean);
        let measured = difference.norm() / mean.norm();
        assert!((error - measured).abs() < 1e-12, "{method} {dtype:?}: reported {error:e}, measured {measured:e}");
        assert!(bounds.contains(&error), "{method} {dtype:?}: {error:e}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused_by_name() {
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for (name, data) in [("t.q.lora_B", 4), ("head.bias", 1)] {
            let folder = Folder::new();
            let head = |tensors: &mut TensorSet| {
                tensors.insert("head.bias".into(), Tensor { shape: vec![2], data: vec![0.5; 2] });
            };
            folder.save("a", 3, (7, 5), Dtype::F32, head);
            folder.save("b", 3, (7, 5), Dtype::F32, |tensors| {
                head(tensors);
                tensors.get_mut(name).unwrap().data[data] = broken;
            });
            for method in ["flora", "fedit"] {
                let error = folder.aggregate(method, &[("a", 3), ("b", 3)]).unwrap_err().to_string();
                let expected = format!("b: tensor `{name}` holds {broken} at position {data}");
                assert!(error.contains(&expected), "{method}: {error}");
            }
            assert!(!folder.path("out").exists());
        }
    }
}

/// Finite factors with an infinite result: nothing is written, and target and file are named.
#[test]
fn results_that_are_not_finite_are_refused_by_name() {
    for (method, scale) in [("flexlora", 1e21_f32), ("fedex-lora", 1e25), ("flora", 3.0e38)] {
        let folder = Folder::new();
        folder.save("a", 3, (7, 5), Dtype::F32, |_| {});
        folder.save("b", 3, (7, 5), Dtype::F32, |tensors| {
            tensors.values_mut().flat_map(|tensor| &mut tensor.data).for_each(|x| *x *= scale);
        });
        match folder.aggregate(method, &[("a", 3), ("b", 3)]) {
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("t.q") && error.contains("of b;"), "{method}: {error}");
                assert!(!error.contains("of a"), "{method}: {error}");
                assert!(!folder.path("out").exists(), "{method}");
            }
            Ok(made) => {
                assert!(method == "flora" && made.error.is_none_or(f64::is_finite), "{method}");
                let out = TensorFile::open(&folder.path("out")).unwrap().read_all(|_| true).unwrap();
                assert!(out.values().flat_map(|tensor| &tensor.data).all(|x| x.is_finite()), "{method}");
            }
        }
        // The sound file alone still works.
        folder.aggregate(method, &[("a", 3)]).unwrap();
    }
}

#[test]
fn targets_of_different_size_are_refused() {
    for (shape, expected) in [((7, 6), "[7, 6]"), ((8, 5), "[8, 5]")] {
        let folder = Folder::new();
        folder.save("a", 3, (7, 5), Dtype::F32, |_| {});
        folder.save("b", 3, shape, Dtype::F32, |_| {});
        for method in ["flora", "fedit"] {
            let error = folder.aggregate(method, &[("a", 3), ("b", 3)]).unwrap_err().to_string();
            assert!(error.contains("`t.q`") && error.contains(&expected.replace(['[', ']'], "")), "{method}: {error}");
        }
        // Where the change cannot be formed, the tensors are still compared.
        for name in ["a", "b"] {
            let shape = if name == "a" { (7, 5) } else { (8, 5) };
            folder.save(name, 3, shape, Dtype::F32, |tensors| drop(tensors.remove("t.q.lora_A")));
        }
        let error = folder.aggregate("ffa-lora", &[("a", 3), ("b", 3)]).unwrap_err().to_string();
        assert!(error.contains("t.q.lora_B") && error.contains("[8, 3]"), "{error}");
    }
}

#[test]
fn factors_that_do_not_meet_are_refused() {
    let folder = Folder::new();
    folder.save("a", 3, (7, 5), Dtype::F32, |tensors| {
        tensors.insert("t.q.lora_A".into(), Tensor { shape: vec![2, 5], data: vec![1.0; 10] });
    });
    for method in ["flora", "fedit"] {
        assert!(matches!(folder.aggregate(method, &[("a", 3)]), Err(MethodError::Delta { .. })));
    }
}

#[test]
fn stacks_of_mixed_ranks_have_the_height_of_their_files() {
    let folder = Folder::new();
    for (name, rank) in [("a", 3), ("b", 1), ("c", 2)] {
        folder.save(name, rank, (7, 5), Dtype::F32, |_| {});
    }
    assert!(folder.aggregate("flora", &[("a", 3), ("b", 1), ("c", 2)]).unwrap().error.unwrap() < 1e-6);
    assert_eq!(TensorFile::open(&folder.path("out")).unwrap().shape("t.q.lora_B"), Some(&[7, 6][..]));
}

/// Zero padding, truncation and residuals measure themselves on files too.
#[test]
fn every_law_works_on_files() {
    for (method, ranks, error) in [
        ("zero-pad", [3, 1, 2], 1e-2..10.0),
        ("flexlora", [3, 1, 2], 1e-3..1.0),
        ("fedex-lora", [3, 3, 3], 0.0..1e-6),
        ("flora", [3, 1, 2], 0.0..1e-6),
    ] {
        let folder = Folder::new();
        let files: Vec<(&str, usize)> = ["a", "b", "c"].into_iter().zip(ranks).collect();
        files.iter().for_each(|(name, rank)| folder.save(name, *rank, (7, 5), Dtype::F32, |_| {}));
        let reported = folder.aggregate(method, &files).unwrap().error.unwrap();
        assert!(error.contains(&reported), "{method}: {reported:e}");
    }
}

/// Leading blocks need what lies outside of them, and say so.
#[test]
fn blocks_need_the_global_file() {
    let folder = Folder::new();
    for (name, rank) in [("a", 3), ("b", 1), ("global", 3)] {
        folder.save(name, rank, (7, 5), Dtype::F32, |tensors| drop(tensors.remove("t.q.lora_A")));
    }
    let files = [("a", 3), ("b", 1)];
    let error = folder.aggregate("ffa-lora", &files).unwrap_err().to_string();
    assert!(error.contains("at rank 1 of 3") && error.contains("published file"), "{error}");
    folder.aggregate_from("ffa-lora", &files, Some("global")).unwrap();
    let read = |name: &str| TensorFile::open(&folder.path(name)).unwrap().read("t.q.lora_B").unwrap();
    let (a, b, global, out) = (read("a"), read("b"), read("global"), read("out"));
    for index in 0..21 {
        let other = if index % 3 == 0 { b.data[index / 3] } else { global.data[index] };
        assert!((out.data[index] - (a.data[index] + other) / 2.0).abs() < 1e-6, "[{index}]");
    }
}
