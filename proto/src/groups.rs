//! Results by group, none of them small. A site folds its groups before it reports them, and the
//! coordinator folds what arrives before it keeps it, by this one function.

use std::collections::BTreeMap;

use crate::run_file::TaskKind;
use crate::v1::{Evaluation, GroupEvaluation};

/// The group that small groups join, together with rows that have no group.
pub const OTHER: &str = "other";
/// Fewest rows of a group where nobody says otherwise.
pub const DEFAULT_MIN_GROUP: u32 = 10;
/// The lowest limit that a site may choose. With 1, a group could be one person.
pub const LEAST_MIN_GROUP: u32 = 2;

/// The limit for groups that a peer sent: the site's choice, within what is allowed. A peer that
/// knows no limit (0) is held to the default one.
pub fn limit_of_peer(min_group: u32) -> u32 {
    if min_group == 0 { DEFAULT_MIN_GROUP } else { min_group.max(LEAST_MIN_GROUP) }
}

/// How the accuracies of a task are weighed against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tries {
    /// One right answer or none, per example.
    Examples,
    /// One per token that counts.
    Tokens,
}

/// Sums from which a loss and an accuracy are made.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    loss: f64,
    right: f64,
    examples: u64,
    tokens: u64,
}

/// The evaluation with no group below `min_group` rows.
///
/// Smaller groups join [`OTHER`], and so do rows that belong to no group: groups always add up to
/// the whole. Where `other` is still below the limit, the next smallest group joins it. So neither
/// a group nor any difference between the whole and groups is about fewer rows than `min_group`.
/// One group alone says no more than the whole, so then there is none. Groups that do not add up
/// are left out. An evaluation that was folded stays as it is.
#[must_use]
pub fn fold_small(evaluation: Evaluation, min_group: u32, task: TaskKind) -> Evaluation {
    let groups = folded(&evaluation, u64::from(min_group), task).unwrap_or_default();
    Evaluation { groups, ..evaluation }
}

fn folded(evaluation: &Evaluation, min_group: u64, task: TaskKind) -> Option<Vec<GroupEvaluation>> {
    if evaluation.groups.is_empty() {
        return None;
    }
    let tries = if task == TaskKind::CausalLm { Tries::Tokens } else { Tries::Examples };
    let Evaluation { loss, accuracy, examples, tokens, .. } = *evaluation;
    let whole = Sums::of(loss, accuracy, examples, tokens, tries);
    let mut by_name: BTreeMap<&str, Sums> = BTreeMap::new();
    for GroupEvaluation { group, loss, accuracy, examples, tokens } in &evaluation.groups {
        if !(loss.is_finite() && (0.0..=1.0).contains(accuracy)) {
            return None;
        }
        let sums = by_name.entry(group).or_default();
        *sums = sums.plus(Sums::of(*loss, *accuracy, *examples, *tokens, tries))?;
    }
    let all = by_name.values().try_fold(Sums::default(), |sum, group| sum.plus(*group))?;
    // Rows without a group are what the groups leave of the whole.
    let mut other = whole.minus(all)?;
    if let Some(named) = by_name.remove(OTHER) {
        other = other.plus(named)?;
    }
    let mut rest: Vec<(&str, Sums)> = by_name.into_iter().filter(|(_, group)| group.examples > 0).collect();
    rest.sort_by_key(|(name, group)| (group.examples, *name));
    let mut rest = rest.into_iter().peekable();
    let is_small = |other: &Sums| (1..min_group).contains(&other.examples);
    while let Some((_, group)) = rest.next_if(|(_, group)| group.examples < min_group || is_small(&other)) {
        other = other.plus(group)?;
    }
    let mut kept: Vec<(&str, Sums)> = rest.collect();
    // With too few rows in all, or all in one group, the whole says everything.
    if kept.is_empty() || is_small(&other) || (kept.len() == 1 && other.examples == 0) {
        return None;
    }
    if other.examples > 0 {
        kept.push((OTHER, other));
    }
    kept.sort_by_key(|(name, _)| *name);
    Some(kept.into_iter().map(|(name, sums)| sums.named(name, tries)).collect())
}

impl Sums {
    fn of(loss: f64, accuracy: f64, examples: u64, tokens: u64, tries: Tries) -> Self {
        let sums = Self { loss: 0.0, right: 0.0, examples, tokens };
        Self { loss: loss * sums.units(), right: accuracy * sums.tries(tries), ..sums }
    }

    /// What losses are means over: tokens where they count.
    fn units(&self) -> f64 {
        if self.tokens > 0 { self.tokens as f64 } else { self.examples as f64 }
    }

    fn tries(&self, tries: Tries) -> f64 {
        match tries {
            Tries::Tokens if self.tokens > 0 => self.tokens as f64,
            Tries::Tokens | Tries::Examples => self.examples as f64,
        }
    }

    fn plus(self, more: Self) -> Option<Self> {
        Some(Self {
            loss: self.loss + more.loss,
            right: self.right + more.right,
            examples: self.examples.checked_add(more.examples)?,
            tokens: self.tokens.checked_add(more.tokens)?,
        })
    }

    /// What is left without a part; `None` where the part is larger than the whole.
    fn minus(self, part: Self) -> Option<Self> {
        let examples = self.examples.checked_sub(part.examples)?;
        let tokens = self.tokens.checked_sub(part.tokens)?;
        if examples == 0 {
            return (tokens == 0).then(Self::default);
        }
        Some(Self { loss: self.loss - part.loss, right: self.right - part.right, examples, tokens })
    }

    fn named(&self, name: &str, tries: Tries) -> GroupEvaluation {
        GroupEvaluation {
            group: name.to_owned(),
            loss: self.loss / self.units(),
            accuracy: (self.right / self.tries(tries)).clamp(0.0, 1.0),
            examples: self.examples,
            tokens: self.tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A classification: groups by name with rows, loss and rows that are right; and rows without
    /// a group, of loss 1 and none right.
    fn evaluation(groups: &[(&str, u64, f64, u64)], ungrouped: u64) -> Evaluation {
        let examples = groups.iter().map(|group| group.1).sum::<u64>() + ungrouped;
        let loss = groups.iter().map(|group| group.1 as f64 * group.2).sum::<f64>() + ungrouped as f64;
        let right: u64 = groups.iter().map(|group| group.3).sum();
        let groups = groups.iter().map(|(name, examples, loss, right)| GroupEvaluation {
            group: (*name).to_owned(),
            loss: *loss,
            accuracy: *right as f64 / *examples as f64,
            examples: *examples,
            tokens: 0,
        });
        Evaluation {
            loss: loss / examples as f64,
            accuracy: right as f64 / examples as f64,
            examples,
            tokens: 0,
            groups: groups.collect(),
        }
    }

    fn shown(evaluation: &Evaluation, min_group: u32) -> Vec<(String, u64)> {
        let folded = fold_small(evaluation.clone(), min_group, TaskKind::Classification);
        folded.groups.into_iter().map(|group| (group.group, group.examples)).collect()
    }

    fn named(groups: &[(&str, u64)]) -> Vec<(String, u64)> {
        groups.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect()
    }

    #[test]
    fn small_groups_join_other_and_other_is_never_small() {
        let many = [("law", 40, 1.0, 20), ("rare", 1, 9.0, 0), ("few", 4, 1.0, 1), ("maths", 12, 2.0, 6)];
        // 1 + 4 rows are too few, so that the next smallest group joins.
        assert_eq!(shown(&evaluation(&many, 0), 10), named(&[("law", 40), ("other", 17)]));
        // Six rows without a group make `other` large enough.
        assert_eq!(shown(&evaluation(&many, 6), 10), named(&[("law", 40), ("maths", 12), ("other", 11)]));
        // One row without a group is the difference to the whole, and no group may show it.
        let large = [("law", 40, 1.0, 20), ("maths", 12, 2.0, 6)];
        assert_eq!(shown(&evaluation(&large, 0), 10), named(&[("law", 40), ("maths", 12)]));
        assert_eq!(shown(&evaluation(&large, 1), 10), named(&[("law", 40), ("other", 13)]));
        // A group of that name is one of those that are not named.
        let own = [("other", 3, 1.0, 1), ("maths", 12, 2.0, 6), ("law", 40, 1.0, 20)];
        assert_eq!(shown(&evaluation(&own, 0), 10), named(&[("law", 40), ("other", 15)]));
    }

    #[test]
    fn one_group_alone_is_none() {
        assert_eq!(shown(&evaluation(&[("law", 40, 1.0, 20)], 0), 10), []);
        assert_eq!(shown(&evaluation(&[("law", 40, 1.0, 20), ("rare", 1, 9.0, 0)], 0), 10), []);
        assert_eq!(shown(&evaluation(&[("a", 3, 1.0, 1), ("b", 4, 1.0, 1)], 0), 10), []);
        assert_eq!(shown(&evaluation(&[("law", 40, 1.0, 20)], 12), 10), named(&[("law", 40), ("other", 12)]));
    }

    #[test]
    fn other_has_the_means_of_its_rows() {
        let folded = fold_small(
            evaluation(&[("law", 40, 1.0, 20), ("a", 4, 3.0, 1), ("b", 8, 1.5, 8)], 0),
            10,
            TaskKind::Classification,
        );
        let other = folded.groups.iter().find(|group| group.group == OTHER).unwrap();
        assert!((other.loss - 2.0).abs() < 1e-12 && (other.accuracy - 0.75).abs() < 1e-12, "{other:?}");

        // Of a language model: losses and next-token accuracies by token, answers by example.
        let of = |name: &str, loss, accuracy, examples, tokens| GroupEvaluation {
            group: name.to_owned(),
            loss,
            accuracy,
            examples,
            tokens,
        };
        let groups = vec![of("a", 1.0, 0.5, 6, 100), of("b", 3.0, 1.0, 6, 300), of("law", 1.0, 0.0, 20, 100)];
        let whole = Evaluation { loss: 2.2, accuracy: 0.7, examples: 32, tokens: 500, groups };
        let other = |task| fold_small(whole.clone(), 10, task).groups[1].clone();
        let causal = other(TaskKind::CausalLm);
        assert!((causal.loss - 2.5).abs() < 1e-12 && (causal.accuracy - 0.875).abs() < 1e-12, "{causal:?}");
        assert_eq!((causal.examples, causal.tokens), (12, 400));
        assert!((other(TaskKind::ExactAnswer).accuracy - 0.75).abs() < 1e-12);
    }

    #[test]
    fn groups_that_do_not_add_up_are_left_out() {
        let good = evaluation(&[("law", 40, 1.0, 20), ("maths", 12, 2.0, 6)], 0);
        assert_eq!(shown(&Evaluation { examples: 41, ..good.clone() }, 10), []);
        let mut broken = good.clone();
        broken.groups[0].loss = f64::NAN;
        assert_eq!(shown(&broken, 10), []);
        let mut huge = good;
        huge.groups[0].examples = u64::MAX;
        huge.groups[1].examples = u64::MAX;
        assert_eq!(shown(&huge, 10), []);
    }

    #[test]
    fn a_peers_limit_is_kept_within_what_is_allowed() {
        assert_eq!([0, 1, 2, 50].map(limit_of_peer), [DEFAULT_MIN_GROUP, LEAST_MIN_GROUP, 2, 50]);
    }

    proptest! {
        #[test]
        fn no_sum_of_reported_groups_differs_from_the_whole_by_few_rows(
            sizes in proptest::collection::vec(0_u64..30, 1..8),
            ungrouped in 0_u64..30,
            min_group in 2_u32..20,
        ) {
            let names: Vec<String> = (0..sizes.len()).map(|n| format!("g{n}")).collect();
            let groups: Vec<_> = names.iter().zip(&sizes).filter(|(_, rows)| **rows > 0)
                .map(|(name, rows)| (name.as_str(), *rows, 1.0, 0)).collect();
            prop_assume!(!groups.is_empty());
            let whole = evaluation(&groups, ungrouped);
            let folded = fold_small(whole.clone(), min_group, TaskKind::Classification);
            let sum: u64 = folded.groups.iter().map(|group| group.examples).sum();
            prop_assert!(folded.groups.iter().all(|group| group.examples >= u64::from(min_group)));
            prop_assert!(folded.groups.is_empty() || (sum == whole.examples && folded.groups.len() > 1));
            // Twice is once.
            let again = shown(&folded, min_group);
            prop_assert_eq!(again, folded.groups.iter().map(|g| (g.group.clone(), g.examples)).collect::<Vec<_>>());
        }
    }
}
