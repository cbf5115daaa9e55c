//! Reaching other machines: by which address, and with which certificates on both sides.
//!
//! ```text
//!   address.rs   what a host may look like: brackets of IPv6, zones
//!   dial.rs      a name's addresses, tried one after the other without waiting for each (RFC 8305)
//!   http.rs      the same for HTTP, as far as its library lets us
//!   amqp.rs      AMQP URIs, and streams for the AMQP library
//!   options.rs   socket options of connections that live long
//!   pem.rs       certificates and keys from files
//!   x509.rs      what a certificate says of itself, for people
//!   tls.rs       one TLS client for AMQP, HTTP and XMPP: whom to trust, who we are
//!   server.rs    a certificate of ours for a listener
//!   verify.rs    whether a server's certificate is believed
//!   explain.rs   what a TLS failure means, in words that name the certificate and the key to mend
//!   shortage.rs  whether it is this machine that is short of something
//! ```

pub mod address;
pub mod amqp;
pub mod dial;
mod explain;
pub mod http;
pub mod options;
mod pem;
mod server;
pub mod shortage;
mod stream;
mod tls;
mod verify;
mod x509;

pub use server::TlsServer;
pub use stream::Transport;
pub use tls::{KeyNames, TlsClient, TlsError, TlsFiles};
