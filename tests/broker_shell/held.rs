//! Answers of a broker that stay away at the wrong moment, and ends of links.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;

/// Forwards connections to a broker. What the broker says is held back on the first connection on
/// which a client says `word`, from then on; all others can be cut.
struct Between {
    address: SocketAddr,
    cut: watch::Sender<bool>,
    held: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn between(node: &RabbitNode, word: &'static str) -> Between {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = SocketAddr::from(([127, 0, 0, 1], node.amqp_port()));
    let (cut, cuts) = watch::channel(false);
    let (hold, held) = watch::channel(false);
    let hold = Arc::new(hold);
    let task = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (hold, mut cuts) = (Arc::clone(&hold), cuts.clone());
            tokio::spawn(async move {
                let broker = TcpStream::connect(target).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_broker, mut to_broker) = broker.into_split();
                let (own, here) = watch::channel(false);
                let up = async {
                    while let Some(bytes) = some(&mut from_client).await {
                        let says = bytes
                            .windows(word.len())
                            .any(|part| part == word.as_bytes());
                        // Before the broker can answer.
                        if says && !hold.send_replace(true) {
                            own.send_replace(true);
                        }
                        if to_broker.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                };
                let down = async {
                    while let Some(bytes) = some(&mut from_broker).await {
                        if *here.borrow() {
                            std::future::pending::<()>().await;
                        }
                        if to_client.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                };
                let cut = async {
                    let _ = cuts.wait_for(|cut| *cut).await;
                    if *here.borrow() {
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    () = up => {}
                    () = down => {}
                    () = cut => {}
                }
            });
        }
    });
    Between {
        address,
        cut,
        held,
        task,
    }
}

async fn some(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 64 * 1024];
    let count = from.read(&mut buffer).await.unwrap_or(0);
    buffer.truncate(count);
    (count > 0).then_some(buffer)
}

impl Between {
    /// A shell behind it, which takes silence for nothing but silence.
    fn shell(&self, id: &str) -> Shell {
        let uri = format!("amqp://guest:guest@{}/%2f", self.address);
        let mut config = config_for(uri, id, 1);
        config.heartbeat = Duration::from_secs(60);
        config.probe_interval = Duration::from_secs(60);
        Shell::start(config)
    }
}

/// The broker may register the consumer later, and nobody would look after what it is given: the
/// end of the link brings that back.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_registration_is_not_answered_costs_the_link() {
    let node = node("unanswered").await;
    let consume = |link| BrokerCommand::Consume {
        link,
        group: 0,
        priority: 1,
        tag: "gc-1.agents.leader.1".into(),
    };
    let cases = [
        ("gc-1", "gc-1.agents.leader.1", consume(LINK)),
        (
            "gc-3",
            "gc-3.control",
            BrokerCommand::AttachControl { link: LINK },
        ),
    ];
    let run = async |(id, word, command): (&str, &'static str, BrokerCommand)| {
        let between = between(&node, word).await;
        let mut shell = between.shell(id);
        shell.dial(LINK).await.unwrap();
        shell.execute(command);
        let reason = shell.link_down().await;
        let said = "no answer from the broker: consume";
        assert!(reason.contains(said), "{id}: {reason}");
        assert!(*between.held.borrow());
        (between, shell)
    };
    let mut ended = futures::future::join_all(cases.map(run)).await;
    let client = Client::connect(&node).await;
    client.send("Connector1", "Hello#crm-1", "").await;
    let (_between, shell) = &mut ended[0];
    let next = LinkEpoch(2);
    shell.dial(next).await.unwrap();
    shell.execute(consume(next));
    let delivery = shell.delivery().await;
    assert_eq!(delivery.id.link, next);
    for (_between, shell) in ended {
        shell.broker.close().await;
    }
}

/// A connection for direct replies that says nothing any more is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_a_link_is_told_before_its_direct_replies_have_ended() {
    let node = node("silent-direct").await;
    let between = between(&node, "r-held").await;
    let mut shell = between.shell("gc-1");
    shell.dial(LINK).await.unwrap();
    shell.consume(1, "gc-1.agents.leader.1").await;
    let client = Client::connect(&node).await;
    let _answers = client.consume("amq.rabbitmq.reply-to").await;
    let address = asked_directly(&client, &mut shell).await;
    let first = reply_named(ReplyRoute::Direct(address.clone()), "r-1");
    assert_eq!(shell.publish(1, first).await, PublishOutcome::Confirmed);
    shell.execute(BrokerCommand::Publish {
        id: PublishId(2),
        link: LINK,
        message: reply_named(ReplyRoute::Direct(address), "r-held"),
    });
    let mut held = between.held.clone();
    held.wait_for(|held| *held).await.unwrap();
    let begun = Instant::now();
    between.cut.send_replace(true);
    let reason = shell.link_down().await;
    // Its orderly end is given two seconds.
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(1_700), "{took:?}: {reason}");
    shell.broker.close().await;
}

/// What was handed over before the end leaves before it: an instance's goodbye is the last thing.
#[tokio::test]
async fn what_was_published_before_an_orderly_end_is_confirmed() {
    let node = node("goodbye").await;
    for round in 0..8 {
        let mut shell = Shell::start(config(&node, "gc-1", round));
        shell.dial(LINK).await.unwrap();
        let first = shell.publish(1, event("e-1")).await;
        assert_eq!(first, PublishOutcome::Confirmed);
        for id in 2..6 {
            shell.execute(BrokerCommand::Publish {
                id: PublishId(id),
                link: LINK,
                message: event(&format!("e-{id}")),
            });
        }
        let Shell { broker, mut inputs } = shell;
        broker.close().await;
        let mut confirmed = 0;
        while let Ok(input) = inputs.try_recv() {
            if let Input::Published { outcome, .. } = input {
                assert_eq!(outcome, PublishOutcome::Confirmed, "round {round}");
                confirmed += 1;
            }
        }
        assert_eq!(confirmed, 4, "round {round}");
    }
}
