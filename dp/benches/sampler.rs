//! Discrete Gaussian draws: ours, and opendp's for the ratio. `cargo bench -p rondo-dp`

#![allow(missing_docs, reason = "criterion's macro writes an undocumented function")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dashu::rational::RBig;
use opendp::traits::samplers::sample_discrete_gaussian;
use rondo_dp::{DiscreteGaussian, GaussianMechanism, Lattice, SecureRng};

const DRAWS: usize = 100_000;

fn ours(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ours");
    group.throughput(Throughput::Elements(DRAWS as u64));
    for scale in [1u64, 1 << 10, 1 << 20, 1 << 24] {
        let distribution = DiscreteGaussian::new(scale).expect("a scale in range");
        let mut noise = SecureRng::new().expect("randomness");
        group.bench_function(format!("scale {scale}"), |bencher| {
            bencher.iter(|| (0..DRAWS).map(|_| distribution.sample(&mut noise)).fold(0i64, i64::wrapping_add));
        });
    }
    let mut mechanism = GaussianMechanism::new(Lattice::new(1.0, 1.0, DRAWS).expect("a lattice")).expect("a mechanism");
    let sum = vec![1i64; DRAWS];
    group.bench_function("release", |bencher| bencher.iter(|| mechanism.release(&sum).expect("a release")));
    let lattice = *mechanism.lattice();
    let (gradient, mut total) = (vec![0.01f32; DRAWS], vec![0i64; DRAWS]);
    group.bench_function("clip and add", |bencher| {
        bencher.iter(|| lattice.add(&[gradient.as_slice()], &mut total).expect("a contribution"));
    });
    group.finish();
}

fn opendp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("opendp");
    group.throughput(Throughput::Elements(1000)).sample_size(20);
    let scale = RBig::from(1u64 << 20);
    group.bench_function("scale 1048576", |bencher| {
        bencher.iter(|| (0..1000).filter(|_| sample_discrete_gaussian(scale.clone()).is_ok()).count());
    });
    group.finish();
}

criterion_group!(benches, ours, opendp);
criterion_main!(benches);
