//! The log on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::LogFormat;

/// Level of the libraries, where `log.level` does not name them: their chatter hides ours. lapin
/// would write every message that is returned, body and all.
const LIBRARIES: &str = "warn,lapin::returned_messages=off";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level cannot be read.
    #[error("log.level {level:?} cannot be used: {reason}")]
    Level {
        /// As it was given.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process logs already.
    #[error("the log is set up already: {0}")]
    Again(String),
}

/// Starts logging to stderr, once a process. `level` is one level, which is for this program
/// alone (its libraries stay at `warn`), or a list as `info,tandem::broker=debug,lapin=info`.
/// What libraries write through the `log` crate comes along. Colours only on a terminal, and not
/// where `NO_COLOR` is set.
///
/// # Errors
/// Where the level cannot be read, or the process logs already.
pub fn init(format: LogFormat, level: &str) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(directives(level)).map_err(|error| LogError::Level {
        level: level.to_owned(),
        reason: error.to_string(),
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let lines = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_ansi(colours);
            registry.with(lines).try_init()
        }
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_writer(std::io::stderr);
            registry.with(lines).try_init()
        }
    };
    started.map_err(|error| LogError::Again(error.to_string()))
}

/// The level as filter directives.
fn directives(level: &str) -> String {
    let mut parts = Vec::new();
    for part in level.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        if part.contains('=') {
            parts.push(part.to_owned());
        } else if part.eq_ignore_ascii_case("off") {
            parts.push("off".to_owned());
        } else {
            parts.push(format!("{LIBRARIES},tandem={part}"));
        }
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_for_this_program_alone() {
        let libraries = "warn,lapin::returned_messages=off";
        assert_eq!(directives("debug"), format!("{libraries},tandem=debug"));
        assert_eq!(
            directives("info, tandem::broker=debug,lapin=info"),
            format!("{libraries},tandem=info,tandem::broker=debug,lapin=info")
        );
        assert_eq!(directives("off"), "off");
    }

    #[test]
    fn every_level_of_the_settings_is_a_filter() {
        for level in ["error", "warn", "info", "debug", "trace", "off", "INFO"] {
            assert!(EnvFilter::try_new(directives(level)).is_ok(), "{level}");
        }
        let error = init(LogFormat::Text, "tandem=loud").unwrap_err();
        assert!(error.to_string().contains("tandem=loud"), "{error}");
    }
}
