//! `tandem commands`: the protocol's commands, from the table that the program itself reads.

use std::process::ExitCode;

use super::output::print;
use crate::catalogue::{self, show};

/// Arguments of `tandem commands`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As the tables of docs/commands.md
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// Prints the commands.
#[must_use]
pub fn run(args: &Args, json: bool) -> ExitCode {
    let text = if json {
        format!("{:#}\n", show::to_json())
    } else if args.markdown {
        show::to_markdown()
    } else {
        table()
    };
    print(&text);
    ExitCode::SUCCESS
}

fn table() -> String {
    let row = |spec: &catalogue::CommandSpec| {
        format!(
            "{:22} {:8} {}\n",
            spec.name,
            spec.repeat.as_str(),
            show::arguments(spec).replace('`', "")
        )
    };
    let head = format!("{:22} {:8} {}\n", "COMMAND", "REPEAT", "ARGUMENTS");
    catalogue::commands().fold(head, |text, spec| text + &row(spec))
}
