//! The bytes of requests in progress: bounded for the whole process and for each client address.
//!
//! A caller chooses how much it sends and how slowly. So what is read from a connection before its
//! request is complete, and the headers and bodies of requests that run, are taken from a budget,
//! and a request that does not fit is refused instead of buffered.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// What a connection may read before a request without taking from the budget: most requests fit.
const FREE_BYTES: usize = 8 << 10;

/// A number of bytes that can be taken and come back when they are dropped.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Semaphore>);

/// Bytes taken from budgets.
#[derive(Debug, Default)]
pub(super) struct Taken(Vec<OwnedSemaphorePermit>);

impl Taken {
    pub(super) fn add(&mut self, other: Self) {
        for permit in other.0 {
            match self.0.iter_mut().find(|own| Arc::ptr_eq(own.semaphore(), permit.semaphore())) {
                Some(own) => own.merge(permit),
                None => self.0.push(permit),
            }
        }
    }
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// The bytes, if there are that many left.
    pub(super) fn take_all(&self, bytes: usize) -> Option<Taken> {
        self.take(bytes).map(|permit| Taken(vec![permit]))
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }
}

/// The budgets that one connection takes from: its address's and the process's.
#[derive(Debug, Clone)]
pub(super) struct Purse(pub(super) Vec<Budget>);

impl Purse {
    /// The bytes, if every budget has that many left.
    pub(super) fn take(&self, bytes: usize) -> Option<Taken> {
        self.0.iter().map(|budget| budget.take(bytes)).collect::<Option<Vec<_>>>().map(Taken)
    }
}

/// What one connection has sent of a request that is not complete.
#[derive(Debug)]
pub(super) struct Meter {
    purse: Purse,
    most: usize,
    unread: Mutex<Unread>,
}

#[derive(Debug, Default)]
struct Unread {
    bytes: usize,
    charged: usize,
    taken: Taken,
}

impl Meter {
    /// `most` is what the HTTP library buffers for one connection at most.
    pub(super) fn new(purse: Purse, most: usize) -> Arc<Self> {
        Arc::new(Self { purse, most, unread: Mutex::default() })
    }

    /// Notes bytes that were read from the connection.
    fn received(&self, bytes: usize) -> io::Result<()> {
        let mut unread = self.unread();
        unread.bytes = unread.bytes.saturating_add(bytes);
        let due =
            unread.bytes.min(self.most).saturating_sub(FREE_BYTES).saturating_sub(unread.charged);
        if due > 0 {
            let taken = self
                .purse
                .take(due)
                .ok_or_else(|| io::Error::other("too many bytes of requests in progress"))?;
            unread.taken.add(taken);
            unread.charged = unread.charged.saturating_add(due);
        }
        Ok(())
    }

    /// A request's headers are complete; the request takes its bytes itself.
    pub(super) fn request(&self) {
        *self.unread() = Unread::default();
    }

    /// A part of a body has been read out of the connection's buffers.
    fn body(&self, bytes: usize) {
        let mut unread = self.unread();
        unread.bytes = unread.bytes.saturating_sub(bytes);
    }

    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of one request, from its headers until its answer.
#[derive(Debug, Clone)]
pub(super) struct Charge(Arc<(Arc<Meter>, Mutex<Taken>)>);

impl Charge {
    pub(super) fn new(meter: Arc<Meter>) -> Self {
        Self(Arc::new((meter, Mutex::default())))
    }

    /// Takes the bytes of the request's headers; false if they do not fit.
    pub(super) fn headers(&self, bytes: usize) -> bool {
        self.take(bytes)
    }

    /// Takes the bytes of a part of the request's body; false if they do not fit.
    pub(super) fn body(&self, bytes: usize) -> bool {
        self.0.0.body(bytes);
        self.take(bytes)
    }

    /// A part of the body was read and is counted in another budget.
    pub(super) fn passed_on(&self, bytes: usize) {
        self.0.0.body(bytes);
    }

    fn take(&self, bytes: usize) -> bool {
        let (meter, own) = &*self.0;
        let taken = meter.purse.take(bytes);
        let fits = taken.is_some();
        own.lock().unwrap_or_else(PoisonError::into_inner).add(taken.unwrap_or_default());
        fits
    }
}

/// A connection whose incoming bytes are metered.
pub(super) struct Metered<S> {
    pub(super) stream: S,
    pub(super) meter: Arc<Meter>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                Poll::Ready(self.meter.received(buf.filled().len().saturating_sub(before)))
            }
            failed_or_pending @ (Poll::Ready(Err(_)) | Poll::Pending) => failed_or_pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(budget: &Budget) -> usize {
        budget.0.available_permits()
    }

    #[test]
    fn taken_bytes_come_back_and_a_request_that_does_not_fit_takes_nothing() {
        let (process, address) = (Budget::new(100), Budget::new(40));
        let purse = Purse(vec![address.clone(), process.clone()]);
        let taken = purse.take(30).unwrap();
        assert!(purse.take(11).is_none());
        assert_eq!((left(&address), left(&process)), (10, 70));
        drop(taken);
        assert_eq!((left(&address), left(&process)), (40, 100));
    }

    #[test]
    fn unfinished_headers_are_charged_up_to_what_is_buffered_and_until_the_request_is_complete() {
        let budget = Budget::new(1 << 20);
        let meter = Meter::new(Purse(vec![budget.clone()]), 64 << 10);
        meter.received(FREE_BYTES).unwrap();
        assert_eq!(left(&budget), 1 << 20);
        meter.received(10).unwrap();
        meter.received(10).unwrap();
        assert_eq!(left(&budget), (1 << 20) - 20);
        meter.received(1 << 20).unwrap();
        assert_eq!(left(&budget), (1 << 20) - (56 << 10));
        meter.request();
        assert_eq!(left(&budget), 1 << 20);
    }

    #[test]
    fn the_bytes_of_a_request_come_back_when_it_has_ended() {
        let budget = Budget::new(100);
        let charge = Charge::new(Meter::new(Purse(vec![budget.clone()]), 100));
        assert!(charge.headers(40) && charge.body(50) && !charge.body(11));
        assert_eq!(left(&budget), 10);
        drop(charge);
        assert_eq!(left(&budget), 100);
    }

    #[test]
    fn a_connection_that_exceeds_the_budget_ends() {
        let meter = Meter::new(Purse(vec![Budget::new(10)]), 64 << 10);
        meter.received(FREE_BYTES + 10).unwrap();
        assert!(meter.received(1).is_err());
    }
}
