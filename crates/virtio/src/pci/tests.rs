//! The transport as a driver sees it, kind and unkind.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use proptest::prelude::*;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::*;
use crate::{ActivateError, Activation, Device, DeviceKind, Ring, testing::KeptFailures};

const BAR: u32 = 0xc000_0000;

/// A bell that hangs: it tells that it was rung, and lets nobody go until it is told to.
struct Stubborn {
    rung: mpsc::Sender<usize>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl Ring for Stubborn {
    fn rung(&self, queue: usize) {
        self.rung.send(queue).unwrap();
        self.go.lock().unwrap().recv().unwrap();
    }
}

#[derive(Debug, Default)]
struct Log {
    activations: AtomicUsize,
    resets: AtomicUsize,
    held: Mutex<Option<Activation>>,
}

struct Probe(Arc<Log>, Option<Arc<Stubborn>>);

impl Device for Probe {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Rng
    }
    fn features(&self) -> u64 {
        0b1
    }
    fn queue_sizes(&self) -> &[u16] {
        &[64, 64]
    }
    fn read_config(&self, _: usize, data: &mut [u8]) {
        data.fill(0xaa);
    }
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        self.0.activations.fetch_add(1, Ordering::SeqCst);
        *self.0.held.lock().unwrap() = Some(activation);
        Ok(())
    }
    fn ring(&self) -> Option<Arc<dyn Ring>> {
        self.1.clone().map(|bell| bell as Arc<dyn Ring>)
    }
    fn reset(&mut self) {
        self.0.resets.fetch_add(1, Ordering::SeqCst);
        *self.0.held.lock().unwrap() = None;
    }
}

#[derive(Debug, Default)]
struct Sent(Mutex<Vec<MsiMessage>>);

impl MsiSink for Sent {
    fn send(&self, message: MsiMessage) {
        self.0.lock().unwrap().push(message);
    }
}

struct Bench {
    device: PciDevice,
    log: Arc<Log>,
    sent: Arc<Sent>,
}

fn bench() -> Bench {
    bench_with(None)
}

fn bench_with(bell: Option<Arc<Stubborn>>) -> Bench {
    let memory = Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
    let (log, sent) = (Arc::new(Log::default()), Arc::new(Sent::default()));
    let device = PciDevice::new(
        Box::new(Probe(log.clone(), bell)),
        BAR,
        memory,
        sent.clone(),
        Arc::new(KeptFailures::default()),
    )
    .unwrap();
    Bench { device, log, sent }
}

impl Bench {
    fn read16(&mut self, offset: u32) -> u16 {
        let mut bytes = [0; 2];
        self.device.read_bar(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }
    fn status(&mut self) -> u8 {
        let mut byte = [0];
        self.device.read_bar(0x14, &mut byte);
        byte[0]
    }
    fn w8(&mut self, offset: u32, value: u8) {
        self.device.write_bar(offset, &[value]);
    }
    fn w16(&mut self, offset: u32, value: u16) {
        self.device.write_bar(offset, &value.to_le_bytes());
    }
    fn w32(&mut self, offset: u32, value: u32) {
        self.device.write_bar(offset, &value.to_le_bytes());
    }
    fn negotiate(&mut self) {
        self.w8(0x14, 3);
        self.w32(0x08, 0);
        self.w32(0x0c, 1);
        self.w32(0x08, 1);
        self.w32(0x0c, 1);
        self.w8(0x14, 11);
    }
    fn queue(&mut self, index: u16, base: u32) {
        self.w16(0x16, index);
        self.w16(0x18, 16);
        self.w16(0x1a, index);
        self.w32(0x20, base);
        self.w32(0x28, base + 0x1000);
        self.w32(0x30, base + 0x2000);
        self.w16(0x1c, 1);
    }
    /// Where message control lies, found as a driver finds it.
    fn msix_control(&self) -> usize {
        let byte = |at: usize| {
            let mut byte = [0];
            self.device.read_config(at, &mut byte);
            usize::from(byte[0])
        };
        let mut at = byte(0x34);
        while byte(at) != 0x11 {
            at = byte(at + 1);
            assert_ne!(at, 0, "no MSI-X capability");
        }
        at + 2
    }
    fn run(&mut self) {
        self.negotiate();
        self.queue(0, 0x10000);
        self.queue(1, 0x20000);
        self.w8(0x14, 15);
    }
}

#[test]
fn a_driver_that_follows_the_rules_gets_a_running_device() {
    let mut bench = bench();
    bench.run();
    assert_eq!(bench.status(), 15);
    assert_eq!(bench.log.activations.load(Ordering::SeqCst), 1);
    let held = bench.log.held.lock().unwrap();
    let activation = held.as_ref().unwrap();
    assert_eq!((activation.queues.len(), activation.features), (2, 1));
    assert_eq!(activation.queues[0].size(), 16);
}

#[test]
fn queue_registers_are_frozen_once_the_driver_is_ready() {
    let mut bench = bench();
    bench.run();
    bench.w16(0x16, 0);
    for (register, value) in [(0x18, 64), (0x1a, 9), (0x1c, 0)] {
        let before = bench.read16(register);
        bench.w16(register, value);
        assert_eq!(bench.read16(register), before, "register {register:#x}");
    }
    let before = bench.read16(0x20);
    bench.w32(0x20, 0xdead_0000);
    assert_eq!(bench.read16(0x20), before);
    bench.w8(0x14, 15);
    assert_eq!(
        bench.log.activations.load(Ordering::SeqCst),
        1,
        "a second DRIVER_OK starts nothing"
    );
}

#[test]
fn rings_outside_memory_or_of_odd_sizes_do_not_start_the_device() {
    for (register, value) in [(0x20, 0xffff_0000u32), (0x30, 0x10_0000), (0x20, 0x10001)] {
        let mut bench = bench();
        bench.negotiate();
        bench.queue(0, 0x10000);
        bench.queue(1, 0x20000);
        bench.w32(register, value);
        bench.w8(0x14, 15);
        assert_eq!(
            bench.log.activations.load(Ordering::SeqCst),
            0,
            "{register:#x} = {value:#x}"
        );
        assert_ne!(bench.status() & 64, 0, "asks for a reset");
    }
    for size in [0, 3, 128] {
        let mut bench = bench();
        bench.negotiate();
        bench.queue(0, 0x10000);
        bench.w16(0x18, size);
        bench.w8(0x14, 15);
        assert_eq!(bench.log.activations.load(Ordering::SeqCst), 0, "size {size}");
    }
}

#[test]
fn features_nobody_offered_are_not_accepted() {
    let mut bench = bench();
    bench.w8(0x14, 3);
    bench.w32(0x08, 0);
    bench.w32(0x0c, 0x8000_0000);
    bench.w32(0x08, 1);
    bench.w32(0x0c, 1);
    bench.w8(0x14, 11);
    assert_eq!(bench.status() & 8, 0);
    bench.w8(0x14, 15);
    assert_eq!(bench.log.activations.load(Ordering::SeqCst), 0);
}

#[test]
fn a_reset_stops_the_device_and_unfreezes_it() {
    let mut bench = bench();
    bench.run();
    bench.w8(0x14, 0);
    assert_eq!((bench.status(), bench.log.resets.load(Ordering::SeqCst)), (0, 1));
    bench.run();
    assert_eq!(bench.log.activations.load(Ordering::SeqCst), 2);
}

#[test]
fn a_masked_vector_waits_and_an_unmasked_one_is_sent() {
    let mut bench = bench();
    bench.run();
    bench.w32(0x4000, 0xfee0_0000);
    bench.w32(0x4008, 0x4041);
    let vector = super::msix::Vector {
        msix: bench.device.msix_for_tests(),
        number: 0,
    };
    crate::Interrupt::signal(&vector);
    assert!(bench.sent.0.lock().unwrap().is_empty(), "MSI-X is off");
    let control = bench.msix_control();
    bench.device.write_config(control, &0x8000u16.to_le_bytes());
    crate::Interrupt::signal(&vector);
    assert!(bench.sent.0.lock().unwrap().is_empty(), "the entry is masked");
    bench.w32(0x400c, 0);
    assert_eq!(
        *bench.sent.0.lock().unwrap(),
        [MsiMessage {
            address: 0xfee0_0000,
            data: 0x4041
        }]
    );
    crate::Interrupt::signal(&vector);
    assert_eq!(bench.sent.0.lock().unwrap().len(), 2);
}

#[test]
fn a_driver_that_leaves_out_a_queue_in_between_gets_no_device() {
    let mut bench = bench();
    bench.negotiate();
    bench.queue(1, 0x20000);
    bench.w8(0x14, 15);
    assert_eq!(bench.log.activations.load(Ordering::SeqCst), 0);
    assert_ne!(bench.status() & 64, 0, "asks for a reset");
}

#[test]
fn a_doorbell_that_is_answered_on_the_spot_holds_up_no_register() {
    let (rung, heard) = mpsc::channel();
    let (go, told) = mpsc::channel();
    let mut bench = bench_with(Some(Arc::new(Stubborn {
        rung,
        go: Mutex::new(told),
    })));
    assert!(bench.device.doorbells().unwrap().is_empty(), "nothing to wire");
    bench.run();
    let device = Arc::new(bench.device);
    let ringing = {
        let device = device.clone();
        std::thread::spawn(move || device.write_bar(0x3004, &1u16.to_le_bytes()))
    };
    assert_eq!(heard.recv().unwrap(), 1);
    let mut status = [0];
    device.read_bar(0x14, &mut status);
    assert_eq!(status, [15]);
    device.write_bar(0x14, &[0]);
    assert_eq!(bench.log.resets.load(Ordering::SeqCst), 1);
    go.send(()).unwrap();
    ringing.join().unwrap();
}

#[test]
fn sizing_the_bar_tells_its_size_and_moves_nothing() {
    let bench = bench();
    bench.device.write_config(0x10, &u32::MAX.to_le_bytes());
    let mut bytes = [0; 4];
    bench.device.read_config(0x10, &mut bytes);
    assert_eq!(u32::from_le_bytes(bytes), !(BAR_BYTES - 1));
    assert_eq!(
        bench.device.doorbells().unwrap()[1].address,
        u64::from(BAR) + 0x3004
    );
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_panics(
        steps in proptest::collection::vec((any::<bool>(), 0..BAR_BYTES, 1usize..9, any::<u64>()), 0..200)
    ) {
        let bench = bench();
        for (write, offset, width, value) in steps {
            let bytes = value.to_le_bytes();
            if write {
                bench.device.write_bar(offset, &bytes[..width]);
                bench.device.write_config(offset as usize % 260, &bytes[..width]);
            } else {
                bench.device.read_bar(offset, &mut [0; 8][..width]);
                bench.device.read_config(offset as usize % 260, &mut [0; 8][..width]);
            }
        }
    }
}
