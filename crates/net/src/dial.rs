//! Connecting to a name that has several addresses: an address that does not answer must not
//! stand in the way of one that would (RFC 8305).

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::explain;
use crate::shortage;

/// Pause before the next address is tried beside the ones under way (RFC 8305, section 5).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Pause before the next node of one broker is tried beside those under way: one that is frozen
/// takes connections and says nothing.
pub const NODE_DELAY: Duration = Duration::from_millis(500);
/// Names that are looked up at a time; further ones wait. A look-up takes a thread of the blocking
/// pool until the system gives up, which nobody can hasten: where name servers are dead, the pool
/// must have threads left for what else needs them, the writes of the store above all.
const LOOKUPS: usize = 64;
/// Addresses of one name that are tried; further ones are left out.
pub const MAX_ADDRESSES: usize = 16;

/// Connects to the first address of a host that answers. Unbounded in time: the caller bounds it.
///
/// # Errors
/// The name has no address, or none of them answers: why, for each.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    first(resolve(host, port).await?, TcpStream::connect).await
}

/// The addresses of a host (an IPv6 address without brackets), in the order in which they are
/// worth trying: the system's (RFC 6724), its families alternating. Never empty.
///
/// # Errors
/// The system cannot resolve it.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    worth_trying(host, looked_up(host, port).await?)
}

/// What a host was resolved to, in the order in which it is worth trying. Never empty.
pub(super) fn worth_trying(host: &str, found: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = interleaved(found);
    addresses.truncate(MAX_ADDRESSES);
    if addresses.is_empty() {
        let text = format!("{host} has no address");
        return Err(explain::said(io::ErrorKind::NotFound, text));
    }
    Ok(addresses)
}

async fn looked_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    // Nobody needs to be asked.
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    static PLACES: Semaphore = Semaphore::const_new(LOOKUPS);
    let host = host.to_owned();
    in_place(&PLACES, async move {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    })
    .await
}

/// Works in a place that is taken until the work has ended, also where nobody waits for it any more.
async fn in_place<T: Send + 'static>(
    places: &'static Semaphore,
    work: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    let place = places.acquire().await.map_err(io::Error::other)?;
    let work = async move {
        let done = work.await;
        drop(place);
        done
    };
    tokio::spawn(work).await.map_err(io::Error::other)?
}

/// The same addresses with families in turn, beginning with that of the first.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let six_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == six_first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut mixed = Vec::new();
    loop {
        let pair = (one.next(), other.next());
        if pair == (None, None) {
            return mixed;
        }
        mixed.extend([pair.0, pair.1].into_iter().flatten());
    }
}

/// The first connection that stands. The next address is tried when one fails, or after
/// [`ATTEMPT_DELAY`] beside those that have not answered. What is not needed any more is dropped,
/// which ends it.
///
/// # Errors
/// Every address failed; why each did. A shortage of this machine (descriptors, memory) is
/// handed on as it is: it says nothing about the other side.
pub async fn first<S, A>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> A,
) -> io::Result<S>
where
    A: Future<Output = io::Result<S>>,
{
    staggered(addresses, ATTEMPT_DELAY, connect).await
}

async fn staggered<S, A>(
    addresses: Vec<SocketAddr>,
    pause: Duration,
    connect: impl Fn(SocketAddr) -> A,
) -> io::Result<S>
where
    A: Future<Output = io::Result<S>>,
{
    let short = |error: &io::Error| shortage::of(error).is_some();
    let attempt = |at: usize| connect(addresses[at]);
    match in_turn(addresses.len(), pause, attempt, short).await {
        Ok((_, stream)) => Ok(stream),
        Err(mut failures) => {
            if failures.last().is_some_and(|(_, error)| short(error))
                && let Some((_, error)) = failures.pop()
            {
                return Err(error);
            }
            let named = failures.into_iter();
            let named = named.map(|(at, error)| (addresses[at], error));
            Err(told(named.collect(), addresses.len() == 1))
        }
    }
}

/// Tries `count` alternatives in turn: the next one as soon as one fails, or `pause` later beside
/// those that have not answered. Gives the number of the first that succeeded with what it gave;
/// what is not needed any more is dropped, which ends it.
///
/// # Errors
/// Every alternative failed, or one failed in a way that ends it all (`fatal`): why each that was
/// tried did, in the order in which they ended.
pub async fn in_turn<S, E, A>(
    count: usize,
    pause: Duration,
    attempt: impl Fn(usize) -> A,
    fatal: impl Fn(&E) -> bool,
) -> Result<(usize, S), Vec<(usize, E)>>
where
    A: Future<Output = Result<S, E>>,
{
    let mut waiting = 0..count;
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(at) = waiting.next() {
            let attempt = attempt(at);
            attempts.push(async move { (at, attempt.await) });
        } else if attempts.is_empty() {
            return Err(failures);
        }
        let more = !waiting.is_empty();
        let delay = tokio::time::sleep(pause);
        tokio::select! {
            biased;
            Some((at, result)) = attempts.next() => match result {
                Ok(won) => return Ok((at, won)),
                Err(error) => {
                    let over = fatal(&error);
                    failures.push((at, error));
                    if over {
                        return Err(failures);
                    }
                }
            },
            () = delay, if more => {}
        }
    }
}

/// One error for all; that of a lone address as it is.
fn told(mut failures: Vec<(SocketAddr, io::Error)>, alone: bool) -> io::Error {
    let Some((_, last)) = failures.last() else {
        return io::ErrorKind::NotFound.into();
    };
    let kind = last.kind();
    if alone && let Some((_, error)) = failures.pop() {
        return error;
    }
    explain::said(kind, in_words(false, failures))
}

/// Why none of several would do: each by its name, with its reason; the reason of one that is
/// `alone` as it is.
pub fn in_words<N: Display, W: Display>(
    alone: bool,
    failures: impl IntoIterator<Item = (N, W)>,
) -> String {
    let each = failures.into_iter().map(|(name, why)| match alone {
        true => why.to_string(),
        false => format!("{name}: {why}"),
    });
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;
    use tandem_test_kit::hole::BlackHole;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_systems_first_stays_first() {
        let given = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        let mixed = addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"]);
        assert_eq!(interleaved(given), mixed);
        let four = addresses(&["1.1.1.1:1", "[::1]:1"]);
        assert_eq!(interleaved(four.clone()), four);
    }

    /// Far longer than a test lasts.
    const NEVER: Duration = Duration::from_secs(3600);

    /// Who was reached, and who was tried: port 1 never answers, port 2 refuses, port 3 finds no
    /// descriptor, every other answers.
    async fn race(list: &[&str], pause: Duration) -> (io::Result<SocketAddr>, Vec<u16>) {
        let tried = Mutex::new(Vec::new());
        let won = staggered(addresses(list), pause, |address| {
            tried.lock().unwrap().push(address.port());
            async move {
                match address.port() {
                    1 => std::future::pending().await,
                    2 => Err(io::ErrorKind::ConnectionRefused.into()),
                    3 => Err(io::Error::from_raw_os_error(24)),
                    _ => Ok(address),
                }
            }
        });
        let won = won.await;
        (won, tried.into_inner().unwrap())
    }

    #[tokio::test]
    async fn silent_addresses_are_passed_by_after_a_pause_each() {
        let (pause, begun) = (Duration::from_millis(20), Instant::now());
        let (won, tried) = race(&["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:9", "1.1.1.4:9"], pause).await;
        assert_eq!(won.unwrap().to_string(), "1.1.1.3:9");
        assert_eq!(tried, [1, 1, 9]);
        assert!(begun.elapsed() >= 2 * pause);
    }

    #[tokio::test]
    async fn a_refusing_address_costs_no_pause() {
        let (won, tried) = race(&["1.1.1.1:2", "1.1.1.2:9"], NEVER).await;
        assert_eq!(won.unwrap().to_string(), "1.1.1.2:9");
        assert_eq!(tried, [2, 9]);
    }

    #[tokio::test]
    async fn where_all_fail_each_is_named_and_a_lone_error_stays_itself() {
        let (won, _) = race(&["1.1.1.1:2", "[::1]:2"], NEVER).await;
        let text = won.unwrap_err().to_string();
        assert!(
            text.contains("1.1.1.1:2: ") && text.contains("[::1]:2: "),
            "{text}"
        );
        let (won, _) = race(&["1.1.1.1:2"], NEVER).await;
        let error = won.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(!error.to_string().contains("1.1.1.1"));
    }

    #[tokio::test]
    async fn a_shortage_of_this_machine_is_no_word_about_the_address() {
        let (won, tried) = race(&["1.1.1.1:3", "1.1.1.2:9"], NEVER).await;
        assert_eq!(won.unwrap_err().raw_os_error(), Some(24));
        assert_eq!(tried, [3]);
    }

    #[tokio::test]
    async fn look_ups_that_hang_keep_their_places_and_no_more() {
        static PLACES: Semaphore = Semaphore::const_new(2);
        let (end, ended) = tokio::sync::watch::channel(false);
        let hang = || {
            let mut ended = ended.clone();
            async move {
                tokio::task::spawn_blocking(move || {
                    futures::executor::block_on(ended.wait_for(|ended| *ended)).map(|_| ())
                })
                .await
                .map_err(io::Error::other)?
                .map_err(io::Error::other)
            }
        };
        let short = Duration::from_millis(20);
        for _ in 0..4 {
            let given_up = tokio::time::timeout(short, in_place(&PLACES, hang()));
            assert!(given_up.await.is_err());
        }
        assert_eq!(PLACES.available_permits(), 0);
        let mut next = std::pin::pin!(in_place(&PLACES, async { Ok(7) }));
        assert!(tokio::time::timeout(short, &mut next).await.is_err());
        end.send_replace(true);
        assert_eq!(next.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_name_whose_first_address_swallows_connections_is_reached_at_once() {
        let hole = BlackHole::open("127.0.0.1").await;
        let real = std::net::TcpListener::bind(("127.0.0.2", hole.port())).unwrap();
        let found = ["127.0.0.1", "127.0.0.2"];
        let found = found.map(|ip| SocketAddr::new(ip.parse().unwrap(), hole.port()));
        let addresses = worth_trying("name", found.to_vec()).unwrap();
        let begun = Instant::now();
        let reached = first(addresses, TcpStream::connect);
        let reached = tokio::time::timeout(Duration::from_secs(5), reached);
        let stream = reached.await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), real.local_addr().unwrap());
        assert!(begun.elapsed() >= ATTEMPT_DELAY);
    }
}
