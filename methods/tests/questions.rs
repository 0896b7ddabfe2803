//! What methods may answer beyond the built-in ones: offsets, shared starts, combinations, lists of
//! statistics, options, native exports.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod suite;

use rondo_methods::export::peft::{CONFIG_FILE, WEIGHTS_FILE};
use rondo_methods::tensor::{full_name, parts_of};
use rondo_methods::{
    At, Delta, DpSupport, Exactness, ExportInfo, Instance, Job, Kind, LawKind, Matrix, Method, MethodConfig,
    MethodError, Publication, Registry, Start, Tensor, TensorFile, TensorSet, TensorSpec, Travel,
};
use suite::{Federation, base, distance, outside, run_file};

fn start(id: &str, options: &str) -> Federation {
    Federation::start(&outside::registry(), id, 3, options, "")
}

fn shifted(options: &str) -> Federation {
    start("shifted", options)
}

/// The base weight's own factors, less themselves: nothing,
/// until something trains; and then the sum of both.
#[test]
fn an_offset_stands_behind_the_adapter_that_the_run_starts_from() {
    let federation = shifted("");
    let state = federation.state("anna", 0);
    let job = &federation.job;
    assert_eq!(state.merged.len(), 3);
    for (index, target) in job.targets().iter().enumerate() {
        let (owner, delta, parts) = &state.merged[index];
        assert_eq!((*owner, delta.to_string().as_str()), (index, "-1 left.diag(m0).right"));
        let offset = delta.dense(parts).unwrap();
        let own = job.delta(index, state.instance()).dense(&parts_of(&state.tensors, &target.name)).unwrap();
        assert!(offset.norm() > 0.1);
        assert_eq!(own.norm(), offset.norm());
        assert_eq!(job.dense_delta(&state, index).unwrap().norm(), 0.0);
    }
    // A client of a lower rank stands on the same base.
    assert_eq!(federation.state("bert", 1).merged, state.merged);
    // The probe of the warm-up sees the base as it is.
    assert_eq!(job.warm_up_state(3).unwrap().merged, Vec::new());
    // Rounds do not move it, nor does it come twice.
    let mut moved = shifted("");
    for _ in 0..2 {
        let updates = moved.three().iter().map(|trained| moved.upload(trained)).collect();
        moved.finish(Kind::Train, updates).unwrap();
    }
    assert_eq!(moved.state("anna", 0).merged, state.merged);

    // From an adapter, that comes first.
    let other = start("tiled", "start = 0.25");
    let dir = other.dir.path().join("peft");
    other.job.export_peft(&other.state("anna", 0), &dir, &ExportInfo::default()).unwrap();
    let path = other.dir.path().join("initial.safetensors");
    let task = run_file("tiled", 3, "", "").task;
    rondo_methods::start_adapter::convert(&dir, &base(), &task, &path).unwrap();
    let on_top = Federation::of(job.starting_from(&path).unwrap());
    let merged = on_top.state("anna", 0).merged;
    assert_eq!(merged[3..], state.merged);
    let error = on_top.job.native().unwrap_err().to_string();
    assert!(error.contains("the adapter that the run started from; use --format peft"), "{error}");
}

/// One draw for all: a smaller target's tensor is the leading block of a larger one's.
#[test]
fn shared_tensors_are_slices_of_one() {
    let federation = start("woven", "");
    let tensors = federation.job.initial(1, "anna", 0);
    let part = |index: usize, part: &str| &tensors[&full_name(&federation.job.targets()[index].name, part)];
    // Targets of [6, 6], [9, 6] and [5, 9] at rank 3 with five matrices.
    assert_eq!(part(1, "basis").shape, [5, 9, 3]);
    assert_eq!(part(1, "basis").leading(&[5, 6, 3]), *part(0, "basis"));
    assert_eq!(part(1, "basis").leading(&[5, 5, 3]), *part(2, "basis"));
    assert_eq!(part(2, "a").leading(&[3, 6]), *part(0, "a"));
    assert_eq!(part(0, "a"), part(1, "a"));
    // Where a target has its own, they differ.
    let own = Federation::start(&Registry::builtin(), "ffa-lora", 3, "", "");
    let tensors = own.job.initial(1, "anna", 0);
    let a = |index: usize| &tensors[&full_name(&own.job.targets()[index].name, "lora_A")];
    assert_ne!(a(0), a(1));
}

#[test]
fn layouts_and_starts_go_by_target() {
    let federation = start("tiled", "start = 0.25");
    let layout = federation.job.layout(Instance::OF_RUN);
    let names: Vec<&str> = layout.iter().filter(|n| n.target.is_some()).map(|n| n.spec.part.as_str()).collect();
    assert_eq!(names, ["d", "tile", "d", "tile", "d", "drawn"]);
    let deltas: Vec<String> = (0..3).map(|at| federation.job.delta(at, Instance::OF_RUN).to_string()).collect();
    assert_eq!(deltas, ["d^T.tile", "d^T.tile", "d^T.drawn"]);
    let tensors = federation.job.initial(1, "anna", 0);
    let query = parts_of(&tensors, &federation.job.targets()[0].name);
    assert!(query["d"].data.iter().all(|x| *x == 0.25));
    assert_eq!(query["tile"].data[..6], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    // Each output gets each input, through the number of its column.
    let dense = federation.job.dense_delta(&federation.state("anna", 0), 0).unwrap();
    assert_eq!(dense.data(), [0.25; 36]);
}

/// dW = 2 (2 B_1 - B_2).(A_1 + 2 A_2), by hand.
#[test]
fn a_combination_is_a_weighted_sum_of_matrices() {
    let tensor = |shape: &[usize], data: &[f32]| Tensor { shape: shape.to_vec(), data: data.to_vec() };
    let parts = TensorSet::from([
        ("alpha".to_owned(), tensor(&[2], &[1.0, 2.0])),
        ("a".to_owned(), tensor(&[2, 1, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0])),
        ("beta".to_owned(), tensor(&[2], &[2.0, -1.0])),
        ("b".to_owned(), tensor(&[2, 2, 1], &[1.0, 0.0, 0.0, 1.0])),
    ]);
    let delta = Delta::Product(vec![Delta::comb("beta", "b"), Delta::comb("alpha", "a")]).scaled(2.0);
    let expected = Matrix::new(2, 3, vec![4.0, 8.0, 0.0, -2.0, -4.0, 0.0]);
    assert_eq!(delta.dense(&parts).unwrap(), expected);
    assert_eq!(delta.fold(&parts).unwrap().dense(), expected);
    assert_eq!(delta.fold(&parts).unwrap().rank(), 1);
    assert_eq!(delta.apply(&Matrix::identity(3), &parts).unwrap(), expected.transposed());
    assert_eq!(delta.clone().transposed().apply(&Matrix::identity(2), &parts).unwrap(), expected);
    assert_eq!(delta.to_string(), "2 comb(beta, b).comb(alpha, a)");
    assert_eq!(delta.parts(), ["beta", "b", "alpha", "a"]);
    let refused = |weights: &str, basis: &str| Delta::comb(weights, basis).dense(&parts).unwrap_err().to_string();
    assert!(refused("a", "b").contains("needs a vector"));
    assert!(refused("beta", "alpha").contains("needs a list of matrices"));
    let mut other = parts.clone();
    other.insert("beta".to_owned(), tensor(&[3], &[1.0; 3]));
    assert!(Delta::comb("beta", "b").dense(&other).unwrap_err().to_string().contains("cannot be combined"));
}

/// The second statistic is a sum over clients, whatever their shares;
/// and each target's part of the whole is known.
#[test]
fn a_method_sees_the_statistics_of_all_targets() {
    let federation = shifted("");
    let tensors = federation.state("anna", 0).tensors;
    let mut norms = Vec::new();
    for (index, target) in federation.job.targets().iter().enumerate() {
        let mut sum = Matrix::zeros(target.out, target.inp);
        ["a", "b", "c"].iter().for_each(|client| sum.add_scaled(1.0, &federation.gradient(client, index)));
        let ones = Matrix::new(target.inp, 1, vec![1.0; target.inp]);
        norms.push(sum.times(&ones).norm());
    }
    let total: f64 = norms.iter().sum();
    for (norm, target) in norms.iter().zip(federation.job.targets()) {
        let share = f64::from(tensors[&full_name(&target.name, "share")].data[0]);
        assert!((share - norm / total).abs() < 1e-5, "{share} instead of {}", norm / total);
    }
    let steps = federation.job.warm_up();
    assert_eq!(steps.iter().map(|step| (step.examples, step.probes.len())).collect::<Vec<_>>(), [(0, 3), (4, 3)]);
    assert!(federation.job.warm_up_reads_data());
    // The scratch file of the aggregation is gone.
    let files = std::fs::read_dir(federation.dir.path().join("round-0")).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["frozen.safetensors", "global.safetensors"]);
}

/// What a client trains may hang on its name; what it leaves out counts as it was.
#[test]
fn a_client_may_rest_where_others_train() {
    let mut federation = shifted("turns = true");
    let job = &federation.job;
    let sent = |client: &str| job.upload_manifest(Kind::Train, federation.instance(client, 0)).len();
    assert_eq!((sent("anna"), sent("bert")), (5, 4));
    let whole = federation.upload(&federation.train("anna", 1.0, 0, "x")).path;
    let instance = federation.instance("bert", 0);
    assert!(job.check_update(Kind::Train, instance, &whole, None).is_err(), "more than bert may send");
    let mut resting = shifted("rest = [\"query\"]");
    for run in [&mut federation, &mut resting] {
        for _ in 0..2 {
            let before = run.state("observer", 0);
            let trained = run.three();
            let updates = trained.iter().map(|trained| run.upload(trained)).collect();
            let round = run.round;
            assert!(run.finish(Kind::Train, updates).unwrap().error.unwrap() < 1e-6);
            let name = full_name(&run.job.targets()[0].name, "m");
            let moved = run.state("observer", 0).tensors[&name] != before.tensors[&name];
            assert_eq!(moved, run.job.config().names("rest").unwrap().is_empty() || round == 1);
        }
    }
}

#[test]
fn options_of_every_kind_are_checked() {
    let registry = outside::registry();
    let refused =
        |id: &str, option: &str| Job::new(&registry, &run_file(id, 2, option, ""), &base()).unwrap_err().to_string();
    for (id, option, says) in [
        ("tiled", "tiles = \"yes\"", "takes true or false"),
        ("tiled", "start = -1.0", "a finite number of 0 or more"),
        ("woven", "levels = [5]", "a list of whole numbers from 1 to 4"),
        ("woven", "levels = 2", "a list of whole numbers from 1 to 4"),
        ("woven", "levels = [1.5]", "a list of whole numbers from 1 to 4"),
        ("shifted", "kept = 1.5", "a number from 0 to 1"),
        ("shifted", "rest = [\"a\", \"a\"]", "a list of different words"),
        ("shifted", "rest = [\"\"]", "a list of different words"),
        ("shifted", "rest = \"a\"", "a list of different words"),
    ] {
        let text = refused(id, option);
        assert!(text.contains(says), "{option}: {text}");
    }
    let config = start("woven", "levels = [1, 4]").job.config().clone();
    assert_eq!((config.counts("levels"), config.counts("none")), (Some(&[1, 4][..]), None));
    assert_eq!(start("woven", "").job.config().counts("levels"), Some(&[2, 3][..]));
}

#[test]
fn a_native_export_holds_the_methods_own_tensors() {
    let federation = start("tiled", "");
    let state = federation.state("anna", 0);
    let dir = federation.dir.path().join("native");
    let info = ExportInfo { base_model_name: "tiny".into(), ..ExportInfo::default() };
    let report = federation.job.export_native(&state, &dir, &info).unwrap();
    assert!(report.files.iter().all(|file| file.exists()));
    assert_eq!((report.rank, report.parameters), (3, 3 * (6 + 9 + 5)));
    let config = std::fs::read_to_string(dir.join(CONFIG_FILE)).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!((&config["peft_type"], &config["r"]), (&"TILED".into(), &3.into()));
    assert_eq!(config["base_model_name_or_path"], "tiny");
    assert_eq!(config["target_modules"].as_array().unwrap().len(), 3);
    let file = TensorFile::open(&dir.join(WEIGHTS_FILE)).unwrap();
    for target in federation.job.targets() {
        let written = file.read(&format!("base_model.model.{}.tiled_d", target.name)).unwrap();
        assert_eq!(written, state.tensors[&full_name(&target.name, "d")]);
    }
    let refused = |federation: &Federation, info: &ExportInfo| {
        let dir = federation.dir.path().join("refused");
        let error = federation.job.export_native(&federation.state("anna", 0), &dir, info).unwrap_err();
        assert!(!dir.exists());
        error.to_string()
    };
    let text = refused(&federation, &ExportInfo { recompress: Some(1), ..info.clone() });
    assert!(text.contains("re-compression is for plain LoRA"), "{text}");
    let text = refused(&shifted(""), &info);
    assert!(text.contains("the constant change that the method adds to the base; use --format peft"), "{text}");
    let text = refused(&start("tiled", "alpha = 5.0"), &info);
    assert!(text.contains("or use --format peft"), "{text}");
    for method in Registry::builtin().iter() {
        let federation = Federation::start(&Registry::builtin(), method.id(), 2, "", "");
        if method.native(federation.job.config()).is_ok() {
            continue;
        }
        let text = refused(&federation, &info);
        assert!(text.contains("use --format peft"), "{text}");
    }
}

/// A method whose answers can be spoilt one by one.
#[derive(Clone)]
struct Spoilt {
    start: Start,
    shared: Option<&'static str>,
    offset: Option<Delta>,
    publication: Publication,
    fresh: bool,
    refusal: Option<&'static str>,
}

impl Method for Spoilt {
    fn id(&self) -> &str {
        "spoilt"
    }
    fn title(&self) -> &str {
        ""
    }
    fn paper(&self) -> &str {
        ""
    }
    fn layout(&self, _config: &MethodConfig, at: At<'_>) -> Vec<TensorSpec> {
        let mut frozen = TensorSpec::frozen("a", &[at.rank, at.target.inp], self.start);
        frozen.shared = self.shared.map(str::to_owned);
        vec![frozen, TensorSpec::trained("b", &[at.target.out, at.rank], Travel::Both, Start::Zero)]
    }
    fn fresh_each_round(&self, _config: &MethodConfig) -> bool {
        self.fresh
    }
    fn law(&self, _config: &MethodConfig) -> LawKind {
        LawKind::Mean
    }
    fn publication(&self, _config: &MethodConfig) -> Publication {
        self.publication
    }
    fn delta(&self, _config: &MethodConfig, _at: At<'_>) -> Delta {
        Delta::product(&["b", "a"])
    }
    fn offset(&self, _config: &MethodConfig, _at: At<'_>) -> Option<Delta> {
        self.offset.clone()
    }
    fn exactness(&self, _config: &MethodConfig, round: u32) -> Exactness {
        if round == 2 { Exactness::Approximate("in round 2".into()) } else { Exactness::Exact }
    }
    fn dp_support(&self, _config: &MethodConfig) -> DpSupport {
        DpSupport::Unsupported("a test".into())
    }
    fn plain_lora(&self, _config: &MethodConfig) -> Result<(), String> {
        self.refusal.map_or(Ok(()), |why| Err(why.to_owned()))
    }
    fn merges(&self, _config: &MethodConfig) -> Result<(), String> {
        self.refusal.map_or(Ok(()), |why| Err(why.to_owned()))
    }
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let sound = Spoilt {
        start: Start::SeededNormal { std: 1.0 },
        shared: Some("a"),
        offset: None,
        publication: Publication::Replace,
        fresh: false,
        refusal: None,
    };
    let job = |method: &Spoilt| {
        let mut registry = Registry::empty();
        registry.register(Box::new(method.clone())).unwrap();
        Job::new(&registry, &run_file("spoilt", 2, "", ""), &base())
    };
    let refused = |method: Spoilt| job(&method).unwrap_err().to_string();
    for (method, says) in [
        (Spoilt { publication: Publication::Accumulate, ..sound.clone() }, "its publication must be replace"),
        (Spoilt { start: Start::SeededNormal { std: 0.0 }, ..sound.clone() }, "standard deviation"),
        (Spoilt { start: Start::Constant { value: f64::NAN }, ..sound.clone() }, "not finite"),
        (Spoilt { start: Start::Constant { value: 1.0 }, ..sound.clone() }, "shared as `a`, but is not drawn"),
        (Spoilt { start: Start::Tile { period: 0 }, ..sound.clone() }, "a tiling of period 0"),
        (Spoilt { offset: Some(Delta::product(&["b", "a"])), ..sound.clone() }, "`b` is trained, but its offset"),
        (Spoilt { offset: Some(Delta::mat("a")), ..sound.clone() }, "its offset does not fit"),
        (Spoilt { start: Start::SeededUniform { bound: 0.0 }, ..sound.clone() }, "a bound that is not above 0"),
    ] {
        let text = refused(method);
        assert!(text.contains(says), "{says}: {text}");
    }
    let whole = job(&sound).unwrap();
    assert_eq!(whole.exactness(1), Exactness::Exact);
    assert_eq!(whole.exactness_of_run(), Exactness::Approximate("in round 2".into()));

    // Merge and export may say no, and what to use instead.
    let silent =
        job(&Spoilt { refusal: Some("it depends on the token; serve it with rondo-client"), ..sound }).unwrap();
    let state = silent.state(1, "anna", 0, None, &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let peft = silent.export_peft(&state, &out, &ExportInfo::default()).unwrap_err();
    let merged = silent.export_merged(&state, dir.path(), &out, &ExportInfo::default()).unwrap_err();
    for error in [peft, merged] {
        assert!(matches!(error, MethodError::Export(ref why) if why.contains("serve it with")), "{error}");
    }
    assert!(!out.exists());
    let native = silent.native().unwrap_err().to_string();
    assert!(native.contains("use --format merged"), "{native}");
}

/// Of the change that a lower rank holds, what lies outside of its block is the run's.
#[test]
fn lower_ranks_stand_on_the_whole_offset() {
    let mut federation = shifted("");
    let trained = federation.three();
    let updates = trained.iter().map(|trained| federation.upload(trained)).collect();
    federation.finish(Kind::Train, updates).unwrap();
    let [low, high] = [1, 3].map(|rank| federation.deltas(&federation.state("anna", rank)));
    assert!(distance(&low, &high) < 1e-12);
}
