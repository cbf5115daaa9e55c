//! The property files of a pair.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tandem::lab::Relay;

use super::{Instance, Pair, PairOptions};

impl Pair {
    /// A third instance, `gc-3`, with gc-2's settings and this priority. Not started yet.
    pub fn third(&self, priority: u8) -> Instance {
        let third = Instance::new("gc-3", self.folder.path());
        let text = std::fs::read_to_string(&self.gc2.config).expect("gc-2's file");
        let changes = BTreeMap::from([
            ("instance.id", "gc-3".to_owned()),
            ("instance.site", "site-3".to_owned()),
            ("consumer.priority", priority.to_string()),
            ("admin.listen", third.admin().to_string()),
            (
                "data.dir",
                self.folder.path().join("data-gc-3").display().to_string(),
            ),
        ]);
        let text = text.lines().fold(String::new(), |mut text, line| {
            let key = line.split('=').next().unwrap_or_default();
            let _ = match changes.get(key) {
                Some(value) => writeln!(text, "{key}={value}"),
                None => writeln!(text, "{line}"),
            };
            text
        });
        std::fs::write(&third.config, text).expect("a property file");
        third
    }

    /// The property file of an instance.
    pub(super) fn properties(&self, index: usize, options: &PairOptions) -> String {
        let own = [&self.gc1, &self.gc2, &self.gc3][index];
        let active = options.mode == "active-active";
        // In active-active each site lists its own broker and downstream first.
        let order = if active && index == 1 { [1, 0] } else { [0, 1] };
        let mut keys: BTreeMap<String, String> = BTreeMap::new();
        let mut put = |key: &str, value: String| keys.insert(key.to_owned(), value);
        put("instance.id", own.name.to_owned());
        put("instance.site", format!("site-{}", index + 1));
        put("cluster.name", self.cluster.clone());
        put("mode", options.mode.to_owned());
        put("command.queue", self.queue.clone());
        for (n, at) in order.into_iter().enumerate() {
            let uri = match self.sites.get(index).filter(|_| at != index.min(1)) {
                Some(relay) => format!("amqp://guest:guest@{}/%2f", relay.address()),
                None => self.brokers[at].clone(),
            };
            put(&format!("broker.url.{}", n + 1), uri);
            let management = self.management[at].clone();
            put(&format!("broker.management-url.{}", n + 1), management);
            let node = &self.simulator.nodes[at];
            let relay = self.relays.get(at).filter(|_| index == 0);
            let rest = relay.map_or(node.rest, Relay::address);
            let url = format!("http://{rest}/finesse/api");
            put(&format!("downstream.url.{}", n + 1), url);
            let host = node.xmpp.ip().to_string();
            put(&format!("downstream.address.{}", n + 1), host);
        }
        let priority = options.priorities[index];
        put("consumer.priority", priority.to_string());
        let notify = self.simulator.nodes[0].xmpp.port();
        put("notify.port", notify.to_string());
        put("notify.tls", "false".to_owned());
        let file = |name: String| self.folder.path().join(name).display().to_string();
        put("control.key-file", file("key".to_owned()));
        put("data.dir", file(format!("data-{}", own.name)));
        put("admin.listen", own.admin().to_string());
        for (key, value) in [
            ("agent.not-ready-reason", "1"),
            ("agent.logout-reason", "21"),
            ("broker.failback-hold", "1s"),
            ("downstream.probe-interval", "500ms"),
            ("downstream.request-timeout", "2s"),
            ("takeback.hold", "2s"),
            ("log.level", "info"),
        ] {
            put(key, value.to_owned());
        }
        for (key, value) in options
            .settings
            .iter()
            .chain(options.own.get(index).into_iter().flatten())
        {
            keys.insert(key.clone(), value.replace("{cluster}", &self.cluster));
        }
        keys.iter().fold(String::new(), |mut text, (key, value)| {
            let _ = writeln!(text, "{key}={value}");
            text
        })
    }
}
