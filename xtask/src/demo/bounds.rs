//! What the project promises of a demo.

use super::private;
use super::report::{MethodReport, Report};

/// Held-out accuracy that a full demo reaches at least, by domain.
const ACCURACY: [(&str, f64); 4] = [("movies", 0.75), ("products", 0.80), ("newspaper", 0.75), ("tweets", 0.88)];
/// Aggregation error of a method whose aggregate is exact, in f64 over f32 tensors.
const EXACT: f64 = 1e-6;
/// Wire bytes may exceed the layout's formula by this share and
/// this many bytes: headers of files and messages.
const BYTES_SHARE: f64 = 0.03;
const BYTES_FIXED: f64 = 4096.0;
/// At equal rank fed-sb uploads at least so many times fewer bytes than fedit.
const SMALLER: u64 = 20;
/// The default demo takes no longer, on two cores.
const SECONDS: f64 = 360.0;

/// What a report misses, in words.
pub(crate) fn misses(report: &Report) -> Vec<String> {
    let mut misses = Vec::new();
    for method in &report.methods {
        if let Some(epsilon) = report.epsilon {
            private::misses(method, epsilon, report.fast, &mut misses);
        } else if report.clients == 4 {
            accuracy(method, report.fast, &mut misses);
        }
        errors(method, &mut misses);
        bytes(method, &mut misses);
    }
    let upload = |id: &str| report.methods.iter().find(|method| method.method == id).map(MethodReport::upload);
    // A private demo compares the methods at ranks of their own.
    if let (Some(fed_sb), Some(fedit), None) = (upload("fed-sb"), upload("fedit"), report.epsilon)
        && fed_sb * SMALLER > fedit
    {
        misses.push(format!("fed-sb uploads {fed_sb} bytes, fedit {fedit}: not {SMALLER} times as many"));
    }
    if report.methods.len() == 1
        && report.methods[0].method == "fed-sb"
        && report.epsilon.is_none()
        && report.seconds > SECONDS
    {
        misses.push(format!("the demo took {:.0} s, more than {SECONDS:.0}", report.seconds));
    }
    misses
}

/// Full runs reach the bounds; flora, and the mean over the
/// domains of a fast run, end above where they started.
fn accuracy(method: &MethodReport, fast: bool, misses: &mut Vec<String>) {
    let mut gain = 0.0;
    for (domain, bound) in ACCURACY {
        let client = method.clients.iter().find(|client| client.client == domain);
        let Some((before, after)) = client.and_then(|client| Some((client.before?, client.after?))) else {
            misses.push(format!("{}: {domain} was not measured before and after", method.method));
            continue;
        };
        gain += after - before;
        if fast {
            continue;
        }
        if method.method == "flora" {
            if after <= before {
                misses.push(format!("flora: {domain} went from {before:.3} to {after:.3}"));
            }
        } else if after < bound {
            misses.push(format!("{}: {domain} reached {after:.3}, less than {bound}", method.method));
        }
    }
    if fast && gain <= 0.0 {
        misses.push(format!("{}: mean accuracy went down by {:.3}", method.method, -gain / ACCURACY.len() as f64));
    }
}

fn errors(method: &MethodReport, misses: &mut Vec<String>) {
    for round in method.rounds.iter().filter(|round| round.kind == "training") {
        let id = &method.method;
        match round.aggregation_error {
            None => misses.push(format!("{id}: round {} has no aggregation error", round.round)),
            Some(error) if id != "fedit" && error > EXACT => {
                misses.push(format!("{id}: aggregation error {error:.1e} in round {}", round.round));
            }
            Some(error) if id == "fedit" && error <= EXACT && method.clients.len() > 1 => {
                misses.push(format!("{id}: aggregation error {error:.1e} in round {} is too good", round.round));
            }
            Some(_) => {}
        }
    }
}

fn bytes(method: &MethodReport, misses: &mut Vec<String>) {
    for round in &method.rounds {
        for participant in &round.participants {
            for (way, wire, layout) in [
                ("up", participant.bytes_up, participant.layout_bytes_up),
                ("down", participant.bytes_down, participant.layout_bytes_down),
            ] {
                let wire = wire as f64;
                let layout = layout as f64;
                if (wire - layout).abs() > layout * BYTES_SHARE + BYTES_FIXED {
                    misses.push(format!(
                        "{}: {} in round {}: {wire:.0} bytes {way}, {layout:.0} by the layout",
                        method.method, participant.client, round.round
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::records::{Evaluation, Participant, Round};

    fn method(id: &str, error: f64, up: u64, after: f64) -> MethodReport {
        let measured = |accuracy| Some(Evaluation { loss: 0.1, accuracy, examples: 10, ..Evaluation::default() });
        let participants = ACCURACY.map(|(domain, _)| Participant {
            client: domain.to_owned(),
            bytes_up: up,
            layout_bytes_up: up,
            before: measured(0.5),
            after: measured(after),
            ..Participant::default()
        });
        let round = Round {
            round: 1,
            kind: "training".to_owned(),
            aggregation_error: Some(error),
            participants: participants.to_vec(),
            ..Round::default()
        };
        MethodReport::new(id, "run", vec![round], PathBuf::from("/a"), 1.0).unwrap()
    }

    fn misses_of(methods: Vec<MethodReport>) -> Vec<String> {
        let mut report = Report::new(false, 4, None);
        methods.into_iter().for_each(|method| report.add(method));
        misses(&report)
    }

    #[test]
    fn good_results_miss_nothing() {
        let methods = vec![method("fed-sb", 1e-9, 50_000, 0.9), method("fedit", 0.3, 1_200_000, 0.9)];
        assert_eq!(misses_of(methods), Vec::<String>::new());
    }

    #[test]
    fn each_bound_is_seen_when_missed() {
        assert_eq!(misses_of(vec![method("ffa-lora", 1e-9, 10, 0.79)]).len(), 2, "products and tweets");
        assert_eq!(misses_of(vec![method("flora", 1e-9, 10, 0.5)]).len(), 4, "nothing rose");
        assert_eq!(misses_of(vec![method("flora", 1e-3, 10, 0.6)]).len(), 1, "not exact");
        assert_eq!(misses_of(vec![method("fedit", 1e-9, 10, 0.9)]).len(), 1, "too good");
        let big = vec![method("fed-sb", 1e-9, 100_000, 0.9), method("fedit", 0.3, 1_200_000, 0.9)];
        assert_eq!(misses_of(big).len(), 1, "not 20 times smaller");
        let mut heavy = method("fed-sb", 1e-9, 100_000, 0.9);
        heavy.rounds[0].participants[0].bytes_up = 110_000;
        assert_eq!(misses_of(vec![heavy]).len(), 1, "more bytes than the layout");
    }
}
