//! `tandem man-pages`: a page a command, for packages.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::CommandFactory;

use super::{Cli, exit, output};

/// Arguments of `tandem man-pages`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Folder for the pages: it must be there
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// Writes the pages.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match clap_mangen::generate_to(Cli::command(), &args.folder) {
        Ok(()) => {
            output::print(&format!("{}\n", args.folder.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain!("tandem: {}: {error}", args.folder.display());
            ExitCode::from(exit::FAILED)
        }
    }
}
