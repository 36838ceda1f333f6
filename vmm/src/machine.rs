//! The machine: its parts made in order, held together, and taken apart in order.

use std::{io, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VcpuFd, VmFd};
use share_fs::Exports;
use user_net::{Carrier, Links};
use virtio::{
    Device,
    balloon::{Balloon, BalloonHandle},
    block::Block,
    fs::{Fs, MAX_REQUEST_QUEUES},
    net::Net,
    rng::Rng,
    vsock::{Vsock, VsockConfig},
};
use vm_memory::GuestMemoryMmap;
use vmm_api::{Disk, DiskMode, MachineConfig, MachineState, Statistics};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{
    boot::{self, BootError},
    bus::Bus,
    coalesced::CoalescedRing,
    console::{self, Dropped},
    cpu::{self, CpuError},
    deadline,
    exit::Exit,
    layout,
    memory::{self, MemoryError},
    msi::KvmMsi,
    pci_bus::{PciBus, Surroundings},
    vcpus::Vcpus,
};

/// What KVM must be able to do, each with its name for the one who lacks it.
const NEEDED: &[(Cap, &str)] = &[
    (Cap::Irqchip, "in-kernel interrupt controllers"),
    (Cap::Irqfd, "irqfd"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::IoeventfdNoLength, "ioeventfd of any length"),
    (Cap::SignalMsi, "message interrupts"),
    (Cap::UserMemory, "user memory"),
    (Cap::ExtCpuid, "CPUID"),
    (Cap::Pit2, "the interval timer"),
    (Cap::CoalescedPio, "coalesced port writes"),
];

/// How long devices have to end. All but one that waits for a host's disk take milliseconds.
const DEVICES_DEADLINE: Duration = Duration::from_secs(5);

/// A machine whose virtual CPUs run.
#[derive(Debug)]
pub(crate) struct Machine {
    vcpus: Vcpus,
    bus: Arc<Bus>,
    balloon: BalloonHandle,
    /// Where the network card's links go; none without a card.
    links: Option<Links>,
    console_dropped: Dropped,
    state: MachineState,
    // Last: everything above uses it.
    _vm: Arc<VmFd>,
    _memory: Arc<GuestMemoryMmap>,
}

impl Machine {
    pub(crate) fn start(
        config: &MachineConfig,
        folders: &Arc<Exports>,
        exit: &Arc<Exit>,
    ) -> Result<Self, MachineError> {
        let kvm = open_kvm()?;
        let vm = Arc::new(kvm.create_vm().map_err(kvm_error("create a VM"))?);
        let memory = memory::allocate(config.memory)?;
        memory::give_to_kvm(&vm, &memory)?;
        let entry = boot::load(config, &memory)?;
        cpu::write_page_tables(&memory).map_err(MachineError::PageTables)?;
        add_interrupt_controllers(&vm)?;
        let vcpus = create_vcpus(&kvm, &vm, config.vcpus.count(), entry)?;

        let balloon = Balloon::new();
        let balloon_handle = balloon.handle();
        let (network, links) = network(config)?;
        let devices = devices(config, folders, network, Box::new(balloon))?;
        let around = Surroundings {
            memory: memory.clone(),
            msi: Arc::new(KvmMsi(vm.clone())),
            failures: exit.clone(),
        };
        let pci = PciBus::new(devices, coalesce(&vm, &vcpus)?, &around).map_err(MachineError::Pci)?;
        let (serial, console_dropped) = serial(config, &vm)?;
        let bus = Arc::new(Bus::new(serial, pci));
        wire_doorbells(&vm, bus.pci())?;
        let vcpus = Vcpus::start(vcpus, &bus, exit).map_err(MachineError::Threads)?;
        let state = MachineState::Running;
        Ok(Machine {
            vcpus,
            bus,
            balloon: balloon_handle,
            links,
            console_dropped,
            state,
            _vm: vm,
            _memory: memory,
        })
    }

    /// False when a virtual CPU hangs in the kernel and the machine is not paused.
    pub(crate) fn pause(&mut self) -> bool {
        let paused = self.state == MachineState::Paused || self.vcpus.pause();
        if paused {
            self.state = MachineState::Paused;
        } else {
            self.vcpus.resume();
        }
        paused
    }

    pub(crate) fn resume(&mut self) {
        self.vcpus.resume();
        self.state = MachineState::Running;
    }

    pub(crate) fn set_balloon(&self, mib: u32) {
        self.balloon.set_target(mib);
    }

    /// What the network card leads to from now on; false when there is no card.
    pub(crate) fn link(&self, link: OwnedFd) -> bool {
        let links = self.links.as_ref();
        links.map(|links| links.replace(link)).is_some()
    }

    pub(crate) fn state(&self) -> MachineState {
        self.state
    }

    pub(crate) fn statistics(&self) -> Statistics {
        Statistics {
            exits: self.vcpus.exits(),
            balloon_mib: self.balloon.held_mib(),
            reclaimed_bytes: self.balloon.counts().reported_bytes,
            console_dropped: self.console_dropped.bytes(),
        }
    }

    /// Virtual CPUs first, so that nobody starts a device again; then devices, so that nobody touches memory.
    /// A folder whose host file system hangs keeps a thread that cannot be stopped: then the process ends with it,
    /// and its memory is kept until then.
    pub(crate) fn stop(self) {
        if !self.vcpus.stop() {
            return;
        }
        let bus = self.bus;
        deadline::run("shut-down", DEVICES_DEADLINE, move || bus.pci().shut_down(), drop);
    }
}

fn open_kvm() -> Result<Kvm, MachineError> {
    let kvm = Kvm::new().map_err(MachineError::NoKvm)?;
    match NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        Some((_, what)) => Err(MachineError::KvmLacks { what }),
        None => Ok(kvm),
    }
}

fn add_interrupt_controllers(vm: &VmFd) -> Result<(), MachineError> {
    vm.set_tss_address(layout::KVM_TSS)
        .map_err(kvm_error("place the TSS"))?;
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(kvm_error("place the identity map"))?;
    vm.create_irq_chip()
        .map_err(kvm_error("create the interrupt controllers"))?;
    let timer = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    };
    vm.create_pit2(timer)
        .map_err(kvm_error("create the interval timer"))
}

fn create_vcpus(
    kvm: &Kvm,
    vm: &VmFd,
    count: u32,
    entry: vm_memory::GuestAddress,
) -> Result<Vec<VcpuFd>, MachineError> {
    let ids = cpu::supported_by(kvm)?;
    let vcpu = |index: u32| {
        let vcpu = vm
            .create_vcpu(index.into())
            .map_err(kvm_error("create a virtual CPU"))?;
        cpu::prepare(&vcpu, index, count, &ids, (index == 0).then_some(entry))?;
        Ok(vcpu)
    };
    (0..count).map(vcpu).collect()
}

/// In the order of their PCI slots: disks first, so that `vda` is the root.
fn devices(
    config: &MachineConfig,
    folders: &Arc<Exports>,
    network: Option<Box<dyn Device>>,
    balloon: Box<dyn Device>,
) -> Result<Vec<Box<dyn Device>>, MachineError> {
    let mut devices = config
        .disks
        .iter()
        .enumerate()
        .map(disk)
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(vsock) = &config.vsock {
        let config = VsockConfig {
            guest_cid: vsock.cid.into(),
            socket: vsock.socket.clone(),
            ports: vsock.ports.clone(),
        };
        devices.push(Box::new(Vsock::new(&config).map_err(MachineError::Vsock)?));
    }
    let queues = u16::try_from(config.vcpus.count()).unwrap_or(MAX_REQUEST_QUEUES);
    devices.push(Box::new(Fs::new(Arc::clone(folders), queues)));
    devices.extend(network);
    devices.push(Box::new(Rng::new()));
    devices.push(balloon);
    Ok(devices)
}

type Card = Box<dyn Device>;

fn network(config: &MachineConfig) -> Result<(Option<Card>, Option<Links>), MachineError> {
    if !config.net {
        return Ok((None, None));
    }
    let (carrier, links) = Carrier::new().map_err(MachineError::Network)?;
    Ok((Some(Box::new(Net::new(Box::new(carrier)))), Some(links)))
}

fn disk((index, disk): (usize, &Disk)) -> Result<Box<dyn Device>, MachineError> {
    let mode = match disk.mode {
        DiskMode::ReadOnly => virtio::block::DiskMode::ReadOnly,
        DiskMode::Scratch => virtio::block::DiskMode::Scratch,
    };
    let block =
        Block::open(&disk.path, mode, &format!("coffer-{index}")).map_err(|source| MachineError::Disk {
            path: disk.path.clone(),
            source: Box::new(source),
        })?;
    Ok(Box::new(block))
}

fn serial(config: &MachineConfig, vm: &VmFd) -> Result<(console::SerialPort, Dropped), MachineError> {
    let line = EventFd::new(EFD_NONBLOCK).map_err(MachineError::Pci)?;
    vm.register_irqfd(&line, layout::SERIAL_IRQ)
        .map_err(kvm_error("wire the serial port"))?;
    console::open(&config.console, line).map_err(|source| MachineError::Console {
        path: config.console.log.clone(),
        source,
    })
}

/// Has KVM keep the writes of PCI addresses for whoever answers the access that follows.
fn coalesce(vm: &VmFd, vcpus: &[VcpuFd]) -> Result<CoalescedRing, MachineError> {
    let ring = vcpus.first().map(CoalescedRing::of);
    let ring = ring
        .ok_or(MachineError::KvmLacks { what: "virtual CPUs" })?
        .map_err(MachineError::Pci)?;
    let bytes = u32::from(layout::PCI_DATA_PORT - layout::PCI_ADDRESS_PORT);
    vm.register_coalesced_mmio(IoEventAddress::Pio(layout::PCI_ADDRESS_PORT.into()), bytes)
        .map_err(kvm_error("coalesce writes"))?;
    Ok(ring)
}

fn wire_doorbells(vm: &VmFd, pci: &PciBus) -> Result<(), MachineError> {
    for doorbell in pci.doorbells().map_err(MachineError::Pci)? {
        vm.register_ioevent(
            &doorbell.kick,
            &IoEventAddress::Mmio(doorbell.address),
            NoDatamatch,
        )
        .map_err(kvm_error("wire a doorbell"))?;
    }
    Ok(())
}

fn kvm_error(act: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> MachineError {
    move |source| MachineError::Kvm { act, source }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    #[error("cannot open /dev/kvm")]
    NoKvm(#[source] kvm_ioctls::Error),
    #[error("KVM here lacks {what}")]
    KvmLacks { what: &'static str },
    #[error("KVM cannot {act}")]
    Kvm {
        act: &'static str,
        source: kvm_ioctls::Error,
    },
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Cpu(#[from] CpuError),
    #[error("page tables do not fit guest memory")]
    PageTables(#[source] vm_memory::GuestMemoryError),
    #[error("cannot use disk {}", path.display())]
    Disk {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot make the vsock device")]
    Vsock(#[source] virtio::vsock::ConfigError),
    #[error("cannot make the network card")]
    Network(#[source] io::Error),
    #[error("cannot open console log {}", path.display())]
    Console { path: PathBuf, source: io::Error },
    #[error("cannot make the devices")]
    Pci(#[source] io::Error),
    #[error("cannot start the virtual CPUs")]
    Threads(#[source] io::Error),
}
