//! A warm-up: the clients' statistics become one, and then each target's first tensors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rondo_proto::run_file::Dtype;

use super::engine::{ClientTensors, DenseMean, TargetPlan};
use super::input::{AggregateInput, Contribution};
use super::outliers::OutlierSummary;
use super::target_files::{TargetFiles, assemble, read_parts};
use crate::at::Instance;
use crate::error::MethodError;
use crate::file::TensorWriter;
use crate::job::Job;
use crate::law::LawContext;
use crate::layout::{NamedSpec, Start, TensorSpec};
use crate::tensor::{TensorSet, full_name};
use crate::warm_up::{Statistics, WarmUp};

/// The statistics of all targets, in a scratch file that is gone with this. So one target's are in
/// memory at a time, and a method can still ask for those of all.
pub(super) struct AggregatedStatistics {
    path: PathBuf,
}

impl AggregatedStatistics {
    /// Makes one of the clients' statistics, target by target; `absorbed` is called after each.
    pub(super) fn new(
        job: &Job,
        input: &AggregateInput<'_>,
        outliers: &mut OutlierSummary,
        absorbed: impl Fn(),
    ) -> Result<Self, MethodError> {
        let aggregated = Self { path: input.out_dir.join("statistics.safetensors") };
        let sent = |named: NamedSpec| named.spec.travel.goes_up().then_some((named.name, named.spec.shape));
        let announced = job.warm_up_layout().into_iter().filter_map(sent).collect();
        let mut writer = TensorWriter::create(&aggregated.path, announced, Dtype::F32, &BTreeMap::new())?;
        for (index, probes) in job.probes().iter().enumerate() {
            let target = &job.targets()[index].name;
            for probe in probes {
                let statistic = aggregate(job, input, outliers, index, probe)?;
                for spec in sent_specs(probe) {
                    let name = full_name(target, &spec.part);
                    let place = || "the clients' statistics".to_owned();
                    let missing = || MethodError::Missing { tensor: name.clone(), place: place() };
                    writer.write(&name, statistic.get(&spec.part).ok_or_else(missing)?)?;
                }
            }
            absorbed();
        }
        writer.finish()?;
        Ok(aggregated)
    }

    /// What the method makes of them for one target.
    pub(super) fn finish(&self, job: &Job, index: usize) -> Result<TargetFiles, MethodError> {
        let read = |index: usize| {
            let probes = &job.probes()[index];
            let sent: Vec<String> = probes.iter().flat_map(sent_specs).map(|spec| spec.part.clone()).collect();
            let mut statistic = read_parts(&self.path, &job.targets()[index].name, &sent)?;
            probes.iter().for_each(|probe| statistic.extend(job.probe_partners(index, probe)));
            Ok(statistic)
        };
        let statistics = Statistics { targets: job.targets(), read: &read };
        let at = job.at(index, Instance::OF_RUN);
        let made = job.method().finish_warm_up(job.config(), at, &statistics)?;
        assemble(job, index, made, |named| named.spec.start == Start::Artefact)
    }
}

impl Drop for AggregatedStatistics {
    fn drop(&mut self) {
        // A scratch file that stays disturbs nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn sent_specs(probe: &WarmUp) -> impl Iterator<Item = &TensorSpec> {
    probe.layout.iter().filter(|spec| spec.travel.goes_up())
}

/// One statistic of one target, by part name.
fn aggregate(
    job: &Job,
    input: &AggregateInput<'_>,
    outliers: &mut OutlierSummary,
    index: usize,
    probe: &WarmUp,
) -> Result<TensorSet, MethodError> {
    let target = &job.targets()[index].name;
    let sent: Vec<String> = sent_specs(probe).map(|spec| spec.part.clone()).collect();
    let seeded = job.probe_partners(index, probe);
    let plan = TargetPlan {
        law: probe.law,
        context: LawContext::of(target),
        updates: &input.updates,
        dense_mean: DenseMean::Skipped,
    };
    let read = |update: &Contribution| {
        let mut tensors = read_parts(&update.path, target, &sent)?;
        tensors.extend(seeded.clone());
        Ok(ClientTensors { delta: probe.delta.clone(), tensors, sent: sent.clone() })
    };
    let output = plan.run(read, || ())?.output;
    outliers.add(target, output.outliers);
    Ok(output.tensors)
}
