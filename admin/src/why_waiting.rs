//! Why a run still waits for clients: what the connected ones lack.

use rondo_proto::base_tokens::{OTHER_TOKENS, makes_other_tokens};
use rondo_proto::clock::unix_millis;
use rondo_proto::run_file::RunFile;
use rondo_proto::v1::{BaseModel, ClientInfo, GetRunRequest, ListClientsRequest, RunSummary};

use crate::context::Administration;
use crate::error::CliError;

/// A client that was silent for so long counts as not
/// connected. An idle client polls every few seconds.
const SILENCE_MS: i64 = 60_000;

/// Whether a run waits for clients: none has answered an invitation, or one has declined or has yet
/// to decide.
pub(crate) fn waits(run: &RunSummary) -> bool {
    let is_recruiting = run.outcome.is_empty() && !run.paused && run.phase == "recruiting";
    is_recruiting && (run.willing.is_empty() || run.willing.iter().any(|answer| !answer.accepted))
}

/// The sites where a person has yet to decide, if there are any.
fn undecided(run: &RunSummary) -> Option<String> {
    let sites = run.willing.iter().filter(|answer| answer.undecided);
    let names: Vec<&str> = sites.map(|answer| answer.client.as_str()).collect();
    let names = names.join(", ");
    (!names.is_empty()).then(|| {
        format!("waiting for approval at the site: {names}; a person there decides with `rondo-client approve RUN`")
    })
}

/// Asks the coordinator about its clients; nothing where the
/// run does not wait, or waits for their answers.
pub(crate) async fn reason(admin: &mut Administration, run: &RunSummary) -> Result<Option<String>, CliError> {
    if !waits(run) {
        return Ok(None);
    }
    let reply = admin.get_run(GetRunRequest { run: run.run.clone() }).await?.into_inner();
    if !run.willing.is_empty() {
        let quorum = RunFile::parse(&reply.run_file).ok().map(|file| file.rounds.quorum as usize);
        let reasons = [quorum.and_then(|quorum| below_quorum(run, quorum)), undecided(run)];
        let reasons: Vec<String> = reasons.into_iter().flatten().collect();
        return Ok((!reasons.is_empty()).then(|| reasons.join("; ")));
    }
    let base = reply.base.unwrap_or_default();
    let clients = admin.list_clients(ListClientsRequest {}).await?.into_inner().clients;
    Ok(explain(run, &base, &clients, unix_millis()))
}

/// How many are willing of those that a round needs, and why the others are not.
fn below_quorum(run: &RunSummary, quorum: usize) -> Option<String> {
    let willing = run.willing.iter().filter(|answer| answer.accepted).count();
    let mut declined = run.willing.iter().filter(|answer| !answer.accepted && !answer.undecided).peekable();
    if willing >= quorum || declined.peek().is_none() {
        return None;
    }
    let declined = declined.map(|answer| match answer.reason.as_str() {
        "" => format!("{} declined", answer.client),
        reason => format!("{} declined: {reason}", answer.client),
    });
    let declined = declined.collect::<Vec<_>>().join("; ");
    Some(format!("{willing} of {quorum} needed are willing; {declined}"))
}

fn explain(run: &RunSummary, wanted: &BaseModel, clients: &[ClientInfo], now: i64) -> Option<String> {
    let in_state = |state: &'static str| clients.iter().filter(move |client| client.state == state);
    let connected: Vec<&ClientInfo> =
        in_state("active").filter(|client| now.saturating_sub(client.last_seen_ms) < SILENCE_MS).collect();
    if connected.is_empty() {
        return Some(match (in_state("active").next(), in_state("pending").next()) {
            (Some(_), _) => "no client is connected; `rondo client list` shows when each was last seen".to_owned(),
            (None, Some(pending)) => {
                format!("no client may work yet; let one in with `rondo client approve {}`", pending.client)
            }
            (None, None) => "no client has joined; `rondo token create` makes a token for one to join with".to_owned(),
        });
    }
    let base = &run.base;
    let data = &run.dataset;
    let holds = |client: &&ClientInfo| client.bases.contains(&wanted.digest);
    let maps = |client: &&ClientInfo| client.datasets.contains(data);
    let fit: Vec<&&ClientInfo> = connected.iter().filter(|client| holds(client) && maps(client)).collect();
    let (other, fit): (Vec<&&ClientInfo>, Vec<&&ClientInfo>) =
        fit.into_iter().partition(|client| makes_other_tokens(wanted, &client.tokens));
    if fit.is_empty() && !other.is_empty() {
        let names: Vec<&str> = other.iter().map(|client| client.client.as_str()).collect();
        return Some(format!("not invited: {}: {OTHER_TOKENS}", names.join(", ")));
    }
    if !fit.is_empty() {
        let busy: Vec<&str> = fit.iter().filter(|client| !client.run.is_empty()).map(|c| c.client.as_str()).collect();
        return (busy.len() == fit.len())
            .then(|| format!("the clients that fit are at other work: {}", busy.join(", ")));
    }
    let lack = match (connected.iter().any(holds), connected.iter().any(maps)) {
        (false, true) => format!("none holds base {base:?}"),
        (true, false) => format!("none has data set {data:?}"),
        (false, false) => format!("none holds base {base:?}, and none has data set {data:?}"),
        (true, true) => format!("none has both base {base:?} and data set {data:?}"),
    };
    let count = connected.len();
    let verb = if connected.len() == 1 { "client is" } else { "clients are" };
    Some(format!(
        "{count} {verb} connected, {lack}; `rondo client show NAME` shows what one has, its client.toml adds to it"
    ))
}

#[cfg(test)]
mod tests {
    use rondo_proto::v1::Willing;

    use rondo_proto::v1::BaseTokens;

    use super::*;

    #[test]
    fn what_the_connected_clients_lack_is_reported() {
        let run = RunSummary {
            phase: "recruiting".to_owned(),
            base: "tiny".to_owned(),
            dataset: "reviews".to_owned(),
            ..RunSummary::default()
        };
        let client = |name: &str, bases: &[&str], datasets: &[&str]| ClientInfo {
            client: name.to_owned(),
            state: "active".to_owned(),
            last_seen_ms: 100_000,
            bases: bases.iter().map(ToString::to_string).collect(),
            datasets: datasets.iter().map(ToString::to_string).collect(),
            ..ClientInfo::default()
        };
        let wanted =
            BaseModel { digest: "digest".to_owned(), token_digest: "tokens".to_owned(), ..BaseModel::default() };
        let explained = |clients: &[ClientInfo]| explain(&run, &wanted, clients, 101_000);
        let says = |clients: &[ClientInfo], text: &str| {
            let explained = explained(clients).unwrap_or_default();
            assert!(explained.contains(text), "{explained:?} should contain {text:?}");
        };
        let bare = client("a", &[], &["reviews"]);
        let based = client("b", &["digest"], &[]);
        says(&[], "no client has joined");
        says(&[ClientInfo { state: "pending".to_owned(), ..bare.clone() }], "`rondo client approve a`");
        says(&[ClientInfo { last_seen_ms: 1, ..bare.clone() }], "no client is connected");
        says(&[bare.clone(), client("c", &["another"], &[])], "2 clients are connected, none holds base \"tiny\";");
        says(std::slice::from_ref(&based), "1 client is connected, none has data set \"reviews\";");
        says(&[client("c", &[], &[])], "none holds base \"tiny\", and none has data set \"reviews\"");
        says(&[bare.clone(), based.clone()], "none has both base \"tiny\" and data set \"reviews\"");
        let whole = client("d", &["digest"], &["reviews"]);
        assert_eq!(explained(&[bare, whole.clone()]), None, "it will be invited at its next poll");
        let tokens = vec![BaseTokens { base: "digest".to_owned(), token_digest: "others".to_owned() }];
        says(
            &[ClientInfo { tokens, ..whole.clone() }],
            "not invited: d: its tokenizer, chat template or special tokens",
        );
        says(&[ClientInfo { run: "other-1".to_owned(), ..whole }], "at other work: d");
        assert!(waits(&run) && !waits(&RunSummary { phase: "training".to_owned(), ..run.clone() }));
        assert!(!waits(&RunSummary { willing: vec![Willing { accepted: true, ..Willing::default() }], ..run.clone() }));
        let asked = Willing { client: "site2".to_owned(), undecided: true, ..Willing::default() };
        let waiting = RunSummary { willing: vec![asked], ..run };
        assert!(waits(&waiting) && undecided(&waiting).unwrap().contains("approval at the site: site2"));
        assert_eq!(below_quorum(&waiting, 1), None, "nobody has declined");
    }

    #[test]
    fn a_quorum_that_is_not_reached_names_who_declined_and_why() {
        let answer = |client: &str, reason: &str| Willing {
            client: client.to_owned(),
            accepted: reason.is_empty(),
            reason: reason.to_owned(),
            ..Willing::default()
        };
        let willing = vec![answer("site1", ""), answer("site2", "policy.min_cohort is 3")];
        let run = RunSummary { phase: "recruiting".to_owned(), willing, ..RunSummary::default() };
        let reason = "1 of 2 needed are willing; site2 declined: policy.min_cohort is 3";
        assert_eq!(below_quorum(&run, 2).as_deref(), Some(reason));
        assert_eq!(below_quorum(&run, 1), None);
        assert!(waits(&run));
        assert!(!waits(&RunSummary { willing: vec![answer("site1", "")], ..run }));
    }
}
