//! `--watch`: the same again each second, until ctrl-c or until nobody reads it any more.

use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::client::ClientError;
use super::{exit, output};

/// How often it asks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows what `show` gives; with JSON one line each time. An instance that goes away is waited
/// for: that is what is being watched.
pub(super) async fn each_second(
    json: bool,
    show: impl AsyncFn() -> Result<String, ClientError>,
) -> u8 {
    let clear = if output::terminal() && !json {
        output::CLEAR
    } else {
        ""
    };
    // From now on ctrl-c is ours, whatever is awaited.
    let mut stopped = stop();
    loop {
        let answer = tokio::select! {
            answer = show() => answer,
            () = &mut stopped => return exit::DONE,
        };
        let shown = match answer {
            Ok(text) if json => output::print(&one_line(&text)),
            Ok(text) => output::print(&format!("{clear}{text}\n")),
            Err(error @ ClientError::Unreachable { .. }) => {
                let going_on = output::print(clear);
                complain!("tandem: {error}");
                going_on
            }
            Err(error) => return error.report(),
        };
        if !shown {
            return exit::DONE;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = &mut stopped => return exit::DONE,
        }
    }
}

/// Ctrl-c, also that of a time at which nobody waits for it.
pub(super) fn stop() -> Pin<Box<dyn Future<Output = ()>>> {
    let signals = signal(SignalKind::interrupt());
    Box::pin(async move {
        match signals {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    })
}

/// A JSON text on one line: within its strings there are no line ends.
fn one_line(text: &str) -> String {
    let mut line: String = text.lines().map(str::trim_start).collect();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_json_becomes_one_line_of_the_same_meaning() {
        let value = serde_json::json!({"a": ["x  y", {"b": null}], "c": "line\nend"});
        let line = one_line(&format!("{value:#}\n"));
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&line).unwrap(),
            value
        );
    }
}
