//! A request body that lets itself be sent only while its pass holds.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::lease::Pass;

/// The process was away since the request was decided on.
#[derive(Debug, thiserror::Error)]
#[error("withheld: this process had been away")]
pub(super) struct Withheld;

/// The body is asked for when the connection stands and the request is written: later than that
/// nothing can be held back, and before it nothing of the request has left. That is so of a body
/// whose length is not told, or is not nothing; so an empty one that is to be held back goes out in
/// chunks, of which there are none.
pub(super) struct Guarded {
    data: Option<Bytes>,
    pass: Pass,
    withheld: Arc<AtomicBool>,
}

impl Guarded {
    /// The body, and where to look whether it was withheld. Whether an empty one is held back, too,
    /// is for `empty_too` to say.
    pub(super) fn new(data: Bytes, empty_too: bool, pass: Pass) -> (Self, Arc<AtomicBool>) {
        let withheld = Arc::<AtomicBool>::default();
        let body = Self {
            data: Some(data).filter(|data| empty_too || !data.is_empty()),
            pass,
            withheld: Arc::clone(&withheld),
        };
        (body, withheld)
    }
}

impl Body for Guarded {
    type Data = Bytes;
    type Error = Withheld;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Withheld>>> {
        if self.data.is_some() && !self.pass.holds() {
            self.data = None;
            self.withheld.store(true, Ordering::Release);
            return Poll::Ready(Some(Err(Withheld)));
        }
        let data = self.data.take().filter(|data| !data.is_empty());
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.data {
            // The library asks no body for its frames that says it has none.
            Some(data) if data.is_empty() => SizeHint::default(),
            Some(data) => SizeHint::with_exact(data.len() as u64),
            None => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lease::Lease;

    fn poll(body: &mut Guarded) -> Poll<Option<Result<Frame<Bytes>, Withheld>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn a_pause_while_the_connection_was_made_withholds_the_body() {
        let lease = Lease::start(Duration::from_secs(3_600)).unwrap();
        let user = Bytes::from_static(b"<User/>");
        let (mut sent, withheld) = Guarded::new(user.clone(), false, lease.pass());
        assert_eq!(sent.size_hint().exact(), Some(7));
        assert!(matches!(poll(&mut sent), Poll::Ready(Some(Ok(_)))));
        assert!(sent.is_end_stream() && !withheld.load(Ordering::Acquire));
        let (mut empty, _) = Guarded::new(Bytes::new(), true, lease.pass());
        assert!(!empty.is_end_stream() && empty.size_hint().exact().is_none());
        assert!(matches!(poll(&mut empty), Poll::Ready(None)));
        assert!(empty.is_end_stream());
        let held = [user, Bytes::new()].map(|data| Guarded::new(data, true, lease.pass()));
        lease.hold(Duration::from_secs(7_200));
        for (mut held, withheld) in held {
            assert!(matches!(poll(&mut held), Poll::Ready(Some(Err(_)))));
            assert!(withheld.load(Ordering::Acquire));
        }
    }
}
