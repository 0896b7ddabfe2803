//! `rondo privacy`: figures against those of other
//! accountants, and a run's costs as its rounds have them.

use rondo_proto::v1::{Participant, PrivacyReport, RoundRecord, RunSummary};
use serde_json::Value;

use crate::fake::Script;
use crate::online;
use crate::program::{output_of, rondo};

/// Runs an offline command that succeeds, for JSON.
fn json(args: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let words: Vec<&str> = args.split_whitespace().chain(["--json"]).collect();
    let (code, out, err) = output_of(&rondo(dir.path(), &words));
    assert_eq!(code, 0, "{args}: {err}");
    serde_json::from_str(&out).unwrap()
}

fn run(args: &str) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    output_of(&rondo(dir.path(), &args.split_whitespace().collect::<Vec<_>>()))
}

#[test]
fn epsilons_are_those_of_other_accountants() {
    // Noise, rate, steps, delta; enforced, RDP, PLD: the last two as Google's dp-accounting 0.6.0
    // has them, the RDP with exact fractional orders.
    for (schedule, [enforced, rdp, pld]) in [
        ("1.0 --sampling-rate 0.01 --steps 1000 --delta 1e-5", [2.107753, 2.101365, 1.828244]),
        ("1.1 --examples 60000 --batch 256 --steps 14062 --delta 1e-5", [2.596981, 2.596556, 2.381686]),
        ("2.0 --sampling-rate 0.1 --steps 300 --delta 1e-6", [5.099180, 5.082051, 4.712768]),
        ("1.0 --sampling-rate 1 --steps 1 --delta 1e-5", [4.752728, 4.728507, 4.377178]),
        ("0.6 --sampling-rate 0.005 --steps 2000 --delta 1e-6", [7.597126, 7.401282, 6.352577]),
        ("0.5 --sampling-rate 0.001 --steps 100 --delta 1e-5", [3.990867, 3.598113, 2.108646]),
    ] {
        let reported = json(&format!("privacy epsilon --noise-multiplier {schedule}"));
        // The reference's grid for loss distributions is coarser, and overstates by up to 1e-4.
        for (name, want, digits) in [("rdp", enforced, 1e-5), ("rdp_all_orders", rdp, 1e-5), ("pld", pld, 1e-4)] {
            let got = reported["epsilon"][name].as_f64().unwrap();
            assert!((got - want).abs() < digits, "{schedule}: {name} {got} {want}");
        }
        assert_eq!((&reported["adjacency"], &reported["sampling"]), (&"add-or-remove".into(), &"poisson".into()));
    }
    let (code, text, _) = run("privacy epsilon --noise-multiplier 1 --sampling-rate 0.01 --steps 1000 --delta 1e-5");
    for words in ["RDP, enforced    2.107753", "one example, or nothing in its place", "Poisson", "fixed in advance"] {
        assert!(code == 0 && text.contains(words), "{words}: {text}");
    }
    // Where a loss distribution gives up the others still stand.
    let reported = json("privacy epsilon --noise-multiplier 0.001 --sampling-rate 0.01 --steps 1000 --delta 1e-5");
    assert!(reported["epsilon"]["pld"].is_null() && reported["epsilon"]["pld_problem"].is_string(), "{reported}");
    assert!(reported["epsilon"]["rdp"].as_f64().is_some_and(|epsilon| epsilon > 1e6));
}

#[test]
fn noise_is_the_least_that_stays_within_the_budget() {
    let schedule = "--epsilon 3 --delta 1e-5 --sampling-rate 0.01 --steps 1000";
    let tight = json(&format!("privacy sigma {schedule} --figure pld"));
    let sigma = |reported: &Value| reported["noise_multiplier"].as_f64().unwrap();
    assert!((sigma(&tight) - 0.81358).abs() < 2e-5, "{tight}");
    assert!(tight["epsilon"]["pld"].as_f64().is_some_and(|epsilon| epsilon <= 3.0 && epsilon > 2.999));
    assert!(tight["warnings"][0].as_str().is_some_and(|warning| warning.contains("held against the enforced")));
    let safe = json(&format!("privacy sigma {schedule}"));
    assert!(sigma(&safe) > sigma(&tight) && safe["epsilon"]["rdp"].as_f64().unwrap() <= 3.0);
    assert_eq!(safe["warnings"], Value::Array(Vec::new()));
    // What the text says may be copied.
    let (code, text, _) = run(&format!("privacy sigma {schedule}"));
    assert!(code == 0 && text.starts_with(&format!("noise multiplier  {:.6} (the least", sigma(&safe))), "{text}");
    let (code, _, err) = run("privacy sigma --epsilon 1e-4 --delta 1e-5 --sampling-rate 1 --steps 100000");
    assert!(code == 1 && err.contains("no noise multiplier up to 8192"), "{err}");
}

/// The real noise is not refuted, and every broken one is.
#[test]
#[cfg(feature = "audit")]
fn an_audit_distinguishes_sound_noise_from_broken() {
    let reported = json("privacy audit --coordinates 20000 --confidence 0.999999");
    let lines = reported["mechanisms"].as_array().unwrap();
    let passed: Vec<(&str, bool)> =
        lines.iter().map(|line| (line["mechanism"].as_str().unwrap(), line["passed"].as_bool().unwrap())).collect();
    let broken = ["noise-times-nine-tenths", "no-noise", "same-noise-twice", "twice-the-clip"];
    assert_eq!(passed[0], ("as-used", true));
    assert_eq!(passed[1..], broken.map(|name| (name, false)));
    let (code, _, err) = run("privacy audit --coordinates 10");
    assert_eq!(code, 2, "{err}");
}

#[test]
fn doubtful_schedules_are_warned_of_and_senseless_ones_are_wrong_usage() {
    let schedule = "privacy epsilon --noise-multiplier 1 --steps 10";
    let (code, text, _) = run(&format!("{schedule} --examples 1000 --batch 10 --delta 1e-3"));
    assert!(code == 0 && text.contains("warning: delta 1e-3 is not below 1/1000"), "{text}");
    let reported = json(&format!("{schedule} --examples 10 --batch 12 --delta 1e-3"));
    assert_eq!(
        (reported["sampling_rate"].as_f64(), reported["warnings"].as_array().map(Vec::len)),
        (Some(1.0), Some(1))
    );
    for wrong in [
        "--delta 1e-5",
        "--delta 1e-5 --batch 10",
        "--delta 1e-5 --examples 10",
        "--delta 1e-5 --sampling-rate 0.1 --examples 10 --batch 1",
        "--delta 1e-5 --examples 0 --batch 0",
        "--delta 1e-5 --sampling-rate 2",
        "--delta 1 --sampling-rate 0.1",
        "--delta 1e-5 --sampling-rate 0.1 --noise-multiplier 2",
    ] {
        let (code, out, err) = run(&format!("{schedule} {wrong}"));
        assert_eq!((code, out.as_str()), (2, ""), "{wrong}: {err}");
    }
    assert_eq!(run("privacy epsilon --noise-multiplier 0 --steps 1 --sampling-rate 1 --delta 1e-5").0, 2);
    assert_eq!(run("privacy sigma --epsilon 0 --steps 1 --sampling-rate 1 --delta 1e-5").0, 2);
}

fn participant(client: &str, round: u32, epsilon: f64) -> Participant {
    let report = PrivacyReport {
        unit: "example".to_owned(),
        noise_multiplier: 1.25,
        sampling_rate: 0.05,
        steps: 10,
        total_steps: 10 * round,
        delta: 1e-5,
        epsilon,
        epsilon_pld: epsilon * 0.9,
        next_epsilon: epsilon + 0.5,
        ledger_head: format!("blake3:{client}-head-{round}"),
        clip: 1.0,
    };
    let update_digest = format!("blake3:{client}-update-{round}");
    Participant { client: client.to_owned(), update_digest, privacy: Some(report), ..Participant::default() }
}

/// A private run of two rounds after a warm-up without data;
/// the second client did not report in the second.
fn private() -> Script {
    let round = |round, participants| RoundRecord { round, participants, ..RoundRecord::default() };
    let silent = Participant { client: "tweets".to_owned(), state: "dropped".to_owned(), ..Participant::default() };
    let warm_up = Participant { client: "movies".to_owned(), ..Participant::default() };
    let second = vec![silent, participant("movies", 2, 1.5)];
    let first = vec![participant("tweets", 1, 1.75), participant("movies", 1, 1.0)];
    Script {
        summary: RunSummary {
            privacy: "(2, 1e-5)-differential privacy per example, clip 0.5; spent at most 1.7500".to_owned(),
            ..online::summary("")
        },
        run_file: online::RUN.replace("METHOD", "ffa-lora")
            + "privacy = { unit = \"example\", epsilon = 2.0, delta = 1e-5, clip = 0.5 }\n",
        rounds: vec![round(0, vec![warm_up]), round(1, first), round(2, second)],
        ..Script::default()
    }
}

#[tokio::test]
async fn a_run_shows_its_promise_and_what_every_round_cost() {
    let (end, text) = online::rondo(&private(), &["privacy", "show", "sentiment"]).await;
    assert_eq!(end, Ok(()));
    for words in [
        "(2, 1e-5)-differential privacy per example, clip 0.5",
        "one example, or nothing in its place",
        "at every client the least",
        "1      tweets  1.0000  1.2500  0.050000  10     10     1.750000       1.575000       2.250000 (not allowed)",
        "2      movies  1.0000  1.2500  0.050000  10     20     1.500000       1.350000       2.000000\n",
        "the most that any data owner spent: 1.750000 of 2 (1.575000 by PLD), tweets, as of round 1",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let (_, text) = online::rondo(&private(), &["privacy", "show", "sentiment", "--json"]).await;
    let reported: Value = serde_json::from_str(&text).unwrap();
    let order: Vec<_> =
        reported["costs"].as_array().unwrap().iter().map(|cost| (&cost["round"], &cost["client"])).collect();
    assert_eq!(order, [(&1.into(), &"movies".into()), (&1.into(), &"tweets".into()), (&2.into(), &"movies".into())]);
    assert_eq!((&reported["most"]["client"], &reported["promise"]["epsilon"]), (&"tweets".into(), &2.0.into()));

    let early = Script { rounds: Vec::new(), ..private() };
    let (_, text) = online::rondo(&early, &["privacy", "show", "sentiment"]).await;
    assert!(text.contains("nothing has been released yet") && !text.contains("the most"), "{text}");
}

#[tokio::test]
async fn a_run_with_privacy_per_client_shows_its_cohorts_and_how_its_clip_moves() {
    let statement = "(8, 1e-5)-differential privacy per client, clip 0.5, Poisson-sampled cohorts at rate 0.1; spent 2.0000 in 2 releases, \
                     7.5000 to whoever sees the cohorts";
    let round = |round: u32, clip| {
        let released = PrivacyReport {
            unit: "client".to_owned(),
            clip,
            total_steps: round,
            epsilon: 1.0,
            ..PrivacyReport::default()
        };
        RoundRecord { round, released: Some(released), ..RoundRecord::default() }
    };
    let script = Script {
        summary: RunSummary { privacy: statement.to_owned(), ..online::summary("") },
        run_file: online::RUN.replace("METHOD", "ffa-lora")
            + "privacy = { unit = \"client\", epsilon = 8.0, delta = 1e-5, clip = 0.5, clip_quantile = 0.5 }\n",
        rounds: vec![round(1, 0.5), round(2, 0.45)],
        ..Script::default()
    };
    let (end, text) = online::rondo(&script, &["privacy", "show", "sentiment"]).await;
    assert_eq!(end, Ok(()));
    for words in [
        statement,
        "0.5 at first, then towards quantile 0.5",
        "1      every client  0.5000",
        "2      every client  0.4500",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[tokio::test]
async fn a_run_without_privacy_says_so() {
    let summary = RunSummary { privacy: "no privacy".to_owned(), ..online::summary("") };
    let script = Script { summary, run_file: online::RUN.replace("METHOD", "fed-sb"), ..private() };
    let (end, text) = online::rondo(&script, &["privacy", "show", "sentiment"]).await;
    assert!(end.is_ok() && text.starts_with("run sentiment-1: no privacy\n"), "{text}");
    let script = Script { rounds: Vec::new(), ..script };
    let (_, text) = online::rondo(&script, &["privacy", "show", "sentiment", "--json"]).await;
    let reported: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&reported["statement"], &reported["promise"]["unit"]), (&"no privacy".into(), &"none".into()));
    assert!(reported["most"].is_null());
    let (end, text) = online::rondo(&script, &["privacy", "ledger", "sentiment"]).await;
    assert!(end.is_ok() && text.contains("neither a client nor the coordinator has a ledger head"), "{text}");
    let (end, _) = online::rondo(&script, &["privacy", "show", "nothing"]).await;
    assert!(end.is_err_and(|error| error.hint.is_some()));
}

#[tokio::test]
async fn ledger_heads_are_listed_by_client_and_round() {
    let (end, text) = online::rondo(&private(), &["privacy", "ledger", "senti", "--json"]).await;
    assert_eq!(end, Ok(()));
    let reported: Value = serde_json::from_str(&text).unwrap();
    let heads = reported["heads"].as_array().unwrap();
    let reported: Vec<_> = heads.iter().map(|head| head["ledger_head"].as_str().unwrap()).collect();
    assert_eq!(reported, ["blake3:movies-head-1", "blake3:movies-head-2", "blake3:tweets-head-1"]);
    assert_eq!(heads[1]["update"], "blake3:movies-update-2");
    let (_, text) = online::rondo(&private(), &["privacy", "ledger", "sentiment"]).await;
    assert!(text.contains("movies  2      blake3:movies-head-2"), "{text}");
    assert!(text.contains("rondo-client ledger --dir DIR --entries"), "{text}");
}

/// A promise per client: one release a round, in the coordinator's own ledger.
#[tokio::test]
async fn the_coordinators_heads_are_listed_too() {
    let released = |round: u32, head: &str| PrivacyReport {
        unit: "client".to_owned(),
        total_steps: round,
        ledger_head: head.to_owned(),
        ..PrivacyReport::default()
    };
    let round =
        |round, head: &str| RoundRecord { round, released: Some(released(round, head)), ..RoundRecord::default() };
    let script = Script {
        run_file: online::RUN.replace("METHOD", "ffa-lora")
            + "privacy = { unit = \"client\", epsilon = 2.0, delta = 1e-5, clip = 0.5 }\n",
        // The third has not released yet.
        rounds: vec![round(1, "blake3:first"), round(2, "blake3:second"), round(3, "")],
        ..private()
    };
    let (end, text) = online::rondo(&script, &["privacy", "ledger", "sentiment", "--json"]).await;
    assert_eq!(end, Ok(()));
    let reported: Value = serde_json::from_str(&text).unwrap();
    let heads: Vec<_> =
        reported["heads"].as_array().unwrap().iter().map(|head| (&head["client"], &head["ledger_head"])).collect();
    let keeper = Value::from("the coordinator");
    assert_eq!(heads, [(&keeper, &"blake3:first".into()), (&keeper, &"blake3:second".into())]);
    let (_, text) = online::rondo(&script, &["privacy", "ledger", "sentiment"]).await;
    assert!(text.contains("the coordinator  2      blake3:second            -"), "{text}");
}
