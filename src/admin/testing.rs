//! A listener that shows an instance, for tests.

use reqwest::{Client, Method, Response};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::*;
use crate::engine::peer::TraceRow;
use crate::engine::view::SessionView;
use crate::model::Secret;
use crate::settings::Admin;
use crate::testing::view;

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
                let _ = asker.try_send(Told::Own(rows, Some(1_700_000_000_000)));
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
