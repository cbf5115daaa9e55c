//! Command line: one file a command.

pub mod check;
pub mod demo;
pub mod run;
pub mod send;
pub mod simulate;
pub mod topology;

use clap::Parser;

/// The program's arguments.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, clap::Subcommand)]
enum Sub {
    Run(run::Args),
    Check(check::Args),
    Topology(topology::Args),
    Simulate(simulate::Args),
    Send(send::Args),
    Demo(demo::Args),
}

/// Entry point of the program.
#[must_use]
pub fn main() -> std::process::ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Cli::parse().command {
        Sub::Run(args) => run::run(&args),
        Sub::Check(args) => check::run(args, false),
        Sub::Topology(args) => topology::run(args),
        Sub::Simulate(args) => simulate::run(args),
        Sub::Send(args) => send::run(&args, false),
        Sub::Demo(args) => demo::run(&args, false),
    }
}
