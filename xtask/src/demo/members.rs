//! The demo's data owners: one for each text domain, with files of its own.

use std::path::PathBuf;

use anyhow::Result;

use crate::examples;
use crate::federation::Member;
use crate::paths::Paths;
use crate::setup::DOMAINS;

/// So many clients; beyond one for each domain, the domains are split between several.
pub(super) fn members(paths: &Paths, clients: u32, max_eval: Option<u32>) -> Result<Vec<Member>> {
    (0..clients as usize).map(|index| member(paths, index, clients as usize, max_eval)).collect()
}

fn member(paths: &Paths, index: usize, clients: usize, max_eval: Option<u32>) -> Result<Member> {
    let domain = DOMAINS[index % DOMAINS.len()].0;
    let name =
        if index < DOMAINS.len() { domain.to_owned() } else { format!("{domain}-{}", index / DOMAINS.len() + 1) };
    let text = std::fs::read_to_string(paths.demo_data().join(domain).with_extension("tsv"))?;
    let owners = (clients + DOMAINS.len() - 1 - index % DOMAINS.len()) / DOMAINS.len();
    let data = "data/reviews.tsv";
    Ok(Member {
        name,
        config: examples::client_file(paths, domain, &paths.demo_model(), data, max_eval)?,
        files: vec![(PathBuf::from(data), part(&text, index / DOMAINS.len(), owners).into_bytes())],
    })
}

/// The header and every `owners`-th row from row `owner` on.
fn part(table: &str, owner: usize, owners: usize) -> String {
    let mut lines = table.lines();
    let mut text = String::new();
    for line in lines.next().into_iter().chain(lines.skip(owner).step_by(owners.max(1))) {
        text += line;
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shared_out_without_loss() {
        let table = "text\tlabel\na\t1\nb\t2\nc\t3\n";
        assert_eq!(part(table, 0, 1), table);
        assert_eq!(part(table, 0, 2), "text\tlabel\na\t1\nc\t3\n");
        assert_eq!(part(table, 1, 2), "text\tlabel\nb\t2\n");
    }
}
