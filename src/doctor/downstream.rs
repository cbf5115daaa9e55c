//! The downstream: reached, in service, notification service open, credentials complete.

use std::time::Duration;

use tokio::net::TcpStream;

use super::Report;
use crate::downstream::{self, FinesseClient, NodeConfig};
use crate::model::NodeHealth;
use crate::settings::{DownstreamKind, Settings};

const CONNECT: Duration = Duration::from_secs(3);

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
        ca_file: down.ca_file.clone(),
        tls_verify: down.tls_verify,
        admin: None,
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
            }
            NodeHealth::OutOfService { reason } => report.warn(
                part.clone(),
                format!("out of service: {reason}"),
                "right for the standby side of a cluster; else start its services",
            ),
            NodeHealth::Unreachable { reason } => report.unreachable(
                part.clone(),
                reason,
                "start it, open its port, correct downstream.url.N, or add its authority with \
                 downstream.ca-file",
            ),
        }
        let place = (node.address.as_str(), settings.notify.port);
        let connected = tokio::time::timeout(CONNECT, TcpStream::connect(place)).await;
        let place = format!("{}:{}", place.0, place.1);
        match connected {
            Ok(Ok(_)) => report.good(part, format!("notification service {place} is open")),
            Ok(Err(_)) | Err(_) => report.bad(
                part,
                format!("notification service {place} cannot be reached"),
                "open that port, or correct notify.port and downstream.address.N",
            ),
        }
    }
}
