//! What an operator, or a broker's own fault, may do to a sound pair.

use std::path::PathBuf;

use serde_json::json;

use crate::support::Pair;

/// gc-1's file with some keys changed, beside it.
pub fn variant(pair: &Pair, changes: &[(&str, &str)]) -> PathBuf {
    let text = std::fs::read_to_string(&pair.gc1.config).unwrap();
    let kept = text.lines().filter(|line| {
        let key = line.split('=').next().unwrap_or_default();
        changes.iter().all(|(changed, _)| *changed != key)
    });
    let mut lines: Vec<String> = kept.map(str::to_owned).collect();
    lines.extend(changes.iter().map(|(key, value)| format!("{key}={value}")));
    let file = pair.gc1.config.with_extension("variant");
    std::fs::write(&file, lines.join("\n")).unwrap();
    file
}

/// What `topology apply` has set on a broker is set by hand under other names instead, each
/// object by a policy that names one upstream.
pub async fn by_hand(pair: &Pair, broker: usize) {
    let (api, cluster) = (pair.manage(broker), &pair.cluster);
    let upstreams = api.get("parameters/federation-upstream/%2f").await;
    let upstreams = upstreams.unwrap().unwrap();
    let mut old = Vec::new();
    for upstream in upstreams.as_array().unwrap() {
        let name = upstream["name"].as_str().unwrap();
        let Some(kind) = name.strip_prefix(&format!("{cluster}.")) else {
            continue;
        };
        let hand = format!("{cluster}-paris-{}", kind.split('.').next().unwrap());
        let path = format!("parameters/federation-upstream/%2f/{hand}");
        let body = json!({"value": upstream["value"]});
        api.put(&path, &body).await.unwrap();
        old.push(format!("parameters/federation-upstream/%2f/{name}"));
    }
    for (name, kind) in [
        ("commands", "main"),
        ("events", "main"),
        ("control", "control"),
    ] {
        let path = format!("policies/%2f/{cluster}.{name}");
        let mut policy = api.get(&path).await.unwrap().unwrap();
        let definition = policy["definition"].as_object_mut().unwrap();
        definition.remove("federation-upstream-set");
        let upstream = json!(format!("{cluster}-paris-{kind}"));
        definition.insert("federation-upstream".to_owned(), upstream);
        policy["priority"] = json!(7);
        let hand = format!("policies/%2f/{cluster}-hand-{name}");
        api.put(&hand, &policy).await.unwrap();
        old.insert(0, path);
    }
    old.extend(
        ["main", "control"]
            .map(|kind| format!("parameters/federation-upstream-set/%2f/{cluster}.{kind}")),
    );
    for path in old {
        assert!(api.delete(&path).await.unwrap(), "{path}");
    }
}

/// Ends that; the topology is set anew afterwards.
pub async fn no_more_by_hand(pair: &Pair, broker: usize) {
    let (api, cluster) = (pair.manage(broker), &pair.cluster);
    for name in ["commands", "events", "control"] {
        let path = format!("policies/%2f/{cluster}-hand-{name}");
        assert!(api.delete(&path).await.unwrap(), "{path}");
    }
    for kind in ["main", "control"] {
        let path = format!("parameters/federation-upstream/%2f/{cluster}-paris-{kind}");
        assert!(api.delete(&path).await.unwrap(), "{path}");
    }
}

/// The management API of a broker whose clock is an hour behind.
pub async fn slow_clock(target: &str) -> String {
    use axum::extract::Request;
    use axum::http::{StatusCode, header};
    let target = target.trim_end_matches('/').to_owned();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let forward = move |request: Request| {
        let path = request.uri().path_and_query().unwrap().as_str().to_owned();
        let mut ask = client.get(format!("{target}{path}"));
        if let Some(user) = request.headers().get(header::AUTHORIZATION) {
            ask = ask.header(header::AUTHORIZATION, user);
        }
        async move {
            let answer = ask.send().await.unwrap();
            let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
            let past = chrono::Utc::now() - chrono::Duration::hours(1);
            let past = past.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            (
                status,
                [(header::DATE, past)],
                answer.bytes().await.unwrap(),
            )
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(forward);
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

/// Takes a consumer from its queue inside the broker, so that neither client nor channel hears of
/// it: what a broker's own fault would look like.
pub const FORGET: &str = "\
    {ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"QUEUE\">>)), \
    [begin Pid = element(1, C), Tag = element(2, C), \
     gen_server2:call(amqqueue:get_pid(Q), {basic_cancel, Pid, Tag, undefined, <<\"test\">>}, infinity) end \
     || C <- rabbit_amqqueue:consumers(Q), element(2, C) =:= <<\"TAG\">>].";
