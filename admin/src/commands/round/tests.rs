use super::*;

fn record() -> RoundRecord {
    let after = |accuracy, examples| Some(Evaluation { loss: 0.5, accuracy, examples, ..Default::default() });
    let client = |name: &str, weight, train_loss, after| Participant {
        client: name.to_owned(),
        state: "accepted".to_owned(),
        weight,
        train_loss,
        after,
        bytes_up: 1020,
        layout_bytes_up: 1000,
        ..Participant::default()
    };
    let gone = Participant {
        client: "c".to_owned(),
        state: "dropped".to_owned(),
        reason: "deadline".to_owned(),
        ..Participant::default()
    };
    RoundRecord {
        run: "sentiment".to_owned(),
        round: 2,
        kind: "training".to_owned(),
        aggregation_error: Some(3e-8),
        participants: vec![client("a", 0.25, 1.0, after(0.5, 300)), client("b", 0.75, 2.0, after(0.9, 100)), gone],
        ..RoundRecord::default()
    }
}

#[test]
fn an_open_round_is_marked() {
    let closed = RoundRecord { started_at_ms: 1000, ended_at_ms: 6000, ..record() };
    let text = list(&[closed, RoundRecord { round: 3, ended_at_ms: 0, ..record() }]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].starts_with('2') && lines[1].ends_with("5 s"), "{text}");
    assert!(lines[2].starts_with('3') && lines[2].ends_with("open"), "{text}");
}

#[test]
fn an_error_is_judged_by_what_the_wire_can_carry() {
    for (error, f32, bf16) in [
        (1e-8, "exact to rounding", "exact to rounding"),
        (3e-3, "approximate", "within the rounding of bf16"),
        (0.2, "approximate", "approximate"),
        (f64::NAN, "approximate", "approximate"),
    ] {
        assert_eq!((verdict_on(error, Dtype::F32), verdict_on(error, Dtype::Bf16)), (f32, bf16), "{error}");
    }
    assert_eq!((wire(""), wire("[wire]")), (Dtype::F32, Dtype::F32));
    let run = |wire: &str| {
        format!(
            "name = \"s\"\nbase = {{ model = \"tiny\" }}\ntask = {{ kind = \"classification\", dataset = \"r\", \
             labels = [\"no\", \"yes\"] }}\nmethod = {{ id = \"flora\", rank = 2, targets = [\"query\"] }}\n\
             train = {{ local_steps = 1, batch = 1, lr = 1e-3 }}\nrounds = {{ count = 2, cohort = 2, quorum = 2 }}\n{wire}"
        )
    };
    let both = (wire(&run("")), wire(&run("wire = { dtype = \"bf16\" }")));
    assert_eq!(both, (Dtype::F32, Dtype::Bf16));
}

#[test]
fn details_show_clients_bytes_and_error() {
    let text = details(&record(), Dtype::F32);
    assert!(text.contains("still open"));
    for part in ["3.00e-8 of the dense", "exact to rounding", "1020 B (+2.0 %)", "deadline", "0.7500", "0.9000"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

/// A round of a language model, with groups.
fn language() -> RoundRecord {
    let group = |name: &str, loss, accuracy, tokens| GroupEvaluation {
        group: name.to_owned(),
        loss,
        accuracy,
        examples: tokens / 10,
        tokens,
    };
    let after =
        |loss: f64, tokens, groups| Some(Evaluation { loss, accuracy: 0.5, examples: tokens / 10, tokens, groups });
    let mut record = RoundRecord { ended_at_ms: 1, held_out_loss: Some(2.0), best_round: Some(2), ..record() };
    record.participants[0].after = after(1.0, 100, vec![group("maths", 1.0, 0.25, 100)]);
    record.participants[1].after =
        after(7.0 / 3.0, 300, vec![group("law", 1.0, 0.75, 100), group("maths", 3.0, 0.5, 200)]);
    record
}

#[test]
fn a_language_model_shows_perplexity_and_groups() {
    let text = details(&language(), Dtype::F32);
    // exp(2.0); maths is (1.0 * 100 + 3.0 * 200) / 300, its accuracy (0.25 * 10 + 0.5 * 20) / 30.
    for part in ["2.0000 (perplexity 7.39)", "by group", "PERPLEXITY", "law    10", "maths  30", "2.3333", "0.4167"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(list(&[language()]).contains("7.39"));
    // Where no tokens are counted there is no such column.
    assert!(!details(&record(), Dtype::F32).contains("PERPLEXITY"));
    assert!(!list(&[record()]).contains("PERPLEXITY"));
}

#[test]
fn the_best_round_and_those_taken_back_are_marked() {
    let round = |round, rolled_back_to| RoundRecord { round, rolled_back_to, ..language() };
    let text = list(&[round(1, Some(0)), round(2, None), round(3, Some(2)), RoundRecord { round: 4, ..record() }]);
    let ends = ["back to start", "best", "back to 2", "open"];
    for (line, end) in text.lines().skip(1).zip(ends) {
        assert!(line.ends_with(end), "{end} is missing in\n{text}");
    }
    let text = details(&round(3, Some(2)), Dtype::F32);
    assert!(text.contains("rolled back        to round 2") && text.contains("best round so far  round 2"), "{text}");
}

#[test]
fn a_measurement_at_one_client_says_where_and_how_it_went() {
    let measured = |state: &str, reason: &str| Measurement {
        client: "judge".to_owned(),
        dataset: "public".to_owned(),
        state: state.to_owned(),
        reason: reason.to_owned(),
        ..Measurement::default()
    };
    let text = |measured| details(&RoundRecord { measurement: Some(measured), ..record() }, Dtype::F32);
    let line = "measured at        judge, data set public (";
    assert!(text(measured("evaluating", "")).contains(&format!("{line}evaluating)")));
    assert!(text(measured("missed", "gone")).contains(&format!("{line}missed: gone)")));
}
