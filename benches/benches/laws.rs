//! How long a round's aggregation takes, files in and files out, by method and number of clients.
#![allow(missing_docs)] // criterion's macros make a public function.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rondo_benches::{METHODS, Round};

fn laws(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aggregate");
    group.sample_size(10);
    for method in METHODS {
        for clients in [4, 16] {
            let round = Round::of(method, clients).expect("an example run can be aggregated");
            group.bench_function(BenchmarkId::new(method, clients), |bench| {
                bench.iter(|| round.aggregate().expect("the updates fit the run"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, laws);
criterion_main!(benches);
