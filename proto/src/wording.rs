//! Settings by name. A run file and client.toml have keys, a command line has options.
//!
//! An error carries the [`SettingKey`] or the [`Advice`] and not its words. The program
//! that reports the error chooses them, as it would choose a language:
//! [`Wording::scope`] holds for whatever is written while a closure runs, and for its
//! thread alone. Outside of any scope settings have their keys.

use std::cell::Cell;
use std::fmt::{self, Debug, Display, Formatter};

/// How settings are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wording {
    /// By the keys of run files and of client.toml: `task.max_tokens`.
    #[default]
    Keys,
    /// By the options of the commands that need no coordinator: `--max-tokens`.
    Options,
}

thread_local! {
    static CURRENT: Cell<Wording> = const { Cell::new(Wording::Keys) };
}

impl Wording {
    /// The wording of this thread.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Runs `work` with this wording on this thread,
    /// and puts the one before back, after a panic too.
    pub fn scope<T>(self, work: impl FnOnce() -> T) -> T {
        struct Restore(Wording);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _restore = Restore(CURRENT.replace(self));
        work()
    }

    /// The text of this wording.
    fn choose<T>(self, keys: T, options: T) -> T {
        match self {
            Self::Keys => keys,
            Self::Options => options,
        }
    }
}

/// A key of a run file or of a `[[dataset]]` table that is an
/// option, too. Its [`Display`] is the bare name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKey {
    /// `task.max_tokens`
    MaxTokens,
    /// `task.max_new_tokens`
    MaxNewTokens,
    /// `task.dataset`
    Dataset,
    /// `task.labels`
    Labels,
    /// `task.template`
    Template,
    /// `task.loss_on`
    LossOn,
    /// `task.answer`
    Answer,
    /// `method.id`
    Method,
    /// `method.rank`
    Rank,
    /// `method.alpha`
    Alpha,
    /// `method.targets`
    Targets,
    /// `train.local_steps`
    LocalSteps,
    /// `train.batch`
    Batch,
    /// `train.lr`
    Lr,
    /// `train.weight_decay`
    WeightDecay,
    /// `train.max_grad_norm`
    MaxGradNorm,
    /// `train.proximal`
    Proximal,
    /// `train.quantise`
    Quantise,
    /// `train.dtype`
    Dtype,
    /// `format` of a `[[dataset]]` table
    Format,
    /// `max_bad_rows` of a `[[dataset]]` table
    MaxBadRows,
    /// `answer_after` of a `[[dataset]]` table
    AnswerAfter,
}

impl SettingKey {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::MaxTokens,
        Self::MaxNewTokens,
        Self::Dataset,
        Self::Labels,
        Self::Template,
        Self::LossOn,
        Self::Answer,
        Self::Method,
        Self::Rank,
        Self::Alpha,
        Self::Targets,
        Self::LocalSteps,
        Self::Batch,
        Self::Lr,
        Self::WeightDecay,
        Self::MaxGradNorm,
        Self::Proximal,
        Self::Quantise,
        Self::Dtype,
        Self::Format,
        Self::MaxBadRows,
        Self::AnswerAfter,
    ];

    /// The key, dotted in a run file, and the option.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::MaxTokens => ("task.max_tokens", "--max-tokens"),
            Self::MaxNewTokens => ("task.max_new_tokens", "--max-new-tokens"),
            Self::Dataset => ("task.dataset", "--dataset"),
            Self::Labels => ("task.labels", "--labels"),
            Self::Template => ("task.template", "--template"),
            Self::LossOn => ("task.loss_on", "--loss-on"),
            Self::Answer => ("task.answer", "--answer"),
            Self::Method => ("method.id", "--method"),
            Self::Rank => ("method.rank", "--rank"),
            Self::Alpha => ("method.alpha", "--alpha"),
            Self::Targets => ("method.targets", "--targets"),
            Self::LocalSteps => ("train.local_steps", "--steps"),
            Self::Batch => ("train.batch", "--batch"),
            Self::Lr => ("train.lr", "--lr"),
            Self::WeightDecay => ("train.weight_decay", "--weight-decay"),
            Self::MaxGradNorm => ("train.max_grad_norm", "--max-grad-norm"),
            Self::Proximal => ("train.proximal", "--proximal"),
            Self::Quantise => ("train.quantise", "--quantise"),
            Self::Dtype => ("train.dtype", "--dtype"),
            Self::Format => ("format", "--format"),
            Self::MaxBadRows => ("max_bad_rows", "--data-option max_bad_rows"),
            Self::AnswerAfter => ("answer_after", "--data-option answer_after"),
        }
    }

    /// The key.
    pub fn key(self) -> &'static str {
        self.names().0
    }

    /// The option.
    pub fn option(self) -> &'static str {
        self.names().1
    }

    /// The name as it stands in a sentence: keys have backticks.
    pub fn quoted(self) -> impl Display {
        quoted(self.key())
    }

    /// The setting with a value: `task.max_tokens = 64`, `--max-tokens 64`.
    pub fn with<T: Debug + Display>(self, value: T) -> impl Display {
        let key = self.key();
        match Wording::current() {
            Wording::Keys => format!("{key} = {value:?}"),
            Wording::Options => format!("{} {value}", self.option()),
        }
    }

    /// The advice to give the setting a value: `set task.loss_on = "all"`, `give --loss-on all`.
    pub fn set<T: Debug + Display>(self, value: T) -> impl Display {
        format!("{} {}", Wording::current().choose("set", "give"), self.with(value))
    }
}

impl Display for SettingKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(Wording::current().choose(self.key(), self.option()))
    }
}

/// The name of a run file's key as it stands in a sentence: in backticks, or as
/// the option for it. A key of the method alone, `method.KEY`, is given by
/// `--option KEY`; one without an option keeps its name.
pub fn quoted(key: &str) -> String {
    if Wording::current() == Wording::Options {
        if let Some(setting) = SettingKey::ALL.into_iter().find(|setting| setting.key() == key) {
            return setting.option().to_owned();
        }
        if let Some(option) = key.strip_prefix("method.") {
            return format!("`--option {option}`");
        }
    }
    format!("`{key}`")
}

/// What a message about a run file begins with. A command that is given options has no such file.
pub fn run_file_prefix() -> &'static str {
    Wording::current().choose("run file: ", "")
}

/// Advice that takes other sentences with keys than with options.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Advice {
    /// Say which columns a data file has, or what its rows hold.
    NameColumns,
    /// Name a column that the data file has.
    NameColumn,
    /// Map a label of the data file to one of the run, or leave its rows out.
    MapLabels,
    /// Say which of these formats a data file has.
    ChooseFormat,
    /// Name the data file that is there.
    CorrectPath,
    /// Look at what decides which rows of a data file are used.
    CheckDataset,
    /// Compare answers as text.
    AnswerAsText,
    /// The share of rows that may be unusable is this.
    MostBadRows(f64),
}

impl Display for Advice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (keys, options) = match self {
            Self::NameColumns => (
                "name the columns in the [[dataset]] table, for example `question = \"their name\"`, or set `rows`",
                "name the columns with --text-column, --label-column or --data-option, for example \
                 --data-option \"question=their name\", or say what a row holds with --data-option rows=SHAPE",
            ),
            Self::NameColumn => (
                "name the column there is in the [[dataset]] table",
                "name the column there is with --text-column, --label-column or --data-option KEY=COLUMN",
            ),
            Self::MapLabels => (
                "map others under [dataset.labels] or leave their rows out with `skip_labels`",
                "map others with --map-label FILE_LABEL=LABEL or leave their rows out with --skip-label LABEL",
            ),
            Self::ChooseFormat => ("set `format` to one of", "give --format one of"),
            Self::CorrectPath => ("set the right `path` in its [[dataset]] table", "name the right one with --data"),
            Self::CheckDataset => (
                "check the data set's path, labels and eval_fraction",
                "check --data, --skip-label and --eval-fraction",
            ),
            Self::AnswerAsText => ("set it to \"text\"", "give --answer text"),
            Self::MostBadRows(most) => {
                return match Wording::current() {
                    Wording::Keys => write!(f, "`max_bad_rows` = {most}"),
                    Wording::Options => write!(f, "--data-option max_bad_rows={most}"),
                };
            }
        };
        f.write_str(Wording::current().choose(keys, options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_has_a_key_and_an_option() {
        let setting = SettingKey::MaxTokens;
        let words = || {
            [
                setting.to_string(),
                setting.quoted().to_string(),
                setting.with(64).to_string(),
                setting.set(64).to_string(),
            ]
        };
        assert_eq!(
            words(),
            ["task.max_tokens", "`task.max_tokens`", "task.max_tokens = 64", "set task.max_tokens = 64"]
        );
        let options = ["--max-tokens", "--max-tokens", "--max-tokens 64", "give --max-tokens 64"];
        assert_eq!(Wording::Options.scope(words), options);
        assert_eq!(SettingKey::Template.set("plain").to_string(), "set task.template = \"plain\"");
        assert_eq!(Wording::Options.scope(|| SettingKey::Template.set("plain").to_string()), "give --template plain");
        assert_eq!(quoted("method.oversample"), "`method.oversample`");
        assert_eq!(Wording::Options.scope(|| quoted("method.oversample")), "`--option oversample`");
        assert_eq!(Wording::Options.scope(|| quoted("rounds.count")), "`rounds.count`");
        for setting in SettingKey::ALL {
            assert_eq!(SettingKey::ALL.iter().filter(|other| other.key() == setting.key()).count(), 1);
            assert_eq!(Wording::Options.scope(|| quoted(setting.key())), setting.option());
        }
    }

    #[test]
    fn a_scope_ends_with_its_work_and_its_thread() {
        Wording::Options.scope(|| {
            assert_eq!(Wording::Keys.scope(Wording::current), Wording::Keys);
            assert_eq!(Wording::current(), Wording::Options);
            assert_eq!(std::thread::spawn(Wording::current).join().unwrap(), Wording::Keys);
        });
        let panicked = std::panic::catch_unwind(|| Wording::Options.scope(|| panic!("as the test asked")));
        assert!(panicked.is_err());
        assert_eq!(Wording::current(), Wording::Keys);
    }
}
