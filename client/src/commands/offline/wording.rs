//! What an error advises, in the words of a command line. The engine's errors name the keys of run files and of
//! client.toml, where the daemon's operators set them; whoever runs an offline command sets the same with options.

/// Wording of run files and client.toml, and of the options; a longer wording stands before those it contains.
const WORDINGS: [(&str, &str); 34] = [
    ("run file: ", ""),
    (
        "name the columns in the [[dataset]] table, for example `question = \"their name\"`, or set `rows`",
        "name the columns with --text-column, --label-column or --data-option, for example \
         --data-option \"question=their name\", or say what a row holds with --data-option rows=SHAPE",
    ),
    (
        "name the column there is in the [[dataset]] table",
        "name the column there is with --text-column, --label-column or --data-option KEY=COLUMN",
    ),
    (
        "map others under [dataset.labels] or leave their rows out with `skip_labels`",
        "map others with --map-label FILE_LABEL=LABEL or leave their rows out with --skip-label LABEL",
    ),
    ("or set `format` to one of", "or give --format one of"),
    ("set the right `path` in its [[dataset]] table", "name the right one with --data"),
    ("is `format` right?", "is --format right?"),
    ("check the data set's path, labels and eval_fraction", "check --data, --skip-label and --eval-fraction"),
    ("set task.template = \"plain\"", "give --template plain"),
    ("or task.template = \"plain\"", "or --template plain"),
    ("set task.loss_on = \"all\"", "give --loss-on all"),
    ("the rule task.answer; set it to \"text\"", "the rule --answer; give --answer text"),
    ("task.max_tokens = ", "--max-tokens "),
    ("`task.max_tokens`", "--max-tokens"),
    ("task.max_tokens", "--max-tokens"),
    ("`task.max_new_tokens`", "--max-new-tokens"),
    ("`task.dataset`", "--dataset"),
    ("`task.labels`", "--labels"),
    ("`method.id`", "--method"),
    ("`method.rank`", "--rank"),
    ("`method.alpha`", "--alpha"),
    ("`method.targets`", "--targets"),
    ("`method.", "`--option "),
    ("`train.local_steps`", "--steps"),
    ("`train.batch`", "--batch"),
    ("`train.lr`", "--lr"),
    ("`train.weight_decay`", "--weight-decay"),
    ("`train.max_grad_norm`", "--max-grad-norm"),
    ("`train.proximal`", "--proximal"),
    ("`train.quantise`", "--quantise"),
    ("`train.dtype`", "--dtype"),
    ("`max_bad_rows` = ", "--data-option max_bad_rows="),
    ("`max_bad_rows`", "--data-option max_bad_rows"),
    ("(answer_after)", "(--data-option answer_after)"),
];

/// The same message with options in place of keys.
pub fn with_options(message: &str) -> String {
    WORDINGS.iter().fold(message.to_owned(), |told, (key, option)| told.replace(key, option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_wording_is_not_hidden_by_a_shorter_one_before_it() {
        for (place, (longer, _)) in WORDINGS.iter().enumerate() {
            let before = WORDINGS[..place].iter().map(|(shorter, _)| *shorter);
            assert_eq!(before.into_iter().find(|shorter| longer.contains(shorter)), None, "{longer}");
        }
    }

    #[test]
    fn what_is_no_advice_stays() {
        let message = "reviews.tsv:3: column `label`: unknown label \"so\"; the labels are `task`, `method`";
        assert_eq!(with_options(message), message);
    }
}
