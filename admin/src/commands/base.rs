//! `rondo base`: base models are registered once, from file headers
//! and digests; the weights stay where they are.

use std::path::PathBuf;

use clap::Subcommand;
use rondo_proto::v1::{BaseModel, GetBaseRequest, ListBasesRequest};

use crate::context::Context;
use crate::error::CliError;
use crate::output::{self, facts, table};
use crate::text::size;

/// Commands about base models.
#[derive(Debug, Subcommand)]
pub enum BaseCommand {
    /// Registers a model: a folder with config.json,
    /// tokenizer.json and *.safetensors, or one .gguf file
    #[command(after_help = "Example:
  rondo base add minilm-l6 --from models/minilm-l6
  rondo base add smollm2 --from models/SmolLM2-135M-Instruct.Q4_1.gguf")]
    Add {
        /// Name for run files
        name: String,
        /// The model's folder or .gguf file; only digests, names and shapes are sent
        #[arg(long, value_name = "DIR|FILE.gguf")]
        from: PathBuf,
    },
    /// Lists registered base models
    #[command(after_help = "Example:\n  rondo base list --json")]
    List,
    /// Shows one with its files and the layers that runs may target
    #[command(after_help = "Example:\n  rondo base show minilm-l6")]
    Show {
        /// Its name
        name: String,
    },
}

/// Does a command about base models.
///
/// # Errors
/// The coordinator cannot be reached or refuses, the model cannot be described, or the result
/// cannot be printed.
pub async fn run(command: BaseCommand, context: &mut Context) -> Result<(), CliError> {
    let mut client = context.administration().await?;
    match command {
        BaseCommand::Add { name, from } => {
            let model = rondo_base::describe(&from, &name)?;
            if let Some(remark) = rondo_base::Checkpoint::open(&from)?.remark() {
                output::warn(&CliError::failed(remark));
            }
            let added = client.add_base(model).await?.into_inner();
            context.output.show(&added, |base| format!("registered\n{}", overview(base)))
        }
        BaseCommand::List => {
            let reply = client.list_bases(ListBasesRequest {}).await?.into_inner();
            context.output.show(&reply, |reply| {
                let row = |base: &BaseModel| {
                    let parameters = format!("{:.1} M", base.parameters as f64 / 1e6);
                    vec![base.name.clone(), base.architecture.clone(), parameters, base.digest.clone()]
                };
                let rows = reply.bases.iter().map(row).collect();
                table(&["NAME", "KIND", "PARAMETERS", "DIGEST"], rows, "no base models; `rondo base add` registers one")
            })
        }
        BaseCommand::Show { name } => {
            let base = client.get_base(GetBaseRequest { name }).await?.into_inner();
            context.output.show(&base, |base| format!("{}\n{}\n{}", overview(base), layers(base), files(base)))
        }
    }
}

fn overview(base: &BaseModel) -> String {
    facts(&[
        ("base", base.name.clone()),
        ("digest", base.digest.clone()),
        ("token digest", if base.token_digest.is_empty() { "none".to_owned() } else { base.token_digest.clone() }),
        ("kind", base.architecture.clone()),
        ("parameters", base.parameters.to_string()),
        ("hidden size", base.hidden_size.to_string()),
        ("longest input", format!("{} tokens", base.max_positions)),
        ("linear layers", base.linears.len().to_string()),
    ])
}

/// Targets, one line for layers that differ in their number only.
fn layers(base: &BaseModel) -> String {
    let mut kinds: Vec<(String, u32, u32, usize)> = Vec::new();
    for linear in &base.linears {
        let star = |part: &str| if part.parse::<u32>().is_ok() { "*".to_owned() } else { part.to_owned() };
        let name = linear.name.split('.').map(star).collect::<Vec<_>>().join(".");
        let out = linear.out_features;
        let inp = linear.in_features;
        match kinds.iter_mut().find(|kind| (kind.0.as_str(), kind.1, kind.2) == (name.as_str(), out, inp)) {
            Some(kind) => kind.3 += 1,
            None => kinds.push((name, out, inp, 1)),
        }
    }
    let row =
        |(name, out, inp, count): (String, u32, u32, usize)| vec![name, format!("[{out}, {inp}]"), count.to_string()];
    table(&["TARGET", "WEIGHT [OUT, IN]", "COUNT"], kinds.into_iter().map(row).collect(), "no linear layers")
}

fn files(base: &BaseModel) -> String {
    let rows = base.files.iter().map(|file| vec![file.name.clone(), size(file.bytes), file.digest.clone()]).collect();
    table(&["FILE", "SIZE", "DIGEST"], rows, "no files")
}
