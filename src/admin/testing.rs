//! A picture of an instance and a listener that shows it, for tests.

use reqwest::{Client, Method, Response};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::*;
use crate::engine::peer::Role;
use crate::engine::peer::TraceRow;
use crate::engine::view::{
    BrokerView, DownstreamView, GroupView, PeerGroupView, PeerView, SessionView, SessionsView,
};
use crate::model::Secret;
use crate::settings::Admin;

fn broker(url: &str, state: &str, attached: bool) -> BrokerView {
    BrokerView {
        url: url.to_owned(),
        state: state.to_owned(),
        attached,
        preferred: attached,
        ..BrokerView::default()
    }
}

fn node(host: &str, state: &str, current: bool, reason: Option<&str>) -> DownstreamView {
    DownstreamView {
        url: format!("https://{host}:8445/finesse/api"),
        host: host.to_owned(),
        state: state.to_owned(),
        current,
        reason: reason.map(str::to_owned),
    }
}

/// A healthy leader with one peer; one broker and one downstream of two are down.
pub(crate) fn view() -> View {
    View {
        instance: "gc-1".to_owned(),
        site: "site-1".to_owned(),
        cluster: "tandem".to_owned(),
        mode: "active-passive".to_owned(),
        version: "0.1.0".to_owned(),
        started: 1_700_000_000_000,
        page: "http://127.0.0.1:9601".to_owned(),
        groups: vec![GroupView {
            name: "agents".to_owned(),
            role: Role::Leader,
            queue: "Connector1".to_owned(),
            priority: Some(127),
            tag: Some("gc-1.agents.leader.1".to_owned()),
            broker: Some("127.0.0.1:5672".to_owned()),
            consuming: true,
            term: 3,
            leader: Some("gc-1".to_owned()),
            reason: String::new(),
            choice: None,
        }],
        brokers: vec![
            broker("127.0.0.1:5672", "connected", true),
            broker("127.0.0.1:5673", "down", false),
        ],
        downstreams: vec![
            node("finesse-1", "up", true, None),
            node("finesse-2", "down", false, Some("connection refused")),
        ],
        peers: vec![PeerView {
            instance: "gc-2".to_owned(),
            site: "site-2".to_owned(),
            state: "alive".to_owned(),
            last_seen_ms: 120,
            owned: 0,
            broker: "127.0.0.1:5673".to_owned(),
            version: "0.1.0".to_owned(),
            started: 1_700_000_000_000,
            groups: vec![PeerGroupView {
                name: "agents".to_owned(),
                role: Role::Follower,
                priority: 100,
            }],
            rtt_ms: Some(3),
            standing: Default::default(),
        }],
        sessions: SessionsView {
            total: 10,
            owned: 7,
            subscribed: 6,
        },
        inflight: 4,
        outbox: 0,
        in_service: true,
        attached: true,
        drain: None,
        finished: 0,
        warnings: Vec::new(),
    }
}

/// Settings of a listener with this token, or none.
pub(crate) fn admin(listen: &str, token: Option<&str>) -> Admin {
    Admin {
        listen: listen.parse().unwrap(),
        token: token.map(Secret::new),
        tokens: Vec::new(),
        open_reads: false,
        page: String::new(),
        tls: None,
    }
}

pub(crate) struct Fixture {
    pub(crate) base: String,
    pub(crate) client: Client,
    pub(crate) views: watch::Sender<Arc<View>>,
    pub(crate) history: History,
    pub(crate) engine: JoinHandle<()>,
    pub(crate) server: JoinHandle<io::Result<()>>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
}

/// Answers as the driver would.
async fn fake_engine(mut asked: mpsc::Receiver<AdminRequest>, views: watch::Sender<Arc<View>>) {
    while let Some(request) = asked.recv().await {
        match request {
            AdminRequest::Sessions(_, answer) => {
                let sessions = vec![SessionView {
                    agent: "1001".to_owned(),
                    owner: "gc-1".to_owned(),
                    epoch: 3,
                    destination: "desk-1".to_owned(),
                    extension: Some("5001".to_owned()),
                    state: "READY".to_owned(),
                    subscribed: true,
                }];
                let matching = sessions.len();
                let _ = answer.send(SessionPage { matching, sessions });
            }
            AdminRequest::Trace(id, asker) => {
                let row = TraceRow {
                    at: Some(1),
                    instance: "gc-1".to_owned(),
                    command: "MakeReady".to_owned(),
                    addressee: "1001".to_owned(),
                    command_id: Some(id.clone()),
                    correlation_id: None,
                    trace_id: None,
                    stage: "received".to_owned(),
                    detail: String::new(),
                };
                let rows = if id == "c-1" { vec![row] } else { Vec::new() };
                let _ = asker.try_send(Told::Asked(Vec::new()));
                let _ = asker.try_send(Told::Rows(None, rows));
            }
            AdminRequest::Verb(verb, answer) => {
                let _ = answer.send(match verb {
                    Verb::GroupStop(_) => Ok("disabled".to_owned()),
                    Verb::GroupStart(name) => Err(format!("group {name} is not stopped")),
                    Verb::FailoverStop(_) => Ok("disabled".to_owned()),
                    Verb::FailoverStart(_) => Err("it leads already".to_owned()),
                    Verb::FailoverAuto(_) => Ok("follower".to_owned()),
                    Verb::Switchover(to) if to == "gc-9" => Err("no such instance".to_owned()),
                    Verb::Switchover(_) => Ok("draining".to_owned()),
                    Verb::Forget(name) if name == "gc-2" => Err("gc-2 is there".to_owned()),
                    Verb::Forget(_) => Ok("forgotten".to_owned()),
                    Verb::Drain => {
                        let mut view = view();
                        view.drain = Some("drained".to_owned());
                        views.send_replace(Arc::new(view));
                        Ok("draining".to_owned())
                    }
                });
            }
        }
    }
}

impl Fixture {
    pub(crate) async fn start(listen: &str, token: Option<&str>) -> Self {
        Self::with(admin(listen, token)).await
    }

    pub(crate) async fn with(admin: Admin) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = bind(admin.listen).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (views, view) = watch::channel(Arc::new(view()));
        let (ask, asked) = mpsc::channel(4);
        let history = History::default();
        let state = AdminState {
            connections: 128,
            watchdog: crate::watchdog::Watchdog::new(),
            view,
            ask,
            metrics: Arc::new(|| "tandem_build_info 1\n".to_owned()),
            rules: Rules::of(&admin),
            tls: admin.tls.clone(),
            history: history.clone(),
            pulse: Pulse::default(),
            network: watch::channel(Arc::default()).1,
            callbacks: None,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, state, async move {
            let _ = stopped.await;
        }));
        Self {
            base: match admin.tls {
                None => format!("http://127.0.0.1:{port}"),
                Some(_) => format!("https://127.0.0.1:{port}"),
            },
            client: Client::builder().no_proxy().build().unwrap(),
            engine: tokio::spawn(fake_engine(asked, views.clone())),
            views,
            history,
            server,
            stop: Some(stop),
        }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = self.call(Method::GET, path, &[]).await;
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let response = self.call(Method::POST, path, headers).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut View)) {
        let mut next = view();
        change(&mut next);
        self.views.send_replace(Arc::new(next));
    }
}
