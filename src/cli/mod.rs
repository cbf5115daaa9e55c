//! Command line: one file a command.

pub mod check;
pub mod simulate;
pub mod topology;

/// Entry point of the program.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
