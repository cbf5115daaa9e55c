//! One log line and one metric a happening.

#[macro_use]
mod kinds;

use metrics::{counter, gauge, histogram};
use tracing::{debug, error, info, trace, warn};

use super::gauges::bit;
use super::names;
use super::repeats::EVERY_ONE;
use crate::engine::Event;
use crate::engine::members::GOODBYE;
use crate::engine::peer::Role;
use crate::wire::reply::Outcome;

/// What stands on every log line. Metrics do not carry it: who scrapes knows whom.
#[derive(Debug, Clone)]
pub struct Labels {
    /// Instance id.
    pub instance: String,
}

/// Tells a happening: one log line, one metric. Free text goes to the log only, quoted.
pub fn emit(event: &Event, labels: &Labels) {
    let instance = &labels.instance;
    match event {
        about_messages!() => messages(event, instance),
        about_brokers!() => brokers(event, instance),
        about_the_instance!() => instance_wide(event, instance),
        about_peers!() => peers(event, instance),
        about_downstreams!() => downstreams(event, instance),
    }
}

/// A line on one command, with all that it is known by between fields of its own.
macro_rules! of_command {
    ($level:ident!($words:literal, $tag:ident, [$($before:tt)*] [$($after:tt)*])) => {
        $level!(
            $($before)*
            command = $tag.command.as_str(),
            agent = $tag.addressee.as_str(),
            command_id = $tag.command_id.as_deref(),
            correlation_id = $tag.correlation_id.as_deref(),
            trace_id = $tag.trace_id(),
            $($after)*
            $words
        )
    };
}

fn messages(event: &Event, instance: &str) {
    match event {
        Event::CommandFinished { .. } => command_finished(event, instance),
        // The record of the latest ones is asked for them.
        Event::Stage { .. } => {}
        Event::DeadLettered {
            tag,
            reason,
            detail,
        } => {
            counter!(names::DEAD_LETTERED, "reason" => *reason).increment(1);
            of_command!(warn!(
                "message dead-lettered",
                tag,
                [instance,][reason, detail = detail.as_str(),]
            ));
        }
        Event::InDoubt { tag } => {
            counter!(names::IN_DOUBT).increment(1);
            of_command!(warn!("command in doubt", tag, [instance,][]));
        }
        Event::Resolved { outcome } => {
            counter!(names::RESOLVED).increment(1);
            info!(
                instance,
                outcome = outcome.as_str(),
                "command in doubt found out"
            );
        }
        Event::DoubleEffect {
            command,
            agent,
            outcomes: [ours, theirs],
        } => {
            counter!(names::DOUBLE_EFFECTS).increment(1);
            error!(
                instance,
                command = command.as_str(),
                agent = agent.as_str(),
                ours,
                theirs,
                "two instances tell different outcomes of one command"
            );
        }
        Event::Duplicate { tag, kind } => {
            counter!(names::DUPLICATES, "kind" => *kind).increment(1);
            of_command!(info!("duplicate command", tag, [instance, kind,][]));
        }
        Event::EventPublished => {
            counter!(names::EVENTS_PUBLISHED).increment(1);
            trace!(instance, "event published");
        }
        Event::EventDropped => {
            counter!(names::EVENTS_DROPPED).increment(1);
            warn!(instance, "event dropped: too many wait for a broker");
        }
        Event::ReplyUnroutable => {
            counter!(names::REPLIES_UNROUTABLE).increment(1);
            warn!(instance, "reply found no queue");
        }
        Event::LedgerOverflow { for_ms } => {
            counter!(names::LEDGER_OVERFLOWS).increment(1);
            let seconds = for_ms / 1_000;
            warn!(
                instance,
                seconds,
                "outcomes are remembered for less than ten minutes: a command sent again later than \
                 that is run again; raise command.remembered"
            );
        }
        about_brokers!() | about_the_instance!() | about_peers!() | about_downstreams!() => {}
    }
}

/// The one line on a command: by whatever a client, the platform or a tracing system knows it. It
/// holds no argument and no body.
fn command_finished(event: &Event, instance: &str) {
    let Event::CommandFinished {
        command,
        tag,
        outcome,
        code,
        downstream,
        status,
        request_id,
        millis,
        waited,
        identified,
    } = event
    else {
        return;
    };
    counter!(names::COMMANDS, "command" => *command, "outcome" => outcome.as_str()).increment(1);
    histogram!(names::COMMAND_DURATION, "command" => *command).record(seconds(*millis));
    histogram!(names::COMMAND_QUEUE_WAIT).record(seconds(*waited));
    if !identified {
        counter!(names::COMMANDS_WITHOUT_ID).increment(1);
    }
    // The level is fixed where a line is written: the two differ in nothing else.
    macro_rules! line {
        ($level:ident) => {
            $level!(
                target: EVERY_ONE,
                instance,
                command,
                agent = tag.addressee.as_str(),
                command_id = tag.command_id.as_deref(),
                correlation_id = tag.correlation_id.as_deref(),
                outcome = outcome.as_str(),
                error = code.as_deref(),
                downstream = downstream.as_deref(),
                status,
                request_id = request_id.as_deref(),
                trace_id = tag.trace_id(),
                millis,
                waited,
                "command finished"
            )
        };
    }
    if matches!(outcome, Outcome::Ok | Outcome::Accepted) {
        line!(debug);
    } else {
        line!(info);
    }
}

fn brokers(event: &Event, instance: &str) {
    match event {
        Event::BrokerLink { broker, up, reason } => {
            gauge!(names::BROKER_CONNECTED, "broker" => broker.clone()).set(bit(*up));
            if *up {
                info!(instance, broker = broker.as_str(), "broker connected");
            } else {
                warn!(
                    instance,
                    broker = broker.as_str(),
                    reason = reason.as_str(),
                    "broker not connected"
                );
            }
        }
        Event::BrokerFailover { from, to } => {
            let from = if from.is_empty() { "none" } else { from };
            counter!(names::BROKER_FAILOVERS, "from" => from.to_owned(), "to" => to.clone())
                .increment(1);
            info!(instance, from, to = to.as_str(), "served by another broker");
        }
        Event::BrokerBlocked { broker, blocked } => {
            gauge!(names::BROKER_BLOCKED, "broker" => broker.clone()).set(bit(*blocked));
            if *blocked {
                warn!(
                    instance,
                    broker = broker.as_str(),
                    "broker refuses publications"
                );
            } else {
                info!(
                    instance,
                    broker = broker.as_str(),
                    "broker takes publications again"
                );
            }
        }
        Event::LinkGarbled {
            broker,
            problem,
            times,
        } => {
            gauge!(names::BROKER_GARBLED, "broker" => broker.clone()).set(f64::from(*times));
            error!(
                instance,
                broker = broker.as_str(),
                problem = problem.as_str(),
                times,
                "what a broker sent could not be read"
            );
        }
        Event::BrokerWay { broker, way, lost } => {
            gauge!(names::BROKER_WAY_LOST, "broker" => broker.clone(), "way" => *way)
                .set(bit(lost.is_some()));
            let broker = broker.as_str();
            match lost {
                Some((words, reason)) => warn!(instance, broker, way, reason, "{words}"),
                None => info!(instance, broker, way, "works again"),
            }
        }
        Event::OneCluster { problem } => {
            let cure = crate::model::brokers::ONE_CLUSTER_CURE;
            warn!(instance, cure, "{problem}");
        }
        Event::ConsumerLost { group, reason } => {
            counter!(names::CONSUMERS_LOST, "group" => group.clone()).increment(1);
            warn!(
                instance,
                group = group.as_str(),
                reason = reason.as_str(),
                "consumer lost"
            );
        }
        about_messages!() | about_the_instance!() | about_peers!() | about_downstreams!() => {}
    }
}

fn instance_wide(event: &Event, instance: &str) {
    match event {
        Event::RoleChanged {
            group,
            from,
            to,
            reason,
        } => {
            for role in Role::ALL {
                gauge!(names::ROLE, "group" => group.clone(), "role" => role.as_str())
                    .set(bit(role == *to));
            }
            counter!(names::ROLE_CHANGES, "group" => group.clone(), "role" => to.as_str())
                .increment(1);
            let (from, to) = (from.as_str(), to.as_str());
            info!(
                instance,
                group = group.as_str(),
                from,
                to,
                reason,
                "role changed"
            );
        }
        Event::Operator { group, what } => {
            let (group, what) = (group.as_str(), what.as_str());
            info!(instance, group, what, "choice of the leader");
        }
        Event::Alone {
            group,
            reason,
            detail,
        } => {
            let (group, detail) = (group.as_str(), detail.as_str());
            error!(
                instance,
                group, reason, detail, "leader without a successor"
            );
        }
        Event::TakeoverStarted { reason, agents } => {
            counter!(names::TAKEOVERS, "reason" => *reason).increment(1);
            info!(instance, reason, agents, "takeover started");
        }
        Event::TakeoverFinished {
            reason,
            agents,
            millis,
        } => {
            histogram!(names::TAKEOVER_DURATION).record(seconds(*millis));
            info!(instance, reason, agents, millis, "takeover finished");
        }
        Event::OwnPause { millis } => {
            counter!(names::OWN_PAUSES).increment(1);
            warn!(instance, millis, "this process was stopped or starved");
        }
        Event::Shortage {
            of,
            reason,
            began: _,
        } => {
            counter!(names::LOCAL_SHORTAGES, "of" => *of).increment(1);
            let reason = reason.as_str();
            warn!(instance, of, reason, "this machine lacks what it takes");
        }
        Event::NotKept { reason } => {
            error!(instance, ?reason, "sessions not made durable; trying again");
        }
        Event::NotJournaled { reason } => {
            counter!(names::JOURNAL_FAILURES).increment(1);
            error!(
                instance,
                reason = reason.as_str(),
                "the journal cannot be written: non-idempotent commands are refused until it can"
            );
        }
        Event::ImpossibleStep { state, evidence } => {
            counter!(names::STALE, "what" => "impossible_step").increment(1);
            error!(
                instance,
                state, evidence, "refused: this cannot follow in the life of a command (a bug)"
            );
        }
        Event::Stale { what } => {
            counter!(names::STALE, "what" => *what).increment(1);
            debug!(instance, what, "late answer ignored");
        }
        about_messages!() | about_brokers!() | about_peers!() | about_downstreams!() => {}
    }
}

fn peers(event: &Event, instance: &str) {
    match event {
        Event::PeerUp { peer } => {
            gauge!(names::PEER_UP, "peer" => peer.to_string()).set(1.0);
            info!(instance, peer = peer.as_str(), "peer up");
        }
        Event::PeerSuspect { peer } => {
            gauge!(names::PEER_UP, "peer" => peer.to_string()).set(0.0);
            warn!(instance, peer = peer.as_str(), "peer not heard");
        }
        Event::PeerLost { peer, reason } if *reason == GOODBYE => {
            gauge!(names::PEER_LEFT, "peer" => peer.to_string()).set(1.0);
            gauge!(names::PEER_UP, "peer" => peer.to_string()).set(0.0);
            counter!(names::PEER_LOST, "reason" => *reason).increment(1);
            info!(instance, peer = peer.as_str(), "peer said goodbye");
        }
        Event::PeerLost { peer, reason } => {
            gauge!(names::PEER_UP, "peer" => peer.to_string()).set(0.0);
            counter!(names::PEER_LOST, "reason" => *reason).increment(1);
            error!(instance, peer = peer.as_str(), reason, "peer lost");
        }
        Event::AgentMoved { agent, from } => {
            debug!(
                instance,
                agent,
                from = from.as_str(),
                "agent followed its client here"
            );
        }
        Event::Fenced {
            peer,
            broker,
            closed,
        } => match closed {
            Ok(count) => warn!(
                instance,
                peer = peer.as_str(),
                broker,
                count,
                "connections of a silent peer closed"
            ),
            Err(reason) => error!(
                instance,
                peer = peer.as_str(),
                broker,
                ?reason,
                "a silent peer could not be fenced"
            ),
        },
        // Who it claims to be is not authentic: no label.
        Event::PeerRejected { peer, reason } => {
            counter!(names::PEER_REJECTED, "reason" => *reason).increment(1);
            let claimed = peer.as_ref().map(|peer| peer.as_str());
            if *reason == "replayed" {
                debug!(instance, claimed, reason, "peer message came twice");
            } else {
                warn!(instance, claimed, reason, "peer message rejected");
            }
        }
        Event::PeerRoundTrip { peer, millis } => {
            histogram!(names::PEER_RTT, "peer" => peer.to_string()).record(seconds(*millis));
            trace!(instance, peer = peer.as_str(), millis, "peer round trip");
        }
        about_messages!() | about_brokers!() | about_the_instance!() | about_downstreams!() => {}
    }
}

fn downstreams(event: &Event, instance: &str) {
    match event {
        Event::DownstreamState { node, up, reason } => {
            gauge!(names::DOWNSTREAM_UP, "downstream" => node.clone()).set(bit(*up));
            if *up {
                info!(instance, downstream = node.as_str(), "downstream up");
            } else {
                warn!(
                    instance,
                    downstream = node.as_str(),
                    reason = reason.as_str(),
                    "downstream down"
                );
            }
        }
        Event::DownstreamFailover { from, to } => {
            counter!(names::DOWNSTREAM_FAILOVERS).increment(1);
            warn!(
                instance,
                from = from.as_str(),
                to = to.as_str(),
                "moved to another downstream"
            );
        }
        Event::Service { available } => {
            gauge!(names::IN_SERVICE).set(bit(*available));
            if *available {
                info!(instance, "in service");
            } else {
                error!(instance, "out of service: no downstream is usable");
            }
        }
        Event::SubscriptionLost {
            kind,
            agent,
            reason,
        } => {
            counter!(names::SUBSCRIPTIONS_LOST, "kind" => *kind).increment(1);
            warn!(
                instance,
                kind,
                agent = agent.as_str(),
                reason = reason.as_str(),
                "subscription lost"
            );
        }
        about_messages!() | about_brokers!() | about_the_instance!() | about_peers!() => {}
    }
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

#[cfg(test)]
mod tests;
