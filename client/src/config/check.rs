//! Values of client.toml that are of the right kind and still make no sense.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rondo_data::Source;
use rondo_methods::Registry;
use rondo_proto::groups::LEAST_MIN_GROUP;
use rondo_proto::nearest::nearest;
use rondo_proto::run_file::TaskKind;

use super::{Config, ConfigError, is_empty};

impl Config {
    /// Refuses values outside what makes sense.
    pub(super) fn check(&self, file: &Path) -> Result<(), ConfigError> {
        let refuse = |key: String, problem: String| Err(ConfigError::Value { file: file.to_owned(), key, problem });
        for (number, model) in self.models.iter().enumerate() {
            let key = |name: &str| format!("model[{number}].{name}");
            match (&model.hub, is_empty(&model.path)) {
                (None, true) => {
                    return refuse(key("path"), "is missing; give a `path` or a `hub` repository".to_owned());
                }
                (Some(_), false) => return refuse(key("path"), "stands beside `hub`; give one of them".to_owned()),
                (None, false) if model.revision.is_some() || model.file.is_some() => {
                    let name = if model.revision.is_some() { "revision" } else { "file" };
                    return refuse(key(name), "is for models with `hub`".to_owned());
                }
                _ => {}
            }
        }
        let mut seen = BTreeMap::new();
        for (number, source) in self.datasets.iter().enumerate() {
            let key = |name: &str| format!("dataset[{number}].{name}");
            if source.name.is_empty() {
                return refuse(key("name"), "is empty; give the name that run files use".to_owned());
            }
            if let Some(first) = seen.insert(&source.name, number) {
                return refuse(key("name"), format!("is {:?}, as is that of dataset[{first}]", source.name));
            }
            if !(0.0..1.0).contains(&source.eval_fraction) {
                let problem = format!("is {}; allowed is 0 up to, but not, 1", source.eval_fraction);
                return refuse(key("eval_fraction"), problem);
            }
            if !(0.0..=1.0).contains(&source.max_bad_rows) {
                let problem =
                    format!("is {}; allowed is 0 to 1, the share of rows that may be skipped", source.max_bad_rows);
                return refuse(key("max_bad_rows"), problem);
            }
            if source.mapping.options.as_ref().is_some_and(|options| options.len() < 2) {
                return refuse(key("options"), "must name at least two options".to_owned());
            }
            if source.mapping.options.is_some() && source.mapping.choices.is_some() {
                return refuse(
                    key("options"),
                    "and `choices` are both set; a row's options come from one of them".to_owned(),
                );
            }
            if let Some((role, column)) = source.unlisted_column() {
                return refuse(key(role), format!("is {column:?}, which `columns` does not list"));
            }
        }
        self.check_domains(file)?;
        let device = &self.limits.device;
        let cuda = device.strip_prefix("cuda:").is_some_and(|index| index.parse::<u16>().is_ok());
        if !(cuda || ["cpu", "cuda", "auto"].contains(&device.as_str())) {
            let problem = format!("is {device:?}; allowed are \"cpu\", \"cuda:N\" and \"auto\"");
            return refuse("limits.device".to_owned(), problem);
        }
        if self.policy.min_group < LEAST_MIN_GROUP {
            let problem = format!(
                "is {}; the least is {LEAST_MIN_GROUP}, since a group of one row may be one person",
                self.policy.min_group
            );
            return refuse("policy.min_group".to_owned(), problem);
        }
        if self.policy.max_epsilon.is_some_and(|epsilon| !(epsilon > 0.0 && epsilon.is_finite())) {
            return refuse("policy.max_epsilon".to_owned(), "must be above 0".to_owned());
        }
        if self.policy.max_delta.is_some_and(|delta| !(delta > 0.0 && delta < 1.0)) {
            return refuse("policy.max_delta".to_owned(), "must lie between 0 and 1".to_owned());
        }
        let kinds = TaskKind::ALL.map(TaskKind::name);
        let registry = Registry::builtin();
        let methods: Vec<&str> = registry.iter().map(|method| method.id()).collect();
        let lists =
            [("policy.methods", &self.policy.methods, &methods[..]), ("policy.tasks", &self.policy.tasks, &kinds[..])];
        for (key, listed, known) in lists {
            if let Some(unknown) = listed.iter().find(|name| !known.contains(&name.as_str())) {
                let near = nearest(unknown, known.iter().copied());
                let near = near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
                let problem = format!("names {unknown:?}, which there is not{near}; there are {}", known.join(", "));
                return refuse(key.to_owned(), problem);
            }
        }
        for (number, budget) in self.privacy.iter().enumerate() {
            let key = |name: &str| format!("privacy[{number}].{name}");
            if !self.datasets.iter().any(|source| source.domain() == budget.domain) {
                return refuse(key("domain"), format!("is {:?}, which no data set has as its domain", budget.domain));
            }
            if self.privacy[..number].iter().any(|earlier| earlier.domain == budget.domain) {
                return refuse(key("domain"), format!("is {:?} a second time", budget.domain));
            }
            if let Err(error) = rondo_dp::Limit::new(budget.epsilon, budget.delta) {
                return refuse(key("epsilon"), format!("and `delta` make no budget: {error}"));
            }
        }
        for (key, value) in [
            ("poll.interval_ms", self.poll.interval_ms),
            ("poll.heartbeat_ms", self.poll.heartbeat_ms),
            ("poll.timeout_ms", self.poll.timeout_ms),
        ] {
            if value == 0 {
                return refuse(key.to_owned(), "must be above 0".to_owned());
            }
        }
        Ok(())
    }

    /// Refuses one file under two budgets, or as public and as somebody's:
    /// whoever holds it twice is asked twice as much.
    fn check_domains(&self, file: &Path) -> Result<(), ConfigError> {
        let refuse = |key: String, problem: String| Err(ConfigError::Value { file: file.to_owned(), key, problem });
        let folder = file.parent().unwrap_or(Path::new(""));
        let place = |source: &Source| {
            let path = folder.join(&source.path);
            std::fs::canonicalize(&path).unwrap_or(path)
        };
        let mut seen: BTreeMap<PathBuf, (usize, &Source)> = BTreeMap::new();
        for (number, source) in self.datasets.iter().enumerate() {
            let budgeted = self.privacy.iter().any(|budget| budget.domain == source.domain());
            if source.public && budgeted {
                let problem = format!(
                    "is true, but its domain {:?} has a [[privacy]] budget; what is public needs none: take one of them out",
                    source.domain()
                );
                return refuse(format!("dataset[{number}].public"), problem);
            }
            let (first, other) = *seen.entry(place(source)).or_insert((number, source));
            if source.public != other.public {
                let problem = format!(
                    "is {}, and dataset[{first}] with the same file says {}; say the same of both",
                    source.public, other.public
                );
                return refuse(format!("dataset[{number}].public"), problem);
            }
            if !source.public && source.domain() != other.domain() {
                let problem = format!(
                    "is {:?}, and dataset[{first}] with the same file has {:?}, so that the same data would have two budgets; \
                     give both the same `privacy_domain`",
                    source.domain(),
                    other.domain()
                );
                return refuse(format!("dataset[{number}].privacy_domain"), problem);
            }
        }
        Ok(())
    }
}
