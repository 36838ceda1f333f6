//! Standard input and output, each with a thread of its own: a pipe that blocks holds up nobody but itself.

use std::{
    collections::VecDeque,
    io::{self, BufRead, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use egress_policy::control::{CONFIG_VERSION, Config, Event, MAX_LINE, Request};
use tokio::sync::mpsc;

use crate::{
    EgressError,
    limits::{FLUSH_DEADLINE, MAX_EVENTS, MAX_REQUESTS},
};

/// The first line.
pub fn read_config(input: &mut impl BufRead) -> Result<Config, EgressError> {
    let line = read_line(input)?.ok_or(EgressError::NoConfig)?;
    let config: Config = serde_json::from_slice(&line).map_err(EgressError::Config)?;
    match config.version {
        CONFIG_VERSION => Ok(config),
        version => Err(EgressError::ConfigVersion(version)),
    }
}

/// The later lines. The channel closes when the input does.
pub fn read_requests(
    mut input: impl BufRead + Send + 'static,
) -> io::Result<mpsc::Receiver<Result<Request, EgressError>>> {
    let (sender, receiver) = mpsc::channel(MAX_REQUESTS);
    thread::Builder::new()
        .name("requests".to_owned())
        .spawn(move || {
            while let Some(request) = next_request(&mut input).transpose() {
                let last = request.is_err();
                if sender.blocking_send(request).is_err() || last {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

fn next_request(input: &mut impl BufRead) -> Result<Option<Request>, EgressError> {
    match read_line(input)? {
        Some(line) => serde_json::from_slice(&line)
            .map(Some)
            .map_err(EgressError::Request),
        None => Ok(None),
    }
}

/// An input that cannot be read has ended, and so has a line that has no end.
fn read_line(input: &mut impl BufRead) -> Result<Option<Vec<u8>>, EgressError> {
    let mut line = Vec::new();
    let mut limited = io::Read::take(input, MAX_LINE as u64);
    match limited.read_until(b'\n', &mut line) {
        Ok(_) if line.ends_with(b"\n") => Ok(Some(line)),
        Ok(len) if len >= MAX_LINE => Err(EgressError::LongLine),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Events on their way to standard output.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    writing: bool,
    gone: bool,
}

impl Events {
    pub fn write_to(mut output: impl Write + Send + 'static) -> io::Result<Self> {
        let events = Events::default();
        let reader = events.clone();
        thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || while reader.write_next(&mut output).is_ok() {})?;
        Ok(events)
    }

    /// Never waits; who pushes looks at [`Self::has_room`] where it has the choice.
    pub fn push(&self, event: Event) {
        let mut queue = self.queue();
        if !queue.gone {
            queue.events.push_back(event);
            self.0.changed.notify_all();
        }
    }

    /// Nothing can be told any more when nobody listens.
    pub(crate) fn has_room(&self) -> bool {
        let queue = self.queue();
        !queue.gone && queue.events.len() < MAX_EVENTS
    }

    /// Waits until all has been written, or until nobody seems to read it.
    pub fn flush_last(&self) {
        let written = |queue: &mut Queue| !queue.gone && (queue.writing || !queue.events.is_empty());
        let waited = self
            .0
            .changed
            .wait_timeout_while(self.queue(), FLUSH_DEADLINE, written);
        drop(waited);
    }

    fn write_next(&self, output: &mut impl Write) -> io::Result<()> {
        let event = self.next();
        let written = write_event(&event, output);
        let mut queue = self.queue();
        queue.writing = false;
        if written.is_err() {
            queue.gone = true;
            queue.events.clear();
        }
        self.0.changed.notify_all();
        written
    }

    fn next(&self) -> Event {
        let mut queue = self.queue();
        loop {
            if let Some(event) = queue.events.pop_front() {
                queue.writing = true;
                return event;
            }
            queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn take(&self) -> Vec<Event> {
        self.queue().events.drain(..).collect()
    }
}

fn write_event(event: &Event, output: &mut impl Write) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_end_is_no_configuration() {
        let config = serde_json::to_vec(&serde_json::json!({ "version": CONFIG_VERSION })).unwrap();
        assert!(matches!(
            read_config(&mut &config[..]),
            Err(EgressError::NoConfig)
        ));
        assert!(matches!(read_config(&mut &b""[..]), Err(EgressError::NoConfig)));
        let long = vec![b' '; MAX_LINE + 1];
        assert!(matches!(read_config(&mut &long[..]), Err(EgressError::LongLine)));
    }

    #[test]
    fn an_output_that_is_closed_leaves_no_room() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let events = Events::write_to(writer).unwrap();
        events.push(Event::Ready);
        events.flush_last();
        assert!(!events.has_room());
    }
}
