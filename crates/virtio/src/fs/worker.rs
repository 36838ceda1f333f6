//! The threads for what a virtual CPU must not wait for.

use std::{io, sync::Arc, thread::JoinHandle};

use fuse::FileSystem;

use super::service::{Place, Service};

/// A disk answers a few requests at once better than one; a host file system that hangs keeps this many threads.
const WORKERS: usize = 4;
/// A file system nests deeper than a device.
const STACK_BYTES: usize = 512 * 1024;

/// Running workers; told to end and waited for when dropped.
pub(super) struct Workers<F: FileSystem + 'static> {
    service: Arc<Service<F>>,
    threads: Vec<JoinHandle<()>>,
}

impl<F: FileSystem + 'static> Workers<F> {
    pub(super) fn start(service: &Arc<Service<F>>) -> io::Result<Self> {
        let mut workers = Workers {
            service: Arc::clone(service),
            threads: Vec::with_capacity(WORKERS),
        };
        for _ in 0..WORKERS {
            let service = Arc::clone(service);
            let thread = std::thread::Builder::new()
                .name("virtio-fs".into())
                .stack_size(STACK_BYTES)
                .spawn(move || work(&service))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }
}

impl<F: FileSystem + 'static> Drop for Workers<F> {
    fn drop(&mut self) {
        self.service.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work<F: FileSystem>(service: &Service<F>) {
    while let Some(index) = service.next_call() {
        service.visit(index, Place::Worker);
    }
}
