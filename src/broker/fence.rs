//! Closing a silent peer's connections at a broker (`broker.fence`), through its management API.

use std::time::Duration;

use serde_json::Value;

use super::Context;
use super::management::{ManagementClient, ManagementError, segment};
use crate::model::InstanceId;

/// Bound of the whole: later than this the broker has noticed a frozen client by itself.
const LIMIT: Duration = Duration::from_secs(3);
const LIST: &str = "connections?columns=name,user_provided_name,client_properties";

/// Closes the connections of `peer` at a broker; says how many there were.
///
/// # Errors
/// Why it could not be asked: for people.
pub(super) async fn close_connections(
    context: &Context,
    broker: usize,
    peer: &InstanceId,
) -> Result<u32, String> {
    let management = context.management(broker);
    let management = management.ok_or("no management API is known")?;
    let client = ManagementClient::of(&management).map_err(|error| error.to_string())?;
    let work = close_all(&client, &context.config.cluster_name, peer.as_str());
    match tokio::time::timeout(LIMIT, work).await {
        Ok(closed) => closed.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {LIMIT:?}")),
    }
}

/// Closes all connections of an instance at one broker; says how many there were.
///
/// # Errors
/// The management API cannot be asked, or refuses.
pub async fn close_all(
    client: &ManagementClient,
    cluster: &str,
    peer: &str,
) -> Result<u32, ManagementError> {
    let list = client.get(LIST).await?.unwrap_or_default();
    let (mut closed, mut failed) = (0, None);
    // One that has gone since the list was made must not keep the others open.
    for name in names_of(&list, cluster, peer) {
        let path = format!("connections/{}", segment(&name));
        match client.delete(&path).await {
            Ok(was_there) => closed += u32::from(was_there),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if closed == 0 => Err(error),
        _ => Ok(closed),
    }
}

/// The broker's names for the connections of an instance of this cluster.
fn names_of(list: &Value, cluster: &str, peer: &str) -> Vec<String> {
    let prefix = format!("tandem/{peer}/");
    let ours = |connection: &&Value| {
        let given = connection["user_provided_name"].as_str();
        given.is_some_and(|given| given.starts_with(&prefix))
            && connection["client_properties"]["cluster"] == cluster
    };
    let all = list.as_array().into_iter().flatten();
    all.filter(ours)
        .filter_map(|connection| connection["name"].as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_peers_connections_in_this_cluster_are_closed() {
        let entry = |name: &str, given: &str, cluster: &str| {
            json!({"name": name, "user_provided_name": given,
                   "client_properties": {"cluster": cluster}})
        };
        let list = json!([
            entry("a", "tandem/gc-1/consume", "tandem"),
            entry("b", "tandem/gc-1/publish", "tandem"),
            entry("c", "tandem/gc-11/consume", "tandem"),
            entry("d", "tandem/gc-1/consume", "other"),
            entry("e", "a client", "tandem"),
            {"name": "f"},
        ]);
        assert_eq!(names_of(&list, "tandem", "gc-1"), ["a", "b"]);
        assert!(names_of(&Value::Null, "tandem", "gc-1").is_empty());
    }
}
