//! Finite updates whose aggregate is not: the round fails by name, and the same round with sound
//! updates works.
#![allow(clippy::unwrap_used, reason = "a test ends where a step fails")]

mod suite;

use rondo_methods::{Kind, MethodError, Registry, TensorFile};
use suite::Federation;

fn is_finite(path: &std::path::Path) -> bool {
    let tensors = TensorFile::open(path).unwrap().read_all(|_| true).unwrap();
    tensors.values().flat_map(|tensor| &tensor.data).all(|number| number.is_finite())
}

#[test]
fn every_method_and_server_optimiser_gives_finite_results_or_names_the_target() {
    let registry = Registry::builtin();
    let server = |optimiser: &str| format!("[server]\noptimiser = \"{optimiser}\"\nlr = 1e30\n");
    let rests = [String::new(), server("fed-avg-m"), server("fed-adam"), server("fed-yogi")];
    let mut refused = 0;
    for method in registry.iter() {
        for rest in &rests {
            let config = suite::run_file(method.id(), 3, "", "");
            let job = rondo_methods::Job::new(&registry, &config, &suite::base()).unwrap();
            if !rest.is_empty() && job.method().server_steps(job.config()).is_err() {
                continue;
            }
            for huge in [1e20_f32, 1e30, 3.0e38] {
                let federation = Federation::start(&registry, method.id(), 3, "", rest);
                let mut trained = federation.three();
                let sound = trained.clone();
                let culprit = trained[1].client.clone();
                let moved: Vec<String> =
                    trained[1].tensors.keys().filter(|n| !n.starts_with("head.")).cloned().collect();
                for name in moved {
                    trained[1].tensors.get_mut(&name).unwrap().data.iter_mut().for_each(|x| *x = huge.copysign(*x));
                }
                let updates = trained.iter().map(|trained| federation.upload(trained)).collect();
                let case = format!("{} {rest} {huge:e}", method.id());
                match federation.aggregate(Kind::Train, updates, "huge") {
                    Ok(output) => {
                        assert!(is_finite(&output.global) && output.error.is_none_or(f64::is_finite), "{case}");
                        assert!(output.server_state.iter().chain(&output.frozen).all(|path| is_finite(path)), "{case}");
                    }
                    Err(error @ MethodError::NotFinite { .. }) => {
                        refused += 1;
                        assert!(error.to_string().contains(&format!("of {culprit}")), "{case}: {error}");
                    }
                    Err(error) => assert!(error.to_string().contains("target `"), "{case}: {error}"),
                }
                if !rest.contains("server") {
                    let updates = sound.iter().map(|trained| federation.upload(trained)).collect();
                    federation.aggregate(Kind::Train, updates, "sound").unwrap();
                }
            }
        }
    }
    assert!(refused > 0);
}
