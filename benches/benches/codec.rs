//! How fast tensors are written to and read from safetensors files.
#![allow(missing_docs)] // criterion's macros make a public function.

use std::collections::BTreeMap;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rondo_benches::{drawn, encoder_shapes, example_run};
use rondo_methods::{Instance, Job, Kind, Registry, TensorFile, file};
use rondo_proto::run_file::Dtype;

fn codec(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let run = example_run("fedit").expect("the examples are part of the repository and tested");
    let job = Job::new(&Registry::builtin(), &run, &encoder_shapes()).expect("the example fits the encoder");
    let tensors = drawn(&job.upload_manifest(Kind::Train, Instance::in_round(1)), 1);
    let mut group = criterion.benchmark_group("safetensors");
    for (name, dtype) in [("f32", Dtype::F32), ("bf16", Dtype::Bf16)] {
        let path = dir.path().join(name);
        let bytes = file::write(&path, &tensors, dtype, &BTreeMap::new()).expect("a temporary file can be written");
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(BenchmarkId::new("write", name), |bench| {
            bench.iter(|| file::write(&path, &tensors, dtype, &BTreeMap::new()));
        });
        group.bench_function(BenchmarkId::new("read", name), |bench| {
            bench.iter(|| TensorFile::open(&path).and_then(|file| file.read_all(|_| true)));
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
