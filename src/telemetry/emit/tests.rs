use super::*;
use crate::model::InstanceId;
use crate::telemetry::{Telemetry, downstream_request};

fn after(events: &[Event]) -> String {
    let (telemetry, recorder) = Telemetry::local();
    let labels = Labels {
        instance: "gc-1".to_owned(),
    };
    metrics::with_local_recorder(&recorder, || {
        for event in events {
            emit(event, &labels);
        }
        downstream_request("finesse-1", "2xx", 0.02);
        downstream_request("finesse-1", "made up", 3.0);
    });
    telemetry.render()
}

#[test]
fn happenings_count_under_bounded_labels() {
    let peer = InstanceId::new("gc-2").unwrap();
    let text = after(&[
        Event::CommandFinished {
            command: "MakeReady",
            tag: std::sync::Arc::default(),
            outcome: Outcome::InDoubt,
            code: None,
            downstream: None,
            status: None,
            request_id: None,
            millis: 40,
            waited: 2,
            identified: false,
        },
        Event::BrokerFailover {
            from: String::new(),
            to: "a:5672".to_owned(),
        },
        Event::PeerRejected {
            peer: Some(peer.clone()),
            reason: "wrong_key",
        },
        Event::PeerLost {
            peer,
            reason: "silent",
        },
        Event::SubscriptionLost {
            kind: "refused",
            agent: "agent-1001".to_owned(),
            reason: "password of agent-1001".to_owned(),
        },
        Event::TakeoverFinished {
            reason: "peer-lost",
            agents: 3,
            millis: 1_500,
        },
    ]);
    for line in [
        "tandem_commands_total{command=\"MakeReady\",outcome=\"IN_DOUBT\"} 1",
        "tandem_commands_without_id_total 1",
        "tandem_command_duration_seconds_bucket{command=\"MakeReady\",le=\"0.025\"} 0",
        "tandem_command_duration_seconds_bucket{command=\"MakeReady\",le=\"0.05\"} 1",
        "tandem_broker_failovers_total{from=\"none\",to=\"a:5672\"} 1",
        "tandem_peer_rejected_total{reason=\"wrong_key\"} 1",
        "tandem_peer_up{peer=\"gc-2\"} 0",
        "tandem_subscriptions_lost_total{kind=\"refused\"} 1",
        "tandem_takeover_duration_seconds_sum 1.5",
        "tandem_downstream_requests_total{downstream=\"finesse-1\",status_class=\"2xx\"} 1",
        "tandem_downstream_requests_total{downstream=\"finesse-1\",status_class=\"error\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(!text.contains("1001"), "an agent became a label:\n{text}");
}
