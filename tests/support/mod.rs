//! A pair of instances between two real brokers and a simulated downstream, for the end-to-end
//! tests.
//!
//! ```text
//!   Desk, Wire ──▶ broker 1 ══ federation ══ broker 2 ◀── Desk, Wire
//!                    ▲    ▲                   ▲   ▲
//!                    └─ gc-1 ─────────────────┘   │      (`tandem run` processes)
//!                         └────── gc-2 ───────────┘
//!                     └─────▶ simulator ◀─────┘          (in this process)
//! ```
//!
//! Tests of one file run one after another ([`run`]) on one pair of brokers. Each pair of
//! instances has a `cluster.name`, a command queue and agents of its own, so nothing is shared
//! but the brokers. The brokers live as long as a test of the file runs or waits for its turn.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each file uses a part; a test fails by panic"
)]

pub mod browser;
pub mod callback;
pub mod crew;
pub mod desk;
pub mod load;
pub mod pair;
pub mod prometheus;
pub mod raw;
pub mod receiver;
pub mod silence;
pub mod site;
pub mod stock;
pub mod watch;
pub mod wire;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tandem::lab::{BrokerNetwork, NetworkOptions, RabbitNode};
use tokio::runtime::Runtime;

pub use crew::Crew;
pub use desk::Desk;
pub use pair::{Pair, PairOptions};
pub use site::Site;
pub use tandem_test_kit::{certs, hole};
pub use watch::Watch;
pub use wire::Wire;

/// Generous: only a failing test waits this long.
pub const LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// The relays between the brokers are tasks that outlive a test, so the tests share a runtime.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// The file's brokers, while a test holds them.
static BENCH: Mutex<Weak<Bench>> = Mutex::new(Weak::new());

static CLUSTERS: AtomicU32 = AtomicU32::new(0);

/// What the tests of one file share.
#[derive(Debug, Default)]
struct Bench {
    turn: tokio::sync::Mutex<Shared>,
}

/// The part that is used by one test at a time.
#[derive(Debug, Default)]
pub struct Shared {
    /// Before the brokers, so that instances end first.
    standing: Option<Pair>,
    named: std::collections::BTreeMap<&'static str, Pair>,
    network: Option<BrokerNetwork>,
}

impl Shared {
    /// The brokers, started where they do not run, their links whole.
    pub async fn network(&mut self) -> &mut BrokerNetwork {
        match &mut self.network {
            Some(network) => {
                network.heal_link().await;
                for broker in network.brokers_mut() {
                    broker.nodes_mut().iter_mut().for_each(RabbitNode::thaw);
                    broker.start_again().await.expect("a broker starts again");
                }
            }
            None => {
                let network = BrokerNetwork::start(2).await.expect("two brokers start");
                self.network = Some(network);
            }
        }
        self.network.as_mut().expect("just set")
    }

    /// The same with brokers of this kind, where none have been started yet.
    pub async fn network_with(&mut self, options: NetworkOptions) -> &mut BrokerNetwork {
        if self.network.is_none() {
            let network = BrokerNetwork::start_with(options).await;
            self.network = Some(network.expect("the brokers start"));
        }
        self.network().await
    }

    /// A pair of instances for this test alone.
    pub async fn pair(&mut self, options: PairOptions) -> Pair {
        let network = self.network().await;
        Pair::start(network, options).await
    }

    /// The pair that tests share which break nothing; each uses agents of its own.
    pub async fn standing(&mut self, options: PairOptions) -> &mut Pair {
        if self.standing.is_none() {
            let pair = self.pair(options).await;
            self.standing = Some(pair);
        }
        self.standing.as_mut().expect("just set")
    }

    /// The brokers as they are, dead ones included.
    pub fn brokers(&self) -> &BrokerNetwork {
        self.network.as_ref().expect("a pair was started")
    }

    /// The brokers with whatever was done to them.
    pub fn network_as_it_is(&mut self) -> &mut BrokerNetwork {
        self.network.as_mut().expect("a pair was started")
    }

    /// The same for pairs of which a file needs several.
    pub async fn named(&mut self, name: &'static str, options: PairOptions) -> &mut Pair {
        if !self.named.contains_key(name) {
            let pair = self.pair(options).await;
            self.named.insert(name, pair);
        }
        self.named.get_mut(name).expect("just set")
    }

    /// Broker 1 takes no publications for want of memory, or does again; all instances show it.
    pub async fn alarm(&mut self, pair: &Pair, on: bool) {
        let to = match on {
            true => "0.000001",
            false => "{absolute, \"512MB\"}",
        };
        let set = format!("vm_memory_monitor:set_vm_memory_high_watermark({to}).");
        let done = self.broker(0).evaluate(&set).await;
        done.expect("the broker takes it");
        for instance in [&pair.gc1, &pair.gc2] {
            let what = format!("{} shows that broker 1 blocks: {on}", instance.name);
            until(&what, async || {
                (instance.status().await["brokers"][0]["state"] == "blocked") == on
            })
            .await;
        }
    }

    /// Broker 1 (index 0) or 2.
    pub fn broker(&mut self, index: usize) -> &mut tandem::lab::RabbitNode {
        let network = self.network.as_mut().expect("a pair was started");
        network.node(index).expect("two brokers")
    }
}

/// Runs one test when its turn has come.
pub fn run(test: impl AsyncFnOnce(&mut Shared)) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bench = {
        let mut known = BENCH.lock().unwrap_or_else(PoisonError::into_inner);
        known.upgrade().unwrap_or_else(|| {
            let bench = Arc::new(Bench::default());
            *known = Arc::downgrade(&bench);
            bench
        })
    };
    RUNTIME.block_on(async {
        let mut shared = bench.turn.lock().await;
        let begin = Instant::now();
        test(&mut shared).await;
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        println!("{name}: {:.1} s", begin.elapsed().as_secs_f32());
    });
    // Ends brokers and instances where no other test waits for them; they need the runtime.
    let _inside = RUNTIME.enter();
    drop(bench);
}

/// Looks again and again until there is something to see.
///
/// # Panics
/// After [`LIMIT`], with what was waited for.
pub async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// [`wait_for`] a yes.
pub async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    wait_for(what, async || look().await.then_some(())).await;
}

fn cluster_name() -> String {
    format!("t{}", CLUSTERS.fetch_add(1, Ordering::Relaxed))
}
