//! The admin listener as those see it who are no part of this project (curl): its certificate, its
//! tokens and their roles, and what a running instance takes from its changed file at SIGHUP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panic"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::certs::{Kind, Made, Maker};
use support::site::{Site, tandem};
use support::{run, wait_for};
use tandem::lab::ReservedPort;

/// An instance without any broker: its admin listener is there all the same.
struct Bench {
    maker: Maker,
    authority: Made,
    site: Site,
    port: ReservedPort,
}

const AUTHORITY: Kind = Kind {
    authority: true,
    expired: false,
};

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Bench {
    /// Off loopback, as far as its address says: it listens at all of them.
    async fn start(tls: bool) -> Self {
        let maker = Maker::new();
        let authority = maker.make(&["Site CA"], AUTHORITY, None);
        let made = maker.make(&["localhost"], Kind::default(), Some(&authority));
        for (from, to) in [(&made.certificate, "admin.pem"), (&made.key, "admin.key")] {
            std::fs::copy(from, maker.path(to)).unwrap();
        }
        let port = ReservedPort::take().unwrap();
        let mut keys = vec![
            ("admin.listen", format!("0.0.0.0:{}", port.address().port())),
            ("admin.tokens-file", text(&maker.path("tokens"))),
            ("broker.url.1", "127.0.0.1:1".to_owned()),
            (
                "downstream.url.1",
                "http://127.0.0.1:1/finesse/api".to_owned(),
            ),
        ];
        if tls {
            keys.push(("admin.certificate-file", text(&maker.path("admin.pem"))));
            keys.push(("admin.private-key-file", text(&maker.path("admin.key"))));
        }
        let mut lines = String::new();
        for (name, role) in [("grafana", "read"), ("ops", "operate")] {
            lines += &token(&maker, name, role).await;
        }
        std::fs::write(maker.path("tokens"), lines).unwrap();
        let mut site = Site::new("gc-1", &keys);
        site.start();
        let bench = Self {
            maker,
            authority,
            site,
            port,
        };
        let url = bench.url(if tls { "https" } else { "http" }, "/livez");
        wait_for("the listener", async || {
            (bench.curl(&[&url]).await.0 == 200).then_some(())
        })
        .await;
        bench
    }

    fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://localhost:{}{path}", self.port.address().port())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.maker.path(name)
    }

    fn bearer(&self, name: &str) -> String {
        let token = std::fs::read_to_string(self.path(name)).unwrap();
        format!("Authorization: Bearer {}", token.trim())
    }

    /// HTTP status, 0 without any, and what came.
    async fn curl(&self, words: &[&str]) -> (u16, String) {
        let output = tokio::process::Command::new("curl")
            .args([
                "--silent",
                "--noproxy",
                "*",
                "--max-time",
                "20",
                "--include",
            ])
            .args(["--cacert", &text(&self.authority.certificate)])
            .args(["--write-out", "\n%{http_code}"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    fn hang_up(&mut self) {
        self.site.process.as_mut().unwrap().hang_up();
    }

    fn append(&self, name: &Path, line: &str) {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().append(true).open(name).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

/// A token made by `tandem token`; its line.
async fn token(maker: &Maker, name: &str, role: &str) -> String {
    let out = text(&maker.path(name));
    let (code, line) = tandem(&["token", name, "--role", role, "--out", &out]).await;
    assert_eq!(code, 0, "{line}");
    line
}

#[test]
fn a_foreign_client_is_let_in_by_certificate_token_and_role() {
    run(async |_| {
        let bench = Bench::start(true).await;
        let status = bench.url("https", "/api/v1/status");
        let drain = bench.url("https", "/api/v1/drain");
        let (read, operate) = (bench.bearer("grafana"), bench.bearer("ops"));
        for (wanted, words) in [
            (401, vec![status.as_str()]),
            (200, vec!["-H", &read, &status]),
            (200, vec!["-H", &operate, &status]),
            (401, vec!["-X", "POST", &drain]),
            (403, vec!["-X", "POST", "-H", &read, &drain]),
            (202, vec!["-X", "POST", "-H", &operate, &drain]),
            (0, vec![&bench.url("http", "/livez")]),
        ] {
            let (got, text) = bench.curl(&words).await;
            assert_eq!(got, wanted, "{words:?}\n{text}");
        }
        for open in ["/livez", "/metrics", "/"] {
            let (code, answer) = bench.curl(&[&bench.url("https", open)]).await;
            assert_eq!(code, 200, "{open}");
            for header in [
                "x-frame-options: DENY",
                "x-content-type-options: nosniff",
                "content-security-policy: ",
            ] {
                assert!(answer.contains(header), "{open}: {header}\n{answer}");
            }
        }
        bench.site.logs("token=\"ops\"").await;
        // TLS 1.1 is not spoken, and an unknown authority is not believed.
        let (code, _) = bench.curl(&["--tls-max", "1.1", &status]).await;
        assert_eq!(code, 0);

        // Our own commands, by the property file and by options.
        let (config, ops) = (text(&bench.site.config), text(&bench.path("ops")));
        let ca = text(&bench.authority.certificate);
        let url = bench.url("https", "");
        let by_file = tandem(&["status", "--config", &config, "--token-file", &ops]).await;
        assert_eq!(by_file.0, 0, "{}", by_file.1);
        let words = ["status", "--json", "--url", &url, "--token-file", &ops];
        let by_option = tandem(&[&words[..], &["--ca-file", &ca]].concat()).await;
        assert_eq!(by_option.0, 0, "{}", by_option.1);
        let (code, said) = tandem(&words).await;
        assert_eq!(code, 69, "{said}");
        let error: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert!(
            error["error"].as_str().unwrap().contains("--ca-file"),
            "{said}"
        );
    });
}

#[test]
fn wrong_tokens_are_limited() {
    run(async |_| {
        let bench = Bench::start(false).await;
        let status = bench.url("http", "/api/v1/status");
        for _ in 0..10 {
            let answer = bench
                .curl(&["-H", "Authorization: Bearer guess", &status])
                .await;
            assert_eq!(answer.0, 401, "{}", answer.1);
        }
        let (code, answer) = bench.curl(&["-H", &bench.bearer("ops"), &status]).await;
        assert_eq!(code, 429, "{answer}");
        assert!(answer.contains("retry-after: "), "{answer}");
        assert_eq!(bench.curl(&[&bench.url("http", "/metrics")]).await.0, 200);
    });
}

#[test]
fn a_hangup_takes_tokens_certificate_and_level_and_names_what_needs_a_restart() {
    run(async |_| {
        let mut bench = Bench::start(true).await;
        let config = &bench.site.config.clone();
        let status = bench.url("https", "/api/v1/status");
        bench.site.logs("tandem starts").await;
        let log = bench.site.log_text();
        let first = log.lines().find(|line| line.contains("INFO")).unwrap();
        for part in [
            "tandem starts",
            "version=",
            "site.properties",
            "admin=\"https://",
            "groups=\"agents\"",
            "roles=\"agents priority ",
        ] {
            assert!(first.contains(part), "{part}: {first}");
        }

        // With an error in it nothing changes, whatever else is new.
        let good = std::fs::read_to_string(config).unwrap();
        let line = token(&bench.maker, "late", "read").await;
        bench.append(&bench.path("tokens"), line.trim());
        bench.append(config, "consumer.prefetch=none");
        bench.hang_up();
        bench
            .site
            .logs("SIGHUP: the file cannot be used: nothing is changed")
            .await;
        assert!(bench.site.log_text().contains("consumer.prefetch = none"));
        let late = bench.bearer("late");
        assert_eq!(bench.curl(&["-H", &late, &status]).await.0, 401);

        // A certificate of another authority, one more token, another level; and a key that waits.
        let other = bench.maker.make(&["Other CA"], AUTHORITY, None);
        let made = bench
            .maker
            .make(&["localhost"], Kind::default(), Some(&other));
        std::fs::copy(&made.certificate, bench.path("admin.pem")).unwrap();
        std::fs::copy(&made.key, bench.path("admin.key")).unwrap();
        let next = good.replace("log.level=info", "log.level=debug");
        std::fs::write(config, next + "consumer.prefetch=77\nbroker.password=new-hunter2\ncontrol.previous-key=fedcba9876543210fedcba9876543210\n").unwrap();
        bench.hang_up();
        bench.site.logs("SIGHUP: the file was read again").await;
        let text_of = bench.site.log_text();
        for part in [
            "log.level",
            "certificates",
            "tokens",
            "broker passwords",
            "control keys",
        ] {
            let told = text_of
                .lines()
                .find(|line| line.contains("was read again"))
                .unwrap();
            assert!(told.contains(part), "{part}: {told}");
        }
        let waits = text_of
            .lines()
            .find(|line| line.contains("a restart is needed"))
            .unwrap();
        assert!(waits.contains("keys=\"consumer.prefetch\""), "{waits}");
        assert!(!text_of.contains("hunter2"));
        bench.site.logs("DEBUG").await;
        let ca = text(&other.certificate);
        let (code, answer) = bench.curl(&["--cacert", &ca, "-H", &late, &status]).await;
        assert_eq!(code, 200, "{answer}");
        assert_eq!(
            bench.curl(&["-H", &late, &status]).await.0,
            0,
            "the old authority"
        );

        // A token that is taken away is no token any more.
        let tokens = std::fs::read_to_string(bench.path("tokens")).unwrap();
        let without = tokens.lines().filter(|line| !line.starts_with("late"));
        std::fs::write(bench.path("tokens"), without.collect::<Vec<_>>().join("\n")).unwrap();
        bench.hang_up();
        wait_for("the token's end", async || {
            let (code, _) = bench.curl(&["--cacert", &ca, "-H", &late, &status]).await;
            (code == 401).then_some(())
        })
        .await;
    });
}
