//! From nothing to a bound session: connect, TLS, SASL PLAIN, bind.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_xmpp::xmlstream::{
    InitiatingStream, PendingFeaturesRecv, ReadError, RecvFeaturesError, StreamElementError,
    StreamHeader, Timeouts, XmlStream, XmppStreamElement, initiate_stream,
};
use xmpp_parsers::bind::{BindQuery, BindResponse};
use xmpp_parsers::iq::Iq;
use xmpp_parsers::jid::FullJid;
use xmpp_parsers::sasl::{Auth, DefinedCondition as Sasl, Mechanism, Nonza as SaslNonza};
use xmpp_parsers::stanza::Stanza;
use xmpp_parsers::stanza_error::DefinedCondition as Condition;
use xmpp_parsers::starttls::{Nonza as StartTls, Request};
use xmpp_parsers::stream_error::{DefinedCondition as StreamCondition, StreamError};
use xmpp_parsers::stream_features::StreamFeatures;
use xmpp_parsers::{ns, starttls};
use zeroize::Zeroize;

use crate::model::Shortage;
use crate::shortage;

use super::guard::{Guard, Transport};
use super::stanza::Incoming;
use super::{Spec, Tls};
use crate::net::{TlsClient, dial};

pub(super) type Xmpp = XmlStream<Guard, Incoming>;

/// The library's silence timers are not used: pings of our own notice a dead peer long before.
const SILENCE: Timeouts = Timeouts {
    read_timeout: Duration::from_secs(24 * 3600),
    response_timeout: Duration::from_secs(24 * 3600),
};
const BIND_ID: &str = "bind";

/// Why there is no session, or no longer.
#[derive(Debug)]
pub(super) enum End {
    /// The credentials were refused.
    Refused(String),
    /// The stream ended with this error.
    Error(StreamError),
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
            Self::Error(error) => error.condition == StreamCondition::Conflict,
            Self::Refused(_) | Self::NoRoom(_) | Self::Broken(_) => false,
        }
    }

    pub(super) fn reason(&self) -> String {
        match self {
            Self::Refused(reason) | Self::Broken(reason) => reason.clone(),
            Self::NoRoom(shortage) => shortage.to_string(),
            // Only the condition: the text is the peer's and may be of any length.
            Self::Error(error) => format!("stream error {}", error.condition),
            Self::Conflict => "conflict: the resource is in use".to_owned(),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<RecvFeaturesError> for End {
    fn from(error: RecvFeaturesError) -> Self {
        match error {
            RecvFeaturesError::Io(error) => error.into(),
            RecvFeaturesError::StreamError(error) => Self::Error(error.0),
        }
    }
}

/// A bound session.
pub(super) struct Bound {
    pub(super) stream: Xmpp,
    /// Address that the service gave us.
    pub(super) jid: FullJid,
    /// Whether a session request must follow (RFC 3921).
    pub(super) wants_session: bool,
}

/// Runs the whole login; the caller limits its time.
pub(super) async fn login(spec: &Spec) -> Result<Bound, End> {
    let tcp = dial::connect(&spec.host, spec.port)
        .await
        .map_err(|error| match shortage::of(&error) {
            Some(shortage) => End::NoRoom(shortage),
            None => End::Broken(format!("connect failed: {error}")),
        })?;
    tcp.set_nodelay(true)?;
    let (features, stream) = match &spec.tls {
        Tls::Direct(client) => {
            open(handshake(tcp, client, &spec.host).await?, &spec.domain).await?
        }
        Tls::StartTlsIfOffered(client) => {
            let (features, stream) = open(Transport::Plain(tcp), &spec.domain).await?;
            if features.can_starttls() {
                let tls = upgrade(stream, client, &spec.host).await?;
                open(tls, &spec.domain).await?
            } else {
                (features, stream)
            }
        }
    };
    if !features.sasl_mechanisms.contains("PLAIN") {
        return Err(End::Broken("service offers no SASL PLAIN".to_owned()));
    }
    let stream = authenticate(stream, spec).await?;
    let (features, mut stream) = stream
        .send_header(header(&spec.domain))
        .await?
        .recv_features()
        .await?;
    let jid = bind(&mut stream, &spec.resource).await?;
    Ok(Bound {
        stream,
        jid,
        wants_session: wants_session(&features),
    })
}

fn header(domain: &str) -> StreamHeader<'_> {
    StreamHeader {
        to: Some(Cow::Borrowed(domain)),
        from: None,
        id: None,
    }
}

async fn open(transport: Transport, domain: &str) -> Result<(StreamFeatures, Xmpp), End> {
    let guard = Guard::new(transport);
    let pending: PendingFeaturesRecv<Guard> =
        initiate_stream(guard, ns::JABBER_CLIENT, header(domain), SILENCE).await?;
    Ok(pending.recv_features().await?)
}

async fn handshake(tcp: TcpStream, client: &TlsClient, host: &str) -> Result<Transport, End> {
    match client.handshake(tcp, host).await {
        Ok(tls) => Ok(Transport::Tls(Box::new(tls))),
        Err(error) => Err(End::Broken(format!("TLS failed: {error}"))),
    }
}

async fn upgrade(mut stream: Xmpp, client: &TlsClient, host: &str) -> Result<Transport, End> {
    stream.send(&StartTls::Request(Request)).await?;
    match next(&mut stream).await? {
        Incoming::Element(XmppStreamElement::Starttls(StartTls::Proceed(starttls::Proceed))) => {}
        _ => return Err(End::Broken("service refused STARTTLS".to_owned())),
    }
    match stream.into_inner().into_transport() {
        Some(Transport::Plain(tcp)) => handshake(tcp, client, host).await,
        _ => Err(End::Broken("data before the TLS handshake".to_owned())),
    }
}

async fn authenticate(mut stream: Xmpp, spec: &Spec) -> Result<InitiatingStream<Guard>, End> {
    // The name of a login is the agent id itself. It is no address, and so nothing of it is escaped
    // as in the local part of one (XEP-0106).
    let agent = spec.agent.as_str();
    let password = spec.password.expose();
    // Sized beforehand, so that no unwiped copy is left behind by growing.
    let mut data = Vec::with_capacity(agent.len() + password.len() + 2);
    data.push(0);
    data.extend_from_slice(agent.as_bytes());
    data.push(0);
    data.extend_from_slice(password.as_bytes());
    let mut auth = Auth {
        mechanism: Mechanism::Plain,
        data,
    };
    let sent = stream.send(&auth).await;
    auth.data.zeroize();
    sent?;
    match next(&mut stream).await? {
        Incoming::Element(XmppStreamElement::Sasl(SaslNonza::Success(_))) => {
            stream.get_stream().restart();
            Ok(stream.initiate_reset())
        }
        Incoming::Element(XmppStreamElement::Sasl(SaslNonza::Failure(failure))) => {
            Err(refusal(&failure.defined_condition))
        }
        // A failure with a condition that the library does not know is a refusal all the same.
        Incoming::Invalid(StreamElementError::InvalidNonza { qname, .. })
            if qname.1.as_str() == "failure" =>
        {
            Err(End::Refused("refused without a known condition".to_owned()))
        }
        _ => Err(End::Broken("unexpected answer to SASL PLAIN".to_owned())),
    }
}

/// What says nothing about the credentials may be tried again.
fn refusal(condition: &Sasl) -> End {
    let name = match condition {
        Sasl::TemporaryAuthFailure => return End::Broken("temporary-auth-failure".to_owned()),
        Sasl::Aborted => return End::Broken("aborted".to_owned()),
        Sasl::AccountDisabled => "account-disabled",
        Sasl::CredentialsExpired => "credentials-expired",
        Sasl::EncryptionRequired => "encryption-required",
        Sasl::IncorrectEncoding => "incorrect-encoding",
        Sasl::InvalidAuthzid => "invalid-authzid",
        Sasl::InvalidMechanism => "invalid-mechanism",
        Sasl::MalformedRequest => "malformed-request",
        Sasl::MechanismTooWeak => "mechanism-too-weak",
        Sasl::NotAuthorized => "not-authorized",
    };
    End::Refused(name.to_owned())
}

async fn bind(stream: &mut Xmpp, resource: &str) -> Result<FullJid, End> {
    let request = Iq::from_set(BIND_ID, BindQuery::new(Some(resource.to_owned())));
    stream.send(&request).await?;
    loop {
        match next(stream).await? {
            Incoming::Element(XmppStreamElement::Stanza(Stanza::Iq(iq))) if iq.id() == BIND_ID => {
                return match iq {
                    Iq::Result {
                        payload: Some(payload),
                        ..
                    } => BindResponse::try_from(payload)
                        .map(FullJid::from)
                        .map_err(|_| End::Broken("service bound no usable address".to_owned())),
                    Iq::Error { error, .. } if error.defined_condition == Condition::Conflict => {
                        Err(End::Conflict)
                    }
                    _ => Err(End::Broken("service refused to bind".to_owned())),
                };
            }
            _ => {}
        }
    }
}

fn wants_session(features: &StreamFeatures) -> bool {
    const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
    features
        .others
        .iter()
        .any(|other| other.is("session", SESSION) && !other.has_child("optional", SESSION))
}

/// The next element, well-formed by its schema or not; cancelling loses nothing.
pub(super) async fn next(stream: &mut Xmpp) -> Result<Incoming, End> {
    loop {
        match stream.next().await {
            Some(Ok(Incoming::Element(XmppStreamElement::StreamError(error)))) => {
                return Err(End::Error(error.0));
            }
            Some(Ok(Incoming::Invalid(StreamElementError::InvalidNonza { qname, .. })))
                if qname.1.as_str() == "error" && qname.0 == ns::STREAM =>
            {
                return Err(End::Broken("unknown stream error".to_owned()));
            }
            Some(Ok(incoming)) => return Ok(incoming),
            Some(Err(ReadError::SoftTimeout | ReadError::ParseError(_))) => {}
            Some(Err(ReadError::HardError(error))) => return Err(error.into()),
            Some(Err(ReadError::StreamFooterReceived)) | None => {
                return Err(End::Broken("service closed the stream".to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_library_cannot_log_what_it_sends() {
        // It does so at trace level, which is compiled out (Cargo.toml, `log`).
        assert!(log::STATIC_MAX_LEVEL <= log::LevelFilter::Debug);
    }
}
