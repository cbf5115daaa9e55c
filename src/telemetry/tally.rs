//! Metrics that shells count themselves, without a log line.

use metrics::{counter, histogram};

use super::names;
use crate::model::Resource;

/// Tells a downstream request that ended. `status_class` is `1xx` to `5xx`, or `error` where no
/// answer came; anything else counts as `error`. `seconds` from sending to answer.
pub fn downstream_request(host: &str, status_class: &str, seconds: f64) {
    const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    let class = CLASSES
        .into_iter()
        .find(|class| *class == status_class)
        .unwrap_or("error");
    let host = host.to_owned();
    counter!(names::DOWNSTREAM_REQUESTS, "downstream" => host.clone(), "status_class" => class)
        .increment(1);
    histogram!(names::DOWNSTREAM_REQUEST_DURATION, "downstream" => host).record(seconds);
}

/// Counts an event for an HTTP callback that is done with.
pub fn callback(outcome: &'static str) {
    counter!(names::CALLBACKS, "outcome" => outcome).increment(1);
}

/// Counts an attempt to post an event that failed.
pub fn callback_failed() {
    counter!(names::CALLBACK_FAILURES).increment(1);
}

/// Counts what could not be done for want of something on this machine.
pub fn local_shortage(of: Resource) {
    counter!(names::LOCAL_SHORTAGES, "of" => of.as_str()).increment(1);
}

/// Counts a notification that could not be read.
pub fn notification_unreadable() {
    counter!(names::NOTIFICATIONS_UNREADABLE).increment(1);
}

/// Counts lines of the log that nobody took.
pub(super) fn log_lines_dropped(lines: u64) {
    counter!(names::LOG_LINES_DROPPED).increment(lines);
}

/// Tells a journal write that is durable, and how long it took.
pub fn journal_write(seconds: f64) {
    histogram!(names::JOURNAL_FSYNC).record(seconds);
}
