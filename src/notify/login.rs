//! From nothing to a bound session: connect, TLS, SASL, bind.
//!
//! Every way in which this may fail is told at once and by its kind ([`End`]); the caller's bound of
//! the whole is for a service that says nothing.

use std::io;

use super::connect::{connect, secure};
use super::names::{BIND, SASL, TLS};
use super::sasl::{self, Mechanism, Proof, Scram, ScramError};
use super::stanza::{Features, Incoming, Iq, IqKind, Payload, SaslStep};
use super::stream::Stream;
use super::text::escaped;
use super::xml::Fault;
use super::{Spec, Tls};
use crate::model::Shortage;
use crate::net::Transport;

/// The stream of a session.
pub(super) type Xmpp = Stream<Transport>;

const BIND_ID: &str = "bind";
/// Longest address (RFC 7622 section 3.1: three parts of 1,023 bytes).
const MAX_JID: usize = 3_071;

/// Why there is no session, or no longer.
#[derive(Debug)]
pub(super) enum End {
    /// The credentials were refused.
    Refused(String),
    /// The service ended the stream with this condition.
    Error(Option<String>),
    /// This machine lacks what a connection takes.
    NoRoom(Shortage),
    /// Anything else.
    Broken(String),
    /// The resource is in use.
    Conflict,
}

impl End {
    pub(super) fn conflict(&self) -> bool {
        match self {
            Self::Conflict => true,
            Self::Error(condition) => condition.as_deref() == Some("conflict"),
            Self::Refused(_) | Self::NoRoom(_) | Self::Broken(_) => false,
        }
    }

    pub(super) fn reason(&self) -> String {
        match self {
            Self::Refused(reason) | Self::Broken(reason) => reason.clone(),
            Self::NoRoom(shortage) => shortage.to_string(),
            // Only the condition: the text is the peer's and may be of any length.
            Self::Error(Some(condition)) => format!("stream error {condition}"),
            Self::Error(None) => "unknown stream error".to_owned(),
            Self::Conflict => "conflict: the resource is in use".to_owned(),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Broken(fault.to_string())
    }
}

impl From<ScramError> for End {
    fn from(error: ScramError) -> Self {
        Self::Broken(error.to_string())
    }
}

/// A bound session.
pub(super) struct Bound {
    pub(super) stream: Xmpp,
    /// Address that the service gave us.
    pub(super) jid: String,
    /// Whether a session request must follow (RFC 3921).
    pub(super) wants_session: bool,
}

/// Runs the whole login; the caller limits its time.
pub(super) async fn login(spec: &Spec) -> Result<Bound, End> {
    let (mut stream, features) = open(spec).await?;
    authenticate(&mut stream, &features, spec).await?;
    stream.restart();
    let features = stream.open(&spec.domain).await?;
    let jid = bind(&mut stream, &spec.resource).await?;
    Ok(Bound {
        stream,
        jid,
        wants_session: features.wants_session,
    })
}

/// A stream that is as protected as it can be.
async fn open(spec: &Spec) -> Result<(Xmpp, Features), End> {
    let direct = match &spec.tls {
        Tls::Direct(config) => Some(config),
        Tls::StartTlsIfOffered(_) => None,
    };
    // As long as two pings may stay unanswered.
    let silence = 2 * spec.ping_interval;
    let mut stream = Stream::new(connect(&spec.host, spec.port, direct, silence).await?);
    let features = stream.open(&spec.domain).await?;
    let Tls::StartTlsIfOffered(config) = &spec.tls else {
        return Ok((stream, features));
    };
    if !features.starttls {
        return Ok((stream, features));
    }
    stream.send(&format!("<starttls xmlns='{TLS}'/>")).await?;
    match stream.next().await? {
        Incoming::StartTls(true) => {}
        _ => return Err(End::Broken("service refused STARTTLS".to_owned())),
    }
    let Some(transport) = stream.into_inner() else {
        return Err(End::Broken("data before the TLS handshake".to_owned()));
    };
    let mut stream = Stream::new(secure(transport, config, &spec.host).await?);
    let features = stream.open(&spec.domain).await?;
    Ok((stream, features))
}

async fn authenticate(stream: &mut Xmpp, features: &Features, spec: &Spec) -> Result<(), End> {
    // The name of a login is the agent id itself. It is no address, and so nothing of it is escaped
    // as in the local part of one (XEP-0106).
    let user = spec.agent.as_str();
    let protected = stream.io().is_protected();
    let Some(mechanism) = Mechanism::choose(&features.mechanisms, protected) else {
        let reason = "service offers no SASL mechanism that is known here: PLAIN, SCRAM";
        return Err(End::Broken(reason.to_owned()));
    };
    match Scram::new(mechanism, user) {
        None => {
            let message = sasl::plain(user, spec.password.expose());
            begin(stream, mechanism, &message).await?;
            match stream.next().await? {
                Incoming::Sasl(SaslStep::Success(_)) => Ok(()),
                other => Err(refusal(other)),
            }
        }
        Some(scram) => exchange(stream, mechanism, scram?, spec).await,
    }
}

/// Sends the first message. The text is wiped: with PLAIN it holds the password.
async fn begin(stream: &mut Xmpp, mechanism: Mechanism, message: &str) -> Result<(), End> {
    let name = mechanism.name();
    let (head, tail) = (
        format!("<auth xmlns='{SASL}' mechanism='{name}'>"),
        "</auth>",
    );
    let mut auth = String::with_capacity(head.len() + message.len() + tail.len());
    for part in [&head, message, tail] {
        auth.push_str(part);
    }
    stream.send(&zeroize::Zeroizing::new(auth)).await
}

async fn exchange(
    stream: &mut Xmpp,
    mechanism: Mechanism,
    scram: Scram,
    spec: &Spec,
) -> Result<(), End> {
    begin(stream, mechanism, &scram.first()).await?;
    let challenge = match stream.next().await? {
        Incoming::Sasl(SaslStep::Challenge(challenge)) => challenge,
        other => return Err(refusal(other)),
    };
    let password = spec.password.clone();
    // Hashing a password some thousand times is no work for a thread that serves others.
    let proof = tokio::task::spawn_blocking(move || scram.answer(&challenge, password.expose()));
    let proof = proof
        .await
        .map_err(|error| End::Broken(error.to_string()))??;
    let response = format!("<response xmlns='{SASL}'>{}</response>", proof.message);
    stream.send(&response).await?;
    conclude(stream, &proof).await
}

/// The service's proof comes with its success, or in a challenge of its own before.
async fn conclude(stream: &mut Xmpp, proof: &Proof) -> Result<(), End> {
    match stream.next().await? {
        Incoming::Sasl(SaslStep::Success(outcome)) => Ok(proof.check(&outcome)?),
        Incoming::Sasl(SaslStep::Challenge(outcome)) => {
            proof.check(&outcome)?;
            stream.send(&format!("<response xmlns='{SASL}'/>")).await?;
            match stream.next().await? {
                Incoming::Sasl(SaslStep::Success(_)) => Ok(()),
                other => Err(refusal(other)),
            }
        }
        other => Err(refusal(other)),
    }
}

/// What stands in the way of a success. What says nothing about the credentials may be tried again.
fn refusal(instead: Incoming) -> End {
    let Incoming::Sasl(SaslStep::Failure(condition)) = instead else {
        return End::Broken("unexpected answer to SASL".to_owned());
    };
    match condition.as_deref() {
        Some(
            name @ ("account-disabled"
            | "credentials-expired"
            | "invalid-authzid"
            | "not-authorized"),
        ) => End::Refused(name.to_owned()),
        Some(
            name @ ("aborted"
            | "encryption-required"
            | "incorrect-encoding"
            | "invalid-mechanism"
            | "malformed-request"
            | "mechanism-too-weak"
            | "temporary-auth-failure"),
        ) => End::Broken(name.to_owned()),
        _ => End::Refused("refused without a known condition".to_owned()),
    }
}

async fn bind(stream: &mut Xmpp, resource: &str) -> Result<String, End> {
    let request = format!(
        "<iq type='set' id='{BIND_ID}'><bind xmlns='{BIND}'><resource>{}</resource></bind></iq>",
        escaped(resource)
    );
    stream.send(&request).await?;
    loop {
        let Incoming::Iq(Iq {
            kind, id, payload, ..
        }) = stream.next().await?
        else {
            continue;
        };
        if id != BIND_ID || !matches!(kind, IqKind::Result | IqKind::Error) {
            continue;
        }
        return match payload {
            Payload::Bind(jid) if is_full_jid(&jid) => Ok(jid),
            Payload::Error(Some(condition)) if condition == "conflict" => Err(End::Conflict),
            Payload::Error(_) => Err(End::Broken("service refused to bind".to_owned())),
            _ => Err(End::Broken("service bound no usable address".to_owned())),
        };
    }
}

/// Whether it is `local@domain/resource`.
fn is_full_jid(jid: &str) -> bool {
    let parts = jid.split_once('/').and_then(|(bare, resource)| {
        let (local, domain) = bare.split_once('@')?;
        Some([local, domain, resource])
    });
    jid.len() <= MAX_JID && parts.is_some_and(|parts| parts.iter().all(|part| !part.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_three_parts() {
        for jid in ["1205@d.example/tandem-a", "a@b/c@d/e"] {
            assert!(is_full_jid(jid), "{jid}");
        }
        let long = format!("a@b/{}", "x".repeat(MAX_JID));
        for jid in ["", "a@b", "a@b/", "@b/c", "a@/c", "b/c", "b/a@c", &long] {
            assert!(!is_full_jid(jid), "{jid}");
        }
    }
}
