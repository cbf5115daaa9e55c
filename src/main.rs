//! The `tandem` program.

/// Messages and XML are many small pieces: this takes a good tenth of the CPU time that the C
/// library's allocator would.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tandem::cli::main()
}
