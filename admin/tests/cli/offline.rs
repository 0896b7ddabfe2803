//! The laws on files, against the numbers of hand-computed
//! aggregations: out = 3, in = 2, r = 2, weights 1 and 3.

use std::collections::BTreeMap;
use std::path::Path;

use rondo_methods::{Tensor, TensorFile, TensorSet, file};
use rondo_proto::run_file::Dtype;
use serde_json::Value;

use crate::program::{output_of, rondo};

const A1: [f32; 4] = [1.0, 2.0, 0.0, 1.0];
const A2: [f32; 4] = [-1.0, 0.0, 2.0, 1.0];
const B1: [f32; 6] = [1.0, 0.0, 2.0, 1.0, 0.0, -1.0];
const B2: [f32; 6] = [0.0, 1.0, 1.0, 0.0, 3.0, 2.0];
const R1: [f32; 4] = [1.0, 2.0, 0.0, -1.0];
const R2: [f32; 4] = [3.0, 0.0, 1.0, 1.0];

fn tensor(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor { shape: shape.to_vec(), data: data.to_vec() }
}

fn save(dir: &Path, name: &str, tensors: &[(&str, Tensor)]) {
    let set: TensorSet = tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
    file::write(&dir.join(name), &set, Dtype::F32, &BTreeMap::new()).unwrap();
}

fn lora(dir: &Path, name: &str, a: &[f32], b: &[f32]) {
    save(dir, name, &[("l.query.lora_A", tensor(&[2, 2], a)), ("l.query.lora_B", tensor(&[3, 2], b))]);
}

/// Runs the law with weights 1 and 3; answers the result file and what was printed.
fn aggregate(dir: &Path, method: &str, more: &[&str]) -> (TensorFile, Value) {
    let mut args = vec!["adapter", "aggregate", "--method", method, "--weights", "1,3", "--json"];
    args.extend(more);
    args.extend(["a.safetensors", "b.safetensors", "--out", "out.safetensors"]);
    let (code, out, err) = output_of(&rondo(dir, &args));
    assert_eq!(code, 0, "{err}");
    (TensorFile::open(&dir.join("out.safetensors")).unwrap(), serde_json::from_str(&out).unwrap())
}

fn refused(dir: &Path, args: &[&str]) -> String {
    let (code, _, err) = output_of(&rondo(dir, &[&["adapter"], args].concat()));
    assert_eq!(code, 1, "{err}");
    err
}

#[test]
fn fedit_averages_each_factor_and_says_how_wrong_that_is() {
    let dir = tempfile::tempdir().unwrap();
    lora(dir.path(), "a.safetensors", &A1, &B1);
    lora(dir.path(), "b.safetensors", &A2, &B2);
    let (made, reported) = aggregate(dir.path(), "fedit", &["--alpha", "4"]);
    assert_eq!(made.read("l.query.lora_A").unwrap().data, [-0.5, 0.5, 1.5, 1.0]);
    assert_eq!(made.read("l.query.lora_B").unwrap().data, [0.25, 0.75, 1.25, 0.25, 2.25, 1.25]);
    // ||I - BA||_F / ||I||_F with I the mean of the products; the scale cancels.
    let error = reported["aggregation_error"].as_f64().unwrap();
    assert!((error - 1.452_37 / 8.375_f64.sqrt()).abs() < 1e-5, "{error}");
    assert_eq!(
        (reported["inputs"][1]["weight"].as_f64(), reported["inputs"][1]["rank"].as_u64()),
        (Some(0.75), Some(2))
    );
    assert!(reported["exactness"].as_str().is_some_and(|text| text.starts_with("approximate")));
}

#[test]
fn flora_stacks_and_weighs_one_factor_only() {
    let dir = tempfile::tempdir().unwrap();
    lora(dir.path(), "a.safetensors", &A1, &B1);
    lora(dir.path(), "b.safetensors", &A2, &B2);
    let (made, reported) = aggregate(dir.path(), "flora", &[]);
    assert_eq!(made.read("l.query.lora_A").unwrap(), tensor(&[4, 2], &[0.25, 0.5, 0.0, 0.25, -0.75, 0.0, 1.5, 0.75]));
    let b = [1.0, 0.0, 0.0, 1.0, 2.0, 1.0, 1.0, 0.0, 0.0, -1.0, 3.0, 2.0];
    assert_eq!(made.read("l.query.lora_B").unwrap(), tensor(&[3, 4], &b));
    assert!(reported["aggregation_error"].as_f64().is_some_and(|error| error < 1e-6));
    // With alpha = 4 the scale 2 goes into the weighted factor.
    let (made, _) = aggregate(dir.path(), "flora", &["--alpha", "4"]);
    assert_eq!(made.read("l.query.lora_A").unwrap().data, [0.5, 1.0, 0.0, 0.5, -1.5, 0.0, 3.0, 1.5]);
    assert_eq!(made.read("l.query.lora_B").unwrap().data, b);
}

#[test]
fn flora_mixes_ranks_and_others_do_not() {
    let dir = tempfile::tempdir().unwrap();
    lora(dir.path(), "a.safetensors", &A1, &B1);
    let narrow = [("l.query.lora_A", tensor(&[1, 2], &A2[..2])), ("l.query.lora_B", tensor(&[3, 1], &[0.0, 1.0, 3.0]))];
    save(dir.path(), "b.safetensors", &narrow);
    let (made, reported) = aggregate(dir.path(), "flora", &["--ranks", "2,1"]);
    assert_eq!(made.shape("l.query.lora_A"), Some(&[3, 2][..]));
    assert!(reported["aggregation_error"].as_f64().is_some_and(|error| error < 1e-6));
    let files = ["a.safetensors", "b.safetensors", "--out", "out.safetensors"];
    let args = |method, more: &[&'static str]| [&["aggregate", "--method", method], more, &files].concat();
    assert!(refused(dir.path(), &args("fedit", &[])).contains("ranks [2, 1] differ"));
    let error = refused(dir.path(), &args("flora", &["--ranks", "2,2"]));
    assert!(error.contains("has rank 1, expected 2"), "{error}");
}

#[test]
fn ffa_lora_averages_b_and_measures_with_the_frozen_a() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "a.safetensors", &[("l.query.lora_B", tensor(&[3, 2], &B1))]);
    save(dir.path(), "b.safetensors", &[("l.query.lora_B", tensor(&[3, 2], &B2))]);
    let (made, reported) = aggregate(dir.path(), "ffa-lora", &[]);
    assert_eq!(made.read("l.query.lora_B").unwrap().data, [0.25, 0.75, 1.25, 0.25, 2.25, 1.25]);
    assert!(
        reported["aggregation_error"].is_null()
            && reported["notes"][0].as_str().is_some_and(|note| note.contains("--frozen"))
    );
    save(dir.path(), "frozen.safetensors", &[("l.query.lora_A", tensor(&[2, 2], &A1))]);
    let (_, reported) = aggregate(dir.path(), "ffa-lora", &["--frozen", "frozen.safetensors"]);
    assert!(reported["aggregation_error"].as_f64().is_some_and(|error| error < 1e-6));
}

#[test]
fn fed_sb_averages_r_and_the_head_comes_along() {
    let dir = tempfile::tempdir().unwrap();
    let with_head = |r: &[f32], bias: f32| {
        [
            ("l.query.lora_R", tensor(&[2, 2], r)),
            ("head.weight", tensor(&[1, 2], &[bias, 0.0])),
            ("head.bias", tensor(&[1], &[bias])),
        ]
    };
    save(dir.path(), "a.safetensors", &with_head(&R1, 4.0));
    save(dir.path(), "b.safetensors", &with_head(&R2, 8.0));
    let b = tensor(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    let a = tensor(&[2, 2], &[0.6, 0.8, -0.8, 0.6]);
    save(dir.path(), "frozen.safetensors", &[("l.query.lora_A", a), ("l.query.lora_B", b)]);
    let (made, reported) = aggregate(dir.path(), "fed-sb", &["--frozen", "frozen.safetensors"]);
    assert_eq!(made.read("l.query.lora_R").unwrap().data, [2.5, 0.5, 0.75, 0.5]);
    assert_eq!(made.read("head.weight").unwrap().data, [7.0, 0.0]);
    assert_eq!(made.read("head.bias").unwrap().data, [7.0]);
    assert_eq!(reported["targets"], serde_json::json!(["l.query"]));
    assert!(reported["aggregation_error"].as_f64().is_some_and(|error| error < 1e-6));
    // Without weights all count alike.
    let args =
        ["adapter", "aggregate", "--method", "fed-sb", "a.safetensors", "b.safetensors", "--out", "u.safetensors"];
    assert_eq!(exit_code(dir.path(), &args), 0);
    let uniform = TensorFile::open(&dir.path().join("u.safetensors")).unwrap();
    assert_eq!(uniform.read("l.query.lora_R").unwrap().data, [2.0, 1.0, 0.5, 0.0]);
}

fn exit_code(dir: &Path, args: &[&str]) -> i32 {
    output_of(&rondo(dir, args)).0
}

#[test]
fn files_that_do_not_fit_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    lora(dir.path(), "a.safetensors", &A1, &B1);
    let aggregate = |files: &[&'static str]| {
        refused(dir.path(), &[&["aggregate", "--method", "fedit", "--out", "out.safetensors"], files].concat())
    };
    save(dir.path(), "typo.safetensors", &[("l.query.lora_a", tensor(&[2, 2], &A1))]);
    let error = aggregate(&["typo.safetensors"]);
    assert!(
        error.contains("`l.query.lora_a` [2, 2] is none of") && error.contains("did you mean `lora_A`?"),
        "{error}"
    );
    save(
        dir.path(),
        "wide.safetensors",
        &[("l.query.lora_A", tensor(&[2, 3], &[0.0; 6])), ("l.query.lora_B", tensor(&[3, 2], &B1))],
    );
    let error = aggregate(&["a.safetensors", "wide.safetensors"]);
    assert!(error.contains("is [2, 2] in a.safetensors and [2, 3] in wide.safetensors"), "{error}");
    save(dir.path(), "half.safetensors", &[("l.query.lora_A", tensor(&[2, 2], &A1))]);
    let error = aggregate(&["a.safetensors", "half.safetensors"]);
    assert!(error.contains("half.safetensors has no tensor `l.query.lora_B`"), "{error}");
    std::fs::write(dir.path().join("junk.safetensors"), b"junk that is no tensor file").unwrap();
    assert!(aggregate(&["junk.safetensors"]).contains("junk.safetensors"));
    assert!(aggregate(&["absent.safetensors"]).contains("absent.safetensors"));
}

#[test]
fn tensors_of_one_name_in_several_files_are_compared_file_by_file() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["one", "two"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
        lora(dir.path(), &format!("{folder}/x.safetensors"), &A1, &B1);
    }
    lora(dir.path(), "one/y.safetensors", &A1, &B1);
    lora(dir.path(), "two/y.safetensors", &A1, &B2);
    let compare = |a: &str, b: &str| {
        let (code, out, _) = output_of(&rondo(dir.path(), &["adapter", "diff", a, b, "--tolerance", "0", "--json"]));
        let compared: Value = serde_json::from_str(&out).unwrap();
        let row = |row: &Value| (row["name"].as_str().unwrap().to_owned(), row["relative"].as_f64());
        (code, compared["tensors"].as_array().unwrap().iter().map(row).collect::<BTreeMap<_, _>>())
    };
    let (code, rows) = compare("one", "two");
    assert_eq!((code, rows.len()), (1, 4));
    assert_eq!(rows["x.safetensors: l.query.lora_B"], Some(0.0));
    assert!(rows["y.safetensors: l.query.lora_B"].is_some_and(|relative| relative > 1.0));
    // Against one file of the folder the other file's tensors are on one side only.
    let (code, rows) = compare("one", "two/x.safetensors");
    assert_eq!(
        (code, rows["x.safetensors: l.query.lora_A"], rows["y.safetensors: l.query.lora_A"]),
        (1, Some(0.0), None)
    );
}

#[test]
fn adapters_are_compared_and_inspected() {
    let dir = tempfile::tempdir().unwrap();
    lora(dir.path(), "a.safetensors", &A1, &B1);
    lora(dir.path(), "b.safetensors", &A1, &B2);
    let run = |args: &[&str]| output_of(&rondo(dir.path(), &[&["adapter"], args].concat()));
    let (code, out, _) = run(&["diff", "a.safetensors", "a.safetensors", "--tolerance", "0"]);
    assert!(code == 0 && out.contains("0.000e0"), "{out}");
    let (code, out, err) = run(&["diff", "a.safetensors", "b.safetensors", "--tolerance", "1e-6", "--json"]);
    let compared: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 1, "{err}");
    assert_eq!(compared["tensors"][0]["relative"], 0.0);
    // ||B1 - B2|| / ||B2|| = sqrt(22 / 15)
    assert!(compared["tensors"][1]["relative"].as_f64().is_some_and(|x| (x - (22.0_f64 / 15.0).sqrt()).abs() < 1e-12));
    let (code, out, _) = run(&["inspect", "a.safetensors"]);
    assert!(
        code == 0 && out.contains("l.query.lora_B") && out.contains("[3, 2]") && out.contains("10 numbers"),
        "{out}"
    );
    let error = refused(dir.path(), &["inspect", "nothing"]);
    assert!(error.contains("nothing"), "{error}");
}
