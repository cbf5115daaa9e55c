//! What engines ordered and told, as one number: whoever moves code without changing what it does
//! compares it before and after (`SIM_DIGEST=1`, docs/testing.md).

use std::fmt::{self, Write as _};

use tandem_engine::command::{BrokerCommand, Command, Outbound};
use tandem_engine::event::Event;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// FNV-1a over what is written to it.
#[derive(Debug, Clone, Copy)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(OFFSET)
    }
}

impl fmt::Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        Ok(())
    }
}

impl Digest {
    /// Takes an instance's command, at a time. What goes to a peer counts as it is written on the
    /// wire, and whose work it is does not count: names of types may change.
    pub fn command(&mut self, now: u64, node: usize, command: &Command) {
        match command {
            Command::Broker(BrokerCommand::Publish {
                id,
                link,
                message: Outbound::Peer { to, message },
            }) => {
                let message = serde_json::to_string(message).expect("a message is JSON");
                self.line(format_args!(
                    "{now} {node} {id:?} {link:?} {to:?} {message}"
                ));
            }
            Command::Broker(command) => self.line(format_args!("{now} {node} {command:?}")),
            Command::Downstream(command) => self.line(format_args!("{now} {node} {command:?}")),
            Command::Notify(command) => self.line(format_args!("{now} {node} {command:?}")),
            Command::Store(command) => self.line(format_args!("{now} {node} {command:?}")),
            Command::Life(command) => self.line(format_args!("{now} {node} {command:?}")),
        }
    }

    /// Takes what an instance told.
    pub fn event(&mut self, now: u64, node: usize, event: &Event) {
        self.line(format_args!("{now} {node} told {event:?}"));
    }

    /// Takes the digest of a part.
    pub fn add(&mut self, part: Self) {
        self.line(format_args!("{part}"));
    }

    fn line(&mut self, words: fmt::Arguments<'_>) {
        self.write_fmt(words)
            .and_then(|()| self.write_char('\n'))
            .expect("a digest takes everything");
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
