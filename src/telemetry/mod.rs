//! Log lines and metrics.

use std::time::Duration;

use crate::engine::{Event, View};
use crate::model::CallOutcome;

/// Labels of every happening.
#[derive(Debug, Clone)]
pub struct Labels {
    /// Instance id.
    pub instance: String,
}

/// Starts logging.
pub fn init(json: bool, level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(level).unwrap_or_default();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.init();
    }
}

/// Metrics.
pub fn metrics() -> Result<(), String> {
    Ok(())
}

/// One happening.
pub fn emit(event: &Event, _labels: &Labels) {
    match event {
        Event::CommandFinished { .. } | Event::EventPublished | Event::PeerRoundTrip { .. } => {
            tracing::debug!("{event:?}")
        }
        _ => tracing::info!("{event:?}"),
    }
}

/// Gauges.
pub fn gauges(_view: &View) {}

/// One downstream request.
pub fn downstream_request(_host: &str, _outcome: &CallOutcome, _took: Duration) {}
