//! Runs as operators name them: by id, by name, or by the beginning of the id.

use rondo_proto::v1::{ListRunsRequest, RunSummary};

use crate::context::Administration;
use crate::error::CliError;

/// The id of the run that is meant. A text that fits no run is handed on as it
/// is: the coordinator says what it thinks of it.
///
/// # Errors
/// The coordinator does not list its runs, or the text fits several of them.
pub async fn resolve(client: &mut Administration, text: &str) -> Result<String, CliError> {
    let runs = client.list_runs(ListRunsRequest {}).await?.into_inner().runs;
    choose(&runs, text)
}

/// An exact id; else the run of this name; else the run whose id begins so.
fn choose(runs: &[RunSummary], text: &str) -> Result<String, CliError> {
    let exact = |run: &RunSummary| run.run == text;
    let named = |run: &RunSummary| run.name == text;
    let begins = |run: &RunSummary| !text.is_empty() && run.run.starts_with(text);
    for fits in [&exact as &dyn Fn(&RunSummary) -> bool, &named, &begins] {
        let found: Vec<&RunSummary> = runs.iter().filter(|run| fits(run)).collect();
        match found.as_slice() {
            [] => {}
            [run] => return Ok(run.run.clone()),
            several => {
                let ids: Vec<&str> = several.iter().map(|run| run.run.as_str()).collect();
                return Err(CliError::failed(format!("{text:?} may be any of the runs {}", ids.join(", ")))
                    .hint("name one by its id; `rondo run list` shows them all"));
            }
        }
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_by_id_name_and_beginning() {
        let run = |id: &str, name: &str| RunSummary { run: id.into(), name: name.into(), ..RunSummary::default() };
        let runs = [
            run("sentiment-aaaaaa", "sentiment"),
            run("sentiment-large-bbbbbb", "sentiment-large"),
            run("topics-cccccc", "topics"),
            run("topics-dddddd", "topics"),
            run("topics", "odd"),
        ];
        for (text, id) in [
            ("sentiment-aaaaaa", "sentiment-aaaaaa"),
            ("sentiment", "sentiment-aaaaaa"),
            ("sentiment-large", "sentiment-large-bbbbbb"),
            ("sentiment-l", "sentiment-large-bbbbbb"),
            ("topics-d", "topics-dddddd"),
            // An id goes before a name.
            ("topics", "topics"),
            ("nothing", "nothing"),
            ("", ""),
        ] {
            assert_eq!(choose(&runs, text), Ok(id.to_owned()), "{text:?}");
        }
        for (runs, text) in [(&runs[..], "sentiment-"), (&runs[..4], "topics"), (&runs[..4], "topics-")] {
            let error = choose(runs, text).unwrap_err();
            assert!(error.message.matches(", ").count() == 1 && error.hint.is_some(), "{text}: {error}");
        }
    }
}
