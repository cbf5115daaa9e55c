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
/// nothing can be held back. Without its body a request is not executed.
pub(super) struct Guarded {
    data: Option<Bytes>,
    pass: Pass,
    withheld: Arc<AtomicBool>,
}

impl Guarded {
    /// The body, and where to look whether it was withheld.
    pub(super) fn new(data: Bytes, pass: Pass) -> (Self, Arc<AtomicBool>) {
        let withheld = Arc::<AtomicBool>::default();
        let body = Self {
            data: Some(data).filter(|data| !data.is_empty()),
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
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
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
        let (mut sent, withheld) = Guarded::new(Bytes::from_static(b"<User/>"), lease.pass());
        assert_eq!(sent.size_hint().exact(), Some(7));
        assert!(matches!(poll(&mut sent), Poll::Ready(Some(Ok(_)))));
        assert!(sent.is_end_stream() && !withheld.load(Ordering::Acquire));
        let (mut held, withheld) = Guarded::new(Bytes::from_static(b"<User/>"), lease.pass());
        lease.hold(Duration::from_secs(7_200));
        assert!(matches!(poll(&mut held), Poll::Ready(Some(Err(_)))));
        assert!(withheld.load(Ordering::Acquire));
    }
}
