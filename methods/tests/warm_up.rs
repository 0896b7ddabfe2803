//! Fed-SB's initialisers: what the warm-up makes of the clients' statistics.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod suite;

use rondo_methods::init::{gradient_sketch, seeded};
use rondo_methods::linalg::truncated_svd;
use rondo_methods::tensor::parts_of;
use rondo_methods::{AggregateOutput, Contribution, Instance, Kind, Matrix, MethodError, Registry, Target, TensorFile};
use suite::{Federation, bytes_of, distance, weighted};

const CLIENTS: [(&str, f64); 3] = [("a", 0.25), ("b", 0.25), ("c", 0.5)];

fn start(rank: usize, options: &str) -> Federation {
    Federation::start(&Registry::builtin(), "fed-sb", rank, options, "")
}

fn mean_gradient(federation: &Federation, target: usize) -> Matrix {
    let terms: Vec<_> = CLIENTS.iter().map(|(c, w)| (*w, vec![federation.gradient(c, target)])).collect();
    weighted(&terms).remove(0)
}

fn parts(federation: &Federation, target: usize) -> [Matrix; 3] {
    let state = federation.state("a", 0);
    let parts = parts_of(&state.tensors, &federation.job.targets()[target].name);
    ["lora_B", "lora_R", "lora_A"].map(|part| parts[part].to_matrix())
}

fn orthonormal(b: &Matrix, a: &Matrix) {
    assert!(distance(&[b.transposed().times(b)], &[Matrix::identity(b.cols())]) < 1e-5);
    assert!(distance(&[a.times(&a.transposed())], &[Matrix::identity(a.rows())]) < 1e-5);
}

/// On these small targets the sketch is wide enough to be exact, so B and A span the mean
/// gradient's leading singular spaces, and R0 is the projected gradient step with the length of the
/// sign step.
#[test]
fn sketch_gives_the_mean_gradients_factors_and_first_step() {
    let federation = start(3, "eta0 = 0.02");
    for (index, target) in federation.job.targets().iter().enumerate() {
        let gradient = mean_gradient(&federation, index);
        let [b, r, a] = parts(&federation, index);
        orthonormal(&b, &a);
        let svd = truncated_svd(&gradient, 3).unwrap();
        let projected = b.times(&b.transposed()).times(&gradient).times(&a.transposed()).times(&a);
        let best = svd.u.times(&Matrix::diagonal(&svd.s)).times(&svd.v);
        assert!(distance(&[projected], std::slice::from_ref(&best)) < 1e-5);
        let step = b.times(&r).times(&a);
        let length = 0.02 * ((target.out * target.inp) as f64).sqrt();
        assert!((step.norm() - length).abs() < 1e-6, "{} instead of {length}", step.norm());
        assert!(distance(&[step], &[best.clone().scaled(-length / best.norm())]) < 1e-5);
    }
}

/// On a larger target with a decaying spectrum the one-pass sketch keeps most of what the true SVD
/// keeps.
#[test]
fn sketch_captures_most_of_a_larger_gradient() {
    let target = Target { name: "large".into(), out: 96, inp: 80 };
    let (rank, oversample) = (8, 8);
    let mut gradient = Matrix::zeros(96, 80);
    for index in 0..80 {
        let column = suite::noise(&format!("u{index}"), &[96, 1], 1.0).to_matrix();
        let row = suite::noise(&format!("v{index}"), &[1, 80], 1.0).to_matrix();
        gradient.add_scaled(0.8_f64.powi(index), &column.times(&row));
    }
    let (k, l) = gradient_sketch::sizes(&target, rank, oversample);
    assert_eq!((k, l), (16, 32));
    let omega = suite::noise("omega", &[k, 80], seeded::sketch_bound(80)).to_matrix();
    let psi = suite::noise("psi", &[96, l], seeded::sketch_bound(96)).to_matrix();
    let (y, z) = (gradient.times(&omega.transposed()), psi.transposed().times(&gradient));
    let energy = |b: &Matrix, a: &Matrix| b.transposed().times(&gradient).times(&a.transposed()).norm().powi(2);
    let sketched = gradient_sketch::reconstruct(&y, &z, &psi, rank).unwrap();
    orthonormal(&sketched.u, &sketched.v);
    let best = truncated_svd(&gradient, rank).unwrap();
    let kept = energy(&sketched.u, &sketched.v) / energy(&best.u, &best.v);
    assert!(kept > 0.95, "{kept}");
    assert!((sketched.s[0] / best.s[0] - 1.0).abs() < 0.01, "{} instead of {}", sketched.s[0], best.s[0]);
}

#[test]
fn start_zero_leaves_the_base_alone() {
    for options in ["start = \"zero\"", "start = \"zero\"\ninit = \"update-approximation\"", "init = \"base-svd\""] {
        let federation = start(2, options);
        let [b, r, a] = parts(&federation, 1);
        orthonormal(&b, &a);
        assert_eq!(r.norm(), 0.0);
    }
}

/// update-approximation: B.R0.A is the best rank-r approximation of -eta0 * sign(mean gradient).
#[test]
fn update_approximation_starts_with_the_truncated_sign_step() {
    let federation = start(4, "init = \"update-approximation\"\neta0 = 0.02");
    for index in 0..federation.job.targets().len() {
        let gradient = mean_gradient(&federation, index);
        let signs: Vec<f64> = gradient.data().iter().map(|g| -0.02 * g.signum()).collect();
        let svd = truncated_svd(&Matrix::new(gradient.rows(), gradient.cols(), signs), 4).unwrap();
        let best = svd.u.times(&Matrix::diagonal(&svd.s)).times(&svd.v);
        let [b, r, a] = parts(&federation, index);
        assert!(distance(&[b.times(&r).times(&a)], &[best]) < 1e-5);
    }
}

/// More than half of the clients hold the same base: their factors are taken and the others named
/// in a note. With two against two nobody is believed.
#[test]
fn clients_with_another_base_are_named() {
    let mut federation = start(2, "init = \"base-svd\"");
    federation.round = 0;
    let clients = [("a", 0.25), ("b", 0.25), ("c", 0.25), ("d", 0.25)];
    let spoil = |updates: &mut [Contribution], differing: &[&str]| {
        for update in updates.iter_mut().filter(|update| differing.contains(&update.client.as_str())) {
            let mut tensors = TensorFile::open(&update.path).unwrap().read_all(|_| true).unwrap();
            for tensor in tensors.values_mut() {
                tensor.data[0] += 0.1;
            }
            federation
                .job
                .write_update(Kind::WarmUp, Instance::in_round(0).with_rank(2), &tensors, &update.path)
                .unwrap();
        }
    };
    let agreed = federation.aggregate(Kind::WarmUp, federation.statistics(&clients), "even").unwrap();
    assert!(agreed.error.is_none() && agreed.notes.is_empty());
    let frozen = |output: &AggregateOutput| bytes_of(output.frozen.as_deref().unwrap());
    for client in ["a", "c"] {
        let mut updates = federation.statistics(&clients);
        spoil(&mut updates, &[client]);
        let output = federation.aggregate(Kind::WarmUp, updates, &format!("outlier-{client}")).unwrap();
        assert_eq!((bytes_of(&output.global), frozen(&output)), (bytes_of(&agreed.global), frozen(&agreed)));
        let [note] = output.notes.as_slice() else { panic!("{:?}", output.notes) };
        assert!(note.starts_with(&format!("client {client}: ")) && note.contains("3 of 3 targets"), "{note}");
    }
    for (all, differing) in [(4, vec!["a", "b"]), (2, vec!["b"])] {
        let mut updates = federation.statistics(&clients[..all]);
        spoil(&mut updates, &differing);
        updates.iter_mut().for_each(|update| update.weight = 1.0 / all as f64);
        match federation.aggregate(Kind::WarmUp, updates, "split") {
            Err(MethodError::Disagree { clients: named, .. }) => {
                let found: Vec<&str> = named.iter().map(|text| text.split(' ').next().unwrap()).collect();
                assert_eq!(found, clients[..all].iter().map(|(client, _)| *client).collect::<Vec<_>>());
            }
            other => panic!("{other:?}"),
        }
    }
}
