//! Names of callbacks' hosts, looked up with a bound of their own.
//!
//! The system's look-up takes a thread until it has an answer, and cannot be called off: a name
//! whose servers are silent may take it for half a minute, and each attempt at each event of each
//! destination of that host would take another. So a name is looked up once at a time for all that
//! ask for it, few names are at once, and who asks does not wait for long.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use crate::net::dial;

/// Names that are looked up at once, each with a thread.
const AT_ONCE: usize = 16;
/// Names that are looked up or wait for it; for a further one there is no room. More than there can
/// be entries of `rest.callback.allow.N`.
const MAX_NAMES: usize = 128;

type Answer = Result<Vec<SocketAddr>, String>;
type LookUp = Shared<BoxFuture<'static, Answer>>;
type Find = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Looks names up. Clones share what is under way.
#[derive(Clone)]
pub(super) struct Names(Arc<Inner>);

struct Inner {
    find: Box<Find>,
    /// How long who asks waits.
    limit: Duration,
    room: Arc<Semaphore>,
    under_way: Mutex<HashMap<String, LookUp>>,
}

impl Names {
    /// `limit`: how long who asks waits.
    pub(super) fn new(limit: Duration) -> Self {
        // The HTTP library puts in the port.
        Self::with(limit, |name| {
            async move { dial::resolve(&name, 0).await }.boxed()
        })
    }

    fn with(
        limit: Duration,
        find: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            find: Box::new(find),
            limit,
            room: Arc::new(Semaphore::new(AT_ONCE)),
            under_way: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, LookUp>> {
        let under_way = self.0.under_way.lock();
        under_way.unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that is under way, or a new one. It goes on to its end whoever waits for it: so
    /// long its thread is taken.
    fn look_up(&self, name: &str) -> Result<LookUp, String> {
        let mut under_way = self.lock();
        if let Some(known) = under_way.get(name) {
            return Ok(known.clone());
        }
        if under_way.len() >= MAX_NAMES {
            return Err("too many names are being looked up".to_owned());
        }
        let (names, wanted) = (self.clone(), name.to_owned());
        let looking = tokio::spawn(async move {
            // Never closed.
            let place = Arc::clone(&names.0.room).acquire_owned().await;
            let found = (names.0.find)(wanted.clone()).await;
            drop(place);
            names.lock().remove(&wanted);
            found.map_err(|error| error.to_string())
        });
        let ended = |ended: Result<Answer, tokio::task::JoinError>| match ended {
            Ok(answer) => answer,
            Err(error) => Err(error.to_string()),
        };
        let looking = looking.map(ended).boxed().shared();
        under_way.insert(name.to_owned(), looking.clone());
        Ok(looking)
    }

    async fn find(&self, name: &str) -> Answer {
        let looking = self.look_up(name)?;
        let answer = tokio::time::timeout(self.0.limit, looking).await;
        answer.unwrap_or_else(|_| Err("its host's name was not looked up in time".to_owned()))
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let found = names.find(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    /// Names that begin with `dead` are never answered; and how many were asked for.
    fn names() -> (Names, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let names = Names::with(LIMIT, move |name| {
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                if name.starts_with("dead") {
                    std::future::pending::<()>().await;
                }
                Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
            }
            .boxed()
        });
        (names, asked)
    }

    #[tokio::test]
    async fn who_asks_for_a_silent_name_waits_no_longer_than_the_limit_and_takes_one_thread() {
        let (names, asked) = names();
        for _ in 0..5 {
            let all = (0..20).map(|_| names.find("dead.example"));
            for answer in futures::future::join_all(all).await {
                assert!(answer.unwrap_err().contains("not looked up in time"));
            }
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        // Another name does not wait for it; and an answer is not kept.
        for _ in 0..2 {
            assert_eq!(names.find("alive.example").await.unwrap().len(), 1);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        assert_eq!(names.lock().len(), 1);
    }

    #[tokio::test]
    async fn no_more_names_than_there_is_room_for_are_looked_up_at_once() {
        let (names, asked) = names();
        let all: Vec<String> = (0..MAX_NAMES + 3).map(|n| format!("dead-{n}")).collect();
        let all = all.iter().map(|name| names.find(name));
        let answers = futures::future::join_all(all).await;
        let refused = |answer: &&Answer| matches!(answer, Err(why) if why.contains("too many"));
        assert_eq!(answers.iter().filter(refused).count(), 3);
        assert_eq!(asked.load(Ordering::Relaxed), AT_ONCE);
    }
}
