//! The `SystemInfo` object: the health of one node.

use crate::model::NodeHealth;

use super::xml::{Xml, XmlError};

/// Reads the answer of `GET SystemInfo`: in service only where it says so itself.
///
/// # Errors
/// Where `body` is no acceptable XML with the root `SystemInfo`.
pub fn document(body: &[u8]) -> Result<NodeHealth, XmlError> {
    let mut xml = Xml::open_as(body, "systeminfo")?;
    let (mut status, mut reason) = (String::new(), String::new());
    let (mut xmpp_domain, mut pubsub_domain) = (String::new(), String::new());
    let mut deployment = String::new();
    xml.children(|xml, tag| match tag.name() {
        "status" => xml.text_into(&mut status),
        "statusreason" => xml.text_into(&mut reason),
        "xmppdomain" => xml.text_into(&mut xmpp_domain),
        "xmpppubsubdomain" => xml.text_into(&mut pubsub_domain),
        "deploymenttype" => xml.text_into(&mut deployment),
        _ => xml.skip(),
    })?;
    if status.eq_ignore_ascii_case("IN_SERVICE") {
        return Ok(NodeHealth::InService {
            xmpp_domain,
            pubsub_domain,
            deployment,
        });
    }
    let reason = if reason.is_empty() {
        status
    } else {
        format!("{status}: {reason}")
    };
    Ok(NodeHealth::OutOfService { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_service_tells_the_domains() {
        let body = b"<SystemInfo><currentTimestamp>2033-01-02T03:04:05Z</currentTimestamp>\
            <deploymentType>UCCX</deploymentType><primaryNode><host>n1.example</host><status>X</status></primaryNode>\
            <status>IN_SERVICE</status><xmppDomain>n1.example</xmppDomain>\
            <xmppPubSubDomain>pubsub.n1.example</xmppPubSubDomain></SystemInfo>";
        assert_eq!(
            document(body).unwrap(),
            NodeHealth::InService {
                xmpp_domain: "n1.example".to_owned(),
                pubsub_domain: "pubsub.n1.example".to_owned(),
                deployment: "UCCX".to_owned(),
            }
        );
    }

    #[test]
    fn everything_else_is_out_of_service() {
        for status in ["OUT_OF_SERVICE", "PARTIAL_SERVICE", ""] {
            let body = format!(
                "<SystemInfo><status>{status}</status><statusReason>CTI lost</statusReason></SystemInfo>"
            );
            let NodeHealth::OutOfService { reason } = document(body.as_bytes()).unwrap() else {
                panic!("{status} taken for in service");
            };
            assert_eq!(reason, format!("{status}: CTI lost"));
        }
    }
}
