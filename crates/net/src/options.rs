//! Socket options of connections that live long.

use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

/// Between two questions of the system's own to a peer that says nothing.
const AGAIN: Duration = Duration::from_secs(1);
/// Such questions without an answer that end a connection.
const QUESTIONS: u32 = 3;
/// A shorter silence would only be a mistake.
const LEAST: Duration = Duration::from_secs(2);

/// A half-open connection is noticed by the system, too: by data that nobody acknowledges for so
/// long, and by questions after so much silence. Small writes go out at once. Options that the
/// system lacks are done without.
pub fn long_lived(socket: &Socket, silence: Duration) {
    let silence = silence.max(LEAST);
    let keepalive = TcpKeepalive::new()
        .with_time(silence)
        .with_interval(AGAIN)
        .with_retries(QUESTIONS);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(silence));
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[test]
    fn the_options_are_set_and_bounded_below() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (wanted, set) in [(30, 30), (0, 2)] {
            let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let socket = SockRef::from(&stream);
            long_lived(&socket, Duration::from_secs(wanted));
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
            let set = Duration::from_secs(set);
            assert_eq!(socket.tcp_keepalive_time().unwrap(), set);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), AGAIN);
            #[cfg(target_os = "linux")]
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(set));
        }
    }
}
