//! Orders on their way to a session. A channel would take more memory than the session itself, and
//! few sessions ever get an order.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Orders that a session has not yet taken.
const MAX_ORDERS: usize = 64;

/// "Watch this team."
#[derive(Debug)]
pub(super) struct Order {
    pub(super) pubsub_domain: Box<str>,
    pub(super) team: Box<str>,
}

/// Orders that wait.
#[derive(Debug, Default)]
pub(super) struct Orders {
    waiting: Mutex<VecDeque<Order>>,
    added: Notify,
}

impl Orders {
    /// Whether there was room for it.
    pub(super) fn push(&self, order: Order) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let room = waiting.len() < MAX_ORDERS;
        if room {
            waiting.push_back(order);
            self.added.notify_one();
        }
        room
    }

    /// The next one. For one caller only; cancelling loses nothing.
    pub(super) async fn next(&self) -> Order {
        loop {
            let first = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.pop_front()
            };
            match first {
                Some(order) => return order,
                None => self.added.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(team: usize) -> Order {
        Order {
            pubsub_domain: "p".into(),
            team: team.to_string().into(),
        }
    }

    #[tokio::test]
    async fn orders_keep_their_sequence_and_have_a_bound() {
        let orders = Orders::default();
        for team in 0..MAX_ORDERS {
            assert!(orders.push(order(team)));
        }
        assert!(!orders.push(order(0)));
        for team in 0..MAX_ORDERS {
            assert_eq!(*orders.next().await.team, *team.to_string());
        }
        let (next, _) = tokio::join!(orders.next(), async { orders.push(order(7)) });
        assert_eq!(&*next.team, "7");
    }
}
