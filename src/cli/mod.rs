//! Command line: one file a command.

/// Entry point of the program.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
