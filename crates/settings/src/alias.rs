//! The original connector's names (3.x property files, 4.x environment tables): how values of those
//! with a meaning here are translated, and the list of those without.

/// How the value of an alias becomes the value of the key that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Translate {
    /// As it is.
    Same,
    /// A bare number of milliseconds.
    Millis,
    /// A bare number of seconds.
    Seconds,
    /// The opposite of a boolean.
    Not,
    /// `ALL`, `FATAL` and the names that both know.
    LogLevelNames,
    /// A port, of all addresses of the machine.
    OnAllAddresses,
    /// `REST` or `JMS`.
    RestFormat,
}

impl Translate {
    /// The value in the key's own spelling, or what would be allowed.
    pub fn apply(self, value: &str) -> Result<String, &'static str> {
        let number = || !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
        match self {
            Translate::Same => Ok(value.to_owned()),
            Translate::Millis if number() => Ok(format!("{value}ms")),
            Translate::Millis => Err(
                "a bare whole number of milliseconds, as the original has it; with a unit use the new key",
            ),
            Translate::Seconds if number() => Ok(format!("{value}s")),
            Translate::Seconds => Err(
                "a bare whole number of seconds, as the original has it; with a unit use the new key",
            ),
            Translate::Not => match value.to_ascii_lowercase().as_str() {
                // The original's own table prints it that way.
                "true" | "ture" => Ok("false".into()),
                "false" => Ok("true".into()),
                _ => Err("true or false"),
            },
            Translate::OnAllAddresses if number() => Ok(format!("0.0.0.0:{value}")),
            Translate::OnAllAddresses => {
                Err("a port number, as the original has it; with an address use the new key")
            }
            Translate::RestFormat => match value.to_ascii_lowercase().as_str() {
                "rest" => Ok("true".into()),
                "jms" => Ok("false".into()),
                _ => Err("REST or JMS"),
            },
            Translate::LogLevelNames => match value.to_ascii_lowercase().as_str() {
                "all" => Ok("trace".into()),
                "fatal" => Ok("error".into()),
                level @ ("trace" | "debug" | "info" | "warn" | "error" | "off") => Ok(level.into()),
                _ => Err("ALL, TRACE, DEBUG, INFO, WARN, ERROR, FATAL or OFF"),
            },
        }
    }
}

/// A key of the original that has no meaning here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ignored {
    /// The original's name.
    pub name: &'static str,
    /// Why it is not used, or what to use instead.
    pub why: &'static str,
}

/// Finds an ignored key by its lower-case name.
pub fn ignored(lower: &str) -> Option<&'static Ignored> {
    IGNORED.iter().find(|i| i.name.eq_ignore_ascii_case(lower))
}

const LICENCE: &str = "there are no licences";
const HEARTBEAT: &str = "failure detection is set by peer.heartbeat, peer.suspect and peer.lost";
const INACTIVITY: &str =
    "idle agents are not signed out; a client ends a session with force_logout";
const CALLBACK: &str = "posted events carry the bearer token of rest.callback.token-file, and are signed with rest.callback.sign-key-file; no token is made";
const STORES: &str = "Java key stores are not read; use amqps:// and broker.ca-file";
const AGENT_LOGS: &str =
    "there is one log for all agents, on standard output; see log.format and log.level";
const STATISTICS: &str = "statistics databases are not used";
const REDIS: &str = "sessions are kept in data.dir and with the peer";

/// Every key of the original that has no meaning here.
pub static IGNORED: &[Ignored] = &[
    Ignored {
        name: "NUMBER_OF_LICENSES",
        why: LICENCE,
    },
    Ignored {
        name: "CUSTOMER_NAME",
        why: LICENCE,
    },
    Ignored {
        name: "KEY",
        why: LICENCE,
    },
    Ignored {
        name: "ACCESS_TOKEN_URL",
        why: "single sign-on through a token service is not supported",
    },
    Ignored {
        name: "CLIENT_HEARTBEAT_SLEEP",
        why: "clients set the pace of their heartbeats",
    },
    Ignored {
        name: "GC_HEARTBEAT_TIMEOUT",
        why: HEARTBEAT,
    },
    Ignored {
        name: "GC_HEARTBEAT_SLEEP",
        why: HEARTBEAT,
    },
    Ignored {
        name: "AGENT_INACTIVITY_DURATION",
        why: INACTIVITY,
    },
    Ignored {
        name: "AGENT_INACTIVITY_TIME_SWITCH",
        why: INACTIVITY,
    },
    Ignored {
        name: "USE_ENCRYPTED_PASSWORDS",
        why: "Triple-DES passwords are not supported: clients send passwords as they are, so protect the broker with amqps",
    },
    Ignored {
        name: "CHANGE_STATE_ON_WRAPUP",
        why: "agent states change only as the downstream says",
    },
    Ignored {
        name: "BACK_END_COMMAND_SEND_REST_API",
        why: "commands are posted to /gc/command at rest.listen",
    },
    Ignored {
        name: "PRIVATE_KEY_STRING",
        why: CALLBACK,
    },
    Ignored {
        name: "ISSUER",
        why: CALLBACK,
    },
    Ignored {
        name: "EXPIRY",
        why: CALLBACK,
    },
    Ignored {
        name: "KEY_STORE_TYPE",
        why: STORES,
    },
    Ignored {
        name: "KEY_STORE",
        why: STORES,
    },
    Ignored {
        name: "TRUST_STORE",
        why: STORES,
    },
    Ignored {
        name: "KEY_STORE_PASSWORD",
        why: STORES,
    },
    Ignored {
        name: "TRUST_STORE_PASSWORD",
        why: STORES,
    },
    Ignored {
        name: "AGENT_LOGS_PATH",
        why: AGENT_LOGS,
    },
    Ignored {
        name: "AGENT_LOGS_LEVEL",
        why: AGENT_LOGS,
    },
    Ignored {
        name: "AGENT_LOGS_MAX_FILES",
        why: AGENT_LOGS,
    },
    Ignored {
        name: "AGENT_LOGS_FILE_SIZE",
        why: AGENT_LOGS,
    },
    Ignored {
        name: "UCCX_SERVER_IP",
        why: STATISTICS,
    },
    Ignored {
        name: "UCCX_SERVER_USERNAME",
        why: STATISTICS,
    },
    Ignored {
        name: "UCCX_SERVER_PASSWORD",
        why: STATISTICS,
    },
    Ignored {
        name: "UCCX_USERNAME",
        why: STATISTICS,
    },
    Ignored {
        name: "UCCX_PASSWORD",
        why: STATISTICS,
    },
    Ignored {
        name: "UCCX_DB_USERNAME",
        why: STATISTICS,
    },
    Ignored {
        name: "UCCX_DB_PASSWORD",
        why: STATISTICS,
    },
    Ignored {
        name: "UCCX_DB_RETRY_ATTEMPTS",
        why: STATISTICS,
    },
    Ignored {
        name: "UCCX_DB_TIMEOUT_CONNECTION",
        why: STATISTICS,
    },
    Ignored {
        name: "REDIS_URL",
        why: REDIS,
    },
    Ignored {
        name: "REDIS_PORT",
        why: REDIS,
    },
    Ignored {
        name: "REDIS_PASSWORD",
        why: REDIS,
    },
    Ignored {
        name: "SQL_SERVER",
        why: STATISTICS,
    },
    Ignored {
        name: "DATABASE",
        why: STATISTICS,
    },
    Ignored {
        name: "DATABASE_TABLE",
        why: STATISTICS,
    },
    Ignored {
        name: "DATABASE_USER_NAME",
        why: STATISTICS,
    },
    Ignored {
        name: "DATABASE_USER_PASSWORD",
        why: STATISTICS,
    },
    Ignored {
        name: "GET_SKILL_AND_SUP_FORMAT",
        why: STATISTICS,
    },
    Ignored {
        name: "UCCE_SERVER_IP",
        why: STATISTICS,
    },
    Ignored {
        name: "DOMAIN_ADMINISTRATOR_USER",
        why: STATISTICS,
    },
    Ignored {
        name: "DOMAIN_ADMINISTRATOR_PASSWORD",
        why: STATISTICS,
    },
    Ignored {
        name: "SKILL_GROUP_ALL_RESULT",
        why: STATISTICS,
    },
    Ignored {
        name: "AXL_URL",
        why: "extensions come from the client's Login",
    },
    Ignored {
        name: "AXL_USER",
        why: "extensions come from the client's Login",
    },
    Ignored {
        name: "AXL_PASSWORD",
        why: "extensions come from the client's Login",
    },
    Ignored {
        name: "THREAD_POOL_COUNT",
        why: "there is no thread pool to size",
    },
    Ignored {
        name: "TZ",
        why: "set the time zone in the environment; times in events are local to the host",
    },
    Ignored {
        name: "LD_LIBRARY_PATH",
        why: "it belongs to the environment of the original's container",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_numbers_get_the_originals_unit() {
        assert_eq!(Translate::Millis.apply("10000"), Ok("10000ms".into()));
        assert_eq!(Translate::Seconds.apply("5"), Ok("5s".into()));
        for bad in ["10s", "", "-1", "1.5", "ten"] {
            assert!(Translate::Millis.apply(bad).is_err(), "{bad}");
            assert!(Translate::Seconds.apply(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_translations() {
        assert_eq!(Translate::Not.apply("True"), Ok("false".into()));
        assert_eq!(Translate::Not.apply("ture"), Ok("false".into()));
        assert!(Translate::Not.apply("yes").is_err());
        assert_eq!(Translate::LogLevelNames.apply("ALL"), Ok("trace".into()));
        assert_eq!(Translate::LogLevelNames.apply("FATAL"), Ok("error".into()));
        assert!(Translate::LogLevelNames.apply("LOUD").is_err());
    }

    #[test]
    fn ignored_keys_are_found_in_any_case() {
        assert_eq!(
            ignored("gc_heartbeat_sleep").map(|i| i.name),
            Some("GC_HEARTBEAT_SLEEP")
        );
        assert_eq!(ignored("instance.id"), None);
    }
}
