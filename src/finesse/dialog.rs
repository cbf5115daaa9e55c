//! The `Dialog` object and lists of it.

use crate::model::{Dialog, Participant};

use super::last_segment;
use super::xml::{Xml, XmlError};

/// Most dialogs, participants, variables or actions that are read of one list.
const MAX_ITEMS: usize = 200;

/// Reads the answer of `GET Dialog/{id}`.
///
/// # Errors
/// Where `body` is no acceptable XML with the root `Dialog`.
pub fn document(body: &[u8]) -> Result<Dialog, XmlError> {
    element(&mut Xml::open_as(body, "dialog")?)
}

/// Reads the answer of `GET User/{id}/Dialogs`.
///
/// # Errors
/// Where `body` is no acceptable XML with the root `Dialogs`.
pub fn list_document(body: &[u8]) -> Result<Vec<Dialog>, XmlError> {
    list(&mut Xml::open_as(body, "dialogs")?)
}

/// Reads the rest of a `Dialogs` element.
///
/// # Errors
/// Where the XML is not acceptable.
pub fn list(xml: &mut Xml<'_>) -> Result<Vec<Dialog>, XmlError> {
    let mut dialogs = Vec::new();
    xml.children(|xml, tag| {
        if tag.name() != "dialog" || dialogs.len() >= MAX_ITEMS {
            return xml.skip();
        }
        dialogs.push(element(xml)?);
        Ok(())
    })?;
    Ok(dialogs)
}

/// Reads the rest of a `Dialog` element, in answers and notifications.
///
/// # Errors
/// Where the XML is not acceptable.
pub fn element(xml: &mut Xml<'_>) -> Result<Dialog, XmlError> {
    let mut dialog = Dialog::default();
    let mut uri = String::new();
    let mut associated = String::new();
    xml.children(|xml, tag| {
        let field = match tag.name() {
            "id" => &mut dialog.id,
            "secondaryid" => &mut dialog.secondary_id,
            "associateddialoguri" => &mut associated,
            "fromaddress" => &mut dialog.from_address,
            "toaddress" => &mut dialog.to_address,
            "state" => &mut dialog.state,
            "mediatype" => &mut dialog.media_type,
            "uri" => &mut uri,
            "mediaproperties" => return media_properties(xml, &mut dialog),
            "participants" => return participants(xml, &mut dialog.participants),
            _ => return xml.skip(),
        };
        xml.text_into(field)
    })?;
    dialog.state.make_ascii_uppercase();
    dialog.associated_dialog_id = last_segment(&associated).to_owned();
    if dialog.id.is_empty() {
        dialog.id = last_segment(&uri).to_owned();
    }
    Ok(dialog)
}

fn media_properties(xml: &mut Xml<'_>, dialog: &mut Dialog) -> Result<(), XmlError> {
    let mut dialed = String::new();
    xml.children(|xml, tag| {
        let field = match tag.name() {
            "calltype" => &mut dialog.call_type,
            "queuename" => &mut dialog.queue_name,
            "dnis" => &mut dialog.dnis,
            "dialednumber" => &mut dialed,
            "wrapupreason" => &mut dialog.wrap_up_reason,
            "callvariables" => return call_variables(xml, &mut dialog.call_variables),
            _ => return xml.skip(),
        };
        xml.text_into(field)
    })?;
    if dialog.dnis.is_empty() {
        dialog.dnis = dialed;
    }
    Ok(())
}

fn call_variables(
    xml: &mut Xml<'_>,
    variables: &mut Vec<(String, String)>,
) -> Result<(), XmlError> {
    xml.children(|xml, tag| {
        if tag.name() != "callvariable" || variables.len() >= MAX_ITEMS {
            return xml.skip();
        }
        let mut variable = (String::new(), String::new());
        xml.children(|xml, tag| match tag.name() {
            "name" => xml.text_into(&mut variable.0),
            "value" => xml.text_into(&mut variable.1),
            _ => xml.skip(),
        })?;
        variables.push(variable);
        Ok(())
    })
}

fn participants(xml: &mut Xml<'_>, parties: &mut Vec<Participant>) -> Result<(), XmlError> {
    xml.children(|xml, tag| {
        if tag.name() != "participant" || parties.len() >= MAX_ITEMS {
            return xml.skip();
        }
        let mut party = Participant::default();
        xml.children(|xml, tag| {
            let field = match tag.name() {
                "mediaaddress" => &mut party.media_address,
                "mediaaddresstype" => &mut party.media_address_type,
                "state" => &mut party.state,
                "statecause" => &mut party.state_cause,
                "starttime" => &mut party.start_time,
                "statechangetime" => &mut party.state_change_time,
                "actions" => return actions(xml, &mut party.actions),
                _ => return xml.skip(),
            };
            xml.text_into(field)
        })?;
        party.state.make_ascii_uppercase();
        parties.push(party);
        Ok(())
    })
}

fn actions(xml: &mut Xml<'_>, actions: &mut Vec<String>) -> Result<(), XmlError> {
    xml.children(|xml, tag| {
        if tag.name() != "action" || actions.len() >= MAX_ITEMS {
            return xml.skip();
        }
        actions.push(xml.text()?);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "<Dialog>
  <associatedDialogUri>/finesse/api/Dialog/77</associatedDialogUri>
  <fromAddress>0301234567</fromAddress>
  <id>5551</id>
  <mediaProperties>
    <DNIS>9100</DNIS><callType>ACD_IN</callType><queueName>Q_Sales</queueName>
    <wrapUpReason>Sold</wrapUpReason>
    <callvariables>
      <CallVariable><name>callVariable1</name><value>K-1</value></CallVariable>
      <CallVariable><name>user.policy</name><value></value></CallVariable>
    </callvariables>
  </mediaProperties>
  <mediaType>Voice</mediaType>
  <participants>
    <Participant>
      <actions><action>HOLD</action><action>DROP</action></actions>
      <mediaAddress>5205</mediaAddress><mediaAddressType>AGENT_DEVICE</mediaAddressType>
      <startTime>2033-01-02T03:04:05.678Z</startTime><state>ACTIVE</state><stateCause/>
    </Participant>
    <Participant><actions/><mediaAddress>0301234567</mediaAddress><state>held</state></Participant>
  </participants>
  <state>ACTIVE</state><toAddress>9100</toAddress><uri>/finesse/api/Dialog/5551</uri>
</Dialog>";

    #[test]
    fn a_full_dialog_is_read() {
        let dialog = document(FULL.as_bytes()).unwrap();
        assert_eq!(dialog.id, "5551");
        assert_eq!(dialog.associated_dialog_id, "77");
        assert_eq!(dialog.call_type, "ACD_IN");
        assert_eq!(dialog.dnis, "9100");
        assert_eq!(dialog.wrap_up_reason, "Sold");
        assert_eq!(
            dialog.call_variables,
            [
                ("callVariable1".to_owned(), "K-1".to_owned()),
                ("user.policy".to_owned(), String::new())
            ]
        );
        let own = dialog.participant("5205").unwrap();
        assert_eq!(own.actions, ["HOLD", "DROP"]);
        assert_eq!(own.start_time, "2033-01-02T03:04:05.678Z");
        assert_eq!(dialog.participant("0301234567").unwrap().state, "HELD");
    }

    #[test]
    fn lists_may_be_empty_and_spelled_differently() {
        assert_eq!(list_document(b"<Dialogs/>").unwrap(), []);
        let two = b"<dialogs><dialog><id>1</id></dialog><Dialog><uri>/finesse/api/Dialog/2</uri></Dialog></dialogs>";
        let ids: Vec<_> = list_document(two)
            .unwrap()
            .into_iter()
            .map(|dialog| dialog.id)
            .collect();
        assert_eq!(ids, ["1", "2"]);
    }
}
