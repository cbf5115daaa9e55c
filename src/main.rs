//! The `tandem` program.

fn main() -> std::process::ExitCode {
    tandem::cli::main()
}
