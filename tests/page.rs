//! The status page in a real browser, in front of real instances. Without an installed Chromium
//! (`scripts/setup --all` installs it) these tests say so and do nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use support::browser::{self, Browser};
use support::load::Load;
use support::{PairOptions, run, until};
use tandem::engine::command::Keep;
use tandem::engine::ids::BootId;
use tandem::engine::peer::{SessionRecord, Version};
use tandem::model::{AgentId, Destination, InstanceId, Secret};
use tandem::store::Store;
use tandem::wire::control::Keys;

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 1500;

/// `None`, said aloud, where there is no browser.
fn browser() -> Option<Browser> {
    let found = browser::find();
    if found.is_none() {
        eprintln!("NOT RUN: no chromium here; `scripts/setup --all` installs it");
    }
    Some(Browser::start(&found?, WIDTH, HEIGHT))
}

const LED_BY_1: &str = "document.getElementById('flow').innerText.includes('gc-1 (leader)')";
const LED_BY_2: &str = "document.getElementById('flow').innerText.includes('gc-2 (leader')";

#[test]
fn the_page_shows_the_pair_and_a_failover_from_either_side() {
    let Some(mut first) = browser() else { return };
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default()).await;
        let desk = Arc::new(pair.desk("desk", 0).await);
        let agents: Vec<u32> = (1001..1011).collect();
        pair.sign_in(&desk, &agents).await;
        let load = Load::start(desk.clone(), vec![1001], agents[1..].to_vec());
        // Two browsers at once, the other one at the follower's page.
        let mut second = browser().expect("there was one");
        first.open(&format!("http://{}/", pair.gc1.admin()));
        second.open(&format!("http://{}/", pair.gc2.admin()));
        for page in [&mut first, &mut second] {
            page.wait(LED_BY_1);
            page.wait("document.getElementById('map').textContent.includes('federation 8 of 8')");
            let map = page.text("#map");
            for part in [
                "gc-1",
                "gc-2",
                "site-1",
                "site-2",
                "agents leader",
                "agents follower",
            ] {
                assert!(map.contains(part), "{part} in {map}");
            }
            for broker in &pair.brokers {
                let port = broker
                    .rsplit([':', '/'])
                    .find(|part| part.len() == 5)
                    .unwrap();
                assert!(map.contains(port), "{port} in {map}");
            }
            page.wait(
                "document.getElementById('verdict').textContent === \
                 'All is well: gc-1 serves, gc-2 can take over'",
            );
            page.wait("document.getElementById('live').textContent === 'live'");
            page.wait("document.querySelectorAll('#sessions tbody tr').length === 10");
        }
        first.wait("Number(document.querySelector('#counts dd').textContent) > 0");
        said_aloud(&mut first);
        everything_is_told(&mut first);
        sizes(&mut first, "service");
        first.dark(false);
        browser::keep("page-light.png", &first.picture());
        first.dark(true);
        browser::keep("page-dark.png", &first.picture());
        // Without a reload the follower's page shows that its own instance leads.
        pair.gc1.kill();
        second.wait(LED_BY_2);
        second.wait("document.getElementById('verdict').className === 'warn'");
        second.wait("document.getElementById('verdict').textContent.startsWith('gc-2 serves, but: gc-1 is ')");
        browser::keep("page-failover.png", &second.picture());
        sizes(&mut second, "failover");
        second.wait("document.getElementById('history').innerText.includes('consumer_gone')");
        // Nothing looks as if it were so now.
        first.wait("document.getElementById('live').textContent.startsWith('no answer')");
        first.wait("document.body.classList.contains('lost') && document.title.startsWith('✖ gc-1 not reached since ')");
        let banner = first.text("#contact");
        assert!(banner.contains("gc-1 not reached since"), "{banner}");
        let peer = first.value("document.querySelector('#contact a').href");
        assert_eq!(peer, format!("http://{}/", pair.gc2.admin()));
        first.wait("[...document.querySelectorAll('button[data-verb]')].every((b) => b.disabled)");
        first.wait("getComputedStyle(document.querySelector('main')).filter.includes('grayscale')");
        sizes(&mut first, "lost");
        pair.gc1.start();
        pair.gc1.becomes("leader").await;
        first.wait("document.getElementById('live').textContent === 'live'");
        first.wait("!document.body.classList.contains('lost') && document.getElementById('contact').hidden");
        first.wait("[...document.querySelectorAll('button[data-verb]')].every((b) => !b.disabled)");
        for page in [&mut first, &mut second] {
            page.wait(LED_BY_1);
            assert!(page.errors.is_empty(), "{:?}", page.errors);
        }
        load.finish(&desk).await.all_succeeded_or_in_doubt();
    });
}

/// Depths, uptime, links and meanings.
fn everything_is_told(page: &mut Browser) {
    page.wait("document.getElementById('map').textContent.includes('queued')");
    page.wait("document.getElementById('map').textContent.includes('0 dead letters')");
    page.wait("document.getElementById('about').textContent.includes('up for')");
    page.wait("document.querySelectorAll('#brokers a[href^=http]').length === 2");
    page.wait("document.querySelectorAll('#members a[href^=http]').length === 1");
    page.wait("document.querySelector('#groups .told').title.startsWith('leader: ')");
    page.wait("document.querySelectorAll('#glossary dt').length > 20");
    let untold = "[...document.querySelectorAll('#groups .good, #members .good, #brokers .good')].filter((e) => !e.title).length";
    assert_eq!(page.value(untold), 0);
    // A peer that tells this page's address as its own has no page to go to.
    let same = "members({instance: 'a', page: 'http://x', sessions: {}, brokers: [], groups: [], downstreams: [], \
        peers: [{instance: 'b', groups: [], standing: {page: 'http://x'}}]}).filter((m) => m.page).length";
    assert_eq!(page.value(same), 0);
}

/// No size needs to be scrolled sideways; kept as pictures, in light and dark.
fn sizes(page: &mut Browser, state: &str) {
    for (width, height) in [(390, 2400), (768, 1700), (1280, 1600)] {
        page.resize(width, height);
        let fits = "document.documentElement.scrollWidth <= innerWidth";
        page.wait(fits);
        // Everything that acts is to be seen without scrolling.
        let beyond = "[...document.querySelectorAll('button[data-verb]')].filter((b) => b.getBoundingClientRect().right > innerWidth).length";
        assert_eq!(page.value(beyond), 0, "{width}");
        let hidden = "document.getElementById('history').scrollWidth - document.getElementById('history').clientWidth";
        page.wait(&format!("{hidden} <= 0"));
        if width > 640 {
            let apart = "[...document.querySelectorAll('#history td:last-child')].filter((td) => Math.abs(td.getBoundingClientRect().left - document.querySelector('#history th:last-child').getBoundingClientRect().left) > 2).length";
            assert_eq!(page.value(apart), 0, "{width}: under another head");
        }
        if width == 390 {
            page.wait(
                "document.getElementById('map').getAttribute('viewBox').startsWith('0 0 380')",
            );
            let buttons = "[...document.querySelectorAll('#groups button')].map((b) => Math.round(b.getBoundingClientRect().left))";
            let lefts = page.value(&format!("new Set({buttons}).size"));
            assert_eq!(lefts, 1, "the buttons stand below each other");
        }
        for (dark, name) in [(false, "light"), (true, "dark")] {
            page.dark(dark);
            browser::keep(&format!("{state}-{width}-{name}.png"), &page.picture());
        }
    }
    page.resize(WIDTH, HEIGHT);
}

/// Everything that can be used has a name, and the drawing is told in words.
fn said_aloud(page: &mut Browser) {
    let spoken = page.spoken();
    for (role, name) in &spoken {
        let must = [
            "button",
            "textbox",
            "searchbox",
            "combobox",
            "link",
            "table",
            "image",
            "figure",
        ];
        let needs = must.contains(&role.as_str());
        assert!(
            !needs || !name.is_empty() || role == "figure",
            "a {role} without a name"
        );
    }
    let has = |role: &str, part: &str| {
        spoken
            .iter()
            .any(|(r, name)| r == role && name.contains(part))
    };
    assert!(has("button", "Drain this instance"), "{spoken:?}");
    assert!(has("heading", "The pair now"));
    assert!(has("table", "Agent sessions"));
    let told = |name: &str| name.contains("→ gc-1 (leader) →");
    assert!(spoken.iter().any(|(_, name)| told(name)), "{spoken:?}");
}

#[test]
fn verbs_want_confirmation_and_the_token_and_say_what_came_of_it() {
    let Some(mut page) = browser() else { return };
    run(async |shared| {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "a-long-secret-token").unwrap();
        let options = PairOptions::default().set("admin.token-file", &token.display().to_string());
        let pair = shared.pair(options).await;
        page.open(&format!("http://{}/", pair.gc2.admin()));
        page.wait("document.querySelector('button[data-verb=stop]')");
        let asked = "document.getElementById('ask').open";
        // By keyboard alone: focus, enter, escape, and nothing has happened.
        page.value("document.querySelector('button[data-verb=stop]').focus()");
        page.key("Enter", 13);
        page.wait(asked);
        assert!(page.text("#ask-title").contains("Stop group on gc-2"));
        page.key("Escape", 27);
        page.wait(&format!("!{asked}"));
        assert_eq!(pair.gc2.role().await, "follower");
        for (given, wanted) in [
            ("", "refused (401): a bearer token is needed"),
            ("wrong", "refused (401): wrong token"),
            ("a-long-secret-token", "Stop group: disabled"),
        ] {
            page.value("document.querySelector('button[data-verb=stop]').focus()");
            page.key("Enter", 13);
            page.wait(asked);
            page.value("document.getElementById('token').value = ''");
            page.insert(given);
            page.key("Enter", 13);
            let wanted = serde_json::json!(wanted);
            page.wait(&format!(
                "document.getElementById('said').textContent.includes({wanted})"
            ));
        }
        pair.gc2.becomes("disabled").await;
        page.wait("document.querySelector('button[data-verb=start]')");
        // What makes no sense is refused with the reason.
        let refused = page.value(
            "fetch('/api/v1/groups/agents/stop', {method: 'POST', headers: {authorization: \
             'Bearer a-long-secret-token'}}).then(async (a) => a.status + ' ' + await a.text())",
        );
        assert!(refused.as_str().unwrap().starts_with("409"), "{refused}");
        assert!(page.errors.is_empty(), "{:?}", page.errors);
    });
}

#[test]
fn ten_thousand_sessions_are_searched_page_by_page() {
    let Some(mut page) = browser() else { return };
    run(async |shared| {
        // One instance whose data folder has the sessions from before.
        let options = PairOptions::default()
            .instances(0)
            .set("takeover.rate", "1");
        let mut pair = shared.pair(options).await;
        seed(&pair.gc1.config, &pair.cluster, 10_000);
        pair.gc1.start();
        until("the sessions are there", async || {
            pair.gc1.status().await["sessions"]["total"] == 10_000
        })
        .await;
        page.open(&format!("http://{}/", pair.gc1.admin()));
        page.wait("document.getElementById('range').textContent === '1–50 of 10000'");
        let rows = "document.querySelectorAll('#sessions tbody tr').length";
        assert_eq!(page.value(rows), 50);
        // The time that a reader waits for a page, measured where it is seen.
        let took = "(async () => { const t = performance.now(); \
             const a = await fetch('/api/v1/sessions?q=90&offset=40&limit=50'); await a.json(); \
             return performance.now() - t; })()";
        let took: Vec<f64> = (0..10)
            .map(|_| page.value(took).as_f64().unwrap())
            .collect();
        println!("a page of 50 of 10000 sessions, ms: {took:.1?}");
        page.value("document.getElementById('q').focus()");
        page.insert("10777");
        page.wait("document.getElementById('range').textContent === '1–1 of 1'");
        assert!(page.text("#sessions tbody").contains("10777"));
        page.value("document.getElementById('q').value = ''; anew()");
        page.wait("document.getElementById('range').textContent === '1–50 of 10000'");
        page.value("document.getElementById('next').click()");
        page.wait("document.getElementById('range').textContent === '51–100 of 10000'");
        page.value("document.getElementById('prev').click()");
        page.wait("document.getElementById('range').textContent === '1–50 of 10000'");
        browser::keep("page-10000.png", &page.picture());
        assert!(page.errors.is_empty(), "{:?}", page.errors);
    });
}

/// Puts sessions into an instance's data folder, as an instance before it would have.
fn seed(config: &std::path::Path, cluster: &str, count: u32) {
    let text = std::fs::read_to_string(config).unwrap();
    let keys: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let dir = std::path::Path::new(keys["data.dir"]);
    std::fs::create_dir_all(dir).unwrap();
    let secret = Secret::new(std::fs::read_to_string(keys["control.key-file"]).unwrap());
    let id = InstanceId::new("gc-1").unwrap();
    let keys = Keys::new(Some(&secret), None, cluster, id.clone(), BootId(1));
    let store = Store::open(dir, keys).unwrap();
    let sessions = (10_000..10_000 + count).map(|number| {
        let agent = AgentId::new(&number.to_string()).unwrap();
        let record = SessionRecord {
            agent: agent.clone(),
            version: Version {
                epoch: 1,
                rank: 0,
                owner: id.clone(),
                counter: 1,
            },
            destination: Destination::new(&format!("desk-{number}")).unwrap(),
            extension: Some(format!("7{number}")),
            password: Secret::new("pw"),
            mobile: None,
            watched: Vec::new(),
            signed_in: false,
            user: None,
            tombstone: false,
            group: String::new(),
            newest_change: None,
            node: None,
        };
        (agent, Some(record))
    });
    let keep = Keep {
        sessions: sessions.collect(),
        destinations: Vec::new(),
        forgotten: Vec::new(),
        epoch: 1,
        groups: Vec::new(),
    };
    store.keep(&keep).unwrap();
}

#[test]
fn off_loopback_the_page_asks_for_a_token_and_then_lives_on_its_stream() {
    let Some(mut page) = browser() else { return };
    run(async |shared| {
        let mut pair = shared.pair(PairOptions::default().instances(1)).await;
        let token = pair.gc1.config.with_file_name("ops.token");
        std::fs::write(&token, "a-long-secret-token").unwrap();
        let port = pair.gc1.admin().port();
        let text = std::fs::read_to_string(&pair.gc1.config).unwrap();
        let near = format!("admin.listen=127.0.0.1:{port}");
        assert!(text.contains(&near), "{text}");
        let text = text.replace(&near, &format!("admin.listen=0.0.0.0:{port}"));
        let text = format!("{text}admin.token-file={}\n", token.display());
        pair.gc1.kill();
        std::fs::write(&pair.gc1.config, text).unwrap();
        pair.gc1.start();
        until("it is ready", async || {
            pair.gc1.get("/readyz").await.is_some()
        })
        .await;
        page.open(&format!("http://{}/", pair.gc1.admin()));
        page.wait("!document.getElementById('enter').hidden");
        for (given, said) in [
            ("", "a token is needed to see this instance"),
            ("wrong", "that is not a token of this instance"),
            ("a-long-secret-token", "live"),
        ] {
            if !given.is_empty() {
                page.value("document.getElementById('enter-token').focus()");
                page.insert(given);
                page.key("Enter", 13);
            }
            let said = serde_json::json!(said);
            page.wait(&format!(
                "document.getElementById('live').textContent === {said}"
            ));
        }
        page.wait("document.getElementById('enter').hidden");
        page.wait("document.getElementById('verdict').textContent.startsWith('gc-1 serves')");
        page.wait("document.getElementById('range').textContent === 'none of 0'");
        // The stream goes on by itself.
        let up = "document.getElementById('about').textContent";
        let before = serde_json::json!(page.value(up));
        page.wait(&format!("{up} !== {before}"));
        assert!(page.errors.is_empty(), "{:?}", page.errors);
    });
}

#[test]
fn the_page_names_a_client_that_does_not_take_its_events() {
    let Some(mut page) = browser() else { return };
    run(async |shared| {
        let port = tandem::lab::ReservedPort::take().unwrap();
        let options = PairOptions::default()
            .instances(1)
            .set("rest.listen", &port.address().to_string())
            // Nobody listens there.
            .set("rest.callback.url", "http://127.0.0.1:1/events");
        let pair = shared.pair(options).await;
        page.open(&format!("http://{}/", pair.gc1.admin()));
        let hello = serde_json::json!({"data": {"type": "Hello#crm", "body": "null"}});
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}/gc/command", port.address());
        until("the entrance takes it", async || {
            let answer = http.post(&url).json(&hello).send().await;
            answer.is_ok_and(|answer| answer.status() == 202)
        })
        .await;
        let text = "document.getElementById('callbacks').innerText";
        for part in ["crm", "failing", "http://127.0.0.1:1", "refused"] {
            page.wait(&format!("{text}.includes('{part}')"));
        }
        let section = "document.getElementById('callbacks').closest('section')";
        assert_eq!(page.value(&format!("{section}.hidden")), false);
        assert!(page.errors.is_empty(), "{:?}", page.errors);
    });
}
