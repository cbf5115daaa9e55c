//! `tandem schema`: the contracts for machines, as docs/api keeps them.

use std::process::ExitCode;

use super::output::print;
use crate::contracts::Contract;

/// Arguments of `tandem schema`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  tandem schema openapi > openapi.json
  tandem schema events > events.schema.json

An instance serves openapi at /openapi.json. Asyncapi names the schemas by the files that docs/api
keeps: commands.schema.json, replies.schema.json, events.schema.json.")]
pub struct Args {
    /// Which document
    #[arg(value_enum)]
    pub contract: Contract,
}

/// Prints the document.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    print(&format!("{:#}\n", args.contract.document()));
    ExitCode::SUCCESS
}
