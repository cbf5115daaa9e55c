//! The `tandem` program.

/// Many small, short-lived allocations that are freed by another thread than made them: the
/// system's allocator spends a tenth of the CPU time of a busy instance on its locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    tandem::cli::main()
}
