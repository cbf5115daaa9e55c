//! What the process is told from outside: to end, to end at once, to read its file again.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{AppError, Reloader};
use crate::engine::Input;
use crate::telemetry;

/// Listened for from the start on: until then a signal ends the process in the system's own way.
pub(super) struct Signals {
    /// Cancelled by the first signal to end.
    pub(super) ending: CancellationToken,
    /// Those that came before somebody looks are not lost.
    hangup: Signal,
}

impl Signals {
    /// From now on SIGTERM and ctrl-c ask for the end; a second one ends the process at once,
    /// whatever it is doing.
    pub(super) fn listen() -> Result<Self, AppError> {
        let of = |kind| {
            let unheard = |error| AppError::Io(format!("signals cannot be heard: {error}"));
            signal(kind).map_err(unheard)
        };
        let (term, interrupt) = (of(SignalKind::terminate())?, of(SignalKind::interrupt())?);
        let hangup = of(SignalKind::hangup())?;
        let ending = CancellationToken::new();
        tokio::spawn(watch(term, interrupt, ending.clone()));
        Ok(Self { ending, hangup })
    }

    /// The end is the engine's business from now on, and SIGHUP the reloader's.
    pub(super) fn serve(self, inputs: mpsc::Sender<Input>, reloader: Reloader) {
        let ending = self.ending;
        tokio::spawn(async move {
            ending.cancelled().await;
            let _ = inputs.send(Input::Shutdown).await;
        });
        tokio::spawn(reload(self.hangup, reloader));
    }
}

async fn watch(mut term: Signal, mut interrupt: Signal, ending: CancellationToken) {
    loop {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        if ending.is_cancelled() {
            tracing::warn!("second signal: ending at once");
            telemetry::flush();
            std::process::exit(0);
        }
        tracing::info!("draining: a second signal ends at once");
        ending.cancel();
    }
}

/// SIGHUP reads the property file again.
async fn reload(mut hangup: Signal, mut reloader: Reloader) {
    while hangup.recv().await.is_some() {
        let reload = tokio::task::spawn_blocking(move || {
            reloader.reload();
            reloader
        });
        match reload.await {
            Ok(back) => reloader = back,
            Err(error) => {
                tracing::error!(%error, "SIGHUP: reading the file failed; it is not read any more");
                return;
            }
        }
    }
}
