//! Where bodies are copied to: the stack, or a few buffers that are used again.

use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::{
    body::Body,
    copy_whole,
    limits::{KEPT_BUFFERS, LARGE_BODY, SMALL_BODY},
};
use crate::{Incoming, Reply, wire::InHeader};

#[derive(Debug, Default)]
pub(super) struct Buffers {
    large: Mutex<Vec<Box<[u8]>>>,
}

impl Buffers {
    /// Copies all that stands behind the header.
    pub(super) fn with_body<T>(
        &self,
        request: &mut impl Incoming,
        answer: impl FnOnce(Body<'_>) -> Reply<T>,
    ) -> Reply<T> {
        let len = request.len().saturating_sub(size_of::<InHeader>());
        let mut small = [0; SMALL_BODY];
        if let Some(bytes) = small.get_mut(..len) {
            copy_whole(request, size_of::<InHeader>(), bytes)?;
            return answer(Body::new(bytes));
        }
        if len > LARGE_BODY {
            return Err(Errno::INVAL);
        }
        let mut large = self.take();
        let result = match large.get_mut(..len) {
            Some(bytes) => {
                copy_whole(request, size_of::<InHeader>(), bytes).and_then(|()| answer(Body::new(bytes)))
            }
            None => Err(Errno::INVAL),
        };
        self.give_back(large);
        result
    }

    fn take(&self) -> Box<[u8]> {
        let kept = self.large.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; LARGE_BODY].into_boxed_slice())
    }

    fn give_back(&self, buffer: Box<[u8]>) {
        let mut kept = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_BUFFERS {
            kept.push(buffer);
        }
    }
}
