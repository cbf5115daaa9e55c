//! The `tandem` program.

/// Messages and XML are many small pieces: the C library's allocator took a fifth of all CPU time
/// (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tandem::cli::main()
}
