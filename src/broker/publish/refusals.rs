//! What a refusal of the broker was about: it closes the channel, and takes the whole group with it.

use lapin::types::ShortString;

use super::super::classify::{Class, Problem};
use super::super::connect::within;
use super::super::link::Link;
use super::super::{declare, ways};
use super::{Answer, Entry, Outcomes};
use crate::engine::input::PublishOutcome;

/// Where a message was to go.
pub(super) struct Target {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
}

impl Target {
    pub(super) fn of((_, message): &Entry) -> Self {
        Self {
            exchange: message.exchange.clone(),
            key: message.key.clone(),
        }
    }
}

/// Why the broker closed the channel, where that was for what a message asked. It takes all
/// messages of the group with it, whichever was meant.
fn refusal(answers: &[Answer]) -> Option<Problem> {
    let mut problems = answers.iter().filter_map(|answer| match answer {
        Some(Err(error)) => Some(Problem::from(error.clone())),
        _ => None,
    });
    problems.find(|problem| matches!(problem.class, Class::NotFound | Class::AccessRefused))
}

/// Finds the messages that a refusal was about, and tells which way it bars; the others of the
/// group have failed with them. An exchange that was deleted is declared again.
pub(super) async fn refused(
    link: &Link,
    answers: &[Answer],
    targets: &[Target],
    outcomes: &mut Outcomes,
) {
    let Some(problem) = refusal(answers) else {
        return;
    };
    if let Some(key) = ways::refused_topic(&problem) {
        // One client's address: no doubt about the broker.
        mark(outcomes, targets, PublishOutcome::Refused, |target| {
            target.key.as_str() == key
        });
        return;
    }
    let names = targets.iter().map(|target| target.exchange.as_str());
    let blamed = ways::blamed(&problem.text, names);
    if problem.class == Class::NotFound && made_again(link, &problem, blamed).await {
        return;
    }
    let first = targets
        .first()
        .map_or("", |target| target.exchange.as_str());
    let way = link.context.way_of(blamed.unwrap_or(first));
    link.barred(way, &problem).await;
    mark(outcomes, targets, PublishOutcome::Barred, |target| {
        blamed.is_none_or(|name| target.exchange.as_str() == name)
    });
}

/// Says more of those that have failed.
pub(super) fn mark(
    outcomes: &mut Outcomes,
    targets: &[Target],
    to: PublishOutcome,
    fits: impl Fn(&Target) -> bool,
) {
    for ((_, outcome), target) in outcomes.iter_mut().zip(targets) {
        if *outcome == PublishOutcome::Failed && fits(target) {
            *outcome = to;
        }
    }
}

/// Declares the exchanges again, so that the same messages do not fail for ever; whether the one
/// that is missing may be there now. It is not where the broker refuses: whoever deleted it has to
/// make it again.
async fn made_again(link: &Link, problem: &Problem, name: Option<&str>) -> bool {
    let declare = within(link.context.config.timeout, async {
        Ok(declare::exchanges(&link.context, &link.publish).await)
    });
    let lacks = tokio::select! {
        declared = declare => declared,
        () = link.given_up.cancelled() => return true,
    };
    let way = name.map(|name| link.context.way_of(name));
    let refused = match lacks {
        Ok(lacks) => lacks
            .into_iter()
            .find(|(lacking, _)| way.is_none_or(|way| way == *lacking)),
        Err(_) => None,
    };
    match &refused {
        None => tracing::warn!(%problem, "an exchange was deleted and is declared again"),
        Some((_, refused)) => tracing::debug!(%problem, %refused, "an exchange is missing"),
    }
    refused.is_none()
}
