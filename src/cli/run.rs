//! `tandem run`: one instance in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::{self, AppError};
use crate::cli::exit;
use crate::settings;
use crate::telemetry;

/// The runtime's own variable: who sets it wants so many threads.
const THREADS: &str = "TOKIO_WORKER_THREADS";
/// More are of no use: what every command goes through is one task.
const MOST_THREADS: usize = 4;

/// Arguments of `tandem run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Property file of this site.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Start although the journal cannot be used: it is moved away. Which calls were made before
    /// is not known then, and commands that may have been seen are answered IN_DOUBT for ten
    /// minutes.
    #[arg(long)]
    pub accept_journal_loss: bool,
}

/// Runs one instance until a signal.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let loaded = match settings::load_from_process(&args.config) {
        Ok(loaded) => loaded,
        Err(findings) => {
            complain!("{findings}");
            complain!(
                "tandem: {} cannot be used; `tandem check` shows everything at once",
                args.config.display()
            );
            return ExitCode::from(exit::USAGE);
        }
    };
    let log = &loaded.settings.log;
    if let Err(error) = telemetry::init(log.format, &log.level) {
        complain!("tandem: {error}");
        return ExitCode::from(exit::USAGE);
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os(THREADS).is_none() {
        runtime.worker_threads(threads(
            std::thread::available_parallelism().map_or(1, usize::from),
        ));
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("tandem: the system gives no threads: {error}");
            return ExitCode::from(exit::INTERNAL);
        }
    };
    let grace = loaded.settings.shutdown_grace;
    let options = app::Options {
        accept_journal_loss: args.accept_journal_loss,
    };
    let result = runtime.block_on(app::run(loaded, options));
    runtime.shutdown_timeout(app::cutting(grace));
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(code_of(&error))
        }
    };
    telemetry::flush();
    code
}

/// Threads for the runtime's tasks on a machine of so many processors, without those that wait for
/// disks and names. A command goes from task to task, and each hand-over to another thread costs
/// more than the work that it takes there.
fn threads(processors: usize) -> usize {
    (processors / 2).clamp(1, MOST_THREADS)
}

fn code_of(error: &AppError) -> u8 {
    match error {
        AppError::Io(_) | AppError::Journal(_) | AppError::Refused(_) => exit::FAILED,
        AppError::Internal(_) => exit::INTERNAL,
        AppError::Settings(_)
        | AppError::Broker(_)
        | AppError::Downstream(_)
        | AppError::Tls(_)
        | AppError::Id(_) => exit::USAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_processors_are_used_but_few() {
        let used: Vec<usize> = [1, 2, 3, 4, 8, 64].into_iter().map(threads).collect();
        assert_eq!(used, [1, 1, 1, 2, 4, 4]);
    }

    #[test]
    fn an_error_of_the_program_is_none_of_its_surroundings() {
        let words = || "the driver failed: it panicked".to_owned();
        assert_eq!(code_of(&AppError::Internal(words())), 70);
        assert_eq!(code_of(&AppError::Io(words())), 1);
        assert_eq!(code_of(&AppError::Settings(words())), 64);
    }
}
