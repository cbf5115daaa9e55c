//! Looks all the time whether two members lead one group at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tandem::broker::management::ManagementClient;
use tokio::task::JoinHandle;

use super::pair::{Instance, Pair, management};

/// Pause between two looks at the members' pages.
const PAUSE: Duration = Duration::from_millis(40);
/// Looks at the members for one at a broker, whose lists are some seconds old anyway.
const ROUNDS: usize = 10;
/// A broker that is dead keeps nobody waiting.
const BROKER_LIMIT: Duration = Duration::from_secs(1);

/// A watch that goes on until [`Watch::end`].
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Seen>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Moments at which both members led, by their own word; or two consumers of the command queue,
    /// by the broker's.
    pub second_leaders: Vec<String>,
    /// How often both members were asked, and a broker listed a leader's consumer.
    pub looks: usize,
    pub listed: usize,
}

impl Watch {
    /// Starts. `brokers` are base URLs of the management APIs of all nodes.
    pub fn start(pair: &Pair, brokers: &[String]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pages = [&pair.gc1, &pair.gc2].map(Instance::pages);
        let brokers: Vec<ManagementClient> = brokers.iter().map(|url| management(url)).collect();
        let (stopped, queue) = (stop.clone(), pair.queue.clone());
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            for round in 0_usize.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                // Led before and after: it led in between, too.
                let first = leads(&pages[0]).await;
                let second = leads(&pages[1]).await;
                let still = leads(&pages[0]).await;
                seen.looks += 1;
                if first && second && still {
                    seen.second_leaders
                        .push(format!("both say so, look {round}"));
                }
                if round % ROUNDS == 0
                    && let Some(broker) = brokers.get(round / ROUNDS % brokers.len())
                {
                    let tags = leading_tags(broker, &queue).await;
                    seen.listed += usize::from(!tags.is_empty());
                    let members: BTreeSet<&str> = tags
                        .iter()
                        .filter_map(|tag| tag.split('.').next())
                        .collect();
                    if members.len() > 1 {
                        seen.second_leaders.push(format!("a broker lists {tags:?}"));
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
            seen
        });
        Self { stop, task }
    }

    /// Ends it.
    pub async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the watch has not failed")
    }
}

async fn leads((http, url): &(reqwest::Client, String)) -> bool {
    let Ok(answer) = http.get(url).send().await else {
        return false;
    };
    let status: Value = answer.json().await.unwrap_or_default();
    let role = status["groups"][0]["role"].as_str().unwrap_or_default();
    role.starts_with("leader")
}

/// Tags of consumers of the command queue that were registered as a leader's.
async fn leading_tags(broker: &ManagementClient, queue: &str) -> Vec<String> {
    let list = tokio::time::timeout(BROKER_LIMIT, broker.get("consumers/%2f")).await;
    let list = list.ok().and_then(Result::ok).flatten().unwrap_or_default();
    let all = list.as_array().cloned().unwrap_or_default();
    let of_queue = all.iter().filter(|one| one["queue"]["name"] == queue);
    let tags = of_queue.filter_map(|one| one["consumer_tag"].as_str());
    let tags = tags.filter(|tag| {
        tag.split('.')
            .nth(2)
            .is_some_and(|role| role.starts_with("leader"))
    });
    tags.map(str::to_owned).collect()
}
