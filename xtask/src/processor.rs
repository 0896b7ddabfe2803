//! The processor at hand, and the trainer's tests as older ones run them: libtorch, oneDNN and MKL
//! choose their kernels by the instructions that they find, and each can be held to fewer.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::cargo::{cargo, step};
use crate::paths::Paths;
use crate::process;

/// Instruction sets below the processor's own: a name, and the values of [`VARIABLES`].
const INSTRUCTION_SETS: [(&str, [&str; 3]); 2] =
    [("AVX2", ["avx2", "AVX2", "AVX2"]), ("the oldest", ["default", "SSE41", "SSE4_2"])];

/// What holds libtorch, oneDNN and MKL to an instruction set.
const VARIABLES: [&str; 3] = ["ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"];

/// Flags that decide which kernels are chosen.
const FLAGS: [&str; 9] =
    ["sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_tile"];

/// The processor's name, and which of the deciding flags it has, in one line.
pub(crate) fn described() -> String {
    describe(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn describe(cpuinfo: &str) -> String {
    let value = |key: &str| {
        let values = cpuinfo.lines().filter_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
        values.map(str::trim).next().unwrap_or_default()
    };
    let all: Vec<&str> = value("flags").split_whitespace().collect();
    let flags: Vec<&str> = FLAGS.into_iter().filter(|flag| all.contains(flag)).collect();
    let name = match value("model name") {
        "" => std::env::consts::ARCH,
        name => name,
    };
    match flags.is_empty() {
        true => format!("processor: {name}"),
        false => format!("processor: {name} ({})", flags.join(" ")),
    }
}

/// Runs the trainer's tests, which are built already, under each of the older instruction sets.
pub(crate) fn test_instruction_sets(paths: &Paths) -> Result<()> {
    let mut figures = Vec::new();
    for (name, values) in INSTRUCTION_SETS {
        step(&format!("the trainer's tests with {name} instructions"));
        let started = Instant::now();
        process::run(&mut trainer_tests(paths, values)).with_context(|| format!("with {name} instructions"))?;
        figures.push(format!("{name}: passed in {:.0} s", started.elapsed().as_secs_f64()));
    }
    println!("\n{}", described());
    println!("its own instructions: passed above");
    figures.iter().for_each(|figure| println!("{figure}"));
    Ok(())
}

fn trainer_tests(paths: &Paths, values: [&str; 3]) -> Command {
    let mut command = cargo(paths);
    // The whole workspace, as in the run before: cargo picks features by what is asked for.
    command.args(["test", "--workspace", "--locked", "--test", "trainer"]);
    command.envs(VARIABLES.into_iter().zip(values));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_described_by_its_name_and_the_flags_that_matter() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Example 9000\nflags\t\t: fpu sse4_2 avx2 avx512f avx512_fp16\n\n\
                       processor\t: 1\nmodel name\t: Example 9000\n";
        assert_eq!(describe(cpuinfo), "processor: Example 9000 (sse4_2 avx2 avx512f avx512_fp16)");
        assert_eq!(describe(""), format!("processor: {}", std::env::consts::ARCH));
    }
}
