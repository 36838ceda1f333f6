//! MSI-X: the vectors a driver programs, and the interrupts sent by them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::Interrupt;

/// Bytes of one table entry: address, data, control.
pub(crate) const ENTRY_BYTES: usize = 16;
/// No vector: what a driver writes to say it wants no interrupt.
pub(crate) const NO_VECTOR: u16 = 0xffff;

const CONTROL: usize = 12;
const MASKED: u8 = 1;
/// The message control word of the capability: enable, and mask everything.
const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;

/// An interrupt as it goes over the bus: a write of `data` to `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    pub address: u64,
    pub data: u32,
}

/// Delivers messages to the virtual CPUs.
pub trait MsiSink: Send + Sync + fmt::Debug {
    fn send(&self, message: MsiMessage);
}

/// The table and pending bits of one function, shared by its registers and its device's thread.
#[derive(Debug)]
pub(crate) struct Msix {
    state: Mutex<State>,
    sink: Arc<dyn MsiSink>,
}

#[derive(Debug)]
struct State {
    table: Vec<[u8; ENTRY_BYTES]>,
    pending: u64,
    enabled: bool,
    mask_all: bool,
}

impl Msix {
    pub(crate) fn new(vectors: usize, sink: Arc<dyn MsiSink>) -> Self {
        let mut masked = [0; ENTRY_BYTES];
        masked[CONTROL] = MASKED;
        let state = State {
            table: vec![masked; vectors],
            pending: 0,
            enabled: false,
            mask_all: false,
        };
        Msix {
            state: Mutex::new(state),
            sink,
        }
    }

    /// The body of the capability: message control, then where table and pending bits lie in BAR 0.
    pub(crate) fn capability(vectors: usize, table: u32, pending: u32) -> [u8; 10] {
        let size = u16::try_from(vectors.saturating_sub(1)).unwrap_or(0);
        let mut body = [0; 10];
        body[..2].copy_from_slice(&size.to_le_bytes());
        body[2..6].copy_from_slice(&table.to_le_bytes());
        body[6..].copy_from_slice(&pending.to_le_bytes());
        body
    }

    /// What the driver may change of message control.
    pub(crate) const CONTROL_WRITABLE: u16 = ENABLE | MASK_ALL;

    pub(crate) fn set_control(&self, control: u16) {
        let mut state = self.lock();
        state.enabled = control & ENABLE != 0;
        state.mask_all = control & MASK_ALL != 0;
        self.send_pending(&mut state);
    }

    pub(crate) fn read_table(&self, at: usize, data: &mut [u8]) {
        let state = self.lock();
        for (offset, byte) in data.iter_mut().enumerate() {
            *byte = state.table.as_flattened().get(at + offset).copied().unwrap_or(0);
        }
    }

    pub(crate) fn write_table(&self, at: usize, data: &[u8]) {
        let mut state = self.lock();
        for (offset, byte) in data.iter().enumerate() {
            if let Some(old) = state.table.as_flattened_mut().get_mut(at + offset) {
                *old = *byte;
            }
        }
        self.send_pending(&mut state);
    }

    pub(crate) fn read_pending(&self, at: usize, data: &mut [u8]) {
        let pending = self.lock().pending.to_le_bytes();
        for (offset, byte) in data.iter_mut().enumerate() {
            *byte = pending.get(at + offset).copied().unwrap_or(0);
        }
    }

    pub(crate) fn clear_pending(&self) {
        self.lock().pending = 0;
    }

    fn fire(&self, vector: u16) {
        let mut state = self.lock();
        match state.message(vector) {
            Fate::Send(message) => self.sink.send(message),
            Fate::Wait => state.pending |= 1u64.checked_shl(vector.into()).unwrap_or(0),
            Fate::Drop => {}
        }
    }

    fn send_pending(&self, state: &mut State) {
        if state.pending == 0 {
            return;
        }
        for vector in 0..u16::try_from(state.table.len()).unwrap_or(0) {
            let bit = 1u64.checked_shl(vector.into()).unwrap_or(0);
            if state.pending & bit != 0
                && let Fate::Send(message) = state.message(vector)
            {
                state.pending &= !bit;
                self.sink.send(message);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Fate {
    Send(MsiMessage),
    Wait,
    Drop,
}

impl State {
    fn message(&self, vector: u16) -> Fate {
        let Some(entry) = self.table.get(usize::from(vector)) else {
            return Fate::Drop;
        };
        if !self.enabled {
            return Fate::Drop;
        }
        if self.mask_all || entry[CONTROL] & MASKED != 0 {
            return Fate::Wait;
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *entry;
        Fate::Send(MsiMessage {
            address: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            data: u32::from_le_bytes([i, j, k, l]),
        })
    }
}

/// One vector, as a device holds it.
#[derive(Debug)]
pub(crate) struct Vector {
    pub(crate) msix: Arc<Msix>,
    pub(crate) number: u16,
}

impl Interrupt for Vector {
    fn signal(&self) {
        if self.number != NO_VECTOR {
            self.msix.fire(self.number);
        }
    }
}
