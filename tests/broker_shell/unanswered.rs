//! What a broker does not say: that a queue is gone, that a consumer is registered.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;

use super::broker_of_its_own::attach;
use super::*;

/// The queue is gone from the broker's tables, and its consumer was not told.
#[tokio::test(flavor = "multi_thread")]
async fn a_control_queue_that_is_gone_without_a_word_is_declared_again() {
    let node = node("unsaid").await;
    let mut config = config(&node, "gc-1", 1);
    // Else it is called wedged, and the whole link ends.
    config.probe_interval = LIMIT;
    let mut shell = Shell::start(config);
    shell.dial(LINK).await.unwrap();
    attach(&mut shell, LINK).await.unwrap();
    let gone = "Name = rabbit_misc:r(<<\"/\">>, queue, <<\"tandem.control.gc-1\">>), \
                {ok, Q} = rabbit_amqqueue:lookup(Name), \
                catch rabbit_amqqueue:internal_delete(Name, <<\"t\">>), \
                catch rabbit_amqqueue:internal_delete(Q, <<\"t\">>), \
                {error, not_found} = rabbit_amqqueue:lookup(Name).";
    node.evaluate(gone).await.unwrap();
    shell
        .wait("attached again", |input| match input {
            Input::ControlAttached { .. } => Some(()),
            Input::LinkDown { reason, .. } => panic!("{reason}"),
            _ => None,
        })
        .await;
    managed(&node, "bindings/%2F", |all| {
        let mut all = all.as_array()?.iter();
        let ours = |one: &&serde_json::Value| one["source"] == "tandem.control";
        all.find(ours).map(drop)
    })
    .await;
    shell.broker.close().await;
}

/// The queue of expired commands answers no consumer: that costs the link nothing, and what a
/// consumer that is registered late is given goes to the next one.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_consumer_that_is_not_answered_costs_its_channel_only() {
    let node = node("silent-expired").await;
    let client = Client::connect(&node).await;
    let mut arguments = lapin::types::FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let options = QueueDeclareOptions::durable();
    let declare = client
        .channel
        .queue_declare("tandem.expired".into(), options, arguments);
    declare.await.unwrap();
    let mut shell = Shell::start(config(&node, "gc-1", 1));
    shell.dial(LINK).await.unwrap();
    let server = "'%2F_tandem.expired'";
    node.evaluate(&format!("ok = sys:suspend({server})."))
        .await
        .unwrap();
    shell.execute(BrokerCommand::ConsumeExpired { link: LINK });
    let refused = shell
        .wait("no consumer", |input| match input {
            Input::Proved {
                way: Way::Expired,
                proof,
                ..
            } => Some(proof),
            Input::LinkDown { reason, .. } => panic!("{reason}"),
            _ => None,
        })
        .await;
    assert!(matches!(refused, Proof::Refused { .. }), "{refused:?}");
    node.evaluate(&format!("ok = sys:resume({server})."))
        .await
        .unwrap();
    client
        .send("tandem.expired", "MakeCall#1001", "5551001")
        .await;
    // For one that nobody has any more, if it were still there.
    tokio::time::sleep(Duration::from_secs(1)).await;
    shell.execute(BrokerCommand::ConsumeExpired { link: LINK });
    let delivery = shell.delivery().await;
    assert_eq!(&delivery.raw.body[..], b"5551001");
    shell.broker.close().await;
}
