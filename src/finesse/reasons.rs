//! Lists of reason codes and wrap-up reasons.

use crate::model::ReasonCode;

use super::last_segment;
use super::xml::{Xml, XmlError};

/// Most reasons that are read of one list.
const MAX_REASONS: usize = 1000;

/// Reads a `ReasonCodes` or `WrapUpReasons` document, without the platform's own system codes.
///
/// The id is the last segment of the `uri` (connector requests take the id, never the `code`).
///
/// # Errors
/// Where `body` is no acceptable XML with one of these roots.
pub fn document(body: &[u8]) -> Result<Vec<ReasonCode>, XmlError> {
    let (mut xml, root) = Xml::open(body)?;
    if !matches!(root.name(), "reasoncodes" | "wrapupreasons") {
        return Err(XmlError::Root("reasoncodes or wrapupreasons"));
    }
    let mut reasons = Vec::new();
    xml.children(|xml, tag| {
        if !matches!(tag.name(), "reasoncode" | "wrapupreason") || reasons.len() >= MAX_REASONS {
            return xml.skip();
        }
        let (mut uri, mut id, mut label, mut system) =
            (String::new(), String::new(), String::new(), String::new());
        xml.children(|xml, tag| match tag.name() {
            "uri" => xml.text_into(&mut uri),
            "id" => xml.text_into(&mut id),
            "label" => xml.text_into(&mut label),
            "systemcode" => xml.text_into(&mut system),
            _ => xml.skip(),
        })?;
        if !uri.is_empty() {
            last_segment(&uri).clone_into(&mut id);
        }
        if !system.eq_ignore_ascii_case("true") {
            reasons.push(ReasonCode { id, label });
        }
        Ok(())
    })?;
    Ok(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_the_uri_and_system_codes_are_left_out() {
        let body = b"<ReasonCodes category=\"NOT_READY\">\
            <ReasonCode><uri>/finesse/api/ReasonCode/14</uri><category>NOT_READY</category><code>71</code>\
            <label>Lunch</label><forAll>True</forAll><systemCode>false</systemCode></ReasonCode>\
            <ReasonCode><uri>/finesse/api/ReasonCode/1</uri><code>999</code><label>Sup</label>\
            <systemCode>True</systemCode></ReasonCode></ReasonCodes>";
        let reasons = document(body).unwrap();
        assert_eq!(reasons.len(), 1);
        assert_eq!(
            (reasons[0].id.as_str(), reasons[0].label.as_str()),
            ("14", "Lunch")
        );
    }

    #[test]
    fn wrap_up_reasons_are_read() {
        let body = b"<WrapUpReasons><WrapUpReason><uri>finesse/api/WrapUpReason/6/</uri>\
            <label>Moved &amp; done</label></WrapUpReason></WrapUpReasons>";
        assert_eq!(
            document(body).unwrap(),
            [ReasonCode {
                id: "6".to_owned(),
                label: "Moved & done".to_owned()
            }]
        );
    }

    #[test]
    fn other_roots_are_refused() {
        assert!(matches!(document(b"<html/>"), Err(XmlError::Root(_))));
    }
}
