//! The virtual CPUs: a thread each, that can be paused, resumed and stopped together.
//!
//! ```text
//!             pause                stop
//!   Running ─────────▶ Paused ─────────────▶ Stopped
//!      ▲  ◀─────────     │                      ▲
//!      │     resume      │                      │
//!      └─────────────────┴──────────────────────┘
//! ```

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_api::ExitReason;
use vmm_sys_util::signal::Killable;

use crate::{
    bus::{Bus, Effect},
    exit::Exit,
    signals,
};

/// A kick that came just before KVM was entered is lost; it is given again after this.
const KICK_AGAIN: Duration = Duration::from_millis(2);
/// A virtual CPU leaves KVM within microseconds of a kick. One that has not by now hangs in the kernel.
const KICK_DEADLINE: Duration = Duration::from_secs(10);
/// Exits are handled on a shallow stack.
const STACK_BYTES: usize = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Running,
    Paused,
    Stopped,
}

#[derive(Debug)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
    exits: AtomicU64,
}

#[derive(Debug)]
struct GateState {
    wanted: Wanted,
    /// Threads that are outside KVM and will not enter it before `wanted` changes.
    out: usize,
}

#[derive(Debug)]
pub(crate) struct Vcpus {
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
}

impl Vcpus {
    /// Starts a thread for each; they run at once.
    pub(crate) fn start(vcpus: Vec<VcpuFd>, bus: &Arc<Bus>, exit: &Arc<Exit>) -> io::Result<Self> {
        signals::interrupt_kvm_by(kick())?;
        let state = GateState {
            wanted: Wanted::Running,
            out: 0,
        };
        let gate = Arc::new(Gate {
            state: Mutex::new(state),
            changed: Condvar::new(),
            exits: AtomicU64::new(0),
        });
        let thread = |(index, vcpu): (usize, VcpuFd)| {
            let mut vcpu = Vcpu {
                vcpu,
                bus: bus.clone(),
                exit: exit.clone(),
                gate: gate.clone(),
            };
            std::thread::Builder::new()
                .name(format!("vcpu{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || vcpu.live())
        };
        let threads = vcpus
            .into_iter()
            .enumerate()
            .map(thread)
            .collect::<io::Result<_>>()?;
        Ok(Vcpus { gate, threads })
    }

    /// When this returns true, no virtual CPU executes anything until [`Self::resume`].
    pub(crate) fn pause(&self) -> bool {
        self.want(Wanted::Paused)
    }

    pub(crate) fn resume(&self) {
        self.gate.lock().wanted = Wanted::Running;
        self.gate.changed.notify_all();
    }

    /// Ends every thread. False when one hangs in the kernel.
    pub(crate) fn stop(self) -> bool {
        let all = self.want(Wanted::Stopped);
        if all {
            self.threads.into_iter().for_each(|thread| drop(thread.join()));
        }
        all
    }

    pub(crate) fn exits(&self) -> u64 {
        self.gate.exits.load(Ordering::Relaxed)
    }

    fn want(&self, wanted: Wanted) -> bool {
        let deadline = Instant::now() + KICK_DEADLINE;
        let mut state = self.gate.lock();
        state.wanted = wanted;
        self.gate.changed.notify_all();
        while state.out < self.threads.len() {
            if Instant::now() > deadline {
                return false;
            }
            for thread in self.threads.iter().filter(|thread| !thread.is_finished()) {
                // One that has ended since is out, and has said so.
                let _ = thread.kill(kick());
            }
            (state, _) = self
                .gate
                .changed
                .wait_timeout(state, KICK_AGAIN)
                .unwrap_or_else(PoisonError::into_inner);
        }
        true
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until running is wanted, or returns false when stopping is.
    fn pass(&self) -> bool {
        let mut state = self.lock();
        if state.wanted == Wanted::Running {
            return true;
        }
        state.out += 1;
        self.changed.notify_all();
        while state.wanted == Wanted::Paused {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.wanted == Wanted::Running {
            state.out -= 1;
        }
        state.wanted == Wanted::Running
    }

    /// This thread is done, for a reason of its own.
    fn leave(&self) {
        self.lock().out += 1;
        self.changed.notify_all();
    }
}

struct Vcpu {
    vcpu: VcpuFd,
    bus: Arc<Bus>,
    exit: Arc<Exit>,
    gate: Arc<Gate>,
}

/// What the thread does after an exit.
enum Next {
    Run,
    /// A signal came: see what is wanted.
    Look,
    End(ExitReason),
}

impl Vcpu {
    fn live(&mut self) {
        while self.gate.pass() {
            // A guest that was paused should not take that for a hung CPU; without kvmclock it cannot tell.
            let _ = self.vcpu.kvmclock_ctrl();
            if let Some(reason) = self.run() {
                self.exit.because(reason);
                self.gate.leave();
                return;
            }
        }
    }

    /// Runs until a signal, or to the machine's end.
    fn run(&mut self) -> Option<ExitReason> {
        loop {
            let next = self.step();
            self.gate.exits.fetch_add(1, Ordering::Relaxed);
            match next {
                Next::Run => {}
                Next::Look => return None,
                Next::End(reason) => return Some(reason),
            }
        }
    }

    fn step(&mut self) -> Next {
        match self.vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => self.bus.port_in(port, data),
            Ok(VcpuExit::IoOut(port, data)) => match self.bus.port_out(port, data) {
                Effect::None => {}
                Effect::Reset => return Next::End(ExitReason::Reset),
                Effect::PowerOff => return Next::End(ExitReason::PowerOff),
            },
            Ok(VcpuExit::MmioRead(address, data)) => self.bus.memory_read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => self.bus.memory_write(address, data),
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => return Next::Look,
            Ok(VcpuExit::Hlt) => return Next::End(ExitReason::PowerOff),
            Ok(VcpuExit::Shutdown) => return Next::End(ExitReason::TripleFault),
            Ok(other) => {
                return Next::End(ExitReason::KvmError {
                    text: format!("{other:?}"),
                });
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => return Next::Look,
            Err(error) => {
                return Next::End(ExitReason::KvmError {
                    text: error.to_string(),
                });
            }
        }
        Next::Run
    }
}

/// The signal that makes a virtual CPU leave KVM.
fn kick() -> i32 {
    vmm_sys_util::signal::SIGRTMIN()
}
