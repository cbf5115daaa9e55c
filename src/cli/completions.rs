//! `tandem completions`: what a shell needs to complete command lines.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, output};

/// Arguments of `tandem completions`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  tandem completions bash > /etc/bash_completion.d/tandem
  tandem completions zsh > /usr/local/share/zsh/site-functions/_tandem
  tandem completions fish > ~/.config/fish/completions/tandem.fish")]
pub struct Args {
    /// Which shell
    pub shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tandem", &mut script);
    output::print(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}
