//! `rondo method`: the federated methods this program
//! knows, and what their tensors and options are.

use clap::Subcommand;
use rondo_methods::{
    At, DpSupport, LawKind, Method, OptionKind, OptionSpec, Registry, Role, Target, TensorSpec, Travel,
};
use serde::Serialize;

use crate::context::Context;
use crate::error::CliError;
use crate::output::{facts, table};
use crate::shapes;

/// Commands about methods.
#[derive(Debug, Subcommand)]
pub enum MethodCommand {
    /// Lists all methods
    #[command(after_help = "Example:\n  rondo method list")]
    List,
    /// Shows a method: paper, tensors, options
    #[command(after_help = "Example:\n  rondo method show fed-sb")]
    Show {
        /// The method's id
        method: String,
    },
}

/// A method as it is shown.
#[derive(Debug, Serialize)]
struct About {
    id: String,
    title: String,
    paper: String,
    law: LawKind,
    exactness: String,
    mixed_ranks: bool,
    privacy: DpSupport,
    delta: String,
    /// A constant change that it adds to every weight; empty without one.
    #[serde(skip_serializing_if = "String::is_empty")]
    offset: String,
    tensors: Vec<Tensor>,
    options: Vec<Setting>,
}

#[derive(Debug, Serialize)]
struct Tensor {
    name: String,
    shape: String,
    role: Role,
    travel: Travel,
}

#[derive(Debug, Serialize)]
struct Setting {
    name: &'static str,
    values: String,
    default: Option<&'static str>,
    help: &'static str,
}

#[derive(Debug, Serialize)]
struct All {
    methods: Vec<About>,
}

/// Does a command about methods.
///
/// # Errors
/// The method is not known, or the result cannot be printed.
pub fn run(command: MethodCommand, context: &mut Context) -> Result<(), CliError> {
    let registry = Registry::builtin();
    match command {
        MethodCommand::List => {
            let methods = registry.iter().map(about).collect::<Result<Vec<_>, _>>()?;
            context.output.show(&All { methods }, |all| list(&all.methods))
        }
        MethodCommand::Show { method } => {
            let about = about(registry.get(&method)?)?;
            context.output.show(&about, details)
        }
    }
}

fn about(method: &dyn Method) -> Result<About, CliError> {
    // The rank appears in shapes by name only; any will do.
    let config = shapes::config(method, 8, None)?;
    let tensor = |spec: TensorSpec| Tensor {
        shape: spec.dims_in_words(),
        name: spec.part,
        role: spec.role,
        travel: spec.travel,
    };
    let setting = |option: &OptionSpec| Setting {
        name: option.name,
        values: values(option.kind),
        default: option.default,
        help: option.help,
    };
    Ok(About {
        id: method.id().to_owned(),
        title: method.title().to_owned(),
        paper: method.paper().to_owned(),
        law: method.law(&config),
        exactness: method.exactness(&config, 1).to_string(),
        mixed_ranks: method.mixed_ranks(&config),
        privacy: method.dp_support(&config),
        delta: delta(method)?,
        offset: offset(method)?,
        tensors: shapes::tensors(method)?.into_iter().map(tensor).collect(),
        options: method.options().iter().map(setting).collect(),
    })
}

/// The change of a weight; the scale is written as a symbol where the method has one.
fn delta(method: &dyn Method) -> Result<String, CliError> {
    let target = any_target();
    let at = At { target: &target, rank: 8, round: None, client: None };
    let with = |alpha: f64| Ok::<_, CliError>(method.delta(&shapes::config(method, 8, Some(alpha))?, at));
    let plain = with(8.0)?;
    let doubled = with(16.0)?;
    Ok(if plain == doubled { plain.to_string() } else { format!("(alpha / r) {plain}") })
}

/// The constant change of a weight, if the method makes one.
fn offset(method: &dyn Method) -> Result<String, CliError> {
    let target = any_target();
    let at = At { target: &target, rank: 8, round: None, client: None };
    Ok(method.offset(&shapes::config(method, 8, None)?, at).map(|offset| offset.to_string()).unwrap_or_default())
}

/// A target that stands for all.
fn any_target() -> Target {
    Target { name: "target".to_owned(), out: 64, inp: 64 }
}

fn values(kind: OptionKind) -> String {
    match kind {
        OptionKind::Choice(words) => words.join(" | "),
        OptionKind::Count { min, max } => format!("{min} to {max}"),
        OptionKind::Positive => "a number above 0".to_owned(),
        OptionKind::NonNegative => "a number of 0 or more".to_owned(),
        OptionKind::Fraction => "a number from 0 to 1".to_owned(),
        OptionKind::Toggle => "true | false".to_owned(),
        OptionKind::Counts { min, max } => format!("a list of {min} to {max}"),
        OptionKind::Names => "a list of words".to_owned(),
    }
}

/// A unit variant as serde spells it: "mean", "both", ...
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Object(fields)) => fields.keys().cloned().collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

fn list(methods: &[About]) -> String {
    let row = |method: &About| {
        let exact = method.exactness.split(':').next().unwrap_or_default().to_owned();
        let ranks = if method.mixed_ranks { "may differ" } else { "one" };
        vec![method.id.clone(), word(&method.law), exact, ranks.to_owned(), word(&method.privacy), method.title.clone()]
    };
    let titles = ["METHOD", "LAW", "AGGREGATION", "RANKS", "NOISE", "WHAT IT DOES"];
    table(&titles, methods.iter().map(row).collect(), "no methods")
}

fn details(method: &About) -> String {
    let privacy = match &method.privacy {
        DpSupport::Central { released, .. } => format!("noise at the client or on the sum of {}", released.join(", ")),
        DpSupport::LocalOnly(why) => format!("noise at the client only: {why}"),
        DpSupport::Unsupported(why) => format!("none: {why}"),
    };
    let mut text = facts(&[
        ("method", method.id.clone()),
        ("what it does", method.title.clone()),
        ("paper", method.paper.clone()),
        ("change of a weight", method.delta.clone()),
        ("constant change", method.offset.clone()),
        ("law", word(&method.law)),
        ("aggregation", method.exactness.clone()),
        ("ranks", if method.mixed_ranks { "may differ by client".to_owned() } else { "one for all".to_owned() }),
        ("privacy", privacy),
    ]);
    let tensor = |tensor: &Tensor| {
        let role = match tensor.role {
            Role::Trained => "trained".to_owned(),
            Role::Frozen { from } => format!("frozen, from the {}", word(&from)),
        };
        vec![format!("<target>.{}", tensor.name), tensor.shape.clone(), role, word(&tensor.travel)]
    };
    let rows = method.tensors.iter().map(tensor).collect();
    text += &format!("\n{}", table(&["TENSOR", "SHAPE", "ROLE", "TRAVELS"], rows, "no tensors"));
    let setting = |option: &Setting| {
        let default = option.default.unwrap_or("-").to_owned();
        vec![option.name.to_owned(), option.values.clone(), default, option.help.to_owned()]
    };
    let rows = method.options.iter().map(setting).collect();
    text += &format!(
        "\n{}",
        table(&["OPTION", "VALUES", "DEFAULT", "HELP"], rows, "no options beside rank, alpha, targets")
    );
    text
}
