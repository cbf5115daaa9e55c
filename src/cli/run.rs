//! `tandem run`: one instance in the foreground.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::app::{self, AppError};
use crate::cli::exit;
use crate::settings;
use crate::telemetry;

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
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("tandem: the system gives no threads: {error}");
            return ExitCode::from(exit::INTERNAL);
        }
    };
    let options = app::Options {
        accept_journal_loss: args.accept_journal_loss,
    };
    let result = runtime.block_on(app::run(loaded, options));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            match error {
                AppError::Io(_) | AppError::Journal(_) | AppError::Refused(_) => {
                    ExitCode::from(exit::FAILED)
                }
                AppError::Settings(_)
                | AppError::Broker(_)
                | AppError::Downstream(_)
                | AppError::Tls(_)
                | AppError::Id(_) => ExitCode::from(exit::USAGE),
            }
        }
    };
    telemetry::flush();
    code
}
