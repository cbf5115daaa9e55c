//! The downstream: reached, in service, notification service open, credentials complete.

use std::time::Duration;

use super::Report;
use crate::downstream::{self, FinesseClient, NodeConfig};
use crate::model::NodeHealth;
use crate::net::address::bracketed;
use crate::net::dial;
use crate::settings::{Credentials, DownstreamKind, NotifyTls, Settings};

const CONNECT: Duration = Duration::from_secs(3);
/// Requests at a time: it asks one after another.
const REQUESTS: usize = 8;

pub(super) async fn look(settings: &Settings, report: &mut Report) {
    let down = &settings.downstream;
    if down.kind != DownstreamKind::Finesse {
        return;
    }
    if down.nodes.len() < 2 {
        report.warn(
            "downstream",
            "one node only",
            "set downstream.url.2: without it an outage of the node is an outage of the site",
        );
    }
    if down.admin.is_none() {
        report.warn(
            "downstream",
            "no administrator is configured",
            "set downstream.admin-user and downstream.admin-password, for lists that agents may \
             not read",
        );
    }
    if let Some(why) = down.admin.as_ref().and_then(|admin| form(admin)) {
        report.bad(
            "downstream",
            format!("the administrator's credentials: {why}"),
            "correct downstream.admin-user and downstream.admin-password",
        );
    }
    if !down.tls_verify {
        report.warn(
            "downstream",
            "certificates are not checked",
            "set downstream.ca-file to the authority's certificate and remove \
             downstream.tls-verify=false",
        );
    }
    let config = downstream::Config {
        nodes: down
            .nodes
            .iter()
            .map(|node| NodeConfig {
                base_url: node.url.clone(),
            })
            .collect(),
        request_timeout: down.request_timeout,
        tls: down.tls.clone(),
        requests: REQUESTS,
        admin: down
            .admin
            .as_ref()
            .map(|admin| (admin.user.clone(), admin.password.clone())),
        platform: down.kind == crate::settings::DownstreamKind::Finesse,
    };
    let client = match FinesseClient::new(&config) {
        Ok(client) => client,
        Err(error) => {
            report.bad(
                "downstream",
                error.to_string(),
                "correct the downstream keys",
            );
            return;
        }
    };
    for (index, node) in down.nodes.iter().enumerate() {
        let part = format!("downstream {}", node.url);
        match client.probe(index).await {
            NodeHealth::InService { deployment, .. } => {
                report.good(part.clone(), format!("in service ({deployment})"));
                administrator(&client, index, part.clone(), report).await;
            }
            NodeHealth::OutOfService { reason } => report.warn(
                part.clone(),
                format!("out of service: {reason}"),
                "right for the standby side of a cluster; else start its services",
            ),
            NodeHealth::NoRoom(shortage) => report.unreachable(
                part.clone(),
                shortage.to_string(),
                "make room on this machine, then run the doctor again",
            ),
            NodeHealth::Unreachable { reason } => report.unreachable(
                part.clone(),
                reason,
                "start it, open its port, correct downstream.url.N, or add its authority with \
                 downstream.ca-file",
            ),
        }
        notifications(settings, &node.address, part, report).await;
    }
}

/// The notification service: open, and with TLS from the first byte its certificate too.
async fn notifications(settings: &Settings, host: &str, part: String, report: &mut Report) {
    let notify = &settings.notify;
    let place = format!("{}:{}", bracketed(host), notify.port);
    let connected = tokio::time::timeout(CONNECT, dial::connect(host, notify.port)).await;
    let Ok(Ok(tcp)) = connected else {
        report.bad(
            part,
            format!("notification service {place} cannot be reached"),
            "open that port, or correct notify.port and downstream.address.N",
        );
        return;
    };
    if notify.tls == NotifyTls::Opportunistic {
        report.good(part, format!("notification service {place} is open"));
        return;
    }
    let secured = tokio::time::timeout(CONNECT, notify.tls_client.handshake(tcp, host)).await;
    let why = match secured {
        Ok(Ok(_)) => {
            let seen = format!("notification service {place} is open, its certificate trusted");
            report.good(part, seen);
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no TLS within its time".to_owned(),
    };
    report.bad(
        part,
        format!("notification service {place}: {why}"),
        "correct notify.tls, notify.ca-file or the server's certificate",
    );
}

/// Whether the node takes the administrator's user and password, where there are any.
async fn administrator(client: &FinesseClient, node: usize, part: String, report: &mut Report) {
    match client.accepts_admin(node).await {
        Some(true) => report.good(part, "the administrator is accepted"),
        Some(false) => report.bad(
            part,
            "the administrator is refused (401)",
            "correct downstream.admin-user and downstream.admin-password; the platform blocks a \
             user after some wrong passwords",
        ),
        None => {}
    }
}

/// Why credentials cannot be right as they stand: they travel as `user:password` (RFC 7617).
fn form(admin: &Credentials) -> Option<&'static str> {
    let (user, password) = (&admin.user, admin.password.expose());
    let blank = |text: &str| text != text.trim();
    if user.contains(':') {
        Some("a user cannot have a colon")
    } else if !user.is_ascii() || !password.is_ascii() {
        Some("a character outside ASCII, which servers read differently")
    } else if blank(user) || blank(password) {
        Some("a blank at the beginning or the end")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    #[test]
    fn credentials_that_cannot_be_right_are_named() {
        let given = |user: &str, password: &str| {
            form(&Credentials {
                user: user.to_owned(),
                password: Secret::new(password),
            })
        };
        assert_eq!(given("admin", "pa:ss w0rd"), None);
        assert!(given("a:b", "p").unwrap().contains("colon"));
        assert!(given("admin", "pässword").unwrap().contains("ASCII"));
        assert!(given("admin", "p\t").unwrap().contains("blank"));
    }
}
