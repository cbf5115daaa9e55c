//! What a broker says of a federation link that does not run, in words and with the cure. Brokers
//! give Erlang terms, whose form differs from version to version; what is looked for is in all of
//! them.

/// A link's trouble in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// What is the matter; "it" is the broker that pulls, "the other" the upstream.
    pub problem: &'static str,
    /// What to do.
    pub cure: &'static str,
}

/// What in the broker's own text stands for which trouble. The first that is found counts.
const KNOWN: [(&str, Words); 13] = [
    (
        "{options,incompatible",
        Words {
            problem: "it must judge the other's certificate and knows no authority to judge it by",
            cure: "set federation.ca-file to the authorities' file on the brokers' machines and run \
                   `tandem topology apply`",
        },
    ),
    (
        "{options,{cacertfile",
        Words {
            problem: "it cannot read the file of authorities that the upstream's URI names",
            cure: "put that file on its machine, readable for RabbitMQ's user, or correct \
                   federation.ca-file and run `tandem topology apply`",
        },
    ),
    (
        "{options,{certfile",
        Words {
            problem: "it cannot read the client certificate that the upstream's URI names",
            cure: "put that file on its machine, readable for RabbitMQ's user, or correct \
                   federation.certificate-file and run `tandem topology apply`",
        },
    ),
    (
        "{options,{keyfile",
        Words {
            problem: "it cannot read the client certificate's key that the upstream's URI names",
            cure: "put that file on its machine, readable for RabbitMQ's user, or correct \
                   federation.private-key-file and run `tandem topology apply`",
        },
    ),
    (
        "hostname_check_failed",
        Words {
            problem: "the other's certificate is not for the host that the upstream's URI names",
            cure: "give the other broker a certificate with that name in subjectAltName, or name \
                   it in broker.url.N as its certificate does and run `tandem topology apply`",
        },
    ),
    (
        "SERVER ALERT: Fatal - Unknown CA",
        Words {
            problem: "the other does not know the authority of the client certificate that it is \
                      shown",
            cure: "put that authority into the other's ssl_options.cacertfile, or correct \
                   federation.certificate-file",
        },
    ),
    (
        "unknown_ca",
        Words {
            problem: "no authority in the file that it judges the other by has signed the other's \
                      certificate, or that file holds no certificate",
            cure: "put the authority of the other's certificate into the file that \
                   federation.ca-file names, on this broker's machine",
        },
    ),
    (
        "certificate_required",
        Words {
            problem: "the other demands a client certificate; it shows none, or cannot read the \
                      file that the upstream's URI names",
            cure: "set federation.certificate-file and federation.private-key-file to files on the \
                   brokers' machines, readable for RabbitMQ's user, and run `tandem topology apply`",
        },
    ),
    (
        "certificate_expired",
        Words {
            problem: "a certificate has expired, the other's or that which it shows the other",
            cure: "renew it on the broker's machine; see both brokers' logs for whose it is",
        },
    ),
    (
        "unsupported_record_type",
        Words {
            problem: "the other's port does not speak TLS, and the upstream's URI is amqps",
            cure: "give the port with TLS (5671) in broker.url.N, or amqp:// for this one, and run \
                   `tandem topology apply`",
        },
    ),
    (
        // The first bytes of a TLS alert, where a greeting is expected.
        "server_sent_malformed_header,<<21,3,",
        Words {
            problem: "the other's port speaks TLS, and the upstream's URI is plain amqp",
            cure: "give amqps:// in broker.url.N, or the port without TLS, and run \
                   `tandem topology apply`",
        },
    ),
    (
        "tls_alert",
        Words {
            problem: "one of the two refuses the other's certificate or kind of TLS",
            cure: "the brokers' logs say more; compare ssl_options in rabbitmq.conf with the \
                   federation.…-file keys",
        },
    ),
    (
        "auth_failure",
        Words {
            problem: "the other does not know the user of the upstream's URI, or its password",
            cure: "correct broker.username and broker.password (or the URL's own) and run \
                   `tandem topology apply`",
        },
    ),
];

/// The words for a link's error as the management API gives it; `None` where it is none of the
/// known ones.
pub fn explain(error: &str) -> Option<Words> {
    let known = KNOWN.iter().find(|(sign, _)| error.contains(sign));
    known.map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taken from RabbitMQ 3.10.8 and 4.0.5.
    #[test]
    fn what_brokers_say_is_put_into_words() {
        for (said, part) in [
            (
                "{options,incompatible,[{verify,verify_peer},{cacerts,undefined}]}",
                "knows no authority",
            ),
            (
                r#"{options,{cacertfile,"/none.pem",{error,enoent}}}"#,
                "cannot read the file of authorities",
            ),
            (
                r#"{tls_alert,{unknown_ca,"TLS client: In state wait_cert at ssl_handshake.erl:2111 generated CLIENT ALERT: Fatal - Unknown CA\n"}}"#,
                "no authority in the file",
            ),
            (
                r#"{{socket_error,{tls_alert,{unknown_ca,"TLS client: In state connection received SERVER ALERT: Fatal - Unknown CA\n"}}},…}"#,
                "does not know the authority of the client",
            ),
            (
                r#"{tls_alert,{handshake_failure,"TLS client: In state wait_cert_cr at ssl_handshake.erl:2113 generated CLIENT ALERT: Fatal - Handshake Failure\n {bad_cert,hostname_check_failed}"}}"#,
                "not for the host",
            ),
            (
                r#"{tls_alert,{bad_certificate,"TLS client: In state wait_cert_cr at ssl_handshake.erl:2183 generated CLIENT ALERT: Fatal - Bad Certificate\n {bad_cert,{hostname_check_failed,{requested,\"localhost\"},\n {received,[{dNSName,\"elsewhere\"}]}}}"}}"#,
                "not for the host",
            ),
            (
                "{{socket_error,\n     {tls_alert,\n         {certificate_required,\n             \"TLS client: In state connection received SERVER ALERT: Fatal - Certificate required\\n\"}}},\n {expecting,'connection.start'}}",
                "demands a client certificate",
            ),
            (
                r#"{tls_alert,{unexpected_message,"TLS client: In state hello at tls_record.erl:564 generated CLIENT ALERT: Fatal - Unexpected Message\n {unsupported_record_type,65}"}}"#,
                "does not speak TLS",
            ),
            (
                "{server_sent_malformed_header,<<21,3,1,0,2,2,10>>}",
                "speaks TLS",
            ),
            (r#"{tls_alert,{protocol_version,"…"}}"#, "kind of TLS"),
        ] {
            let words = explain(said).unwrap_or_else(|| panic!("{said}"));
            assert!(words.problem.contains(part), "{said}: {words:?}");
        }
        assert_eq!(explain("econnrefused"), None);
    }
}
